"""Which events were seen before: the digests of the newest admitted ones, in a ring with an index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from stream_rec.component import Component
from stream_rec.stream.row_index import RowIndex

UInt64s = np.ndarray[Any, np.dtype[np.uint64]]
Int64s = np.ndarray[Any, np.dtype[np.int64]]


class Dedupe(Component):
    """Remembers the last `capacity` admitted digests; the oldest by arrival is forgotten first. Exact.

    Args:
        capacity: digests remembered, 8 bytes each, and about 20 to 40 more for the index.

    >>> dedupe = Dedupe(capacity=2)
    >>> dedupe.admit_many([5, 6, 5]), dedupe.admit_many([7, 5])
    ([True, True, False], [True, False])
    """

    columns = ("ring",)
    scalars = ("n_admitted",)
    derived = ("_index",)
    fixed = ("capacity",)

    def __init__(self, capacity: int = 2_000_000) -> None:
        if capacity < 1:
            raise ValueError("a dedupe needs room for at least one event")
        self.capacity = capacity
        self.ring = np.zeros(capacity, np.uint64)
        self.n_admitted = 0
        self.rebuild()

    def used(self) -> int:
        """Digests remembered now."""
        return min(self.n_admitted, self.capacity)

    def rebuild(self) -> None:
        """Recompute the index from the ring."""
        self._index = RowIndex(self.capacity)
        self._index.insert(self.ring[: self.used()], np.arange(self.used()))

    def admit(self, digest: int) -> bool:
        """`admit_many` for one digest; costs as much as it does for a hundred."""
        return self.admit_many([digest])[0]

    def admit_many(self, digests: Sequence[int] | UInt64s | Int64s) -> list[bool]:
        """Which digests are new, in order; they then count as seen.

        What the new ones make room for is forgotten after the whole call, so an answer depends on nothing that comes
        later in it.

        Args:
            digests: at least 0 and below 2^64, [n].
        """
        values = np.asarray(digests, np.uint64)
        new = np.zeros(len(values), np.bool_)
        new[np.unique(values, return_index=True)[1]] = True
        which, slots = self._index.candidates(values)
        new[which[self.ring[slots] == values[which]]] = False
        self._remember(values[new])
        answers: list[bool] = new.tolist()
        return answers

    def _remember(self, values: UInt64s) -> None:
        n = len(values)
        serials = self.n_admitted + np.arange(n)
        values, slots = values[-self.capacity :], serials[-self.capacity :] % self.capacity
        forgotten = slots[slots < self.used()]
        self._index.remove(self.ring[forgotten], forgotten)
        self.ring[slots] = values
        self._index.insert(values, slots)
        self.n_admitted += n
