"""The query table: which row stands for which query, and how many people asked it.

Bounded by recency and frequency: a query makes room by when it was asked last, and each doubling of its searches keeps
it for another table's worth of searches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from stream_rec.events import MISSING
from stream_rec.stream.rows import I32, I64, Bools, Rows, RowTable, smallest

MAX_CHARACTERS = 200
"""Of a query that count; the rest is cut."""


def normal(query: str) -> str:
    """The form under which searches for the same are one query: case folded, single blanks.

    >>> normal("  Red   JUG ")
    'red jug'
    """
    return " ".join(query.casefold().split())[:MAX_CHARACTERS].rstrip()


def digest_of(query: str) -> int:
    """64 bits that stand for a normal query in the key of its slates: the first of its SHA-256, never 0.

    >>> f"{digest_of('red jug'):016x}"
    'd6e22c8dec8e552d'
    """
    return int.from_bytes(hashlib.sha256(query.encode("utf-8", "surrogatepass")).digest()[:8], "big") or 1


class Queries(RowTable):
    """Query to row, with who asked it, up to the number from which it is frequent.

    Columns by row: `texts` str; `born` int64 serial of the row's (re)use, 0 = free; `used_at` int64 count of searches
    at its last one; `n_searches` int64; `askers` uint64 [rows, frequent_users] words of different user keys, 0 = none;
    `answered_at_ms` int64 when its slate for everybody was made last.
    """

    columns = ("texts", "born", "used_at", "n_searches", "askers", "answered_at_ms")
    scalars = (*RowTable.scalars, "n_touches", "n_born")
    derived = (*RowTable.derived, "_index", "_evicted")
    fixed = (*RowTable.fixed, "frequent_users")

    def __init__(self, capacity: int = 20_000, frequent_users: int = 20) -> None:
        super().__init__(capacity)
        self.frequent_users = frequent_users
        self.texts: list[str] = []
        self.born = np.zeros(capacity, np.int64)
        self.used_at = np.zeros(capacity, np.int64)
        self.n_searches = np.zeros(capacity, np.int64)
        self.askers = np.zeros((capacity, frequent_users), np.uint64)
        self.answered_at_ms = np.zeros(capacity, np.int64)
        self.n_touches = self.n_born = 0
        self._index: dict[str, int] = {}
        self._evicted: list[int] = []

    def rebuild(self) -> None:
        """Index the texts again."""
        super().rebuild()
        self._index = {self.texts[row]: row for row in np.flatnonzero(self._held()).tolist()}
        self._evicted = []

    def find(self, text: str) -> int:
        """Row of a normal query, or MISSING."""
        return self._index.get(text, MISSING)

    def ask(self, text: str, asker: int) -> int:
        """Count a search for a normal query by somebody (a word of the user key; 0: nobody); returns its row."""
        row = self.find(text)
        if row == MISSING:
            row = self._insert(text)
        self.n_touches += 1
        self.used_at[row] = self.n_touches
        self.n_searches[row] += 1
        known = self.askers[row]
        if asker and not known[-1] and asker not in known:
            known[int(np.count_nonzero(known))] = asker
        return row

    def frequent(self, rows: I32) -> Bools:
        """Whether enough different people asked each of the queries."""
        return np.asarray(self.askers[rows, -1] != 0)

    def current(self, rows: I32 | I64, born: I64) -> Bools:
        """Whether rows still hold the queries that they held when they were born at `born`."""
        return np.asarray((rows != MISSING) & (self.born[rows] == born))

    def take_evicted(self) -> list[int]:
        """Rows that lost their query since the last call; call it in the tick that asked."""
        evicted, self._evicted = self._evicted, []
        return evicted

    def forget_users(self, askers: Sequence[int]) -> None:
        """Take people out of who asked; a query that only they asked goes with them."""
        n, gone = self.n_rows, np.isin(self.askers[: self.n_rows], np.array(askers, np.uint64))
        gone &= self.askers[:n] != 0
        rows = np.flatnonzero(gone.any(axis=1))
        for row in rows.tolist():
            left = self.askers[row][~gone[row]]
            self.askers[row] = 0
            self.askers[row, : len(left)] = left
        self._drop(rows[~self.askers[rows].any(axis=1)].tolist())

    def _held(self) -> Bools:
        return np.asarray(self.born[: self.n_rows] != 0)

    def _insert(self, text: str) -> int:
        if self.room == 0:
            lasts = self.capacity * np.log2(np.maximum(self.n_searches, 1))
            self._drop(smallest(self.used_at + lasts, max(1, self.capacity // 100)).tolist())
        row = self._take()
        if row == len(self.texts):
            self.texts.append("")
        self.n_born += 1
        self.texts[row], self.born[row], self._index[text] = text, self.n_born, row
        return row

    def _drop(self, rows: Sequence[int]) -> None:
        for row in rows:
            del self._index[self.texts[row]]
        self._release(rows)
        self._evicted += rows

    def _blank(self, rows: Rows | slice) -> None:
        super()._blank(rows)
        if not isinstance(rows, slice):
            for row in rows.tolist():
                self.texts[row] = ""
