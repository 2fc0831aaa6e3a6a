"""How far event time has come: a watermark per events partition, and the global one that closes windows.

A partition's watermark trails its newest event by the out-of-orderness bound. An event is late when it lies more than
the allowed lateness behind the watermark of its own partition, so a slow partition never makes another one late.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from stream_rec.component import Component

BEFORE_TIME = -(1 << 62)
"""The watermark before any event; small enough that adding or taking off any duration stays in 64 bits."""

Int64s = np.ndarray[Any, np.dtype[np.int64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]


class Watermarks(Component):
    """Watermarks of the events partitions. Events in the future must be kept away from it by the caller.

    Args:
        bound_ms: out-of-orderness bound, how far a watermark trails the newest event.
        lateness_ms: allowed lateness, how far behind its partition's watermark an event still counts.
        max_partitions: partitions are numbered below this.

    >>> marks = Watermarks(bound_ms=60_000, lateness_ms=600_000)
    >>> marks.judge(0, 1_000_000), marks.judge(0, 340_000), marks.judge(0, 339_999)
    (False, False, True)
    >>> marks.advance()
    940000
    """

    columns = ("newest_ms", "idle", "followed")
    scalars = ("global_ms",)
    fixed = ("bound_ms", "lateness_ms", "max_partitions")

    def __init__(self, bound_ms: int = 60_000, lateness_ms: int = 600_000, max_partitions: int = 1024) -> None:
        if bound_ms < 0 or lateness_ms < 0 or max_partitions < 1:
            raise ValueError("the bound and the lateness are durations, and there is at least one partition")
        self.bound_ms, self.lateness_ms, self.max_partitions = bound_ms, lateness_ms, max_partitions
        self.newest_ms = np.full(max_partitions, BEFORE_TIME, np.int64)
        """Largest event time of each partition; BEFORE_TIME = it has not spoken yet."""
        self.idle = np.zeros(max_partitions, np.bool_)
        self.followed = np.zeros(max_partitions, np.bool_)
        """Partitions that are waited for before they have spoken."""
        self.global_ms = BEFORE_TIME
        """The global watermark, as of the last `advance`."""

    def partition_ms(self, partition: int) -> int:
        """Watermark of one partition; at or below BEFORE_TIME when it has not spoken."""
        return int(self.newest_ms[partition]) - self.bound_ms

    def judge(self, partition: int, at_ms: int) -> bool:
        """Whether an event is late; its partition is not idle any more and its watermark moves."""
        self.idle[partition] = False
        newest = int(self.newest_ms[partition])
        if at_ms > newest:
            self.newest_ms[partition] = at_ms
            return False
        return at_ms < newest - self.bound_ms - self.lateness_ms

    def judge_many(self, partitions: Sequence[int] | Int64s, at_ms: Sequence[int] | Int64s) -> Bools:
        """`judge` for a tick's events in order; equals calling it for each.

        Args:
            partitions: events partition of each event, [n].
            at_ms: event time of each, [n].
        """
        where, at = np.asarray(partitions, np.int64), np.asarray(at_ms, np.int64)
        late = np.zeros(len(at), np.bool_)
        for partition in np.unique(where).tolist():
            mine = np.flatnonzero(where == partition)
            newest = np.maximum.accumulate(np.concatenate((self.newest_ms[partition, None], at[mine])))
            late[mine] = at[mine] < newest[:-1] - (self.bound_ms + self.lateness_ms)
            self.newest_ms[partition] = newest[-1]
            self.idle[partition] = False
        return late

    def follow(self, partitions: Iterable[int]) -> None:
        """These partitions exist: the global watermark waits for each of them, until it speaks or is idle.

        Without this it waits only for those that have spoken.

        >>> marks = Watermarks(bound_ms=60_000)
        >>> marks.follow([0, 1])
        >>> marks.judge(0, 1_000_000), marks.advance() == BEFORE_TIME
        (False, True)
        >>> marks.set_idle([1])
        >>> marks.advance()
        940000
        """
        self.followed[list(partitions)] = True

    def set_idle(self, partitions: Iterable[int]) -> None:
        """Exactly these partitions are idle now; the global watermark does not wait for them until they speak."""
        self.idle[:] = False
        self.idle[list(partitions)] = True

    def advance(self) -> int:
        """Move the global watermark to the least one of the partitions that have spoken or are followed, unless idle.

        It never goes backwards, and stays where it is when there is no such partition or one that has not spoken yet.

        Returns:
            The global watermark, in ms.
        """
        waits = self.newest_ms[((self.newest_ms != BEFORE_TIME) | self.followed) & ~self.idle]
        if len(waits):
            self.global_ms = max(self.global_ms, int(waits.min()) - self.bound_ms)
        return self.global_ms
