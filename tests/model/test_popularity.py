"""Popularity against brute force."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_rec.component import digest
from stream_rec.model.popularity import DecayedPopularity, ItemCounts, RecentPopularity

N = 6
EVENTS = st.lists(st.tuples(st.integers(0, N - 1), st.integers(0, 300)), max_size=40)


def columns(events: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([i for i, _ in events], np.int32), np.array([t for _, t in events], np.int64)


def within(events: list[tuple[int, int]], floor: int) -> list[int]:
    return [sum(1 for i, t in events if i == item and t >= floor) for item in range(N)]


@settings(derandomize=True, deadline=None)
@given(st.lists(st.tuples(EVENTS, st.integers(0, 30)), max_size=6))
def test_recent_counts_are_exactly_the_events_inside_the_window(steps: list[tuple[list[tuple[int, int]], int]]) -> None:
    recent, seen, watermark = RecentPopularity(N, 1_000, length_ms=50), [], 0
    for events, forward in steps:
        recent.add(*columns(events))
        seen += [e for e in events if e[1] >= watermark - 50]
        watermark += forward
        recent.evict(watermark)
        assert recent.counts.tolist() == within(seen, watermark - 50)


@settings(derandomize=True, deadline=None)
@given(EVENTS, st.randoms(use_true_random=False))
def test_recent_counts_do_not_depend_on_the_order_of_arrival(events: list[tuple[int, int]], rng: object) -> None:
    shuffled = list(events)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    digests = []
    for order in (events, shuffled):
        recent = RecentPopularity(N, 1_000, length_ms=50)
        half = len(order) // 2
        recent.add(*columns(order[:half]))
        recent.add(*columns(order[half:]))
        recent.evict(120)
        digests.append(digest(recent.snapshot()))
    assert digests[0] == digests[1]


def test_a_full_window_keeps_the_newest_and_counts_the_rest() -> None:
    recent = RecentPopularity(N, capacity=3, length_ms=1_000)
    for at in range(10):
        recent.add(*columns([(at % N, at)]))
    assert recent.counts.tolist() == [0, 1, 1, 1, 0, 0]
    assert recent.n_overflow == 7


def test_a_retracted_event_leaves_the_window_once() -> None:
    recent = RecentPopularity(N, 10, length_ms=100)
    recent.add(*columns([(1, 5), (1, 5), (2, 5)]))
    assert recent.retract(1, 5)
    assert recent.counts[1] == 1
    assert not recent.retract(3, 5)
    recent.evict(1_000)
    assert recent.counts.tolist() == [0] * N


def test_a_restored_window_goes_on_as_if_never_stopped() -> None:
    one, two = RecentPopularity(N, 20, length_ms=30), RecentPopularity(N, 20, length_ms=30)
    for at in range(30):
        one.add(*columns([(at % N, at)]))
        one.evict(at)
    two.restore(one.snapshot())
    for part in (one, two):
        part.add(*columns([(0, 31), (1, 29)]))
        part.evict(45)
    assert two.counts.tolist() == one.counts.tolist()
    assert digest(one.snapshot()) == digest(two.snapshot())


@settings(derandomize=True, deadline=None)
@given(st.lists(EVENTS, max_size=5))
def test_decayed_mass_is_the_sum_of_halved_weights(ticks: list[list[tuple[int, int]]]) -> None:
    popularity = DecayedPopularity(N, (20, 100))
    seen: list[tuple[int, int]] = []
    for events in ticks:
        popularity.add(*columns(events))
        seen += events
    now = max((t for _, t in seen), default=0)
    for column, half_life in enumerate((20, 100)):
        expected = [sum(2.0 ** ((t - now) / half_life) for i, t in seen if i == item) for item in range(N)]
        np.testing.assert_allclose(popularity.mass[:, column], expected, atol=1e-9)


def test_decayed_mass_taken_back_is_as_if_never_given() -> None:
    popularity = DecayedPopularity(N, (20,))
    popularity.add(*columns([(1, 0), (2, 10), (1, 40)]))
    popularity.add(*columns([(1, 0)]), -1)
    assert popularity.mass[1, 0] == 1.0


def test_a_thousand_half_lives_of_silence_underflow_to_nothing() -> None:
    popularity = DecayedPopularity(N, (1,))
    popularity.add(*columns([(1, 0)]))
    popularity.add(*columns([(2, 10**12)]))
    assert popularity.mass[:, 0].tolist() == [0, 0, 1, 0, 0, 0]


def test_counts_never_fall_below_zero_and_forget_reused_rows() -> None:
    counts = ItemCounts(N)
    counts.add(np.array([1, 1, 2], np.int32))
    counts.add(np.array([2, 2], np.int32), -1)
    assert counts.in_visits.tolist() == [0, 2, 0, 0, 0, 0]
    counts.forget_items(np.array([1], np.int32))
    assert not counts.in_visits.any()
