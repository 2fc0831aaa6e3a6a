"""What a person sees of `stream-rec demo` while it runs: a bar and a live line, or plain lines without a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.text import Text

from stream_rec.progress import TimeLeft, clock_text

PLAIN_STEPS = 20
"""How many plain lines there are."""
DAY_MS = 86_400_000


class DemoView:
    """Shows how far the demo is and how it does; use it as a context.

    On a terminal the bar and the live line are drawn in place; elsewhere PLAIN_STEPS lines are printed.
    """

    def __init__(
        self, console: Console, *, what: str = "simulated shop", now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console
        self._now_s = now_s
        self._left = TimeLeft()
        self._live_line = Text()
        self._told = 0
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TextColumn("{task.fields[words]}"),
            console=console,
            expand=True,
        )
        self._task = self._progress.add_task(what, total=1.0, words="")
        self._live = Live(get_renderable=self._render, console=console, auto_refresh=False)

    def __enter__(self) -> DemoView:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def update(self, done_ms: int, total_ms: int, stats: Mapping[str, Any]) -> None:
        """Show that `done_ms` of `total_ms` simulated time are over, how long the rest takes, and how it goes.

        `stats` may say `events_per_s`, `click_rate`, `recall`, `version` and `lag` (records waiting); what is missing
        or None is left out.
        """
        share = min(1.0, done_ms / max(total_ms, 1))
        words = f"day {min(done_ms, total_ms) / DAY_MS:.0f} of {total_ms / DAY_MS:.0f}"
        if left_s := self._left.at(share, self._now_s()):
            words = f"{words}, {clock_text(left_s)} left"
        if self._console.is_terminal:
            self._progress.update(self._task, completed=share, words=words)
            self._live_line = Text(live_line(stats), style="cyan", no_wrap=True, overflow="ellipsis")
            self._live.refresh()
        elif (step := int(PLAIN_STEPS * share)) > self._told:
            self._told = step
            self._console.print(f"{share:4.0%}  {words} | {live_line(stats)}", highlight=False, soft_wrap=True)

    def _render(self) -> Group:
        return Group(self._progress.get_renderable(), self._live_line)


def live_line(stats: Mapping[str, Any]) -> str:
    """The figures of the moment in one line.

    >>> live_line({"events_per_s": 2345.6, "click_rate": 0.314, "recall": 0.2841, "version": "v3", "lag": 0})
    '2,346 events/s | click rate 31.4% | recall@20 0.284 | v3 | lag 0'
    """
    forms: dict[str, Callable[[Any], str]] = {
        "events_per_s": lambda rate: f"{rate:,.0f} events/s",
        "click_rate": lambda rate: f"click rate {rate:.1%}",
        "recall": lambda recall: f"recall@20 {recall:.3f}",
        "version": str,
        "lag": lambda n: f"lag {n:,}",
    }
    return " | ".join(form(stats[name]) for name, form in forms.items() if stats.get(name) is not None)
