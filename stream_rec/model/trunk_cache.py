"""The lower layers' states of each text, kept in float16: a cache of a pure function, never truth.

One file, mapped into memory (or plain memory without a path): a header, a table of entries and a ring of token rows.
Both are rings in the order of writing, so the oldest texts go first. Each entry carries a checksum of its rows, looked
at on every read: a torn write, a foreign byte or rows overwritten by a second writer are a miss, never a wrong state.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Halves = npt.NDArray[np.float16]

FORMAT = 1
ZEROS = bytes(1 << 20)
HEADER_BYTES = 4_096
TOKENS_A_TEXT = 8
"""The table has an entry for so many token rows; texts shorter than this on average are bounded by it."""
_HEADER = np.dtype([("magic", "S16"), ("key", "S32"), ("width", "<i8"), ("n_rows", "<i8"), ("n_entries", "<i8")])
_ENTRY = np.dtype([("text", "V16"), ("number", "<i8"), ("first", "<i8"), ("length", "<i4"), ("check", "<u4")])


class TrunkCache:
    """States of texts by text, of one base at a time.

    Args:
        path: of the file, made when it is not there; None keeps everything in memory.
        max_bytes: of file or memory, with the table.

    >>> cache = TrunkCache(max_bytes=100_000)
    >>> cache.bind("base-1", width=4)
    >>> cache.put("a jug", np.ones((3, 4), np.float16))
    >>> cache.get("a jug").shape, cache.get("a vase")
    ((3, 4), None)
    >>> cache.bind("base-2", width=4)
    >>> cache.get("a jug")
    """

    def __init__(self, path: str | None = None, *, max_bytes: int = 1 << 30) -> None:
        self.path, self.max_bytes = path, max_bytes
        self.n_hits = self.n_misses = self.n_evicted = 0
        self._numbers: dict[bytes, int] = {}
        self._next = self._oldest = self._head = 0

    def bind(self, base: str, width: int) -> None:
        """Hold states of `base` from now on; what the file holds of another base, or anything else, is dropped.

        Args:
            base: names everything that a state depends on besides the text.
            width: of a state.

        Raises:
            ValueError: `max_bytes` has no room for anything.
            OSError: the file cannot be made, or the disk has no room for all of it.
        """
        row_bytes = 2 * width
        room = self.max_bytes - HEADER_BYTES
        n_entries = room // (TOKENS_A_TEXT * row_bytes + _ENTRY.itemsize)
        n_rows = (room - n_entries * _ENTRY.itemsize) // row_bytes
        if n_entries < 1:
            raise ValueError(f"{self.max_bytes} bytes hold no text of width {width}")
        header = np.zeros((), _HEADER)
        key = hashlib.sha256(base.encode()).hexdigest()[:32].encode()
        header[()] = (f"stream_rec {FORMAT}".encode(), key, width, n_rows, n_entries)
        whole = self._open(header.tobytes(), HEADER_BYTES + n_entries * _ENTRY.itemsize + n_rows * row_bytes)
        at = HEADER_BYTES + n_entries * _ENTRY.itemsize
        self._entries: npt.NDArray[Any] = whole[HEADER_BYTES:at].view(_ENTRY)
        self._rows: Halves = whole[at:].view(np.float16).reshape(n_rows, width)
        self._recall()

    def get(self, text: str) -> Halves | None:
        """States float16 [tokens, width] of a text, a copy; None when they are not here."""
        key = _key(text)
        number = self._numbers.get(key)
        if number is not None:
            entry = self._entries[number % len(self._entries)]
            first, length = int(entry["first"]), int(entry["length"])
            rows = self._rows[first : first + length].copy()
            if _check(key, rows) == int(entry["check"]):
                self.n_hits += 1
                return rows
            del self._numbers[key]
        self.n_misses += 1
        return None

    def put(self, text: str, states: Halves) -> None:
        """Keep the states [tokens, width] of a text, unless they are longer than the ring; the oldest make room."""
        key, length = _key(text), len(states)
        if key in self._numbers or not 0 < length <= len(self._rows):
            return
        first = self._head if self._head + length <= len(self._rows) else 0
        self._make_room(first, length)
        number = self._next
        self._rows[first : first + length] = states
        self._entries[number % len(self._entries)] = (key, number, first, length, _check(key, states))
        self._numbers[key] = number
        self._next, self._head = number + 1, first + length

    def __len__(self) -> int:
        return len(self._numbers)

    def _open(self, header: bytes, n_bytes: int) -> npt.NDArray[np.uint8]:
        if self.path is None:
            return np.zeros(n_bytes, np.uint8)
        try:
            whole = np.memmap(self.path, np.uint8, "r+")
            if len(whole) == n_bytes and whole[: len(header)].tobytes() == header:
                return whole
        except (FileNotFoundError, ValueError):  # ValueError: the file is empty
            pass
        # Written, not only made so long: where a hole of a mapped file finds the disk full, the process is killed.
        with open(self.path, "wb") as file:  # noqa: PTH123
            for low in range(0, n_bytes, len(ZEROS)):
                file.write(ZEROS[: n_bytes - low])
        whole = np.memmap(self.path, np.uint8, "r+")
        whole[: len(header)] = np.frombuffer(header, np.uint8)
        return whole

    def _recall(self) -> None:
        """Find the newest unbroken run of entries; what lies before it is lost, which costs a computation each."""
        self._numbers = {}
        n_entries, n_rows = len(self._entries), len(self._rows)
        number, first, length = (self._entries[name].astype(np.int64) for name in ("number", "first", "length"))
        own = (length > 0) & (length <= n_rows) & (first >= 0) & (first <= n_rows - length) & (number >= 0)
        held = np.flatnonzero(own & (number % n_entries == np.arange(n_entries)))
        held = held[np.argsort(number[held])]
        broken = np.flatnonzero(np.diff(number[held]) != 1)
        held = held[broken[-1] + 1 if len(broken) else 0 :]
        self._next = int(number[held[-1]]) + 1 if len(held) else 0
        self._head = int(first[held[-1]] + length[held[-1]]) if len(held) else 0
        self._oldest = self._next - len(held)
        for slot in held.tolist():
            self._numbers[self._entries[slot]["text"].tobytes()] = int(number[slot])

    def _make_room(self, first: int, length: int) -> None:
        """Drop the oldest entries until none overlaps the rows to be written and a slot of the table is free."""
        while self._oldest < self._next:
            entry = self._entries[self._oldest % len(self._entries)]
            low, high = int(entry["first"]), int(entry["first"]) + int(entry["length"])
            skipped = first == 0 and low >= self._head and self._head > 0
            overlaps = low < first + length and first < high
            if not (overlaps or skipped or self._next - self._oldest >= len(self._entries)):
                return
            key = entry["text"].tobytes()
            if self._numbers.get(key) == self._oldest:
                del self._numbers[key]
            self._oldest += 1
            self.n_evicted += 1


def get_all(cache: TrunkCache | None, texts: Sequence[str]) -> list[Halves | None]:
    """What a cache holds of each text; nothing without a cache."""
    return [None] * len(texts) if cache is None else [cache.get(text) for text in texts]


def _key(text: str) -> bytes:
    # JSON may hold half a surrogate pair.
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _check(key: bytes, rows: Halves) -> int:
    return zlib.crc32(np.ascontiguousarray(rows).data.cast("B"), zlib.crc32(key))
