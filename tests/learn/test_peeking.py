"""Intervals that may be looked at any time miss the truth as seldom as they say, over all looks together."""

from __future__ import annotations

import numpy as np
import pytest

from stream_rec.learn.peeking import difference, factor, peeked

LOOKS = range(50, 3_001, 50)


def ever_missed(seed: int, *, of_peeks: bool) -> bool:
    rng = np.random.default_rng(seed)
    value = (rng.random(3_000) < 0.2).astype(float)
    for n in LOOKS:
        told = peeked(value[:n], np.arange(n))
        half = (told.high - told.low) / 2 if of_peeks else 1.96 * told.error
        if abs(told.mean - 0.2) > half:
            return True
    return False


def test_over_all_looks_the_truth_is_missed_as_seldom_as_said() -> None:
    assert np.mean([ever_missed(seed, of_peeks=True) for seed in range(200)]) <= 0.05


def test_an_interval_for_one_look_would_miss_it_far_more_often() -> None:
    assert np.mean([ever_missed(seed, of_peeks=False) for seed in range(200)]) > 0.15


def test_users_and_not_values_are_counted() -> None:
    value = np.random.default_rng(0).random(400)
    once, thrice = peeked(value, np.arange(400)), peeked(np.tile(value, 3), np.tile(np.arange(400), 3))
    assert (thrice.low, thrice.high) == (pytest.approx(once.low), pytest.approx(once.high))


def test_a_difference_is_found_where_there_is_one_and_not_where_there_is_none() -> None:
    rng = np.random.default_rng(1)
    a, b, c = (peeked((rng.random(2_000) < p).astype(float), np.arange(2_000)) for p in (0.2, 0.2, 0.3))
    assert difference(a, b).low < 0 < difference(a, b).high
    assert difference(c, a).low > 0


def test_the_price_of_peeking_is_about_half_where_it_is_least() -> None:
    assert factor(1_000) / 1.96 == pytest.approx(1.55, abs=0.01)
