"""Tables of numbered rows: bounded, reused lowest row first, blank where nothing is held."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from stream_rec.component import Component

I8 = NDArray[np.int8]
I16 = NDArray[np.int16]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
F16 = NDArray[np.float16]
Bools = NDArray[np.bool_]
Rows = NDArray[np.intp]
"""Row numbers, ready to index columns with."""


class RowTable(Component):
    """Base of tables that hand out row numbers below `capacity` and take them back.

    Which row comes next depends only on which rows are held: the lowest free one. A subclass says through `_held`
    which of the first `n_rows` rows hold something; released rows are blank (zeros, empty strings) again.
    """

    scalars: ClassVar[tuple[str, ...]] = ("n_rows",)
    derived: ClassVar[tuple[str, ...]] = ("_free",)
    fixed: ClassVar[tuple[str, ...]] = ("capacity",)

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError("capacity must be at least 1")
        self.capacity = capacity
        self.n_rows = 0
        self._free: list[int] = []

    def used(self) -> int:
        """Rows ever handed out; from here on every column is blank."""
        return self.n_rows

    @property
    def room(self) -> int:
        """Rows that can still be taken without evicting."""
        return self.capacity - self.n_rows + len(self._free)

    @property
    def n_held(self) -> int:
        """Rows that hold something now."""
        return self.n_rows - len(self._free)

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Take the state of `snapshot`, also over a table that holds more rows than it."""
        before = self.n_rows
        super().restore(snapshot)
        if before > self.n_rows:
            self._blank(slice(self.n_rows, before))

    def rebuild(self) -> None:
        """Find the free rows again."""
        self._free = np.flatnonzero(~self._held()).tolist()

    def _held(self) -> Bools:
        raise NotImplementedError

    def _take(self) -> int:
        if self._free:
            return heapq.heappop(self._free)
        if self.n_rows == self.capacity:
            raise RuntimeError("no row left; make room first")
        self.n_rows += 1
        return self.n_rows - 1

    def _release(self, rows: Iterable[int]) -> None:
        released = list(rows)
        self._blank(np.array(released, dtype=np.intp))
        for row in released:
            heapq.heappush(self._free, row)

    def _blank(self, rows: Rows | slice) -> None:
        for name in self.columns:
            column = getattr(self, name)
            if isinstance(column, np.ndarray):
                column[rows] = 0


def smallest(values: NDArray[Any], n: int) -> Rows:
    """Indices of the `n` smallest values, ascending by index; among equal values the lowest index first.

    >>> smallest(np.array([5, 1, 3, 1, 1]), 2).tolist()
    [1, 3]
    """
    if n >= len(values):
        return np.arange(len(values))
    if n <= 0:
        return np.zeros(0, dtype=np.intp)
    bound = np.partition(values, n - 1)[n - 1]
    below = np.flatnonzero(values < bound)
    equal = np.flatnonzero(values == bound)[: n - len(below)]
    return np.sort(np.concatenate((below, equal)))
