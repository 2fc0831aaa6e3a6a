"""A person sees how far the demo is and how it does, with and without a terminal."""

from __future__ import annotations

import io

from rich.console import Console

from stream_rec.demo import PLAIN_STEPS, DemoView, live_line

STATS = {
    "events_per_s": 2345.6,
    "click_rate": 0.314,
    "recall": 0.21,
    "version": "v3-0a1b2c",
    "lag": 12,
}


DAY_MS = 86_400_000


def watched(*, terminal: bool, n_days: int = 100, width: int = 80, stats: dict[str, object] = STATS) -> str:
    out, at_s = io.StringIO(), [0.0]
    console = Console(file=out, force_terminal=terminal, width=width)
    with DemoView(console, now_s=lambda: at_s[0]) as view:
        for day in range(1, n_days + 1):
            at_s[0] = float(day)
            view.update(day * DAY_MS, n_days * DAY_MS, stats)
    return out.getvalue()


def test_without_a_terminal_there_are_twenty_plain_lines() -> None:
    lines = watched(terminal=False).splitlines()
    assert len(lines) == PLAIN_STEPS
    assert lines[9] == " 50%  day 50 of 100, 0:50 left | " + live_line(STATS)
    assert lines[-1] == "100%  day 100 of 100 | " + live_line(STATS)
    assert not any("\x1b" in line for line in lines)


def test_on_a_terminal_there_are_a_bar_the_time_left_and_a_live_line() -> None:
    text = watched(terminal=True)
    assert "100%" in text
    assert "day 50 of 100, 0:50 left" in text
    assert "2,346 events/s" in text
    assert "v3-0a1b2c" in text


def test_nothing_is_cut_off_on_80_columns_with_large_figures() -> None:
    large = {"events_per_s": 12_345.0, "click_rate": 0.314, "recall": 0.21, "version": "v123", "lag": 12_345}
    text = watched(terminal=True, stats=large)
    assert "lag 12,345" in text
    assert "…" not in text


def test_what_is_not_known_yet_is_left_out() -> None:
    assert live_line({"events_per_s": 10.0, "click_rate": None, "version": "v0"}) == "10 events/s | v0"


def test_the_tail_after_the_last_visit_is_the_whole() -> None:
    out = io.StringIO()
    with DemoView(Console(file=out)) as view:
        view.update(12 * DAY_MS, 10 * DAY_MS, {})
    assert out.getvalue().startswith("100%  day 10 of 10")
