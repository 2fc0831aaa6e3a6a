"""Which events were seen before: the digests of the newest admitted ones, and an index that never stalls the loop.

The index is a table of small buckets that holds ring slots. Events are admitted and forgotten in the same order, so
each bucket is a queue by itself: an insertion overwrites the bucket's oldest entry, which has nearly always been
forgotten; one that has not goes to `_overflow`. Nothing is ever deleted or rehashed, and a stale slot proves itself by
what the ring holds there now. A Python set would need five times the memory and rehash for 0.1 s at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from stream_rec.component import Component

_WAYS = 16
"""Entries of a bucket: one cache line. Buckets are a quarter full on average, so overflow is one in a million."""
_MIX = np.uint64(0x9E3779B97F4A7C15)
"""2^64 / golden ratio: Fibonacci hashing (Knuth, The Art of Computer Programming 3, section 6.4)."""

UInt64s = np.ndarray[Any, np.dtype[np.uint64]]
Int64s = np.ndarray[Any, np.dtype[np.int64]]


class Dedupe(Component):
    """Remembers the last `capacity` admitted digests; the oldest by arrival is forgotten first. Exact.

    Args:
        capacity: digests remembered, 8 bytes each, and about 16 more for the index.

    >>> dedupe = Dedupe(capacity=2)
    >>> dedupe.admit_many([5, 6, 5]), dedupe.admit_many([7, 5])
    ([True, True, False], [True, False])
    >>> dedupe.admit(5)  # 5 was the oldest of the three, so it is forgotten
    True
    """

    columns = ("ring",)
    scalars = ("n_admitted",)
    derived = ("_table", "_heads", "_overflow")
    fixed = ("capacity", "_shift")

    def __init__(self, capacity: int = 2_000_000) -> None:
        if capacity < 1:
            raise ValueError("a dedupe needs room for at least one event")
        self.capacity = capacity
        self.ring = np.zeros(capacity, np.uint64)
        self.n_admitted = 0
        self._shift = np.uint64(64 - max(1, (capacity // (_WAYS // 4) - 1).bit_length()))
        self.rebuild()

    def used(self) -> int:
        """Digests remembered now."""
        return min(self.n_admitted, self.capacity)

    def rebuild(self) -> None:
        """Recompute the index from the ring."""
        n_buckets = 1 << (64 - int(self._shift))
        self._table = np.zeros((n_buckets, _WAYS), np.int32)
        """Ring slot + 1; 0 = never used."""
        self._heads = np.zeros(n_buckets, np.uint8)
        self._overflow: dict[int, None] = {}
        n = self.used()
        slots = (self.n_admitted - n + np.arange(n)) % self.capacity
        self._insert(self.ring[slots], slots)

    def admit(self, digest: int) -> bool:
        """Whether the digest is new; it then counts as seen. `admit_many` costs a hundredth of this per event."""
        return self.admit_many([digest])[0]

    def admit_many(self, digests: Sequence[int] | UInt64s | Int64s) -> list[bool]:
        """Which digests are new, in order; they then count as seen.

        What the new ones make room for is forgotten after the whole call, so an answer does not depend on where
        among its neighbours an event stands.

        Args:
            digests: at least 0 and below 2^64, [n].
        """
        values = np.asarray(digests, np.uint64)
        if not len(values):
            return []
        slots = self._table[self._bucket(values)]
        new = ~((self.ring[slots - 1] == values[:, None]) & (slots != 0)).any(axis=1)
        if self._overflow:
            new &= [d not in self._overflow for d in values.tolist()]
        once = np.zeros(len(values), np.bool_)
        once[np.unique(values, return_index=True)[1]] = True
        new &= once
        self._remember(values[new])
        answers: list[bool] = new.tolist()
        return answers

    def _remember(self, values: UInt64s) -> None:
        serials = self.n_admitted + np.arange(len(values))
        self.n_admitted += len(values)
        values, slots = values[-self.capacity :], serials[-self.capacity :] % self.capacity
        if self._overflow:
            for digest in self.ring[slots].tolist():
                self._overflow.pop(digest, None)
        self.ring[slots] = values
        self._insert(values, slots)

    def _bucket(self, values: UInt64s) -> Int64s:
        return ((values * _MIX) >> self._shift).astype(np.int64)

    def _insert(self, values: UInt64s, slots: Int64s) -> None:
        """Index ring slots in arrival order; an entry pushed out before it is forgotten moves to the overflow."""
        n = len(values)
        buckets = self._bucket(values)
        order = np.argsort(buckets, kind="stable")
        buckets, slots, values = buckets[order], slots[order], values[order]
        first = np.flatnonzero(np.diff(buckets, prepend=-1))
        sizes = np.diff(first, append=n)
        rank = np.arange(n) - np.repeat(first, sizes)
        ways = (self._heads[buckets] + rank) % _WAYS
        self._heads[buckets[first]] += (sizes % 256).astype(np.uint8)
        fits = np.repeat(sizes, sizes) - rank <= _WAYS
        for digest in values[~fits].tolist():
            self._overflow[digest] = None
        buckets, ways = buckets[fits], ways[fits]
        pushed = self._table[buckets, ways]
        digests = self.ring[pushed - 1]
        for digest in digests[(pushed != 0) & (self._bucket(digests) == buckets)].tolist():
            self._overflow[digest] = None
        self._table[buckets, ways] = slots[fits] + 1
