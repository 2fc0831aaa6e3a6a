"""A person sees how far the demo is and how it does, with and without a terminal."""

from __future__ import annotations

import io

from rich.console import Console

from stream_rec.demo import PLAIN_STEPS, DemoView, live_line

STATS = {
    "event_at": 1_767_571_200_000,
    "events_per_s": 2345.6,
    "click_rate": 0.314,
    "recall": 0.21,
    "version": "v3-0a1b2c",
    "lag": 12,
}


def watched(*, terminal: bool, n_total: int = 1000) -> str:
    out = io.StringIO()
    with DemoView(Console(file=out, force_terminal=terminal, width=110)) as view:
        for n_done in range(0, n_total + 1, 10):
            view.update(n_done, n_total, STATS)
    return out.getvalue()


def test_without_a_terminal_there_are_twenty_plain_lines() -> None:
    lines = watched(terminal=False).splitlines()
    assert len(lines) == PLAIN_STEPS
    assert lines[-1] == "100%  1,000 of 1,000 records | " + live_line(STATS)
    assert not any("\x1b" in line for line in lines)


def test_on_a_terminal_there_are_a_bar_and_a_live_line() -> None:
    text = watched(terminal=True)
    assert "100%" in text
    assert "2,346 events/s" in text
    assert "v3-0a1b2c" in text


def test_what_is_not_known_yet_is_left_out() -> None:
    assert live_line({"events_per_s": 10.0, "click_rate": None, "version": "v0"}) == "10 events/s | v0"


def test_an_estimate_of_the_total_may_be_exceeded() -> None:
    out = io.StringIO()
    with DemoView(Console(file=out)) as view:
        view.update(12, 10, {})
    assert out.getvalue().startswith("100%  12 of 12")
