"""A person sees how far a job is and how long it still takes."""

from __future__ import annotations

import io

from rich.console import Console

from stream_rec.progress import Progress


def watched(*, terminal: bool, timed: bool = True) -> str:
    out, at_s = io.StringIO(), [0.0]
    console = Console(file=out, force_terminal=terminal, width=80)
    with Progress("replay", timed=timed, console=console, now_s=lambda: at_s[0]) as progress:
        for second in range(51):
            at_s[0] = float(second)
            progress.read(second * 10, 1000)
            progress.count(200)
    return out.getvalue()


def test_the_time_left_is_told_from_the_bytes_of_the_input() -> None:
    assert watched(terminal=False).splitlines()[-1] == "replay: 50%, 10,200 records, 204/s, 0:50 left"


def test_a_terminal_shows_the_time_left_too() -> None:
    text = watched(terminal=True)
    assert "0:50 left" in text
    assert "-:--" not in text


def test_no_wrong_time_is_told_where_a_part_of_the_input_is_passed_over() -> None:
    text = watched(terminal=False, timed=False)
    assert "50%" in text
    assert "left" not in text
