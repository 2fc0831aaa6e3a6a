"""The sliding window of examples: by event time and by count, the same whatever order they arrived in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_rec.stream.examples import Batch, ExampleTable
from stream_rec.stream.rows import Bools, Rows

DAY_MS = 86_400_000
LONG_AGO_MS = -(2**62)


class SlidingWindow(ExampleTable):
    """Examples of the last `length_ms` of event time, at most `capacity`: the newest by (at_ms, event, item).

    The content is exactly {added, at_ms >= watermark - length_ms}, cut to the newest `capacity`; an example older
    than one already dropped by count is not let in (the floor), so arrival order does not matter. Once an example was
    taken back, one that was older than a dropped one stays out all the same.

    Rows are packed lazily: the columns hold a quarter more than `capacity`, and only when they are full (every
    `capacity / 4` examples) is the content cut and moved together. `rows` is exact at any time.
    """

    scalars = (*ExampleTable.scalars, "watermark_ms", "floor")
    derived = (*ExampleTable.derived, "_rows")
    fixed = (*ExampleTable.fixed, "n_newest", "length_ms")

    def __init__(self, capacity: int = 200_000, *, length_ms: int = 30 * DAY_MS) -> None:
        super().__init__(capacity + max(capacity // 4, 1024))
        self.n_newest = capacity
        self.length_ms = length_ms
        self.watermark_ms = LONG_AGO_MS
        self.floor = [LONG_AGO_MS, LONG_AGO_MS, LONG_AGO_MS]
        self._rows: Rows | None = None

    def rebuild(self) -> None:
        """Nothing but the cached rows is derived."""
        super().rebuild()
        self.floor = list(self.floor)
        self._rows = None

    def add(self, batch: Batch) -> int:
        """Admit examples; returns how many were new enough. Columns as `ExampleTable` names them."""
        chosen = np.flatnonzero(self._admits(batch))
        spare = self.capacity - self.n_newest
        for start in range(0, len(chosen), spare):
            part = chosen[start : start + spare]
            if self.n_rows + len(part) > self.capacity:
                self._cut()
                part = part[self._above_floor(batch, part)]
            self._write(batch, part, slice(self.n_rows, self.n_rows + len(part)))
            self.n_rows += len(part)
        self._rows = None
        return len(chosen)

    def evict(self, watermark_ms: int) -> None:
        """Let go of what is older than `watermark_ms - length_ms`; the watermark never moves back."""
        if watermark_ms > self.watermark_ms:
            self.watermark_ms = watermark_ms
            self._rows = None

    def rows(self) -> Rows:
        """Rows of the content, ascending; they hold until the next call that changes the window."""
        if self._rows is None:
            rows = self._in_time()
            if len(rows) > self.n_newest:
                rows = np.delete(rows, self._oldest(rows))
            self._rows = rows
        return self._rows

    def _take_back(self, rows: Any) -> int:
        self._rows = None
        return super()._take_back(rows)

    def _in_time(self) -> Rows:
        n = self.n_rows
        return np.flatnonzero(self.live[:n] & (self.at_ms[:n] >= self.watermark_ms - self.length_ms))

    def _oldest(self, rows: Rows) -> Rows:
        """Places in `rows` beyond the newest `n_newest` by (at_ms, event, item); the newest of them is last."""
        n_over = len(rows) - self.n_newest
        at_ms = self.at_ms[rows]
        bound = np.partition(at_ms, n_over - 1)[n_over - 1]
        older = np.flatnonzero(at_ms < bound)
        equal = np.flatnonzero(at_ms == bound)
        tied = rows[equal]
        ranked = equal[np.lexsort((self.item[tied], self.event[tied]))]
        return np.concatenate((older, ranked[: n_over - len(older)]))

    def _cut(self) -> None:
        """Drop what is no longer content, raise the floor to the newest dropped by count, and pack."""
        rows = self._in_time()
        if len(rows) > self.n_newest:
            over = self._oldest(rows)
            newest = rows[over[-1]]
            self.floor = [int(column[newest]) for column in (self.at_ms, self.event, self.item)]
            rows = np.delete(rows, over)
        self._pack(rows)

    def _pack(self, kept: Rows) -> None:
        """Move the kept rows (ascending) to the front and blank the rest."""
        before, self.n_rows = self.n_rows, len(kept)
        for name in self.columns:
            column = getattr(self, name)
            column[: len(kept)] = column[kept]
            column[len(kept) : before] = 0

    def _admits(self, batch: Batch) -> Bools:
        in_time: Bools = batch["at_ms"] >= self.watermark_ms - self.length_ms
        if self.floor[0] > LONG_AGO_MS:
            in_time &= self._above_floor(batch, slice(None))
        return in_time

    def _above_floor(self, batch: Batch, chosen: NDArray[Any] | slice) -> Bools:
        at_ms, event, item = batch["at_ms"][chosen], batch["event"][chosen], batch["item"][chosen]
        floor_at, floor_event, floor_item = self.floor
        above: Bools = (event > floor_event) | ((event == floor_event) & (item > floor_item))
        return np.asarray((at_ms > floor_at) | ((at_ms == floor_at) & above), np.bool_)

    def view(self, rows: Rows) -> Mapping[str, NDArray[Any]]:
        """Copies of the columns at `rows`."""
        return {name: getattr(self, name)[rows] for name in self.columns if name != "live"}
