"""Pending decisions: the slates that were published and may still be shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from stream_rec.events import MISSING
from stream_rec.stream.rows import F16, I32, Bools, Rows, RowTable, smallest

EVERYBODY = MISSING
"""User row of the `*` slate."""

_QUERIES = -(2**31)
"""Rows from here half of the way up to 0 stand for queries."""

FEW = 8
"""Item rows up to this number are looked for one by one: quicker than through a table."""

N_SCORED = 4
"""Numbers kept of each slot: what it was scored with. Which they are is the publisher's business."""

UNSAID = np.float16(-np.inf)
"""Stands for a number that nobody said; unlike NaN it equals itself."""

PER_USER = 2
"""Decisions kept of each user: a page may still show the one before the last."""


def searching(user: int) -> int:
    """The row that stands for a user's slates for queries, which do not take the place of the user's own."""
    return EVERYBODY - 1 - user


def for_all(query: int) -> int:
    """The row that stands for the slates of a query that are for everybody."""
    return _QUERIES + query


def is_shared(user: int) -> bool:
    """Whether a row stands for slates that several people may be shown."""
    return user == EVERYBODY or user < _QUERIES // 2


class Said(NamedTuple):
    """What the publisher says of the slots of slates, [n, k] or of one slate [k]; k as their items."""

    scored: F16
    """[..., N_SCORED] what each slot was scored with."""
    drawn: F16 | None = None
    """What is kept of each slot's draw; None: nothing was drawn."""

    def of(self, rows: Any) -> Said:
        """That of some of the slates."""
        return Said(self.scored[rows], None if self.drawn is None else self.drawn[rows])


