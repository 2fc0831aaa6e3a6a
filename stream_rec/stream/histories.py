"""What each user did: positive events in one ring, a user's rows chained from newest to oldest.

A row has a serial that is never reused; a pointer is a serial. `Users.last_row` starts a chain and `prev` goes on, so
a pointer taken before an event gives the history as of that event, whatever was appended since.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from stream_rec.component import Component
from stream_rec.events import MISSING, Kind
from stream_rec.stream.row_index import RowIndex

Int64s = np.ndarray[Any, np.dtype[np.int64]]
UInt64s = np.ndarray[Any, np.dtype[np.uint64]]
Int32s = np.ndarray[Any, np.dtype[np.int32]]
Int8s = np.ndarray[Any, np.dtype[np.int8]]

_ITEM_STEP = np.uint64(0xBF58476D1CE4E5B9)
"""An odd number: the items of an order get hashes far apart. The order's digest is keyed, so nobody can choose them."""


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
    user: int
    """Row of the user at that time; MISSING = not said."""
    live: bool = True
    """False once retracted."""


class NewRows(NamedTuple):
    """Positive events of a tick as columns, [P] each, as `HistoryRow` names them."""

    item: Int32s | Int64s
    at_ms: Int64s
    kind: Int8s | Int64s
    visit: Int64s
    order: Int64s
    prev: Int64s
    """The same user's newest row before it, or MISSING."""
    user: Int32s | Int64s


