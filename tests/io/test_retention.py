"""Retention keeps enough to rebuild from, and never more than a bounded number."""

from __future__ import annotations

from stream_rec.io.retention import DAY_MS, HOUR_MS, Kept, retained


def every(step_ms: int, n: int) -> list[Kept]:
    return [Kept(f"{i}-a", i, i * step_ms) for i in range(n)]


def prune_as_they_come(checkpoints: list[Kept], keep: int) -> set[str]:
    present: list[Kept] = []
    for kept in checkpoints:
        stay = retained([*present, kept], keep, frozenset())
        present = [k for k in (*present, kept) if k.name in stay]
    return {k.name for k in present}


def test_the_genesis_stays_for_ever() -> None:
    assert "0-a" in retained(every(DAY_MS, 400), 1, frozenset())


def test_the_last_k_stay() -> None:
    assert {"99-a", "98-a", "97-a"} <= retained(every(1000, 100), 3, frozenset())


def test_one_an_hour_stays_for_a_day() -> None:
    half_hours = retained(every(HOUR_MS // 2, 200), 1, frozenset())
    assert {f"{i}-a" for i in range(200 - 48, 200, 2)} <= half_hours
    assert "197-a" not in half_hours


def test_one_a_day_stays_within_the_horizon() -> None:
    stay = retained(every(DAY_MS, 100), 1, frozenset(), horizon_ms=10 * DAY_MS)
    assert stay == {"0-a", *(f"{i}-a" for i in range(89, 100))}


def test_a_pinned_one_stays() -> None:
    assert "50-a" in retained(every(1000, 100), 1, frozenset({"50-a"}))


def test_pruning_at_every_save_loses_nothing_that_one_pruning_keeps() -> None:
    checkpoints = every(10 * 60_000, 2000)
    assert retained(checkpoints, 3, frozenset()) == prune_as_they_come(checkpoints, 3)


def test_the_number_that_stays_is_bounded() -> None:
    assert len(prune_as_they_come(every(5 * 60_000, 15_000), 3)) <= 1 + 3 + 26 + 32


def test_a_clock_that_jumps_back_loses_no_recent_one() -> None:
    checkpoints = [Kept("1-a", 1, 10 * DAY_MS), Kept("2-a", 2, 0), Kept("3-a", 3, 1)]
    assert {"2-a", "3-a"} <= retained(checkpoints, 2, frozenset())
