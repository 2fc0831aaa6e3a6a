"""The weights of the corrections, by hand and in expectation."""

from __future__ import annotations

import numpy as np
import pytest

from stream_rec.learn.delayed import Delayed, weights

NAIVE, FAKE, REAL = Delayed.NAIVE, Delayed.FAKE_NEGATIVE_WEIGHTED, Delayed.REAL_NEGATIVE


def weight(how: Delayed, label: bool, p: float, late: float = 0.5) -> float:
    return float(weights(how, np.array([label]), np.array([p]), np.array([late]))[0])


def pull(how: Delayed, p: float, late: float, f: float) -> float:
    """Expected gradient of one example's loss at the estimate `f`, over everything that is trained of it."""
    positives, negatives = {
        NAIVE: (p, 1 - p + p * late),
        FAKE: (p, 1.0),
        REAL: (2 * p - p * late, 2 * (1 - p) + p * late),
    }[how]
    return positives * weight(how, True, f, late) * (f - 1) + negatives * weight(how, False, f, late) * f


def test_a_positive_among_fake_negatives_weighs_one_plus_p_and_a_negative_that_times_one_minus_p():
    assert weight(FAKE, True, 0.1) == pytest.approx(1.1)
    assert weight(FAKE, False, 0.1) == pytest.approx(0.9 * 1.1)
    assert weight(FAKE, False, 0.5) == pytest.approx(0.75)


def test_with_real_negatives_a_positive_makes_up_for_the_half_of_the_late_ones_that_was_negative():
    # p = 0.2, half of it late: l = 0.1, so 0.2 / (0.2 - 0.05) and 0.8 / (0.8 + 0.05).
    assert weight(REAL, True, 0.2) == pytest.approx(0.2 / 0.15)
    assert weight(REAL, False, 0.2) == pytest.approx(0.8 / 0.85)
    assert (weight(REAL, True, 0.2, 0.0), weight(REAL, False, 0.2, 0.0)) == (1.0, 1.0)


def test_naive_weighs_nothing():
    assert (weight(NAIVE, True, 0.3), weight(NAIVE, False, 0.3)) == (1.0, 1.0)


@pytest.mark.parametrize("p", [0.003, 0.1, 0.6])
@pytest.mark.parametrize("late", [0.0, 0.4, 1.0])
def test_the_corrected_streams_pull_to_the_truth_and_the_naive_one_below_it(p: float, late: float):
    assert pull(FAKE, p, late, p) == pytest.approx(0.0, abs=1e-12)
    assert pull(REAL, p, late, p) == pytest.approx(0.0, abs=1e-12)
    assert pull(NAIVE, p, late, p / (1 + p * late)) == pytest.approx(0.0, abs=1e-12)
