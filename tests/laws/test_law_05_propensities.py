"""Law 5: propensities of a slot sum to one, match drawn frequency, and are positive for every admitted candidate."""

from __future__ import annotations

import numpy as np
import pytest

from stream_rec.explore.forgetting import HalfLives
from stream_rec.explore.policy import POLICIES, Known, Slot
from stream_rec.explore.posterior import DAY_MS, HeadRules, Posterior
from stream_rec.explore.slate import DrawRules, Slates, draw
from tests.explore.ground import offer_of, repeated

EXPLORING = [policy.name for policy in POLICIES.values() if policy.known != Known.DETERMINISTIC]
CLOSED = [policy.name for policy in POLICIES.values() if policy.known == Known.CLOSED_FORM]
N_DRAWS = 100_000
SURELY = 5.0
"""Standard deviations of chi-square over its mean: beyond it with a chance below 1e-5."""


def chi_square_is_plausible(counts: np.ndarray, p: np.ndarray) -> bool:
    """Pearson's statistic against its mean and spread; rare cells are put together."""
    expected = p * counts.sum()
    rare = expected < 10
    told = np.append(counts[~rare], counts[rare].sum()), np.append(expected[~rare], expected[rare].sum())
    held = told[1] > 0
    statistic = float(((told[0][held] - told[1][held]) ** 2 / told[1][held]).sum())
    freedom = int(held.sum()) - 1
    return abs(statistic - freedom) <= SURELY * np.sqrt(2 * max(freedom, 1)) + SURELY


@pytest.mark.parametrize("policy", EXPLORING)
def test_they_sum_to_one_and_are_positive_for_every_admitted_candidate(policy: str) -> None:
    rng = np.random.default_rng(0)
    for n in (1, 2, 7, 50):
        for value in (rng.beta(1, 40, (40, n)), np.zeros((40, n)), np.full((40, n), 0.3), 1e-300 * rng.random((40, n))):
            free = rng.random((40, n)) < 0.7
            worlds = value[:, None, :] + rng.normal(0, 0.02, (40, 64, n))
            p = POLICIES[policy].probabilities(Slot(value, free, np.full(40, 0.001), worlds))
            assert np.allclose(p.sum(1)[free.any(1)], 1, atol=1e-12)
            assert (p[free] > 0).all() and not p[~free].any()


@pytest.mark.parametrize("policy", CLOSED)
def test_they_match_the_frequency_of_a_hundred_thousand_draws(policy: str) -> None:
    """Of the first slot, and of the second given the most frequent first; with diversity and an item on trial."""
    utility = [0.30, 0.30, 0.24, 0.2, 0.15, 0.1, 0.02, 0.0]
    trial = np.zeros((N_DRAWS, len(utility)), np.bool_)
    trial[:, 6] = True
    rules = DrawRules(policy=policy, n_slots=2, budget=0.3, strength=0.5, first_explorable=0, max_explored=2)
    slates = draw(repeated(N_DRAWS, utility, trial=trial), rules)
    first = np.bincount(slates.column[:, 0], minlength=len(utility))
    given = slates.column[:, 0] == first.argmax()
    for rows, k in ((np.ones(N_DRAWS, np.bool_), 0), (given, 1)):
        p = np.zeros(len(utility))
        p[slates.column[rows, k]] = slates.propensity[rows, k]
        counts = np.bincount(slates.column[rows, k], minlength=len(utility))
        assert np.isclose(p.sum(), 1, atol=1e-9), "every candidate was drawn at least once"
        assert chi_square_is_plausible(counts, p)


def test_the_check_itself_notices_a_propensity_that_is_off_by_a_twentieth() -> None:
    slates = draw(repeated(N_DRAWS, [0.3, 0.25, 0.2]), DrawRules(policy="uniform", n_slots=1, first_explorable=0))
    counts = np.bincount(slates.column[:, 0], minlength=3)
    assert chi_square_is_plausible(counts, np.full(3, 1 / 3))
    assert not chi_square_is_plausible(counts, np.array([0.35, 0.333, 0.317]))


