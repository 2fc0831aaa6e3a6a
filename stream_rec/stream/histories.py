"""What each user did: positive events in one ring, a user's rows chained from newest to oldest.

A row has a serial that is never reused; a pointer is a serial. `Users.last_row` starts a chain and `prev` goes on, so
a pointer taken before an event gives the history as of that event, whatever was appended since.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from stream_rec.component import Component
from stream_rec.events import MISSING, Kind

Int64s = np.ndarray[Any, np.dtype[np.int64]]
Int32s = np.ndarray[Any, np.dtype[np.int32]]
Int8s = np.ndarray[Any, np.dtype[np.int8]]


class Gathered(NamedTuple):
    """Histories side by side, [B, L], newest first; MISSING in every array where there is no row or a masked one."""

    item: Int32s
    at_ms: Int64s
    kind: Int8s
    visit: Int64s
    serial: Int64s


class HistoryRow(NamedTuple):
    """One row, as Python values."""

    item: int
    at_ms: int
    kind: int
    visit: int
    order: int
    """Order digest; 0 = none."""
    prev: int
    live: bool
    """False once retracted."""


class Histories(Component):
    """Ring of positive events by arrival; the oldest are overwritten when it is full.

    Args:
        capacity: rows.
        max_steps: how many rows of a chain `retract` looks at.

    >>> histories = Histories(capacity=100)
    >>> a = histories.append(7, 1_000, Kind.CLICK, visit=0, order=0, prev=MISSING)
    >>> b = histories.append(8, 2_000, Kind.PURCHASE, visit=0, order=5, prev=a)
    >>> histories.gather(np.array([b, a, MISSING]), 10).item.tolist()
    [[8, 7], [7, -1], [-1, -1]]
    >>> histories.retract(b, 8, 5), histories.gather(np.array([b]), 10).item.tolist()
    (1, [[-1, 7]])
    """

    columns = ("item", "at_ms", "kind", "visit", "order", "prev", "live")
    scalars = ("next_serial",)
    fixed = ("capacity", "max_steps")

    def __init__(self, capacity: int = 4_000_000, max_steps: int = 1_024) -> None:
        if capacity < 1:
            raise ValueError("a history ring needs at least one row")
        self.capacity, self.max_steps = capacity, max_steps
        self.item = np.zeros(capacity, np.int32)
        self.at_ms = np.zeros(capacity, np.int64)
        self.kind = np.zeros(capacity, np.int8)
        self.visit = np.zeros(capacity, np.int64)
        self.order = np.zeros(capacity, np.int64)
        self.prev = np.zeros(capacity, np.int64)
        self.live = np.zeros(capacity, np.bool_)
        self.next_serial = 0
        """Serial the next appended row gets."""

    def used(self) -> int:
        """Rows that hold anything."""
        return min(self.next_serial, self.capacity)

    @property
    def first_serial(self) -> int:
        """Oldest serial still in the ring; equals `next_serial` when nothing is."""
        return max(0, self.next_serial - self.capacity)

    def append(self, item: int, at_ms: int, kind: int, *, visit: int, order: int, prev: int) -> int:
        """Add one event; returns its serial. `prev` is the same user's newest row before it, or MISSING."""
        serial = self.next_serial
        at = serial % self.capacity
        self.item[at], self.at_ms[at], self.kind[at] = item, at_ms, kind
        self.visit[at], self.order[at], self.prev[at], self.live[at] = visit, order, prev, True
        self.next_serial = serial + 1
        return serial

    def append_many(
        self, item: Int32s, at_ms: Int64s, kind: Int8s, *, visit: Int64s, order: Int64s, prev: Int64s
    ) -> Int64s:
        """Add a tick's events in order, arrays [P]; returns their serials, int64 [P].

        Raises:
            ValueError: more events than the ring has rows.
        """
        n = len(item)
        if n > self.capacity:
            raise ValueError("more events in one tick than the history ring has rows; raise histories.capacity")
        serials = np.arange(self.next_serial, self.next_serial + n, dtype=np.int64)
        at = serials % self.capacity
        self.item[at], self.at_ms[at], self.kind[at] = item, at_ms, kind
        self.visit[at], self.order[at], self.prev[at], self.live[at] = visit, order, prev, True
        self.next_serial += n
        return serials

    def gather(self, start: Int64s, limit: int, born: Int64s | None = None) -> Gathered:
        """Histories from the pointers on, newest first.

        A chain ends after `limit` rows or where the ring has overwritten it. Retracted rows and rows older than
        their item's row in the item table are masked; they keep their place.

        Args:
            start: pointers, int64 [B]; MISSING gives an empty history.
            limit: most rows of a chain.
            born: serial at which each item's row came into use, int64 [n_items].

        Returns:
            [B, L] arrays, L = the longest chain found (at most `limit`).
        """
        serial = self._chase(start, limit)
        at = serial % self.capacity
        item = self.item[at]
        hidden = (serial == MISSING) | ~self.live[at]
        if born is not None:
            hidden |= serial < born[item]
        picked = (column[at] for column in (self.at_ms, self.kind, self.visit))
        return Gathered(*(np.where(hidden, column.dtype.type(MISSING), column) for column in (item, *picked, serial)))

    def _chase(self, start: Int64s, limit: int) -> Int64s:
        """Serials of the chains, [B, L]: all of them one step at a time, the ended ones dropped."""
        first, capacity, prev = self.first_serial, self.capacity, self.prev
        steps: list[Int64s] = []
        alive = np.flatnonzero((start >= first) & (start < self.next_serial))
        current = start[alive]
        while len(alive) and len(steps) < limit:
            step = np.full(len(start), MISSING, np.int64)
            step[alive] = current
            steps.append(step)
            current = prev[current % capacity]
            goes_on = current >= first
            if not goes_on.all():
                alive, current = alive[goes_on], current[goes_on]
        return np.stack(steps, axis=1) if steps else np.empty((len(start), 0), np.int64)

    def retract(self, start: int, item: int, order: int, *, born: int = 0) -> int:
        """Take back one purchase of `item`: the live one with the same order, else the user's latest live one.

        Args:
            start: pointer to the user's newest row.
            item: item row.
            order: order digest of the refund; 0 = none.
            born: serial at which the item's row came into use; older rows mean another item.

        Returns:
            Serial of the row, now not live; MISSING when none was found within `max_steps` rows.
        """
        at_item, at_prev, capacity = self.item.item, self.prev.item, self.capacity
        first, found, serial = max(self.first_serial, born), MISSING, start
        for _ in range(self.max_steps):
            if serial < first:
                break
            at = serial % capacity
            if at_item(at) == item and self.live[at] and self.kind[at] == Kind.PURCHASE:
                if found == MISSING:
                    found = serial
                if not order or self.order[at] == order:
                    found = serial
                    break
            serial = at_prev(at)
        if found != MISSING:
            self.live[found % capacity] = False
        return found

    def row(self, serial: int) -> HistoryRow | None:
        """The row of a serial; None when it was never given or has been overwritten."""
        if not self.first_serial <= serial < self.next_serial:
            return None
        at = serial % self.capacity
        columns = (self.item, self.at_ms, self.kind, self.visit, self.order, self.prev, self.live)
        return HistoryRow(*(column[at].item() for column in columns))
