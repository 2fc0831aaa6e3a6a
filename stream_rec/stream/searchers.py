"""What each user searched for last, what was taken since, and which of the user's query slates are out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stream_rec.events import MISSING
from stream_rec.stream.decisions import blank_items
from stream_rec.stream.rows import Bools, RowTable, smallest

TAKEN = 8
"""Items taken after a search that are remembered, so that a click, a cart and a purchase are one pair."""
OUT = 8
"""Query slates of a user that are out at a time; one more withdraws the one before the others."""


class Who(NamedTuple):
    """A user, by row."""

    user: int
    born: int
    key: bytes
    """16 bytes."""


def slate_key(user_key: str, digest: int) -> bytes:
    """Key of the slate of a user (32 hex digits) for a query.

    >>> slate_key("ab", 255)
    b'ab/00000000000000ff'
    """
    return f"{user_key}/{digest:016x}".encode()


class Searchers(RowTable):
    """Users with a search, at most `capacity`; those who searched longest ago make room.

    Columns by row: `user` int32 row, `user_born` int64, `key` uint64 [rows, 2] of the user, `query` int32 row,
    `query_born` int64, `at_ms` int64 of the search, `serial` int64 order of the last search from 1 on (0 = free),
    `taken` int32 [rows, TAKEN] item rows plus one, `out` uint64 [rows, OUT] digests of queries, newest first.
    """

    columns = ("user", "user_born", "key", "query", "query_born", "at_ms", "serial", "taken", "out")
    scalars = (*RowTable.scalars, "last_serial", "withdrawn")
    derived = (*RowTable.derived, "_row_of")

    def __init__(self, capacity: int = 50_000) -> None:
        super().__init__(capacity)
        self.user = np.zeros(capacity, np.int32)
        self.user_born = np.zeros(capacity, np.int64)
        self.key = np.zeros((capacity, 2), np.uint64)
        self.query = np.zeros(capacity, np.int32)
        self.query_born = np.zeros(capacity, np.int64)
        self.at_ms = np.zeros(capacity, np.int64)
        self.serial = np.zeros(capacity, np.int64)
        self.taken = np.zeros((capacity, TAKEN), np.int32)
        self.out = np.zeros((capacity, OUT), np.uint64)
        self.last_serial = 0
        self.withdrawn: list[str] = []
        """Keys of slates to be withdrawn."""
        self._row_of: dict[int, int] = {}

    def rebuild(self) -> None:
        """Index the users again."""
        super().rebuild()
        rows = np.flatnonzero(self._held())
        self._row_of = dict(zip(self.user[rows].tolist(), rows.tolist(), strict=True))

    def search(self, who: Who, query: int, query_born: int, at_ms: int) -> None:
        """Open a query of a user, in place of the one before."""
        row = self._find(who.user, who.born)
        if row == MISSING:
            row = self._insert(who)
        self.last_serial += 1
        self.serial[row] = self.last_serial
        if (self.query[row], self.query_born[row]) != (query, query_born):
            self.taken[row] = 0
        self.query[row], self.query_born[row], self.at_ms[row] = query, query_born, at_ms

    def take(self, user: int, born: int, item: int, *, at_ms: int, window_ms: int) -> tuple[int, int]:
        """(query row, its birth) of the search that led a user to an item, MISSING when none did or it was counted."""
        row = self._find(user, born)
        if row == MISSING or not 0 <= at_ms - self.at_ms[row] <= window_ms:
            return MISSING, MISSING
        taken = self.taken[row]
        if item + 1 in taken:
            return MISSING, MISSING
        taken[1:] = taken[:-1].copy()
        taken[0] = item + 1
        return int(self.query[row]), int(self.query_born[row])

    def publish(self, user: int, born: int, digest: int) -> bool:
        """Note that a query slate of a user goes out; False when the user is not here (any more)."""
        row = self._find(user, born)
        if row == MISSING:
            return False
        out = self.out[row]
        if digest not in out:
            self._withdraw(row, out[-1:])
        kept = out[out != digest][: OUT - 1].copy()
        out[0], out[1 : 1 + len(kept)] = digest, kept
        return True

    def forget_users(self, users: Sequence[int]) -> None:
        """Drop users; their slates are withdrawn."""
        self._drop([row for user in users if (row := self._row_of.get(user, MISSING)) != MISSING])

    def forget_items(self, items: Sequence[int]) -> None:
        """Take items that are no more out of what was taken."""
        taken = self.taken[: self.n_rows] - 1
        blank_items(taken, self._held(), items)
        self.taken[: self.n_rows] = taken + 1

    def take_withdrawn(self) -> list[str]:
        """Keys of slates that nobody keeps track of any more, in order."""
        withdrawn, self.withdrawn = self.withdrawn, []
        return withdrawn

    def _held(self) -> Bools:
        return np.asarray(self.serial[: self.n_rows] > 0)

    def _find(self, user: int, born: int) -> int:
        row = self._row_of.get(user, MISSING)
        return row if row != MISSING and self.user_born[row] == born else MISSING

    def _insert(self, who: Who) -> int:
        if (former := self._row_of.get(who.user, MISSING)) != MISSING:
            self._drop([former])
        if self.room == 0:
            self._drop(smallest(self.serial, max(1, self.capacity // 100)).tolist())
        row = self._take()
        self.user[row], self.user_born[row] = who.user, who.born
        self.key[row] = np.frombuffer(who.key, np.uint64)
        self._row_of[who.user] = row
        return row

    def _withdraw(self, row: int, digests: np.ndarray[tuple[int], np.dtype[np.uint64]]) -> None:
        key = self.key[row].tobytes().hex()
        self.withdrawn += [slate_key(key, digest).decode() for digest in digests.tolist() if digest]

    def _drop(self, rows: Sequence[int]) -> None:
        for row in rows:
            self._withdraw(row, self.out[row])
            del self._row_of[int(self.user[row])]
        self._release(rows)