def test_drawn_from_an_estimate_the_frequency_is_the_estimate() -> None:
    """Thompson: each slate has its own worlds, so its own estimates; on average draws come as often as they say."""
    slates = draw(
        repeated(N_DRAWS // 5, [0.3, 0.25, 0.2, 0.1]), DrawRules(policy="thompson", n_slots=1, first_explorable=0)
    )
    weights = 1 / slates.propensity[:, 0]
    assert (slates.known == Known.ESTIMATED).all()
    for item in range(4):
        mine = weights * (slates.column[:, 0] == item)
        assert abs(mine.mean() - 1) < 5 * mine.std() / np.sqrt(len(mine))


def test_the_joint_propensity_is_the_product_and_matches_the_frequency_of_whole_slates() -> None:
    rules = DrawRules(policy="igw", n_slots=3, budget=0.6, strength=0.5, first_explorable=0, max_explored=2)
    slates = draw(repeated(N_DRAWS, [0.3, 0.26, 0.22, 0.2]), rules)
    code = slates.column @ np.array([16, 4, 1])
    joint = np.zeros(64)
    joint[code] = slates.joint()
    assert np.array_equal(slates.joint(), slates.propensity[:, 0] * slates.propensity[:, 1] * slates.propensity[:, 2])
    assert np.isclose(joint.sum(), 1, atol=1e-3)
    assert chi_square_is_plausible(np.bincount(code, minlength=64), joint / joint.sum())


def test_importance_weights_of_drawn_slots_give_the_value_of_another_policy() -> None:
    """The use of it all: what uniform draws would have earned, from slates that igw drew."""
    utility = [0.3, 0.2, 0.1, 0.05]
    slates = draw(repeated(N_DRAWS, utility), DrawRules(n_slots=1, budget=0.3, first_explorable=0))
    told = np.asarray(utility)[slates.column[:, 0]] * 0.25 / slates.propensity[:, 0]
    assert abs(told.mean() - np.mean(utility)) < 5 * told.std() / np.sqrt(N_DRAWS)


def bytes_of(slates: Slates) -> bytes:
    return b"".join(getattr(slates, name).tobytes() for name in ("column", "propensity", "known", "explored", "value"))


@pytest.mark.parametrize("policy", EXPLORING)
def test_the_same_seed_gives_the_same_bytes_and_another_one_others(policy: str) -> None:
    rules = DrawRules(policy=policy, n_slots=5, budget=0.5)
    first = bytes_of(draw(offer_of(50, 20), rules))
    assert bytes_of(draw(offer_of(50, 20), rules)) == first
    assert bytes_of(draw(offer_of(50, 20, tick=2), rules)) != first


def drawn_from(head: Posterior, x: np.ndarray, items: np.ndarray, tick: int) -> bytes:
    belief = head.predict(x, items)
    utility, spread = belief.mean.reshape(10, 12), belief.spread.reshape(10, 12)
    offer = offer_of(10, 12, tick=tick, utility=utility, spread=spread)
    return bytes_of(draw(offer, DrawRules(policy="thompson", n_slots=4, budget=0.3)))


def test_a_restored_head_draws_what_the_one_that_never_stopped_draws() -> None:
    rng = np.random.default_rng(3)
    lives, again_lives = (HalfLives(DAY_MS, DAY_MS // 4, DAY_MS) for _ in range(2))
    rules = HeadRules(n_features=4, n_items=200)
    whole, again = Posterior(rules, lives), Posterior(rules, again_lives)
    for tick in range(6):
        if tick == 3:
            whole.alarm(whole.now_ms)
            again_lives.restore(lives.snapshot())
            again.restore(whole.snapshot())
        x, items = rng.normal(size=(120, 4)), rng.integers(0, 200, 120)
        told = (x, items, (rng.random(120) < 0.3).astype(float), np.full(120, tick * DAY_MS // 3))
        for head in (whole, again) if tick >= 3 else (whole,):
            head.observe(*told)
        if tick >= 3:
            assert drawn_from(whole, x, items, tick) == drawn_from(again, x, items, tick)
