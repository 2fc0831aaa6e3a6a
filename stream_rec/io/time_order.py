"""Stable sorting of lines by time in bounded memory: sorted runs on disk, merged at the end."""

from __future__ import annotations

import heapq
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from operator import itemgetter
from pathlib import Path
from typing import IO

Timed = tuple[int, bytes]
"""(time in ms, line without LF)."""

RUN_LINES = 400_000
"""Lines sorted in memory at once: about 150 MB."""

_time = itemgetter(0)


def in_time_order(lines: Iterable[Timed], folder: Path, *, run_lines: int = RUN_LINES) -> Iterator[Timed]:
    """The lines by time; equal times keep their order.

    More than `run_lines` go through temporary files in `folder`, which are gone afterwards.

    >>> [line for _, line in in_time_order([(2, b"b"), (1, b"a"), (2, b"c")], Path("."))]
    [b'a', b'b', b'c']
    """
    with ExitStack() as stack:
        runs: list[IO[bytes]] = []
        run: list[Timed] = []
        for line in lines:
            run.append(line)
            if len(run) == run_lines:
                runs.append(stack.enter_context(tempfile.TemporaryFile(dir=folder)))
                _write(runs[-1], sorted(run, key=_time))
                run = []
        run.sort(key=_time)
        # merge keeps the order of its inputs at equal times: earlier runs come first.
        yield from heapq.merge(*map(_read, runs), run, key=_time) if runs else run


def _write(file: IO[bytes], run: list[Timed]) -> None:
    for at_ms, line in run:
        file.write(b"%d\t%b\n" % (at_ms, line))
    file.seek(0)


def _read(file: IO[bytes]) -> Iterator[Timed]:
    for stored in file:
        at, _, line = stored[:-1].partition(b"\t")
        yield int(at), line
