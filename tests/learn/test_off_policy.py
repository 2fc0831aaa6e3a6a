"""Estimates of another policy's value: right on simulated worlds, careful with hostile logs."""

from __future__ import annotations

import numpy as np
import pytest

from stream_rec.explore.policy import POLICIES, one_slot
from stream_rec.explore.slate import DrawRules, draw
from stream_rec.learn.off_policy import Log, Rules, SlateLog, evaluate, evaluate_slates
from tests.explore.ground import repeated

N_WORLDS, N, K = 40, 4_000, 6
QUICK = Rules(n_bootstrap=60)


def world(seed: int, n: int = N) -> tuple[Log, float, float]:
    """A log, the true value of the target, and the value that the target's own rewards would have told."""
    rng = np.random.default_rng(seed)
    truth, believed = rng.beta(2, 8, K), rng.beta(2, 8, K)
    logging = POLICIES["igw"].probabilities(one_slot(believed, 0.8))[0]
    target = POLICIES["softmax"].probabilities(one_slot(rng.beta(2, 8, K), 0.8))[0]
    shown = rng.choice(K, n, p=logging)
    reward = (rng.random(n) < truth[shown]).astype(float)
    modelled = np.clip(truth + rng.normal(0, 0.03, K), 0, 1)
    own = rng.random(n) < truth[rng.choice(K, n, p=target)]
    log = Log(reward, logging[shown], target[shown], np.arange(n) % 500, modelled[shown], np.full(n, modelled @ target))
    return log, float(truth @ target), float(own.mean())


@pytest.fixture(scope="module")
def told() -> tuple[dict[str, np.ndarray], np.ndarray, float]:
    """Relative errors by estimator over many worlds, whether the interval held the truth, error on policy."""
    errors: dict[str, list[float]] = {}
    held, naive = [], []
    for seed in range(N_WORLDS):
        log, truth, own = world(seed)
        naive.append((own - truth) / truth)
        for name, estimate in evaluate(log, QUICK).items():
            errors.setdefault(name, []).append((estimate.value - truth) / truth)
            if name == "snips":
                held.append(estimate.low <= truth <= estimate.high)
    return {name: np.array(e) for name, e in errors.items()}, np.array(held), float(np.sqrt(np.mean(np.square(naive))))


@pytest.mark.parametrize("name", ["ips", "snips", "dr", "switch_dr"])
def test_over_many_worlds_the_error_is_below_one_and_a_half_times_the_one_on_policy(name: str, told) -> None:
    assert np.sqrt(np.mean(told[0][name] ** 2)) < 1.5 * told[2]


@pytest.mark.parametrize("name", ["replay", "ips", "snips", "dr"])
def test_over_many_worlds_there_is_no_bias(name: str, told) -> None:
    errors = told[0][name]
    assert abs(errors.mean()) < 4 * errors.std() / np.sqrt(len(errors))


def test_the_interval_holds_the_truth_about_as_often_as_it_says(told) -> None:
    assert told[1].mean() >= 0.85


def test_with_a_wrong_model_dr_is_still_right() -> None:
    errors = []
    for seed in range(N_WORLDS):
        log, truth, _ = world(seed)
        wrong = log._replace(modelled=np.full(N, 0.5), modelled_target=np.full(N, 0.5))
        errors.append(evaluate(wrong, QUICK)["dr"].value - truth)
    assert abs(np.mean(errors)) < 4 * np.std(errors) / np.sqrt(N_WORLDS)


def slate_world(seed: int) -> tuple[SlateLog, float]:
    """Slates drawn by igw; the target draws uniformly. Clicks depend on the item alone."""
    utility, n, k = np.array([0.3, 0.25, 0.2, 0.15, 0.1]), 3_000, 3
    rules = DrawRules(n_slots=k, budget=0.9, first_explorable=0, max_explored=k)
    slates = draw(repeated(n, utility.tolist(), seed, vectors=None), rules)
    clicked = np.random.default_rng(seed).random((n, k)) < utility[slates.column]
    target = np.broadcast_to(1 / (len(utility) - np.arange(k)), (n, k))
    return SlateLog(clicked, slates.propensity, target, np.arange(n)), float(k * utility.mean())


def test_slates_drawn_here_tell_the_value_of_uniform_slates() -> None:
    errors: dict[str, list[float]] = {}
    for seed in range(12):
        log, truth = slate_world(seed)
        for name, estimate in evaluate_slates(log, QUICK).items():
            errors.setdefault(name, []).append((estimate.value - truth) / truth)
    for name in ("full", "rips"):
        assert abs(np.mean(errors[name])) < 4 * np.std(errors[name]) / np.sqrt(12)
    assert max(np.abs(e).max() for e in errors.values()) < 0.15


