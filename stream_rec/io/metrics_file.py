"""`metrics.jsonl` of a run whose ledger is a topic: lines that no reader of the topics needs, each exactly once.

A line is appended just before the transaction of its tick. What a crash leaves behind of a tick that was never
committed is cut off when the ledger has been read: every line names its tick.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from stream_rec.io.run_folder import intact_bytes


class _Line(msgspec.Struct):
    tick: int


class MetricsFile:
    """Lines of one run folder. A disk that is full loses lines and stops nobody.

    Args:
        path: made at the first line.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.n_lost = 0

    def cut(self, tick: int) -> None:
        """Drop lines of ticks above `tick`, which were never committed."""
        if not self._path.exists():
            return
        keep = 0
        with self._path.open("rb") as file:
            left = intact_bytes(self._path)
            for line in file:
                left -= len(line)
                if left < 0 or not self._is_of(line, tick):
                    break
                keep += len(line)
        with self._path.open("r+b") as file:
            file.truncate(keep)

    def _is_of(self, line: bytes, tick: int) -> bool:
        with suppress(msgspec.DecodeError):
            return msgspec.json.decode(line, type=_Line).tick <= tick
        return False

    def append(self, lines: Sequence[bytes]) -> None:
        """Write the lines of one tick."""
        if not lines:
            return
        try:
            with self._path.open("ab") as file:
                file.write(b"".join(line + b"\n" for line in lines))
        except OSError:
            self.n_lost += len(lines)

    def close(self) -> None:
        """Nothing is held open."""
