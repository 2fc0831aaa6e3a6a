"""Who is who: 16-byte user keys to rows of plain numpy columns, with the visit each user is in.

A row holds what one user needs between ticks: the pointer to the newest history row, the open visit, and the pointers
of the attribution joiner. Rows are reused; `born` tells a row's users apart. All calls follow processing order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from stream_rec.component import Component
from stream_rec.events import MISSING
from stream_rec.stream.row_index import RowIndex
from stream_rec.stream.visits import Visits, assign, chain

KEY_WORDS = 2
STABLE_BITS = 63
EVICTED_SHARE = 100
"""When full, one row in this many is evicted at once."""
_SCAN_ROWS = 8192

UInt64s = np.ndarray[Any, np.dtype[np.uint64]]
Int64s = np.ndarray[Any, np.dtype[np.int64]]
Int32s = np.ndarray[Any, np.dtype[np.int32]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]


class Users(Component):
    """Bounded table of users; the ones not seen for longest (in processing order) make room.

    Args:
        capacity: rows; at least the number of different users in one tick.
        gap_ms: event time without an event after which a visit without a session or order has ended.

    >>> users = Users(capacity=10)
    >>> row = users.row(b"0123456789abcdef", 1_000, 0)
    >>> users.visit(row, 0, 1_000, MISSING), users.visit(row, 0, 1_801_001, MISSING)
    (True, True)
    >>> int(users.visit_serial[row]), int(users.n_visits[row])
    (1, 2)
    """

    columns = (
        "key",
        "stand_in",
        "born",
        "touched",
        "seen_at_ms",
        "last_row",
        "visit_serial",
        "visit_key",
        "visit_start_ms",
        "visit_last_ms",
        "visit_before",
        "n_visits",
        "decision_a",
        "decision_b",
    )
    scalars = ("n_rows", "n_touches", "n_visits_started", "cursor", "evicted")
    derived = ("_index", "_free")
    fixed = ("capacity", "gap_ms")

    def __init__(self, capacity: int = 1_000_000, gap_ms: int = 1_800_000) -> None:
        if capacity < 1:
            raise ValueError("a user table needs at least one row")
        self.capacity, self.gap_ms = capacity, gap_ms
        self.key = np.zeros((capacity, KEY_WORDS), np.uint64)
        """The 16 bytes of the user key as two little-endian words."""
        self.stand_in = np.zeros(capacity, np.int8)
        self.born = np.zeros(capacity, np.int64)
        """Monotone serial of the row's (re)use, from 1; 0 = the row is free."""
        self.touched = np.zeros(capacity, np.int64)
        """Serial of the row's last event; `born` and this count on one scale."""
        self.seen_at_ms = np.zeros(capacity, np.int64)
        self.last_row = np.zeros(capacity, np.int64)
        """Serial of the user's newest row in the histories; MISSING = none."""
        self.visit_serial = np.zeros(capacity, np.int64)
        self.visit_key = np.zeros(capacity, np.int64)
        self.visit_start_ms = np.zeros(capacity, np.int64)
        self.visit_last_ms = np.zeros(capacity, np.int64)
        self.visit_before = np.zeros(capacity, np.int64)
        """History pointer before the visit's first event."""
        self.n_visits = np.zeros(capacity, np.int32)
        self.decision_a = np.zeros(capacity, np.int64)
        self.decision_b = np.zeros(capacity, np.int64)
        self.n_rows = 0
        self.n_touches = 0
        self.n_visits_started = 0
        self.cursor = 0
        self.evicted: list[int] = []
        self.rebuild()

    def used(self) -> int:
        """Rows below this one have been in use at some time."""
        return self.n_rows

    def rebuild(self) -> None:
        """Recompute the key index and the list of free rows."""
        born = self.born[: self.n_rows]
        taken = np.flatnonzero(born)
        self._index = RowIndex(self.capacity)
        self._index.insert(self.key[taken, 0], taken)
        self._free = np.flatnonzero(born == 0)[::-1]
        """Free rows below `n_rows`, descending: the lowest is taken first."""

    @property
    def n_users(self) -> int:
        """Users in the table now."""
        return self.n_rows - len(self._free)

    def find(self, key: bytes) -> int:
        """Row of a user key, or MISSING."""
        return int(self._find(words_of([key]))[0])

    def row(self, key: bytes, at_ms: int, stand_in: int) -> int:
        """`rows` for one event; costs as much as it does for hundreds."""
        return int(self.rows([key], np.array([at_ms], np.int64), [stand_in])[0])

    def rows(self, keys: Sequence[bytes | None], at_ms: Int64s, stand_in: Sequence[int]) -> Int32s:
        """Rows of a tick's events, in order, made for new users; no user of the tick is evicted by another one of it.

        Args:
            keys: 16-byte user key of each event; None = no user, gives MISSING.
            at_ms: event time, int64 [n].
            stand_in: as in `Line`, [n].

        Raises:
            ValueError: more different users than the table has rows.
        """
        named = np.array([i for i, key in enumerate(keys) if key is not None], np.int64)
        words = words_of([key for key in keys if key is not None])
        found = self._find(words)
        serials = self.n_touches + 1 + named
        self.n_touches += len(keys)
        new = np.flatnonzero(found == MISSING)
        if len(new):
            first, who = _distinct(words[new])
            self._make_room(found, len(first))
            first = new[first]
            rows = self._insert(words[first], serials[first], np.asarray(stand_in, np.int8)[named[first]])
            found[new] = rows[who]
            self.seen_at_ms[rows] = at_ms[named[first]]
        self.touched[found] = serials
        np.maximum.at(self.seen_at_ms, found, at_ms[named])
        out = np.full(len(keys), MISSING, np.int32)
        out[named] = found
        return out

    def _find(self, words: UInt64s) -> Int64s:
        found = np.full(len(words), MISSING, np.int64)
        which, rows = self._index.candidates(words[:, 0])
        same = (self.key[rows] == words[which]).all(axis=1)
        found[which[same]] = rows[same]
        return found

    def _make_room(self, found: Int64s, n_new: int) -> None:
        shortage = self.n_users + n_new - self.capacity
        if shortage <= 0:
            return
        kept = np.unique(found[found != MISSING])
        spare = self.n_users - len(kept)
        if shortage > spare:
            raise ValueError("more different users in one tick than the user table has rows; raise users.capacity")
        self.touched[kept] = self.n_touches
        self._evict(min(max(shortage, self.capacity // EVICTED_SHARE), spare))

    def _insert(self, words: UInt64s, serials: Int64s, stand_in: np.ndarray[Any, Any]) -> Int64s:
        n_reused = min(len(words), len(self._free))
        n_fresh = len(words) - n_reused
        reused, self._free = self._free[len(self._free) - n_reused :][::-1], self._free[: len(self._free) - n_reused]
        new = np.concatenate((reused, np.arange(self.n_rows, self.n_rows + n_fresh)))
        self.n_rows += n_fresh
        self.key[new], self.born[new], self.stand_in[new] = words, serials, stand_in
        for column in (self.last_row, self.visit_serial, self.visit_before, self.decision_a, self.decision_b):
            column[new] = MISSING
        self._index.insert(words[:, 0], new)
        return new

    def _evict(self, n: int) -> None:
        """Free the `n` rows touched longest ago. Serials of rows before this tick differ, so the choice is unique."""
        rows = np.flatnonzero(self.born[: self.n_rows])
        self._clear(np.sort(rows[np.argpartition(self.touched[rows], n - 1)[:n]]))

    def _clear(self, rows: Int64s) -> None:
        self._index.remove(self.key[rows, 0], rows)
        self._free = np.sort(np.concatenate((self._free, rows)))[::-1]
        for name in self.columns:
            getattr(self, name)[rows] = 0
        self.evicted = self.evicted + rows.tolist()

    def take_evicted(self) -> list[int]:
        """Rows whose user is gone (evicted or forgotten) since the last call, so that others can clear theirs."""
        rows, self.evicted = self.evicted, []
        return rows

    def forget(self, row: int) -> None:
        """`forget_many` for one user; costs as much as it does for hundreds."""
        self.forget_many([row])

    def forget_many(self, rows: Sequence[int]) -> None:
        """Free the rows of some users, each named once; they are reported by `take_evicted` too."""
        at = np.sort(np.array(rows, np.int64))
        self._clear(at[self.born[at] != 0])

    def link(self, rows: Int32s, positive: Bools, next_serial: int) -> Int64s:
        """Chain a tick's positive events into the histories; moves `last_row` to each user's newest one.

        Args:
            rows: user row of each event, MISSING without a user, [n].
            positive: which events get a history row, [n]; they take serials `next_serial`, `next_serial + 1`, ...
            next_serial: `Histories.next_serial` before the tick's rows are appended.

        Returns:
            The user's history pointer before each event, int64 [n]; at a positive event this is `prev` of its row.
        """
        return chain(self.last_row, rows, positive, next_serial)

    def visit(self, row: int, key: int, at_ms: int, history_pointer: int) -> bool:
        """`visits` for one event; True when it opens a visit. Costs as much as it does for hundreds."""
        at, pointer = np.array([at_ms], np.int64), np.array([history_pointer], np.int64)
        return bool(self.visits(np.array([row], np.int32), [key], at, pointer).opened[0])

    def visits(self, rows: Int32s, keys: Sequence[int], at_ms: Int64s, before: Int64s) -> Visits:
        """Put a tick's events into their users' visits, in order.

        Args:
            rows: user row of each event, MISSING without a user, [n].
            keys: session digest, else order digest, else 0, [n].
            at_ms: event time, [n].
            before: the user's history pointer before each event (what `link` returns), [n].
        """
        return assign(self, rows, keys, at_ms, before)

    def known_rows(self) -> Int32s:
        """Rows in use, ascending, int32."""
        return np.flatnonzero(self.born[: self.n_rows]).astype(np.int32)

    def next_known(self, n: int) -> Int32s:
        """The next `n` users (real ones and sessions) whose slates are due, round-robin; each at most once a call."""
        parts: list[Int64s] = []
        n_found, n_seen, at = 0, 0, self.cursor
        while n_found < n and n_seen < self.n_rows:
            at = 0 if at >= self.n_rows else at
            end = min(self.n_rows, at + _SCAN_ROWS, at + self.n_rows - n_seen)
            due = at + np.flatnonzero((self.born[at:end] != 0) & (self.stand_in[at:end] <= 1))[: n - n_found]
            n_found += len(due)
            last = int(due[-1]) + 1 if n_found == n else end
            parts.append(due)
            n_seen, at = n_seen + last - at, last
        self.cursor = at
        return np.concatenate(parts).astype(np.int32) if parts else np.empty(0, np.int32)


def stable(words: UInt64s) -> Int64s:
    """63 bits of each user's key, int64 [n]: what the learned half knows a user by.

    Args:
        words: keys as `words_of` gives them, [n, KEY_WORDS].
    """
    return (words[:, 0] & np.uint64(2**STABLE_BITS - 1)).astype(np.int64)


def words_of(keys: Sequence[bytes]) -> UInt64s:
    """User keys of 16 bytes as the table holds them, uint64 [n, KEY_WORDS]."""
    return np.frombuffer(b"".join(keys), "<u8").astype(np.uint64, copy=False).reshape(-1, KEY_WORDS)


def _distinct(words: UInt64s) -> tuple[Int64s, Int64s]:
    """Index of the first of each different key, ascending, and for each key its place among those."""
    places: dict[tuple[int, ...], int] = {}
    who = [places.setdefault(word, len(places)) for word in map(tuple, words.tolist())]
    first = np.unique(np.array(who), return_index=True)[1]
    return first, np.array(who)
