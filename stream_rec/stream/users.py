"""Who is who: 16-byte user keys to rows of plain numpy columns, with the visit each user is in.

A row holds what one user needs between ticks: the pointer to the newest history row, the open visit, and the pointers
of the attribution joiner. Rows are reused; `born` tells a row's users apart. All calls follow processing order.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from stream_rec.component import Component
from stream_rec.events import MISSING

KEY_BYTES = 16
EVICTED_SHARE = 100
"""When full, one row in this many is evicted at once."""
_SCAN_ROWS = 8192

Int64s = np.ndarray[Any, np.dtype[np.int64]]
Int32s = np.ndarray[Any, np.dtype[np.int32]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]


class Visits(NamedTuple):
    """The visit of each event of a tick."""

    serial: Int64s
    """Visit serial of each event; MISSING where the event has no user."""
    opened: Bools
    """Whether the event is the first of its visit."""


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
        self.key = np.zeros((capacity, KEY_BYTES), np.uint8)
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
        """Recompute the key index and the heap of free rows."""
        raw = self.key[: self.n_rows].tobytes()
        rows = np.flatnonzero(self.born[: self.n_rows]).tolist()
        self._index: dict[bytes, int] = {raw[r * KEY_BYTES : (r + 1) * KEY_BYTES]: r for r in rows}
        self._free: list[int] = np.flatnonzero(self.born[: self.n_rows] == 0).tolist()

    @property
    def n_users(self) -> int:
        """Users in the table now."""
        return len(self._index)

    def find(self, key: bytes) -> int:
        """Row of a user key, or MISSING."""
        return self._index.get(key, MISSING)

    def row(self, key: bytes, at_ms: int, stand_in: int) -> int:
        """Row of a user key, made when it is new; counts as seen at `at_ms`. May evict (see `take_evicted`)."""
        row = self._index.get(key, MISSING)
        self.n_touches += 1
        if row == MISSING:
            if self.n_users == self.capacity:
                self._evict(1, self.capacity)
            row = self._insert([key], np.array([self.n_touches]), np.array([at_ms]), np.array([stand_in]))[0]
        self.touched[row] = self.n_touches
        if at_ms > self.seen_at_ms[row]:
            self.seen_at_ms[row] = at_ms
        return row

    def rows(self, keys: Sequence[bytes | None], at_ms: Int64s, stand_in: Sequence[int]) -> Int32s:
        """Rows of a tick's events, in order; no user of the tick is evicted by another one of it.

        Args:
            keys: user key of each event; None = no user, gives MISSING.
            at_ms: event time, int64 [n].
            stand_in: as in `Line`, [n].

        Raises:
            ValueError: more different users than the table has rows.
        """
        found = self._index.get
        rows = np.array([MISSING if k is None else found(k, MISSING) for k in keys], np.int32)
        serials = self.n_touches + 1 + np.arange(len(rows), dtype=np.int64)
        self.n_touches += len(rows)
        hit = np.flatnonzero(rows != MISSING)
        self.touched[rows[hit]] = serials[hit]
        if len(hit) < len(rows):
            self._insert_missing(keys, rows, serials, at_ms, stand_in)
            hit = np.flatnonzero(rows != MISSING)
            self.touched[rows[hit]] = serials[hit]
        np.maximum.at(self.seen_at_ms, rows[hit], at_ms[hit])
        return rows

    def _insert_missing(
        self, keys: Sequence[bytes | None], rows: Int32s, /, serials: Int64s, at_ms: Int64s, stand_in: Sequence[int]
    ) -> None:
        first: dict[bytes, int] = {}
        where: list[int] = []
        for i in np.flatnonzero(rows == MISSING).tolist():
            key = keys[i]
            if key is not None:
                first.setdefault(key, i)
                where.append(i)
        if not first:
            return
        kept = len(np.unique(rows[rows != MISSING]))
        if kept + len(first) > self.capacity:
            raise ValueError("more different users in one tick than the user table has rows; raise users.capacity")
        shortage = self.n_users + len(first) - self.capacity
        if shortage > 0:
            self._evict(shortage, self.n_users - kept)
        at = list(first.values())
        new = self._insert(list(first), serials[at], at_ms[at], np.array([stand_in[i] for i in at]))
        row_of = dict(zip(first, new, strict=True))
        for i in where:
            rows[i] = row_of[keys[i]]  # type: ignore[index]

    def _insert(
        self, keys: list[bytes], serials: Int64s, /, at_ms: Int64s, stand_in: np.ndarray[Any, Any]
    ) -> list[int]:
        n_reused = min(len(keys), len(self._free))
        new = [heapq.heappop(self._free) for _ in range(n_reused)]
        n_fresh = len(keys) - n_reused
        new += range(self.n_rows, self.n_rows + n_fresh)
        self.n_rows += n_fresh
        self.key[new] = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY_BYTES)
        self.stand_in[new] = stand_in
        self.born[new] = serials
        self.seen_at_ms[new] = at_ms
        for column in (self.last_row, self.visit_serial, self.visit_before, self.decision_a, self.decision_b):
            column[new] = MISSING
        self._index.update(zip(keys, new, strict=True))
        return new

    def _evict(self, at_least: int, at_most: int) -> None:
        """Free the rows touched longest ago. Serials are distinct among rows in use, so the choice is unique."""
        rows = np.flatnonzero(self.born[: self.n_rows])
        n = min(max(at_least, self.capacity // EVICTED_SHARE), at_most)
        oldest = np.sort(rows[np.argpartition(self.touched[rows], n - 1)[:n]])
        self._clear(oldest.tolist())

    def _clear(self, rows: list[int]) -> None:
        raw = self.key[rows].tobytes()
        for i, row in enumerate(rows):
            del self._index[raw[i * KEY_BYTES : (i + 1) * KEY_BYTES]]
            heapq.heappush(self._free, row)
        for name in self.columns:
            getattr(self, name)[rows] = 0
        self.evicted = self.evicted + rows

    def take_evicted(self) -> list[int]:
        """Rows whose user is gone (evicted or forgotten) since the last call, so that others can clear theirs."""
        rows, self.evicted = self.evicted, []
        return rows

    def forget(self, row: int) -> None:
        """Free the row of one user; it is reported by `take_evicted` too."""
        if self.born[row]:
            self._clear([row])

    def link(self, rows: Int32s, positive: Bools, next_serial: int) -> Int64s:
        """Chain a tick's positive events into the histories; moves `last_row` to each user's newest one.

        Args:
            rows: user row of each event, MISSING without a user, [n].
            positive: which events get a history row, [n]; they take serials `next_serial`, `next_serial + 1`, ...
            next_serial: `Histories.next_serial` before the tick's rows are appended.

        Returns:
            The user's history pointer before each event, int64 [n]; at positive events this is `prev` of its row.
        """
        n = len(rows)
        order = np.argsort(rows, kind="stable")
        row, chosen, at = rows[order], positive[order], np.arange(n)
        serial = (next_serial - 1 + np.cumsum(positive))[order]
        newest = np.empty(n, np.int64)
        newest[:1] = MISSING
        np.maximum.accumulate(np.where(chosen, at, MISSING)[:-1], out=newest[1:])
        start = np.maximum.accumulate(np.where(np.diff(row, prepend=row[:1] - 1) != 0, at, 0))
        known = np.where(row == MISSING, MISSING, self.last_row[row])
        before = np.empty(n, np.int64)
        before[order] = np.where((newest >= start) & (row != MISSING), serial[newest], known)
        moved = order[chosen & (row != MISSING)]
        self.last_row[rows[moved]] = (next_serial - 1 + np.cumsum(positive))[moved]
        return before

    def visit(self, row: int, key: int, at_ms: int, history_pointer: int) -> bool:
        """Put one event into its user's visit; True when it opens a new one.

        A visit is a session, else an order (`key`, their digest), else (`key` 0) it ends by a gap of event time.

        Args:
            row: the user.
            key: session digest, else order digest, else 0.
            at_ms: event time.
            history_pointer: the user's newest history row before this event.
        """
        last = int(self.visit_last_ms[row])
        same = key == self.visit_key[row] if key else at_ms - last <= self.gap_ms
        if same and self.visit_serial[row] != MISSING:
            self.visit_last_ms[row] = max(last, at_ms)
            return False
        self.visit_serial[row] = self.n_visits_started
        self.n_visits_started += 1
        self.visit_key[row] = key
        self.visit_start_ms[row] = self.visit_last_ms[row] = at_ms
        self.visit_before[row] = history_pointer
        self.n_visits[row] += 1
        return True

    def visits(self, rows: Int32s, keys: Sequence[int], at_ms: Int64s, before: Int64s) -> Visits:
        """`visit` for a tick's events in order; equals calling it for each.

        Args:
            rows: user row of each event, MISSING without a user, [n].
            keys: session digest, else order digest, else 0, [n].
            at_ms: event time, [n].
            before: the user's history pointer before each event (what `link` returns), [n].
        """
        known, where = np.unique(rows, return_inverse=True)
        key_of, last_of = self.visit_key[known].tolist(), self.visit_last_ms[known].tolist()
        serial_of = self.visit_serial[known].tolist()
        nobody = 0 if len(known) and known[0] == MISSING else MISSING
        serial, opened, gap, started = [], [], self.gap_ms, self.n_visits_started
        for i, (user, key, at) in enumerate(zip(where.tolist(), keys, at_ms.tolist(), strict=True)):
            if user == nobody:
                serial.append(MISSING)
                continue
            current, last = serial_of[user], last_of[user]
            if current != MISSING and (key == key_of[user] if key else at - last <= gap):
                if at > last:
                    last_of[user] = at
            else:
                current = serial_of[user] = started
                started += 1
                key_of[user], last_of[user] = key, at
                opened.append(i)
            serial.append(current)
        self.n_visits_started = started
        users = known if nobody == MISSING else known[1:]
        skip = len(known) - len(users)
        self.visit_key[users], self.visit_last_ms[users] = key_of[skip:], last_of[skip:]
        self.visit_serial[users] = serial_of[skip:]
        new = rows[opened]
        self.visit_start_ms[new], self.visit_before[new] = at_ms[opened], before[opened]
        np.add.at(self.n_visits, new, 1)
        first = np.zeros(len(rows), np.bool_)
        first[opened] = True
        return Visits(np.array(serial, np.int64), first)

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
