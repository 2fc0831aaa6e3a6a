"""What waits for MLflow: a bounded queue beside the loop, a thread that empties it, and a folder that outlives a crash.

    DIR/mlflow-waiting/TICK/news.json                what a tick said of versions
    DIR/mlflow-waiting/TICK/statistics.safetensors   the statistics of that tick, where a version began to serve
    DIR/mlflow-waiting/points.jsonl                  metric points that could not be delivered

MLflow may be slow, down or full: the loop never waits for it. News are never dropped; of metric points the oldest are,
once more than `max_points` wait, and they are counted.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np

from stream_rec.io.durable import replace_file
from stream_rec.io.tensors import encode_scalars, pack, unpack

LOG = logging.getLogger(__name__)
NAME = "mlflow-waiting"
BATCH = 1_000
"""Points of one request."""
MAX_UNWRITTEN = 4
"""Statistics in memory that a slow disk has not taken; a version that begins to serve then goes without its own."""

Columns = dict[str, Any]


class Point(NamedTuple):
    """One value of a metric."""

    key: str
    value: float
    step: int
    """Events seen."""
    at_ms: int
    """Event time."""


class News(msgspec.Struct):
    """What one tick said of versions."""

    tick: int
    at_ms: int
    step: int
    """Events seen."""
    notices: list[dict[str, Any]]
    """Records of the `versions` topic, in order."""
    slates: list[dict[str, Any]] = []  # msgspec copies an empty default for each instance
    """A few slates of the tick, without keys."""
    checkpoints: dict[str, str] = {}
    """Version to the checkpoint of its cut."""


class Sink(Protocol):
    """Where it goes. Any exception means: not now."""

    def begin(self, waiting: frozenset[str], before: int) -> None:
        """Be ready; called before each delivery.

        Args:
            waiting: versions whose news are in the queue.
            before: newest tick that was told of in an earlier life, and may not have arrived.
        """
        ...

    def points(self, points: Sequence[Point]) -> None:
        """Take up to BATCH points; taking one twice changes nothing."""
        ...

    def news(self, news: News, statistics: Path | None) -> None:
        """Take what a tick said; taking it twice changes nothing."""
        ...

    def end(self) -> None:
        """Nothing more comes."""
        ...

    def drop(self) -> None:
        """Give up what is being done; called from another thread."""
        ...


@dataclass(slots=True)
class _Entry:
    news: News
    folder: Path
    written: Future[None] | None = None

    def versions(self) -> set[str]:
        return {str(notice["version"]) for notice in self.news.notices if "version" in notice}


@dataclass(slots=True)
class Told:
    """How the deliveries go."""

    n_dropped: int = 0
    """Metric points that were given up."""
    n_delivered: int = 0
    """News that arrived."""
    n_failures: int = 0
    error: str = ""
    """Why the last delivery failed; empty when it did not."""
    entries: deque[_Entry] = field(default_factory=deque)


class Outbox:
    """See the module docstring. `points`, `news` and `settle` are the loop's; each takes well under a millisecond.

    Args:
        folder: the run folder.
        sink: used by the outbox's thread only.
        max_points: metric points that may wait.
        back_off_s: first and longest wait after a failure.
    """

    def __init__(
        self, folder: Path, sink: Sink, *, max_points: int = 50_000, back_off_s: tuple[float, float] = (1.0, 60.0)
    ) -> None:
        self.folder, self.told = folder / NAME, Told()
        self._sink, self._max_points, self._back_off_s = sink, max_points, back_off_s
        self._points: deque[Point] = deque()
        self._changed = threading.Condition()
        self._closing = self._knocked = False
        self._before = -1
        self._copier = ThreadPoolExecutor(1, thread_name_prefix="registry-copy")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="registry-write")
        self._copying: Future[Columns] | None = None
        self._unwritten: list[Future[None]] = []
        self._load()
        self._thread = threading.Thread(target=self._run, name="registry", daemon=True)
        self._thread.start()

    # ---- the loop's side

    def points(self, points: Sequence[Point]) -> None:
        """Hand over metric points."""
        with self._changed:
            self._points.extend(points)
            self._trim()
            self._changed.notify()

    def news(
        self, news: News, copy: Callable[[], Columns] | None = None, compact: Callable[[Columns], Columns] | None = None
    ) -> None:
        """Hand over what a tick said.

        Args:
            news: of the tick.
            copy: copies the statistics; runs in a thread until `settle` returns.
            compact: makes them small; runs in the same thread, before the next copy.
        """
        entry = _Entry(news, self.folder / f"{news.tick:012d}")
        self._unwritten = [future for future in self._unwritten if not future.done()]
        small = None
        if copy is not None and compact is not None and len(self._unwritten) < MAX_UNWRITTEN:
            copying = self._copying = self._copier.submit(copy)
            small = self._copier.submit(lambda: compact(copying.result()))
        entry.written = self._writer.submit(_write, entry, small)
        if small is not None:
            self._unwritten.append(entry.written)
        with self._changed:
            self.told.entries.append(entry)
            self._changed.notify()

    def look_back(self, before: int) -> None:
        """Have the sink compare what it has with all that was told up to tick `before`."""
        with self._changed:
            self._before = before
            self._knocked = True
            self._changed.notify()

    def prepare(self, work: Callable[[], None]) -> Future[None]:
        """Do something in the thread of the copies, behind what it has to do and before the next one."""
        return self._copier.submit(work)

    def settle(self) -> None:
        """Return when nobody reads the state any more; called before the state changes."""
        if self._copying is not None:
            self._copying.exception()
            self._copying = None

    def close(self, timeout_s: float) -> bool:
        """Deliver what waits, within a time and not beyond a failure; says whether nothing is left.

        What is left stays in the folder for the next start.
        """
        self.settle()
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self._sink.drop()
            self._thread.join(timeout_s)
        self._copier.shutdown()
        self._writer.shutdown()
        with self._changed:
            self._spill()
            left = bool(self._points or self.told.entries)
        if not left:
            shutil.rmtree(self.folder, ignore_errors=True)
        return not left

    # ---- the thread's side

    def _run(self) -> None:
        wait_s = self._back_off_s[0]
        while self._something():
            last = self._closing
            try:
                self._deliver()
                self.told.error, wait_s = "", self._back_off_s[0]
            except Exception as error:
                self._failed(error)
                if last:
                    break
                with self._changed:
                    self._changed.wait_for(lambda: self._closing, wait_s)
                wait_s = min(2 * wait_s, self._back_off_s[1])
        with suppress(Exception):
            self._sink.end()

    def _something(self) -> bool:
        """Wait for something to deliver; False when there is nothing more to wait for."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self._waits())
            return self._waits()

    def _waits(self) -> bool:
        return bool(self._knocked or self._points or self.told.entries)

    def _deliver(self) -> None:
        with self._changed:
            knocked, self._knocked = self._knocked, False
            entry = self.told.entries[0] if self.told.entries else None
            waiting = frozenset(version for held in self.told.entries for version in held.versions())
            batch = [self._points.popleft() for _ in range(min(BATCH, len(self._points)))]
        try:
            self._sink.begin(waiting, self._before)
            knocked = False
            if batch:
                self._sink.points(batch)
                batch = []
        finally:
            with self._changed:
                self._knocked |= knocked
                self._points.extendleft(reversed(batch))
                self._trim()
        if entry is not None:
            if entry.written is not None:
                entry.written.exception()
            path = entry.folder / "statistics.safetensors"
            self._sink.news(entry.news, path if path.exists() else None)
            with self._changed:
                self.told.entries.popleft()
                self.told.n_delivered += 1
                self._changed.notify_all()
            shutil.rmtree(entry.folder, ignore_errors=True)

    def _failed(self, error: Exception) -> None:
        words = f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"
        if not self.told.error:
            LOG.warning("MLflow takes nothing now (%s); the run goes on without it and catches up", words)
        with self._changed:
            self.told.error = words
            self.told.n_failures += 1
            self._spill()
            self._changed.notify_all()

    def _trim(self) -> None:
        while len(self._points) > self._max_points:
            self._points.popleft()
            self.told.n_dropped += 1

    # ---- the folder

    def _spill(self) -> None:
        path = self.folder / "points.jsonl"
        with suppress(OSError):
            if self._points:
                self.folder.mkdir(parents=True, exist_ok=True)
                replace_file(path, [msgspec.json.encode(point) + b"\n" for point in self._points])
            else:
                path.unlink(missing_ok=True)

    def _load(self) -> None:
        """Take up what an earlier life left; what a crash cut short is said by the notices again."""
        if not self.folder.is_dir():
            return
        for path in sorted(self.folder.glob("*/news.json")):
            with suppress(OSError, msgspec.DecodeError):
                self.told.entries.append(_Entry(msgspec.json.decode(path.read_bytes(), type=News), path.parent))
        with suppress(OSError, msgspec.DecodeError):
            lines = (self.folder / "points.jsonl").read_bytes().splitlines()
            self._points.extend(msgspec.json.decode(line, type=Point) for line in lines)


def read_columns(path: Path) -> dict[str, Any]:
    """Statistics as they were written.

    Raises:
        ValueError: this is no such file.
    """
    return unpack(np.frombuffer(bytearray(path.read_bytes()), np.uint8))


def _write(entry: _Entry, small: Future[Columns] | None) -> None:
    """Statistics first: news that are found again then have theirs. A disk that is full costs what it cannot hold."""
    with suppress(OSError):
        entry.folder.mkdir(parents=True, exist_ok=True)
        if small is not None:
            columns = small.result()
            replace_file(entry.folder / "statistics.safetensors", pack(columns, encode_scalars(columns)))
        replace_file(entry.folder / "news.json", [msgspec.json.encode(entry.news)])
