"""Finds the rows of a table by 64-bit hash, a tick at a time: a hash index in two numpy arrays.

Fixed buckets of 16 entries, a quarter full on average; an entry is a row, and its tag, a byte of the hash, rules out
nearly every foreign row without looking at it. What finds its bucket full goes to a dict, one in a million for hashes
that nobody chose. Nothing is ever moved or rehashed, so it never stalls the loop, and the size is fixed at the start;
a Python dict of bytes takes five times the memory and rehashes a million keys at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_WAYS = 16
_MIX = np.uint64(0x9E3779B97F4A7C15)
"""2^64 / golden ratio: Fibonacci hashing (Knuth, The Art of Computer Programming 3, section 6.4)."""
_CHUNK = 1 << 16

UInt64s = np.ndarray[Any, np.dtype[np.uint64]]
Int64s = np.ndarray[Any, np.dtype[np.int64]]
Bytes = np.ndarray[Any, np.dtype[np.uint8]]


class RowIndex:
    """Maps hashes to rows, several rows a hash allowed. Derived state: its layout never shows in an answer.

    Args:
        capacity: most entries at a time.

    >>> index = RowIndex(capacity=100)
    >>> index.insert(np.array([7, 8], np.uint64), np.array([3, 4]))
    >>> index.candidates(np.array([8, 9, 7], np.uint64))
    (array([0, 2]), array([4, 3]))
    """

    def __init__(self, capacity: int) -> None:
        n_bits = max(1, (capacity * 4 // _WAYS - 1).bit_length())
        self._shift = np.uint64(64 - n_bits)
        self._rows = np.zeros((1 << n_bits, _WAYS), np.int32)
        self._tags = np.zeros((1 << n_bits, _WAYS), np.uint8)
        """0 = no entry."""
        self._overflow: dict[int, list[int]] = {}

    @property
    def n_overflowed(self) -> int:
        """Hashes outside the buckets."""
        return len(self._overflow)

    def candidates(self, hashes: UInt64s) -> tuple[Int64s, Int64s]:
        """Rows that may belong to the hashes; the caller compares the keys.

        Args:
            hashes: uint64 [n].

        Returns:
            Two arrays of one length: indexes into `hashes`, and a candidate row for each.
        """
        buckets, tags = self._place(hashes)
        match = np.flatnonzero(self._tags[buckets] == tags[:, None])
        which = match // _WAYS
        rows = self._rows[buckets[which], match % _WAYS].astype(np.int64)
        if self._overflow:
            known = np.flatnonzero(np.isin(hashes, np.array(list(self._overflow), np.uint64)))
            more = [(i, row) for i in known.tolist() for row in self._overflow[int(hashes[i])]]
            extra = np.array(more, np.int64).reshape(-1, 2)
            which, rows = np.concatenate((which, extra[:, 0])), np.concatenate((rows, extra[:, 1]))
        return which, rows

    def insert(self, hashes: UInt64s, rows: Int64s) -> None:
        """Add entries; none of them may be there already."""
        for at in range(0, len(hashes), _CHUNK):
            self._insert(hashes[at : at + _CHUNK], rows[at : at + _CHUNK])

    def _insert(self, hashes: UInt64s, rows: Int64s) -> None:
        buckets, tags = self._place(hashes)
        while len(rows):
            taken = self._tags[buckets] != 0
            ways = taken.argmin(axis=1)
            full = taken[np.arange(len(rows)), ways]
            for h, row in zip(hashes[full].tolist(), rows[full].tolist(), strict=True):
                self._overflow.setdefault(h, []).append(row)
            at, way = buckets[~full], ways[~full]
            # Of several that chose one place the last stays; the others try again.
            self._rows[at, way], self._tags[at, way] = rows[~full], tags[~full]
            left = np.flatnonzero(~full)[self._rows[at, way] != rows[~full]]
            # Their tag may differ from the winner's, whose tag was written last as well, so it stands.
            buckets, tags, hashes, rows = buckets[left], tags[left], hashes[left], rows[left]

    def remove(self, hashes: UInt64s, rows: Int64s) -> None:
        """Take entries out; each of them must be there."""
        buckets, tags = self._place(hashes)
        match = np.flatnonzero(self._tags[buckets] == tags[:, None])
        match = match[self._rows[buckets[match // _WAYS], match % _WAYS] == rows[match // _WAYS]]
        which = match // _WAYS
        self._tags[buckets[which], match % _WAYS] = 0
        if len(which) < len(rows):
            for i in np.setdiff1d(np.arange(len(rows)), which).tolist():
                kept = self._overflow[int(hashes[i])]
                kept.remove(int(rows[i]))
                if not kept:
                    del self._overflow[int(hashes[i])]

    def _place(self, hashes: UInt64s) -> tuple[Int64s, Bytes]:
        """Bucket, from the top bits of the mixed hash, and tag, from the lowest byte of its upper half; never 0."""
        mixed = hashes * _MIX
        tags = (mixed >> np.uint64(32)).astype(np.uint8) | np.uint8(1)
        return (mixed >> self._shift).astype(np.int64), tags
