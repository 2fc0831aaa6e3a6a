"""The bound over all looks: rarely wrong however often one looks, and not blind."""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from stream_rec.learn.sequences import ALPHA, Sample, bounds, holm, log_evidence, p_at_least
from tests.learn.visits_drawn import draw

N_SEEDS = 400
LOOKS = range(50, 5_001, 50)


@cache
def looks(seed: int, *, n_users: int, like: float = 0.05) -> list[Sample]:
    """What 100 looks at an equal challenger see."""
    visits = draw(seed, LOOKS[-1], n_users=n_users, like=like)
    value = visits.challenger - visits.champion
    totals, counts = np.zeros(n_users), np.zeros(n_users)
    out = []
    for end in LOOKS:
        new = slice(end - LOOKS.step, end)
        totals += np.bincount(visits.user_key[new], value[new], n_users)
        counts += np.bincount(visits.user_key[new], minlength=n_users)
        out.append(Sample.of(totals, counts))
    return out


def share(found: list[bool]) -> float:
    return sum(found) / len(found)


def test_a_hundred_looks_call_an_equal_challenger_worse_in_at_most_five_of_a_hundred_runs() -> None:
    wrong = [any(p_at_least(sample) <= ALPHA for sample in looks(seed, n_users=600)) for seed in range(N_SEEDS)]
    assert share(wrong) <= ALPHA


def test_few_users_who_come_often_make_it_no_worse() -> None:
    wrong = [
        any(p_at_least(sample) <= ALPHA for sample in looks(seed, n_users=120, like=0.15)) for seed in range(N_SEEDS)
    ]
    assert share(wrong) <= ALPHA


def test_a_fixed_five_percent_test_looked_at_as_often_is_wrong_in_a_fifth_of_the_runs() -> None:
    def fixed(sample: Sample) -> bool:
        return -sample.mean * sample.n / math.sqrt(sample.variance) > 1.645

    wrong = [any(fixed(sample) for sample in looks(seed, n_users=600)) for seed in range(N_SEEDS)]
    assert share(wrong) > 0.2


def test_the_true_mean_leaves_the_interval_at_no_look_in_nearly_all_runs() -> None:
    outside = []
    for seed in range(N_SEEDS // 4):
        intervals = [bounds(sample) for sample in looks(seed, n_users=600)[::4]]
        outside.append(any(not low <= 0.0 <= high for low, high in intervals))
    assert share(outside) <= ALPHA


def test_the_interval_and_the_p_value_say_the_same() -> None:
    for mean in (-0.04, -0.025, -0.021, 0.0):
        sample = Sample(1_000, 400, mean, 40.0)
        assert (bounds(sample)[1] < 0.0) == (p_at_least(sample) < ALPHA / 2)


def test_the_interval_narrows_with_visits() -> None:
    widths = [high - low for low, high in (bounds(Sample(n, n, 0.0, 0.04 * n)) for n in (100, 1_000, 10_000))]
    assert widths[0] > 2 * widths[1] > 4 * widths[2]


def test_equal_lists_on_few_visits_are_not_certain() -> None:
    low, high = bounds(Sample(50, 50, 0.0, 0.0))
    assert low < -0.05 < 0.05 < high


def test_visits_of_one_user_count_as_one_observation() -> None:
    alone = Sample.of(np.array([1.0, -1.0] * 20), np.ones(40))
    alike = Sample.of(np.array([10.0, -10.0] * 20), np.full(40, 10.0))
    assert math.isclose(alike.variance, 100 * alone.variance)


def test_the_evidence_grows_with_the_distance_far_into_both_tails() -> None:
    values = [log_evidence(z, 500.0) for z in (-1e3, -40.0, -5.0, 0.0, 5.0, 40.0, 1e3)]
    assert values == sorted(values)
    assert all(math.isfinite(value) for value in values)


def test_nothing_refuses_nothing() -> None:
    assert holm({}) == set()
