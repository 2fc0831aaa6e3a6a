"""Drift detectors: quiet on a figure that stays, loud on one that moves, restored as if never stopped."""

from __future__ import annotations

import numpy as np
import pytest

from stream_rec.component import digest
from stream_rec.learn.drift import SCALED_BY, Drift

N_BEFORE = 3_000


def loss(rng: np.random.Generator, n: int, level: float = 1.0) -> np.ndarray:
    """Skewed, as losses are: mean 4.8, deviation 2.4."""
    return level * rng.gamma(4.0, 1.2, n)


def recall(rng: np.random.Generator, n: int, level: float = 1.0) -> np.ndarray:
    return rng.binomial(3, 0.3 * level, n) / 3


def after_a_shift(draw, level: float, seed: int, n: int) -> list[str]:
    rng = np.random.default_rng(seed)
    drift = Drift()
    drift.update("loss", draw(rng, N_BEFORE))
    return drift.update("loss", draw(rng, n, level))


@pytest.mark.parametrize(("draw", "level"), [(loss, 1.25), (loss, 0.75), (recall, 0.6)])
def test_both_detectors_see_a_shift_within_600_values(draw, level: float) -> None:
    for seed in range(6):
        assert {"loss: adwin", "loss: page_hinkley"} <= set(after_a_shift(draw, level, seed, 600))


def test_page_hinkley_sees_a_large_shift_within_60_values() -> None:
    assert all("loss: page_hinkley" in after_a_shift(loss, 2.0, seed, 60) for seed in range(10))


@pytest.mark.parametrize("draw", [loss, recall])
def test_a_figure_that_stays_raises_no_alarm(draw) -> None:
    alarms = [Drift(("loss",)).update("loss", draw(np.random.default_rng(seed), 12_000)) for seed in range(5)]
    assert alarms == [[]] * 5


def test_a_figure_that_never_moves_raises_no_alarm() -> None:
    assert Drift().update("reward", np.ones(5_000)) == []


def test_a_shift_is_told_once_and_then_is_the_usual() -> None:
    alarms = after_a_shift(loss, 1.5, 0, 10_000)
    assert sorted(alarms) == ["loss: adwin", "loss: page_hinkley"]


def test_values_that_are_not_finite_are_left_out() -> None:
    one, two = Drift(), Drift()
    one.update("loss", [1.0, np.nan, 2.0, np.inf])
    two.update("loss", [1.0, 2.0])
    assert digest(one.snapshot()) == digest(two.snapshot())


@pytest.mark.parametrize("stopped_at", [0, 7, SCALED_BY, 3_050, 4_096, 4_500, 9_100])
def test_a_restored_detector_goes_on_as_if_never_stopped(stopped_at: int) -> None:
    """Before its scale is known, before and after an alarm, and past its capacity."""
    rng = np.random.default_rng(5)
    values = np.concatenate([loss(rng, 3_000), loss(rng, 6_000, 1.4), loss(rng, 2_000, 0.8)])
    one, two = Drift(), Drift()
    one.update("loss", values[:stopped_at])
    two.restore(one.snapshot())
    alarms = [one.update("loss", values[stopped_at:]), two.update("loss", values[stopped_at:])]
    assert alarms[0] == alarms[1]
    assert digest(one.snapshot()) == digest(two.snapshot())


def test_everything_it_holds_is_declared() -> None:
    drift = Drift()
    assert set(vars(drift)) == {*drift.columns, *drift.scalars, *drift.derived, *drift.fixed}


def test_a_window_too_small_for_its_scale_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2000"):
        Drift(capacity=1_000)
