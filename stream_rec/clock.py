"""Where the worker reads the time. Inside the pipeline there is no clock: the only time there is the tick's."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time in ms since the epoch and waits."""

    def now_ms(self) -> int:
        """Milliseconds since 1970-01-01 UTC."""
        ...

    def wait(self, duration_ms: int) -> None:
        """Return after about `duration_ms` of this clock's time."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        """Milliseconds since 1970-01-01 UTC."""
        return time.time_ns() // 1_000_000

    def wait(self, duration_ms: int) -> None:
        """Sleep for `duration_ms`."""
        time.sleep(duration_ms / 1000)


class ManualClock:
    """A clock that moves only when told; `wait` moves it, so nothing ever sleeps in a test."""

    def __init__(self, now_ms: int = 0) -> None:
        self._now_ms = now_ms

    def now_ms(self) -> int:
        """The time it was last set to."""
        return self._now_ms

    def wait(self, duration_ms: int) -> None:
        """Advance by `duration_ms`."""
        self._now_ms += duration_ms

    def set(self, now_ms: int) -> None:
        """Move forward to `now_ms`; a clock never runs backwards."""
        self._now_ms = max(self._now_ms, now_ms)