def test_iips_varies_least_where_slots_are_drawn_and_clicked_independently() -> None:
    truth, logged, target = np.array([0.3, 0.1]), np.array([0.8, 0.2]), np.array([0.3, 0.7])
    errors: dict[str, list[float]] = {}
    for seed in range(12):
        rng = np.random.default_rng(seed)
        shown = (rng.random((2_000, 4)) < 0.2).astype(int)
        log = SlateLog(rng.random((2_000, 4)) < truth[shown], logged[shown], target[shown], np.arange(2_000))
        for name, estimate in evaluate_slates(log, QUICK).items():
            errors.setdefault(name, []).append(estimate.value - 4 * float(truth @ target))
    spread = {name: float(np.sqrt(np.mean(np.square(e)))) for name, e in errors.items()}
    assert spread["iips"] < spread["rips"] < spread["full"]


def test_iips_is_off_and_rips_is_not_where_a_slot_depends_on_the_one_before() -> None:
    """The second slot is clicked only behind item 0; the logged policy mostly shows item 0, the target never."""
    rng, n = np.random.default_rng(0), 20_000
    first = (rng.random(n) < 0.2).astype(int)
    reward = np.column_stack((np.zeros(n), first == 0))
    logged = np.column_stack((np.where(first == 0, 0.8, 0.2), np.ones(n)))
    target = np.column_stack((first == 1, np.ones(n))).astype(float)
    told = evaluate_slates(SlateLog(reward, logged, target, np.arange(n)), QUICK)
    assert told["rips"].value == 0.0 and told["iips"].value > 0.7


# ---- hostile logs


def test_rows_that_cannot_be_used_are_refused_with_their_reason() -> None:
    log, _, _ = world(0)
    clean = evaluate(Log(*(np.asarray(c)[6:] for c in log)), QUICK)["snips"]
    reward, logged, target = (np.array(c) for c in log[:3])
    reward[0], logged[1], logged[2], logged[3], target[4], target[5] = np.nan, np.nan, 0.0, 1.5, np.nan, -0.1
    dirty = evaluate(log._replace(reward=reward, logged=logged, target=target), QUICK)["snips"]
    assert dirty.refused == {
        "reward is not finite": 1,
        "propensity is missing": 1,
        "propensity is zero or tiny": 1,
        "propensity is above one": 1,
        "unknown to the target policy": 1,
        "target is no probability": 1,
    }
    assert dirty.value == clean.value and dirty.n == N - 6


def test_large_weights_are_clipped_and_counted() -> None:
    log, _, _ = world(1)
    logged = np.array(log.logged)
    logged[:3] = 1e-4
    estimate = evaluate(log._replace(logged=logged, target=np.maximum(log.target, 0.05)), QUICK)["ips"]
    assert estimate.n_clipped == 3 and estimate.largest_weight > 100 and np.isfinite(estimate.value)


def test_a_small_effective_sample_gets_no_verdict() -> None:
    n = 1_000
    logged = np.where(np.arange(n) == 0, 1e-5, 0.5)
    told = evaluate(Log(np.ones(n), logged, np.full(n, 0.5), np.arange(n)), QUICK)["snips"]
    assert told.no_verdict is not None and "effective sample size 1 " in told.no_verdict


def test_many_refused_rows_get_no_verdict() -> None:
    log, _, _ = world(2)
    target = np.array(log.target)
    target[: N // 5] = np.nan
    assert evaluate(log._replace(target=target), QUICK)["snips"].no_verdict == f"{N // 5} of {N} rows were refused"


def test_a_log_that_lacks_what_the_target_does_gets_no_verdict() -> None:
    n = 2_000
    told = evaluate(Log(np.zeros(n), np.full(n, 1.0), np.full(n, 0.3), np.arange(n)), QUICK)
    assert "do not average one" in str(told["ips"].no_verdict)


def test_a_sound_log_gets_a_verdict() -> None:
    assert {e.no_verdict for e in evaluate(world(3)[0], QUICK).values()} == {None}


@pytest.mark.parametrize("n", [0, 3])
def test_a_log_without_a_usable_row_is_said_to_be_so(n: int) -> None:
    told = evaluate(Log(np.zeros(n), np.zeros(n), np.ones(n), np.zeros(n, int)), QUICK)
    assert {e.no_verdict for e in told.values()} == {"no row can be used"}


def test_the_same_seed_gives_the_same_interval() -> None:
    log, _, _ = world(4)
    assert evaluate(log, QUICK) == evaluate(log, QUICK)


def test_intervals_resample_users_so_copies_of_a_user_do_not_narrow_them() -> None:
    log, _, _ = world(5, 1_000)
    log = log._replace(user=np.arange(1_000))
    copies = Log(*(np.tile(c, 4) for c in log))
    once, again = evaluate(log, QUICK)["snips"], evaluate(copies, QUICK)["snips"]
    assert again.high - again.low == pytest.approx(once.high - once.low)