class Histories(Component):
    """Ring of positive events by arrival; the oldest are overwritten when it is full.

    Args:
        capacity: rows.
        max_steps: how many rows of a chain are looked at for a user's latest purchase.

    >>> histories = Histories(capacity=100)
    >>> a = histories.append(HistoryRow(7, 1_000, Kind.CLICK, visit=0, order=0, prev=MISSING, user=0))
    >>> b = histories.append(HistoryRow(8, 2_000, Kind.PURCHASE, visit=0, order=5, prev=a, user=0))
    >>> histories.gather(np.array([b, a, MISSING]), 10).item.tolist()
    [[8, 7], [7, -1], [-1, -1]]
    >>> histories.retract(b, 8, 5), histories.gather(np.array([b]), 10).item.tolist()
    (1, [[-1, 7]])
    """

    columns = ("item", "at_ms", "kind", "visit", "order", "prev", "user", "live")
    scalars = ("next_serial",)
    derived = ("_bought",)
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
        self.user = np.zeros(capacity, np.int32)
        self.live = np.zeros(capacity, np.bool_)
        self.next_serial = 0
        """Serial the next appended row gets."""
        self.rebuild()

    def used(self) -> int:
        """Rows that hold anything."""
        return min(self.next_serial, self.capacity)

    def rebuild(self) -> None:
        """Index the live purchases by order and item again."""
        self._bought = RowIndex(self.capacity)
        self._index(np.arange(self.used()))

    @property
    def first_serial(self) -> int:
        """Oldest serial still in the ring; equals `next_serial` when nothing is."""
        return max(0, self.next_serial - self.capacity)

    def append(self, row: HistoryRow) -> int:
        """`append_many` for one event, which is live; returns its serial."""
        return int(self.append_many(NewRows(*(np.array([value], np.int64) for value in row[:-1])))[0])

    def append_many(self, rows: NewRows) -> Int64s:
        """Add a tick's events in order; returns their serials, int64 [P].

        Raises:
            ValueError: more events than the ring has rows.
        """
        item, at_ms, kind, visit, order, prev, user = rows
        n = len(item)
        if n > self.capacity:
            raise ValueError("more events in one tick than the history ring has rows; raise histories.capacity")
        serials = np.arange(self.next_serial, self.next_serial + n, dtype=np.int64)
        at = serials % self.capacity
        overwritten = self._indexed(at[serials >= self.capacity])
        self._bought.remove(self._hashes(overwritten), overwritten)
        self.item[at], self.at_ms[at], self.kind[at] = item, at_ms, kind
        self.visit[at], self.order[at], self.prev[at], self.live[at] = visit, order, prev, True
        self.user[at] = user
        self.next_serial += n
        self._index(at)
        return serials

    def _index(self, at: Int64s) -> None:
        rows = self._indexed(at)
        self._bought.insert(self._hashes(rows), rows)

    def _indexed(self, at: Int64s) -> Int64s:
        """Those of the rows that a refund can find by their order."""
        rows: Int64s = at[(self.kind[at] == Kind.PURCHASE) & (self.order[at] != 0) & self.live[at]]
        return rows

    def _hashes(self, at: Int64s) -> UInt64s:
        return _hashes(self.order[at], self.item[at])

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
        """`retract_many` for one refund after all rows there are."""
        return self.retract_many([start], [item], [order], born=[born], before=[self.next_serial])[0]

    def retract_many(
        self,
        starts: Sequence[int],
        items: Sequence[int],
        orders: Sequence[int],
        *,
        born: Sequence[int],
        before: Sequence[int],
    ) -> list[int]:
        """Take back one purchase for each refund, in order.

        It is the newest live one of the same order and item, whoever bought it, else the user's latest live one of
        the item.

        Args:
            starts: pointer to the refunding user's newest row, MISSING without a user, [n].
            items: item row of each, [n].
            orders: order digest of each; 0 = none, [n].
            born: serial at which the item's row came into use; older rows mean another item, [n].
            before: serial that the next row would have got at the refund; purchases lie below it, [n].

        Returns:
            Serials of the rows, now not live; MISSING where there is none, or no latest one within `max_steps` rows.
        """
        named = self._of_orders(orders, items)
        found = []
        for nth, (start, item, oldest, limit) in enumerate(zip(starts, items, born, before, strict=True)):
            first = max(self.first_serial, oldest)
            same = [s for s in named.get(nth, ()) if first <= s < limit and self.live[s % self.capacity]]
            serial = max(same) if same else self._latest(min(start, limit - 1), item, first)
            if serial != MISSING:
                self._take_back(serial % self.capacity)
            found.append(serial)
        return found

    def _of_orders(self, orders: Sequence[int], items: Sequence[int]) -> dict[int, list[int]]:
        """Place in `orders` to the serials of the live purchases with that order and item."""
        order, item = np.array(orders, np.int64), np.array(items, np.int64)
        which, rows = self._bought.candidates(_hashes(order, item))
        same = (self.order[rows] == order[which]) & (self.item[rows] == item[which]) & (order[which] != 0)
        named: dict[int, list[int]] = {}
        newest = self.next_serial - 1
        for nth, row in zip(which[same].tolist(), rows[same].tolist(), strict=True):
            named.setdefault(nth, []).append(newest - (newest - row) % self.capacity)
        return named

    def _latest(self, start: int, item: int, first: int) -> int:
        """Serial of the newest live purchase of `item` in a chain, not below `first`."""
        at_item, at_prev, capacity, serial = self.item.item, self.prev.item, self.capacity, start
        for _ in range(self.max_steps):
            if serial < first:
                break
            at = serial % capacity
            if at_item(at) == item and self.live[at] and self.kind[at] == Kind.PURCHASE:
                return serial
            serial = at_prev(at)
        return MISSING

    def _take_back(self, at: int) -> None:
        rows = self._indexed(np.array([at]))
        self._bought.remove(self._hashes(rows), rows)
        self.live[at] = False

    def forget(self, starts: Sequence[int]) -> int:
        """Blank the chains from these pointers on, all that the ring still has of them; returns how many rows.

        A blank row keeps its place and its serial. It is not live, says MISSING in every column (order: 0), and no
        chain leads into it or out of it.

        Args:
            starts: pointers into different chains; MISSING for an empty one.
        """
        serials = np.array([serial for start in starts for serial in self._chain(start)], np.int64)
        at = serials % self.capacity
        bought = self._indexed(at)
        self._bought.remove(self._hashes(bought), bought)
        for column in (self.item, self.at_ms, self.kind, self.visit, self.prev, self.user):
            column[at] = MISSING
        self.order[at], self.live[at] = 0, False
        return len(serials)

    def _chain(self, start: int) -> Iterator[int]:
        """Serials of one chain, newest first."""
        first, capacity, before, serial = self.first_serial, self.capacity, self.prev.item, start
        while serial >= first:
            yield serial
            serial = before(serial % capacity)

    def pointer_above(self, serial: int, start: int, before: int) -> int:
        """Where the chain of a row began at another time: its newest row below `before`.

        Args:
            serial: the row.
            start: pointer to the newest row of the user that the row names.
            before: serial.

        Returns:
            The pointer; MISSING when the chain does not hold the row (its user is gone and another one has the place),
            or not within `max_steps` rows.
        """
        first, capacity, pointer = max(self.first_serial, serial), self.capacity, MISSING
        for _ in range(self.max_steps):
            if start < first:
                break
            if pointer == MISSING and start < before:
                pointer = start
            if start == serial:
                return pointer
            start = self.prev.item(start % capacity)
        return MISSING

    def row(self, serial: int) -> HistoryRow | None:
        """The row of a serial; None when it was never given or has been overwritten."""
        if not self.first_serial <= serial < self.next_serial:
            return None
        at = serial % self.capacity
        columns = (self.item, self.at_ms, self.kind, self.visit, self.order, self.prev, self.user, self.live)
        return HistoryRow(*(column[at].item() for column in columns))


def _hashes(order: Int64s, item: Int32s | Int64s) -> UInt64s:
    hashed: UInt64s = order.astype(np.uint64) + item.astype(np.uint64) * _ITEM_STEP
    return hashed
