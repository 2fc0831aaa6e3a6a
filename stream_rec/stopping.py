"""How a person or a supervisor ends a long command: the first signal asks, the second ends at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopping:
    """Turns SIGINT and SIGTERM into a wish that a loop asks for between ticks; use it as a context.

    `stopping()` says whether somebody asked. Until `gently` is called, and from the second signal on,
    KeyboardInterrupt is raised at once. Outside the main thread signals are left alone.
    """

    def __init__(self) -> None:
        self._gently = False
        self._asked = False
        self._before: dict[signal.Signals, Any] = {}

    def __call__(self) -> bool:
        """Whether a signal came."""
        return self._asked

    def __enter__(self) -> Stopping:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, receiver in self._before.items():
            signal.signal(number, receiver)

    def gently(self) -> None:
        """From now on the first signal only asks: somebody looks at it."""
        self._gently = True

    def _receive(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._asked or not self._gently:
            raise KeyboardInterrupt
        self._asked = True
