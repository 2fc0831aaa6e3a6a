"""Each line's record time and whether it lies in the future, computed in blocks beside the reading of the lines."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from stream_rec.io.lines import LineReader
from stream_rec.io.look_ahead import in_future

BLOCK_LINES = 4096
_KEPT_BLOCKS = 8

_T = TypeVar("_T")


class Block(NamedTuple):
    """Times of up to 4,096 lines; empty behind the end of the file."""

    timestamp_ms: list[int]
    """Own time; where unreadable or in the future, the largest so far."""
    in_future: list[bool]


class Timeline:
    """Times of a file's lines by block; a pure function of the file, whatever is asked in which order.

    Keeps two integers a block (4,096 lines) and the last few blocks, nothing else: reading back re-reads.
    """

    def __init__(self, path: Path, peek: Callable[[bytes], int], *, look_ahead: bool) -> None:
        """Read times with `peek` (ms, negative for none); with `look_ahead` find those in the future."""
        self._path = path
        self._peek = peek
        self._look_ahead = look_ahead
        self._places = [0]
        self._highest = [0]
        self._reader: LineReader | None = None
        self._reader_block = 0
        self._times: OrderedDict[int, NDArray[np.int64]] = OrderedDict()
        self._blocks: OrderedDict[int, Block] = OrderedDict()

    def block(self, index: int) -> Block:
        """Block `index` (lines from `index * BLOCK_LINES` on)."""
        found = self._blocks.get(index)
        if found is not None:
            return found
        for earlier in range(len(self._highest) - 1, index):
            self._judge(earlier)
        return self._judge(index)

    def place(self, index: int) -> int | None:
        """Byte of the text where block `index` begins; None behind the end of the file."""
        self.block(index)
        return self._places[index] if index < len(self._places) else None

    def reaches(self, at_ms: int) -> bool:
        """Whether some line that is not in the future has this time or a later one; reads on only as far as needed."""
        while self._highest[-1] < at_ms:
            if not self.block(len(self._highest) - 1).timestamp_ms:
                return False
        return True

    def close(self) -> None:
        """Close the file."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _judge(self, index: int) -> Block:
        own = self._read(index)
        future = np.zeros(own.size, dtype=bool)
        if self._look_ahead and own.size:
            before = self._read(index - 1) if index else own[:0]
            around = np.concatenate([before, own, self._read(index + 1)])
            future = in_future(around, before.size, before.size + own.size)
        usable = np.where(future, -1, own)
        highest = np.maximum.accumulate(np.concatenate([[self._highest[index]], usable]))[1:] if own.size else own
        stamps = np.where(usable >= 0, usable, highest)
        if index + 1 == len(self._highest):
            self._highest.append(int(highest[-1]) if own.size else self._highest[index])
        block = Block(stamps.tolist(), future.tolist())
        _keep(self._blocks, index, block)
        return block

    def _read(self, index: int) -> NDArray[np.int64]:
        found = self._times.get(index)
        if found is not None:
            return found
        if index >= len(self._places):
            return np.zeros(0, dtype=np.int64)
        reader = self._reader_at(index)
        times = np.fromiter((self._peek(line) for line in _up_to(reader, BLOCK_LINES)), dtype=np.int64)
        self._reader_block = index + 1
        if times.size == BLOCK_LINES and index + 1 == len(self._places):
            self._places.append(reader.place)
        _keep(self._times, index, times)
        return times

    def _reader_at(self, index: int) -> LineReader:
        if self._reader is None or self._reader_block != index:
            self.close()
            self._reader = LineReader(self._path, at_byte=self._places[index])
        return self._reader


def _up_to(reader: LineReader, n_lines: int) -> Iterator[bytes]:
    for _ in range(n_lines):
        line = reader.read()
        if line is None:
            return
        yield line


def _keep(kept: OrderedDict[int, _T], index: int, value: _T) -> None:
    kept[index] = value
    if len(kept) > _KEPT_BLOCKS:
        kept.popitem(last=False)
