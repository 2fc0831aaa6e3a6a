"""How often items are taken: in all, fading with event time, and in exactly the last seven days."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from stream_rec.component import Component
from stream_rec.events import MISSING

Rows = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]

DAY_MS = 86_400_000


class ItemCounts(Component):
    """In how many visits each item was taken.

    Args:
        capacity: item rows.

    >>> counts = ItemCounts(4)
    >>> counts.add(np.array([1, 1, 2], np.int32))
    >>> counts.in_visits[:3].tolist()
    [0, 2, 1]
    """

    half = "learned"
    columns = ("in_visits",)
    scalars = ("n_rows",)
    fixed = ("capacity",)

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.in_visits = np.zeros(capacity, np.int64)
        self.n_rows = 0

    def used(self) -> int:
        """Rows up to the highest item seen."""
        return self.n_rows

    def add(self, item: Rows, sign: int = 1) -> None:
        """Count items [P], each once a visit; `sign` -1 takes them back, never below zero."""
        if not len(item):
            return
        self.n_rows = max(self.n_rows, int(item.max()) + 1)
        np.add.at(self.in_visits, item, sign)
        if sign < 0:
            self.in_visits[item] = np.maximum(self.in_visits[item], 0)

    def forget_items(self, rows: Rows) -> None:
        """Start again for item rows that were given to other items."""
        self.in_visits[rows] = 0


class DecayedPopularity(Component):
    """Sums of 2^(-age / half-life) over positives, for several half-lives at once.

    Ages are event time, so the speed of a replay changes nothing.

    Args:
        capacity: item rows.
        half_lives_ms: one column each.

    >>> popularity = DecayedPopularity(3, (1_000,))
    >>> popularity.add(np.array([0], np.int32), np.array([0]))
    >>> popularity.add(np.array([1], np.int32), np.array([1_000]))
    >>> popularity.mass[:2, 0].tolist()
    [0.5, 1.0]
    """

    half = "learned"
    columns = ("mass",)
    scalars = ("n_rows", "at_ms")
    fixed = ("capacity", "half_lives_ms")

    def __init__(self, capacity: int, half_lives_ms: tuple[int, ...]) -> None:
        self.capacity, self.half_lives_ms = capacity, half_lives_ms
        self.mass = np.zeros((capacity, len(half_lives_ms)), np.float64)
        """float64 [capacity, half-lives], as of `at_ms`."""
        self.n_rows = 0
        self.at_ms = MISSING
        """Newest event time counted; MISSING before the first."""

    def used(self) -> int:
        """Rows up to the highest item seen."""
        return self.n_rows

    def add(self, item: Rows, at_ms: Ints, sign: int = 1) -> None:
        """Count positives [P] at their event times; `sign` -1 takes back what they weigh now, never below zero."""
        if not len(item):
            return
        self.n_rows = max(self.n_rows, int(item.max()) + 1)
        if sign > 0:
            self._advance(int(at_ms.max()))
        age_ms = np.maximum(self.at_ms - at_ms, 0).astype(np.float64)
        for column, half_life_ms in enumerate(self.half_lives_ms):
            np.add.at(self.mass[:, column], item, sign * np.exp2(-np.minimum(age_ms / half_life_ms, 1_000.0)))
        if sign < 0:
            self.mass[item] = np.maximum(self.mass[item], 0.0)

    def forget_items(self, rows: Rows) -> None:
        """Start again for item rows that were given to other items."""
        self.mass[rows] = 0.0

    def _advance(self, to_ms: int) -> None:
        if self.at_ms != MISSING and to_ms > self.at_ms:
            steps = np.array([(to_ms - self.at_ms) / half_life_ms for half_life_ms in self.half_lives_ms])
            mass = self.mass[: self.n_rows]
            mass *= np.exp2(-np.minimum(steps, 1_000.0))
            mass[mass < 1e-30] = 0.0
        self.at_ms = max(self.at_ms, to_ms)


class RecentPopularity(Component):
    """Exact counts over the last `length_ms` of event time before the watermark (and everything after it).

    Rows are kept in event-time order, so the content does not depend on the order of arrival. When `capacity`
    is full the oldest rows go first and are counted in `n_overflow`.

    Args:
        item_capacity: item rows.
        capacity: events held at once.
        length_ms: how far back, default seven days.

    >>> recent = RecentPopularity(3, capacity=10, length_ms=100)
    >>> recent.add(np.array([1, 2, 1], np.int32), np.array([50, 10, 30]))
    >>> recent.evict(140)
    >>> recent.counts.tolist()
    [0, 1, 0]
    """

    half = "learned"
    columns = ("at_ms", "item")
    scalars = ("first", "last", "floor_ms", "n_overflow")
    derived = ("counts",)
    fixed = ("item_capacity", "capacity", "length_ms")

    def __init__(self, item_capacity: int, capacity: int = 1_000_000, length_ms: int = 7 * DAY_MS) -> None:
        self.item_capacity, self.capacity, self.length_ms = item_capacity, capacity, length_ms
        self.at_ms = np.zeros(2 * capacity, np.int64)
        self.item = np.zeros(2 * capacity, np.int32)
        self.first = self.last = self.n_overflow = 0
        self.floor_ms = MISSING
        self.counts = np.zeros(item_capacity, np.int64)
        """int64 [item_capacity]."""

    def used(self) -> int:
        """Rows before `last`."""
        return self.last

    def rebuild(self) -> None:
        """Count the rows anew."""
        held = self.item[self.first : self.last]
        self.counts = np.bincount(held[held >= 0], minlength=self.item_capacity).astype(np.int64)

    def add(self, item: Rows, at_ms: Ints) -> None:
        """Insert positives [P]; those already out of the window are left out."""
        fresh = at_ms >= self.floor_ms
        item, at_ms = item[fresh][-self.capacity :], at_ms[fresh][-self.capacity :]
        n = len(item)
        if not n:
            return
        self._drop(max(0, self.last - self.first + n - self.capacity))
        if self.last + n > len(self.item):
            self._compact()
        start = self.first + int(np.searchsorted(self.at_ms[self.first : self.last], at_ms.min(), side="left"))
        at = np.concatenate([self.at_ms[start : self.last], at_ms])
        items = np.concatenate([self.item[start : self.last], item])
        order = np.lexsort((items, at))
        self.last += n
        self.at_ms[start : self.last], self.item[start : self.last] = at[order], items[order]
        np.add.at(self.counts, item, 1)

    def retract(self, item: int, at_ms: int) -> bool:
        """Take back one positive of `item` at exactly `at_ms`; False when it is not in the window."""
        held = self.at_ms[self.first : self.last]
        low, high = (self.first + int(np.searchsorted(held, at_ms, side=side)) for side in ("left", "right"))
        found = np.flatnonzero(self.item[low:high] == item)
        if not len(found):
            return False
        self.item[low + int(found[0])] = MISSING
        self.counts[item] -= 1
        return True

    def evict(self, watermark_ms: int) -> None:
        """Drop what is older than the watermark by more than the length."""
        self.floor_ms = max(self.floor_ms, watermark_ms - self.length_ms)
        held = self.at_ms[self.first : self.last]
        self._forget_prefix(int(np.searchsorted(held, self.floor_ms, side="left")))

    def forget_items(self, rows: Rows) -> None:
        """Start again for item rows that were given to other items."""
        held: npt.NDArray[Any] = self.item[self.first : self.last]
        held[np.isin(held, rows)] = MISSING
        self.counts[rows] = 0

    def _drop(self, n: int) -> None:
        if n:
            self.n_overflow += n
            self.floor_ms = max(self.floor_ms, int(self.at_ms[self.first + n - 1]))
            self._forget_prefix(n)

    def _forget_prefix(self, n: int) -> None:
        gone = self.item[self.first : self.first + n]
        np.subtract.at(self.counts, gone[gone >= 0], 1)
        self.first += n

    def _compact(self) -> None:
        n = self.last - self.first
        for column in (self.at_ms, self.item):
            column[:n] = column[self.first : self.last]
            column[n : self.last] = 0
        self.first, self.last = 0, n