class Decisions(RowTable):
    """The last two slates of each user, at most `capacity` in all; when full, the longest published go first.

    Columns by row: `decision` int64 key, `user` int32 row (EVERYBODY for `*`; of slates for queries that of `searching`
    or `for_all`), `user_born` int64, `at_ms` int64 when published, `serial` int64 order of publishing from 1 on,
    `shown` bool (an impression named it), `items` int32[n_slots] item rows by position (MISSING: none), `scored`
    float16[n_slots, N_SCORED] what each slot was scored with (UNSAID: not said), `drawn` float16[n_slots] what is kept
    of each slot's draw (0: not said).
    """

    columns = ("decision", "user", "user_born", "at_ms", "serial", "shown", "items", "scored", "drawn")
    scalars = (*RowTable.scalars, "last_serial")
    derived = (*RowTable.derived, "_row_of", "_rows_of_user")
    fixed = (*RowTable.fixed, "n_slots")

    def __init__(self, capacity: int = 200_000, n_slots: int = 20) -> None:
        super().__init__(capacity)
        self.n_slots = n_slots
        self.decision = np.zeros(capacity, np.int64)
        self.user = np.zeros(capacity, np.int32)
        self.user_born = np.zeros(capacity, np.int64)
        self.at_ms = np.zeros(capacity, np.int64)
        self.serial = np.zeros(capacity, np.int64)
        self.shown = np.zeros(capacity, np.bool_)
        self.items = np.zeros((capacity, n_slots), np.int32)
        self.scored = np.zeros((capacity, n_slots, N_SCORED), np.float16)
        self.drawn = np.zeros((capacity, n_slots), np.float16)
        self.last_serial = 0
        self._row_of: dict[int, int] = {}
        self._rows_of_user: dict[int, tuple[int, ...]] = {}

    def rebuild(self) -> None:
        """Index decisions and users again."""
        super().rebuild()
        rows = np.flatnonzero(self._held())
        rows = rows[np.argsort(self.serial[rows])]
        self._row_of = dict(zip(self.decision[rows].tolist(), rows.tolist(), strict=True))
        self._rows_of_user = {}
        for row, user in zip(rows.tolist(), self.user[rows].tolist(), strict=True):
            self._rows_of_user[user] = (row, *self._rows_of_user.get(user, ()))

    def find(self, decision: int) -> int:
        """Row of a decision, or MISSING."""
        return self._row_of.get(decision, MISSING)

    def publish(
        self, user: int, user_born: int, decision: int, *, at_ms: int, items: Sequence[int] | I32,
        said: Said | None = None,
    ) -> int:  # fmt: skip
        """Keep one slate; returns how many decisions it pushed out that nobody had seen."""
        n_unshown = self._make_room(1)
        row, n_more = self._place(user, user_born, decision)
        self.at_ms[row] = at_ms
        slots, n_items = self.items[row], min(len(items), self.n_slots)
        slots[:n_items] = items[:n_items]
        slots[n_items:] = MISSING
        self._say(row, n_items, said)
        return n_unshown + n_more

    def publish_many(
        self, users: Sequence[int], users_born: Sequence[int], decisions: Sequence[int], *, at_ms: int, items: I32,
        said: Said | None = None,
    ) -> int:  # fmt: skip
        """`publish` of many slates in order, with the same result.

        `items` int32[len(users), n] is MISSING padded.
        """
        if len(users) > self.capacity // 2:
            each = enumerate(zip(users, users_born, decisions, strict=True))
            return sum(
                self.publish(user, born, own, at_ms=at_ms, items=items[k], said=None if said is None else said.of(k))
                for k, (user, born, own) in each
            )
        n_unshown, first, rows = self._make_room(len(users)), self.last_serial + 1, []
        for user, born, decision in zip(users, users_born, decisions, strict=True):
            row, n_more = self._place(user, born, decision)
            n_unshown += n_more
            rows.append(row)
        # A slate may already have been replaced by a later one of the same call: only what is still held is written.
        kept = np.flatnonzero(self.serial[rows] == np.arange(first, first + len(rows)))
        written, n_items = np.array(rows, np.intp)[kept], min(items.shape[1], self.n_slots)
        self.at_ms[written] = at_ms
        self.items[written, :n_items] = items[kept, :n_items]
        self.items[written, n_items:] = MISSING
        self._say(written, n_items, None if said is None else said.of(kept))
        return n_unshown

    def _say(self, rows: Any, n_items: int, said: Said | None) -> None:
        self.scored[rows], self.drawn[rows] = UNSAID, 0
        if said is not None:
            self.scored[rows, :n_items] = said.scored[..., :n_items, :]
            if said.drawn is not None:
                self.drawn[rows, :n_items] = said.drawn[..., :n_items]

    def _place(self, user: int, user_born: int, decision: int) -> tuple[int, int]:
        """The row a new slate takes, indexed, and how many unseen decisions that pushed out."""
        n_unshown = 0
        if (twin := self._row_of.get(decision)) is not None:
            n_unshown += self._drop([twin])
        held = self._rows_of_user.get(user, ())
        if held and self.user_born[held[0]] != user_born:
            n_unshown += self._drop(held)
            held = ()
        if len(held) == PER_USER:
            row, held = held[-1], held[:-1]
            del self._row_of[int(self.decision[row])]
            n_unshown += not self.shown[row]
            self.shown[row] = False
        else:
            row = self._take()
        self._row_of[decision] = row
        self._rows_of_user[user] = (row, *held)
        self.last_serial += 1
        self.serial[row] = self.last_serial
        self.decision[row] = decision
        self.user[row] = user
        self.user_born[row] = user_born
        return row, n_unshown

    def _make_room(self, n: int) -> int:
        """Drop the longest published so that `n` rows are free; returns how many of those were never shown."""
        if self.room >= n:
            return 0
        # `*` is published seldom and serves everybody new: it never makes room
        held = np.flatnonzero(self._held())
        age = np.where(self.user[held] == EVERYBODY, np.iinfo(np.int64).max, self.serial[held])
        return self._drop([int(row) for row in held[smallest(age, max(n - self.room, self.capacity // 100))]])

    def in_force(self, user: int, user_born: int, at_ms: int, valid_ms: int) -> int:
        """Row of the slate published last before `at_ms` for this user and not yet expired, or MISSING."""
        for row in self._rows_of_user.get(user, ()):
            if self.at_ms[row] < at_ms and self.user_born[row] == user_born:
                return row if at_ms - self.at_ms[row] <= valid_ms else MISSING
        return MISSING

    def holding(self, items: ArrayLike) -> I32:
        """User rows, ascending, whose newest slate names one of the given item rows; `*` is left out."""
        rows = naming(self.items[: self.n_rows], self._held(), items)
        rows_of = self._rows_of_user
        users = zip(rows.tolist(), self.user[rows].tolist(), strict=True)
        newest = {user for row, user in users if user >= 0 and rows_of[user][0] == row}
        return np.array(sorted(newest), np.int32)

    def forget_users(self, users: Sequence[int]) -> None:
        """Drop the slates of users who are no more."""
        gone = list(dict.fromkeys(users))
        holders = [*gone, *(searching(user) for user in gone if user >= 0)]
        self._drop([row for holder in holders for row in self._rows_of_user.get(holder, ())])

    def forget_items(self, items: Sequence[int]) -> None:
        """Take items that are no more out of every slate."""
        blank_items(self.items[: self.n_rows], self._held(), items)

    def _held(self) -> Bools:
        return np.asarray(self.serial[: self.n_rows] > 0)

    def _drop(self, rows: Sequence[int]) -> int:
        """Release rows; returns how many of them were never shown."""
        if not rows:
            return 0
        n_unshown = len(rows) - int(np.count_nonzero(self.shown[list(rows)]))
        for row in rows:
            del self._row_of[int(self.decision[row])]
            user = int(self.user[row])
            left = tuple(r for r in self._rows_of_user[user] if r != row)
            if left:
                self._rows_of_user[user] = left
            else:
                del self._rows_of_user[user]
        self._release(rows)
        return n_unshown


def naming(items: I32, held: Bools, wanted: ArrayLike) -> Rows:
    """Held rows of an item matrix (or column) that name one of the wanted item rows, ascending."""
    flat = items.reshape(-1)
    found = np.flatnonzero(_among(flat, wanted)) // max(1, flat.size // max(1, len(items)))
    found = found[held[found]]
    return found[np.flatnonzero(np.diff(found, prepend=MISSING))]


def _among(items: I32, wanted: ArrayLike) -> Bools:
    rows = np.unique(np.asarray(wanted, np.int32))
    rows = rows[rows >= 0]
    if len(rows) <= FEW:
        found = np.zeros(items.shape, np.bool_)
        for row in rows:
            found |= items == row
        return found
    # The last entry, which MISSING looks up, stays False.
    table = np.zeros(int(max(rows[-1], items.max(initial=0))) + 2, np.bool_)
    table[rows] = True
    return table[items]


def blank_items(items: I32, held: Bools, gone: ArrayLike) -> None:
    """Write MISSING over the item rows `gone` in the held rows of an item matrix or column."""
    rows = naming(items, held, gone)
    block = items[rows]
    block[_among(block, gone)] = MISSING
    items[rows] = block
