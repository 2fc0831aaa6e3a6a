"""Exposures: the lists that impressions showed, waiting for what the user does next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stream_rec.events import MISSING
from stream_rec.stream.decisions import N_SCORED, UNSAID, blank_items
from stream_rec.stream.rows import F16, I16, I32, I64, Bools, Rows, RowTable, smallest

U8 = NDArray[np.uint8]

CLICKED, CARTED, BOUGHT, WEAK, BOUGHT_UNNAMED = 1, 2, 4, 8, 16
"""Label bits of a slot. WEAK: the user acted on the item without naming the decision; no evidence either way.
BOUGHT_UNNAMED: that action was a purchase."""
PURCHASED = BOUGHT | BOUGHT_UNNAMED
LATE = 4
"""Shift of the bits in `told` that say which positives came after the click window."""

NEVER_MS = 2**62
FEW = 4
"""Lists below this number are written one by one: quicker than as a matrix."""

TOP_POSITION = 2**15 - 1
CHAIN_STEPS = 16
"""Exposures of one user that a weak join looks back through."""


class Exposed(NamedTuple):
    """Exposures as columns, ordered by (at_ms, decision, user)."""

    row: Rows
    decision: I64
    user: I32
    at_ms: I64
    items: I32
    """[M, n_slots] item rows as shown, MISSING padded."""
    positions: I16
    """[M, n_slots] positions as the impression said, MISSING padded."""
    labels: U8
    """[M, n_slots] label bits."""
    matured: Bools
    """[M] whether the click window had closed."""
    serial: I64
    """[M] order of arrival: with the row it names an exposure for good."""
    scored: F16
    """[M, n_slots, N_SCORED] what each slot was scored with, UNSAID where its slate did not have the item."""
    told: U8
    """[M, n_slots] CLICKED and BOUGHT where that had been handed out before, and `<< LATE` where it came late."""
    drawn: F16
    """[M, n_slots] what is kept of each slot's draw, 0 where its slate did not have the item or does not say."""


def unnamed(bits: U8) -> U8:
    """Label bits of actions that name no decision, by what they would be if they did."""
    return np.where(bits == BOUGHT, WEAK | BOUGHT_UNNAMED, WEAK).astype(np.uint8)


def positives(labels: U8) -> U8:
    """CLICKED and BOUGHT where that is shown, of any shape.

    A purchase that names no decision counts for a slot that the user clicked or put into the cart by name: then it is
    that action which names the decision.

    >>> positives(np.array([CLICKED | WEAK, BOUGHT_UNNAMED | WEAK, CLICKED | BOUGHT_UNNAMED | WEAK], np.uint8)).tolist()
    [1, 0, 5]
    """
    followed = (labels & BOUGHT_UNNAMED > 0) & (labels & (CLICKED | CARTED) > 0)
    return np.asarray((labels & (CLICKED | BOUGHT)) | np.where(followed, BOUGHT, 0).astype(np.uint8))


def unclear(labels: U8) -> U8:
    """CLICKED and BOUGHT where nothing can be said about it: the user did act on the item, but not by name.

    >>> unclear(np.array([WEAK, CLICKED | WEAK, BOUGHT_UNNAMED | WEAK, BOUGHT], np.uint8)).tolist()
    [1, 0, 5, 0]
    """
    acted = np.where(labels & WEAK > 0, CLICKED, 0) | np.where(labels & BOUGHT_UNNAMED > 0, BOUGHT, 0)
    return np.asarray(acted.astype(np.uint8) & ~positives(labels))


class ShownLists(NamedTuple):
    """The lists of several impressions, one behind the other."""

    items: I32
    """Item rows of all lists; MISSING entries are left out when shown."""
    positions: I16
    """As the impression said; MISSING: the place in the list."""
    starts: I64
    n: I64

    @classmethod
    def of(cls, n: ArrayLike, items: ArrayLike, positions: ArrayLike) -> ShownLists:
        """From list lengths and the flat item rows and positions.

        >>> ShownLists.of([2, 1], [7, 8, 9], [0, 1, 10**6]).columns(1)
        ([9], [32767])
        """
        counts = np.asarray(n, np.int64)
        places = np.clip(np.asarray(positions, np.int64), MISSING, TOP_POSITION).astype(np.int16)
        return cls(np.asarray(items, np.int32), places, np.cumsum(counts) - counts, counts)

    def columns(self, k: int) -> tuple[list[int], list[int]]:
        """Item rows and positions of the k-th list."""
        part = slice(self.starts[k], self.starts[k] + self.n[k])
        return self.items[part].tolist(), self.positions[part].tolist()


