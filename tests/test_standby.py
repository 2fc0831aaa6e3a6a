"""Whose turn it is: a learner of another name is watched before its ledger is taken over."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from stream_rec.clock import ManualClock
from stream_rec.errors import Fenced, LedgerMismatch
from stream_rec.standby import CLOCKS_APART_MS, LOOK_EVERY_MS, await_turn, refuse_rival
from stream_rec.stream.ledger import encode

NOW_MS, SILENCE_MS = 1_767_571_200_000, 5_000


class Entry(NamedTuple):
    offset: int
    raw: bytes
    written_at_ms: int


def entry(learner: str = "first", *, offset: int = 7, at_ms: int = NOW_MS) -> Entry:
    return Entry(offset, encode(offset, "", "tick", {"learner": learner}), at_ms)


def waited_ms(newest: Callable[[ManualClock], Entry | None], *, stopped: Callable[[], bool] = lambda: False) -> int:
    """How long `second` waits for its turn."""
    clock = ManualClock(NOW_MS)
    await_turn(lambda: newest(clock), "second", silence_ms=SILENCE_MS, clock=clock, stopped=stopped)
    return clock.now_ms() - NOW_MS


def test_an_empty_ledger_is_anybody_s_at_once() -> None:
    assert waited_ms(lambda _: None) == 0


def test_a_ledger_of_our_own_name_is_ours_at_once() -> None:
    assert waited_ms(lambda _: entry("second")) == 0


def test_a_holder_that_died_long_ago_is_not_waited_for() -> None:
    assert waited_ms(lambda _: entry(at_ms=NOW_MS - SILENCE_MS - CLOCKS_APART_MS)) == 0


def test_a_holder_that_keeps_silent_is_watched_for_the_whole_silence() -> None:
    assert waited_ms(lambda _: entry()) == SILENCE_MS


@pytest.mark.parametrize("skew_ms", [-CLOCKS_APART_MS, CLOCKS_APART_MS - 1])
def test_a_holder_whose_clock_differs_by_a_minute_is_found_alive(skew_ms: int) -> None:
    """A living one writes at least every third of its silence."""

    def newest(clock: ManualClock) -> Entry:
        n = (clock.now_ms() - NOW_MS) // (SILENCE_MS // 3)
        return entry(offset=7 + n, at_ms=NOW_MS - skew_ms)

    with pytest.raises(Fenced, match=r"learner first is alive.*--take-over") as caught:
        waited_ms(newest)
    assert caught.value.exit_status == 4


def test_a_holder_that_speaks_at_the_last_look_is_alive() -> None:
    with pytest.raises(Fenced):
        waited_ms(lambda clock: entry(offset=7 + (clock.now_ms() - NOW_MS >= SILENCE_MS)))


def test_a_ledger_whose_newest_entry_is_not_seen_for_a_moment_is_no_sign_of_life() -> None:
    assert waited_ms(lambda clock: entry() if clock.now_ms() == NOW_MS else None) == SILENCE_MS


def test_whoever_is_stopped_waits_no_longer() -> None:
    asked = iter([False, False, True])
    assert waited_ms(lambda _: entry(), stopped=lambda: next(asked)) == 2 * LOOK_EVERY_MS


def test_a_foreign_record_in_the_ledger_is_named_and_not_waited_for() -> None:
    with pytest.raises(LedgerMismatch, match="foreign record at offset 7"):
        waited_ms(lambda _: Entry(7, b"{}", NOW_MS))


# ---- rivals


def claim(kind: str, session: str, n: int = 9) -> tuple[int, bytes]:
    return n, encode(n, "", kind, {"learner": f"that of {session}", "session": session})


def test_our_own_claims_and_anybody_s_ticks_are_no_rival() -> None:
    refuse_rival([claim("claim", "ours"), claim("tick", "theirs")], "ours")


@pytest.mark.parametrize("kind", ["claim", "genesis"])
def test_a_claim_of_another_start_ends_us_with_its_name_and_tick(kind: str) -> None:
    with pytest.raises(Fenced, match="learner that of theirs has claimed this pipeline at tick 9"):
        refuse_rival([claim("claim", "ours", 8), claim(kind, "theirs")], "ours")
