"""The gate: hard check and paired interval."""

from __future__ import annotations

import numpy as np

from stream_rec.component import digest
from stream_rec.learn.gate import MIN_USERS, PairedRecall, bootstrap, verdict


def test_the_interval_covers_the_mean_and_narrows_with_more_users() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for n in (50, 5_000):
        mean, low, high, users = bootstrap(np.arange(n), rng.normal(0.1, 1.0, n), 3)
        assert low < mean < high
        assert users == n
        widths.append(high - low)
    assert widths[1] < widths[0] / 5


def test_visits_of_one_user_are_one_observation() -> None:
    rng = np.random.default_rng(0)
    by_user = rng.normal(size=50)
    group, value = np.repeat(np.arange(50), 20), np.repeat(by_user, 20)
    _, low, high, _ = bootstrap(group, value, 3)
    _, alone_low, alone_high, _ = bootstrap(np.arange(1_000), value, 3)
    assert high - low > 3 * (alone_high - alone_low)


def test_few_users_give_a_difference_without_an_interval() -> None:
    paired = PairedRecall(100)
    paired.add(np.arange(MIN_USERS - 1), np.ones(MIN_USERS - 1))
    assert paired.interval(0) == {
        "recall_difference": 1.0,
        "interval": None,
        "n_visits": MIN_USERS - 1,
        "n_users": MIN_USERS - 1,
    }


def test_the_same_seed_gives_the_same_interval() -> None:
    paired = PairedRecall(100)
    paired.add(np.arange(60), np.linspace(-1, 1, 60))
    assert paired.interval(5) == paired.interval(5) != paired.interval(6)


def test_only_the_newest_pairs_are_held() -> None:
    paired = PairedRecall(3)
    for visit in range(5):
        paired.add(np.array([visit]), np.array([float(visit)]))
    assert paired.interval(0)["recall_difference"] == 3.0


def test_a_forgotten_user_leaves_nothing_in_the_comparison_and_the_others_keep_their_order() -> None:
    paired = PairedRecall(4)
    for visit, user in enumerate([1, 2, 1, 3, 1, 4]):
        paired.add(np.array([user]), np.array([visit + 1.0]))
    paired.forget_users(np.array([1, 9]))
    assert (paired.user_key.tolist(), paired.difference.tolist()) == ([3, 4, 0, 0], [4.0, 6.0, 0.0, 0.0])
    assert paired.interval(0)["n_visits"] == 2
    paired.add(np.array([5, 6, 7]), np.array([7.0, 8.0, 9.0]))
    assert paired.user_key.tolist() == [7, 4, 5, 6]


def test_forgetting_nobody_who_is_there_changes_nothing() -> None:
    paired = PairedRecall(3)
    paired.add(np.arange(1, 6), np.ones(5))
    before = digest(paired.snapshot())
    paired.forget_users(np.array([77]))
    assert digest(paired.snapshot()) == before


def test_a_restored_comparison_goes_on_as_if_never_stopped() -> None:
    one, two = PairedRecall(3), PairedRecall(3)
    one.add(np.arange(2), np.ones(2))
    two.restore(one.snapshot())
    for paired in (one, two):
        paired.add(np.arange(2), np.zeros(2))
    assert digest(one.snapshot()) == digest(two.snapshot())


def test_infinite_weights_are_rejected_and_finite_ones_promoted() -> None:
    assert verdict({"w": np.array([1.0, np.inf])}, {})["verdict"] == "reject"
    assert verdict({"w": np.array([1.0])}, {})["verdict"] == "promote"