class Exposures(RowTable):
    """At most `capacity` shown lists; when full, those shown first go first, counted if a window was still open.

    Columns by row: `decision` int64 key of the slate, `key` int64 it is found by (another one for `*`, which many
    users see; 0 once a later exposure has it), `user` int32 row, `serial` int64 order of arrival from 1 on, `at_ms`
    when shown, `matured` bool (its click window closed), `items` int32, `positions` int16, `labels` and `told` uint8
    [n_slots] each, `scored` float16 [n_slots, N_SCORED], `drawn` float16 [n_slots], `n_shown` int16; `older` and
    `newer` int32 link the exposures of one user (row + 1, 0 = none).
    """

    columns = (
        *("decision", "key", "user", "serial", "at_ms", "matured"),
        *("items", "positions", "labels", "n_shown", "older", "newer", "scored", "told", "drawn"),
    )
    scalars = (*RowTable.scalars, "last_serial")
    derived = (*RowTable.derived, "_row_of", "_newest_of_user", "_earliest_ms", "_earliest_waiting_ms")
    fixed = (*RowTable.fixed, "n_slots")

    def __init__(self, capacity: int = 200_000, n_slots: int = 20) -> None:
        super().__init__(capacity)
        self.n_slots = n_slots
        self.decision = np.zeros(capacity, np.int64)
        self.key = np.zeros(capacity, np.int64)
        self.user = np.zeros(capacity, np.int32)
        self.serial = np.zeros(capacity, np.int64)
        self.at_ms = np.zeros(capacity, np.int64)
        self.matured = np.zeros(capacity, np.bool_)
        self.items = np.zeros((capacity, n_slots), np.int32)
        self.positions = np.zeros((capacity, n_slots), np.int16)
        self.labels = np.zeros((capacity, n_slots), np.uint8)
        self.told = np.zeros((capacity, n_slots), np.uint8)
        self.scored = np.zeros((capacity, n_slots, N_SCORED), np.float16)
        self.drawn = np.zeros((capacity, n_slots), np.float16)
        self.n_shown = np.zeros(capacity, np.int16)
        self.older = np.zeros(capacity, np.int32)
        self.newer = np.zeros(capacity, np.int32)
        self.last_serial = 0
        self._row_of: dict[int, int] = {}
        self._newest_of_user: dict[int, int] = {}
        self._earliest_ms = self._earliest_waiting_ms = NEVER_MS

    def rebuild(self) -> None:
        """Index keys and users again."""
        super().rebuild()
        rows = np.flatnonzero(self._held())
        rows = rows[np.argsort(self.serial[rows])]
        self._row_of = {key: row for key, row in zip(self.key[rows].tolist(), rows.tolist(), strict=True) if key}
        self._newest_of_user = dict(zip(self.user[rows].tolist(), rows.tolist(), strict=True))
        self._look_for_earliest()

    def find(self, key: int) -> int:
        """Row of the newest exposure under `key`, or MISSING."""
        return self._row_of.get(key, MISSING)

    def newest(self, user: int) -> int:
        """Row of the user's exposure that arrived last, or MISSING."""
        return self._newest_of_user.get(user, MISSING)

    def newest_many(self, users: Sequence[int]) -> I32:
        """`newest` of each user, int32[n]."""
        find = self._newest_of_user.get
        return np.array([find(user, MISSING) for user in users], np.int32)

    def open(self, decision: int, key: int, user: int, *, at_ms: int) -> int:
        """Take a row for a list about to be shown; the caller has made room and fills in the slots with `show`.

        An earlier exposure under the same key is no longer found by it.
        """
        row = self._take()
        if (earlier := self._row_of.get(key, MISSING)) != MISSING:
            self.key[earlier] = 0
        self.last_serial += 1
        self.decision[row] = decision
        self.key[row] = key
        self.user[row] = user
        self.serial[row] = self.last_serial
        self.at_ms[row] = at_ms
        self.scored[row], self.drawn[row] = UNSAID, 0
        self._row_of[key] = row
        older = self._newest_of_user.get(user, MISSING)
        if older != MISSING:
            self.older[row] = older + 1
            self.newer[older] = row + 1
        self._newest_of_user[user] = row
        self._earliest_ms = min(self._earliest_ms, at_ms)
        self._earliest_waiting_ms = min(self._earliest_waiting_ms, at_ms)
        return row

    def shown_at(self, row: int, at_ms: int) -> None:
        """Note that a list was shown again at `at_ms`: the wait starts when it was shown first."""
        if at_ms < self.at_ms[row]:
            self.at_ms[row] = at_ms
            self._earliest_ms = min(self._earliest_ms, at_ms)
            self._earliest_waiting_ms = min(self._earliest_waiting_ms, at_ms)

    def show(self, row: int, items: Sequence[int], positions: Sequence[int]) -> int:
        """Append shown items to a row, each item once; returns how many found no slot."""
        n = int(self.n_shown[row])
        if n == 0:
            self.items[row] = self.positions[row] = MISSING
        seen = set(self.items[row, :n].tolist())
        fresh: dict[int, int] = {}
        for place, (item, position) in enumerate(zip(items, positions, strict=True)):
            if item >= 0 and item not in seen:
                fresh.setdefault(item, position if position >= 0 else place)
        end = min(n + len(fresh), self.n_slots)
        if end > n:
            self.items[row, n:end] = list(fresh)[: end - n]
            self.positions[row, n:end] = list(fresh.values())[: end - n]
            self.n_shown[row] = end
        return n + len(fresh) - end

    def show_fresh(self, fresh: Sequence[tuple[int, int]], shown: ShownLists) -> int:
        """`show` for (row, list number) pairs of rows just opened, each row once; returns how many found no slot."""
        if len(fresh) < FEW:
            return sum(self.show(row, *shown.columns(k)) for row, k in fresh)
        rows, which = np.array(fresh, np.intp).T
        n, place = shown.n[which], np.arange(self.n_slots)
        inside = place < n[:, None]
        at = np.where(inside, shown.starts[which, None] + place, len(shown.items))
        items = np.append(shown.items, np.int32(MISSING))[at]
        positions = np.append(shown.positions, np.int16(MISSING))[at]
        positions = np.where(inside & (positions < 0), place, positions)
        ranked = np.sort(items, axis=1)
        odd = (n > self.n_slots) | (inside & (items < 0)).any(axis=1)
        odd |= ((ranked[:, 1:] == ranked[:, :-1]) & (ranked[:, 1:] >= 0)).any(axis=1)
        plain = rows[~odd]
        self.items[plain], self.positions[plain], self.n_shown[plain] = items[~odd], positions[~odd], n[~odd]
        return sum(self.show(row, *shown.columns(k)) for row, k in zip(rows[odd].tolist(), which[odd], strict=True))

    def carry(self, rows: Sequence[int], items: I32, scored: F16, drawn: F16) -> None:
        """Take what the slots were scored with, and what is kept of their draws, from the slates that were shown.

        Args:
            rows: exposures, [M].
            items: item rows of their slates by position, [M, n].
            scored: of their slates, [M, n, N_SCORED].
            drawn: of their slates, [M, n].
        """
        shown = self.items[rows]
        match = (shown[:, :, None] == items[:, None, :]) & (shown >= 0)[:, :, None]
        there, at = match.any(axis=2), match.argmax(axis=2)
        found = np.take_along_axis(scored, at[:, :, None], axis=1)
        self.scored[rows] = np.where(there[:, :, None], found, UNSAID)
        self.drawn[rows] = np.where(there, np.take_along_axis(drawn, at, axis=1), 0)

    def make_room(self, n: int) -> Exposed | None:
        """Evict, if needed, so that `n` rows are free; returns what was evicted."""
        if self.room >= n:
            return None
        held = np.flatnonzero(self._held())
        return self._let_go(held[smallest(self.at_ms[held], max(n - self.room, self.capacity // 100))])

    def mature(self, before_ms: int) -> Exposed:
        """Exposures shown before `before_ms` that had not matured; from now on they have."""
        if self._earliest_waiting_ms >= before_ms:
            return self.view(np.zeros(0, np.intp))
        n = self.n_rows
        rows = np.flatnonzero((self.at_ms[:n] < before_ms) & ~self.matured[:n] & self._held())
        out = self.view(rows)
        self.matured[rows] = True
        self.told[rows] = positives(self.labels[rows])
        self._look_for_earliest()
        return out

    def late(self, rows: Sequence[int]) -> Exposed:
        """Those of some rows that have matured and have become positive since, as they were before they are told.

        What is new about them is `positives(labels) & ~told`; it is told once.
        """
        at = np.unique(np.asarray(rows, np.intp))
        at = at[self._held()[at] & self.matured[at]]
        new = positives(self.labels[at]) & ~self.told[at]
        at, new = at[new.any(axis=1)], new[new.any(axis=1)]
        out = self.view(at)
        self.told[at] |= new | (new << LATE)
        return out

    def close(self, before_ms: int) -> Exposed:
        """Exposures shown before `before_ms`; from now on they are gone."""
        if self._earliest_ms >= before_ms:
            return self.view(np.zeros(0, np.intp))
        n = self.n_rows
        out = self._let_go(np.flatnonzero((self.at_ms[:n] < before_ms) & self._held()))
        self._look_for_earliest()
        return out

    def view(self, rows: Rows) -> Exposed:
        """Copies of the columns at `rows`, in the order that does not depend on rows."""
        rows = rows[np.lexsort((self.user[rows], self.decision[rows], self.at_ms[rows]))]
        return Exposed(
            rows, self.decision[rows], self.user[rows], self.at_ms[rows],
            self.items[rows], self.positions[rows], self.labels[rows], self.matured[rows],
            self.serial[rows], self.scored[rows], self.told[rows], self.drawn[rows],
        )  # fmt: skip

    def slot(self, rows: I32, items: I32) -> I32:
        """Slot of each item in the list of each row, int32; MISSING where it was not shown."""
        match = self.items[rows] == items[:, None]
        return np.where(match.any(axis=1), match.argmax(axis=1), MISSING).astype(np.int32)

    def forget_users(self, users: Sequence[int]) -> Exposed:
        """Let go of the exposures of users who are no more."""
        held = np.flatnonzero(self._held())
        return self._let_go(held[np.isin(self.user[held], np.asarray(users, np.int32))])

    def forget_items(self, items: Sequence[int]) -> None:
        """Take items that are no more out of every list."""
        blank_items(self.items[: self.n_rows], self._held(), items)

    def _held(self) -> Bools:
        return np.asarray(self.serial[: self.n_rows] > 0)

    def _look_for_earliest(self) -> None:
        held = self._held()
        at_ms, waiting = self.at_ms[: self.n_rows], held & ~self.matured[: self.n_rows]
        self._earliest_ms = int(at_ms[held].min(initial=NEVER_MS))
        self._earliest_waiting_ms = int(at_ms[waiting].min(initial=NEVER_MS))

    def _let_go(self, rows: Rows) -> Exposed:
        out = self.view(rows)
        for row in rows.tolist():
            key, user = int(self.key[row]), int(self.user[row])
            if key:
                del self._row_of[key]
            older, newer = int(self.older[row]) - 1, int(self.newer[row]) - 1
            if older != MISSING:
                self.newer[older] = newer + 1
            if newer != MISSING:
                self.older[newer] = older + 1
            elif older != MISSING:
                self._newest_of_user[user] = older
            else:
                del self._newest_of_user[user]
        if len(rows):
            self._release(rows.tolist())
        return out
