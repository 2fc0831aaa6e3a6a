"""How far a long job is: a bar with rate and ETA on a terminal, plain lines otherwise."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from stream_rec.effects import Effects
from stream_rec.stream.tick import Tick

PLAIN_EVERY_S = 5.0


class Progress:
    """Counts committed records against the share of the input that was read. Writes to standard error."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._console = Console(file=sys.stderr)
        columns = (
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"), TimeRemainingColumn(),
        )  # fmt: skip
        self._bar = RichProgress(*columns, console=self._console) if self._console.is_terminal else None
        self._task: TaskID | None = None
        self._waiting = 0
        self._done = 0
        self._began = self._said = time.monotonic()

    def __enter__(self) -> Progress:
        if self._bar:
            self._bar.start()
            self._task = self._bar.add_task(self._what, total=None, rate="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()
        elif self._done and kind is None:
            self._say()

    def read(self, n_bytes: int, total_bytes: int) -> None:
        """Say how much of the input was read; what is left is estimated from it."""
        self._waiting = int(self._done * (total_bytes / n_bytes - 1)) if n_bytes else 0

    def committed(self, tick: Tick, effects: Effects) -> None:
        """Take note of a committed tick."""
        del effects
        self._done += sum(r.n_records for r in tick.ranges)
        if self._bar and self._task is not None:
            total = self._done + self._waiting if self._waiting else None
            self._bar.update(self._task, completed=self._done, total=total, rate=f"{self._rate():,.0f}/s")
        elif time.monotonic() - self._said >= PLAIN_EVERY_S:
            self._say()

    def _rate(self) -> float:
        return self._done / max(time.monotonic() - self._began, 1e-9)

    def _say(self) -> None:
        self._said = time.monotonic()
        rate = self._rate()
        left = f", about {self._waiting / rate:,.0f} s left" if self._waiting and rate else ""
        self._console.print(f"{self._what}: {self._done:,} records, {rate:,.0f}/s{left}", highlight=False)
