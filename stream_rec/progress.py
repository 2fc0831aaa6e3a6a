"""How far a long job is: a bar with rate and time left on a terminal, plain lines otherwise."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TaskID, TaskProgressColumn, TextColumn
from rich.progress import Progress as RichProgress

from stream_rec.effects import Effects
from stream_rec.stream.tick import Tick

PLAIN_EVERY_S = 5.0
SETTLED_S = 1.0
"""No time left is told before so long: the first ticks are no measure."""


class TimeLeft:
    """Seconds left by the share that was done since the first look, so that a resumed job is not taken for a fast one.

    >>> left = TimeLeft()
    >>> left.at(0.5, 100.0), left.at(0.75, 110.0)
    (None, 10.0)
    """

    def __init__(self) -> None:
        self._first: tuple[float, float] | None = None

    def at(self, share: float, now_s: float) -> float | None:
        """Seconds left at time `now_s` with `share` (0 to 1) of the job done; None while it cannot be told."""
        if self._first is None:
            self._first = share, now_s
        did, took_s = share - self._first[0], now_s - self._first[1]
        return took_s * (1 - share) / did if did > 0 and took_s >= SETTLED_S else None


def clock_text(seconds: float) -> str:
    """Seconds as people read them.

    >>> clock_text(75.4), clock_text(3_725)
    ('1:15', '1:02:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Progress:
    """Counts records against the bytes of the input that were read. Writes to standard error.

    Args:
        what: the job.
        unit: what is counted.
        timed: whether the bytes read tell the time left; they do not where a part of the input is passed over.
        console: where to write; standard error when None.
        now_s: the clock.
    """

    def __init__(
        self,
        what: str,
        *,
        unit: str = "records",
        timed: bool = True,
        console: Console | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what, self._unit, self._timed, self._now_s = what, unit, timed, now_s
        self._console = console or Console(file=sys.stderr)
        columns = (
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=18), TaskProgressColumn(),
            TextColumn("{task.fields[words]}"),
        )  # fmt: skip
        self._bar = RichProgress(*columns, console=self._console) if self._console.is_terminal else None
        self._task: TaskID | None = None
        self._share: float | None = None
        self._left = TimeLeft()
        self._done = 0
        self._began_s = self._said_s = now_s()

    def __enter__(self) -> Progress:
        if self._bar:
            self._bar.start()
            self._task = self._bar.add_task(self._what, total=None, words="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()
        elif self._done and kind is None:
            self._say()

    def read(self, n_bytes: int, total_bytes: int) -> None:
        """Say how much of the input was read."""
        self._share = n_bytes / total_bytes if total_bytes else None

    def committed(self, tick: Tick, effects: Effects) -> None:
        """Take note of a committed tick."""
        del effects
        self.count(sum(r.n_records for r in tick.ranges))

    def count(self, n: int) -> None:
        """Take note of `n` more of them."""
        self._done += n
        if self._bar and self._task is not None:
            total = None if self._share is None else 1.0
            self._bar.update(self._task, completed=self._share or 0.0, total=total, words=self._words())
        elif self._now_s() - self._said_s >= PLAIN_EVERY_S:
            self._say()

    def _words(self) -> str:
        now_s = self._now_s()
        words = f"{self._done:,} {self._unit}, {self._done / max(now_s - self._began_s, 1e-9):,.0f}/s"
        left_s = self._left.at(self._share, now_s) if self._timed and self._share is not None else None
        return f"{words}, {clock_text(left_s)} left" if left_s else words

    def _say(self) -> None:
        self._said_s = self._now_s()
        share = "" if self._share is None else f"{self._share:.0%}, "
        self._console.print(f"{self._what}: {share}{self._words()}", highlight=False, soft_wrap=True)
