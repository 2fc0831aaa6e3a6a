"""A slate alone is the slate that it would be in a batch, whatever is asked of it."""

from __future__ import annotations

import numpy as np
import pytest

from stream_rec.events import MISSING
from stream_rec.explore.policy import POLICIES, Slot, igw, igw_alone
from stream_rec.explore.slate import DrawRules, Offer, Slates, draw
from tests.explore.ground import offer_of

N = 60
EXACT = ("column", "known", "explored")
CLOSE = ("code", "propensity", "value", "best", "expected_loss", "slate_loss")


def row_of(offer: Offer, b: int) -> Offer:
    """One slate of an offer."""
    return Offer(**{n: v[b : b + 1] if isinstance(v := getattr(offer, n), np.ndarray) else v for n in Offer.__slots__})


def offer_with_all(seed: int, n_candidates: int = 25) -> Offer:
    """Forbidden candidates, ties, zeros, pins (some not allowed), items on trial, vectors that are equal."""
    rng = np.random.default_rng(seed)
    offer = offer_of(N, n_candidates, seed, trial=rng.random((N, n_candidates)) < 0.1)
    offer.utility[:, 3:6] = offer.utility[:, 3:4]
    offer.utility[: N // 4, 10:] = 0.0
    offer.utility[N // 4 : N // 3] = 0.0
    offer.utility[::7, 1] = np.nan
    offer.allowed[rng.random(offer.allowed.shape) < 0.2] = False
    offer.allowed[-5:, 4:] = False
    offer.vectors[:, 8] = offer.vectors[:, 7]
    offer.vectors[:, 9] = 0.0
    pinned = np.where(rng.random((N, 6)) < 0.1, np.arange(6)[None, :] + 11, MISSING).astype(np.int32)
    return Offer(**{n: getattr(offer, n) for n in Offer.__slots__ if n != "pinned"}, pinned=pinned)


def assert_same(batch: Slates, alone: Slates, b: int) -> None:
    for name in EXACT:
        assert np.array_equal(getattr(batch, name)[b : b + 1], getattr(alone, name)), (name, b)
    for name in CLOSE:
        assert np.allclose(getattr(batch, name)[b : b + 1], getattr(alone, name), rtol=1e-10, atol=1e-14), (name, b)
    types = [getattr(alone, n).dtype for n in EXACT + CLOSE]
    assert types == [getattr(batch, n).dtype for n in EXACT + CLOSE]


@pytest.mark.parametrize("diversity", ["dpp", "mmr", "none"])
@pytest.mark.parametrize("policy", list(POLICIES))
def test_a_slate_alone_is_that_of_the_batch(policy: str, diversity: str) -> None:
    rules = DrawRules(
        n_slots=6, budget=0.5, policy=policy, diversity=diversity, strength=0.8, max_explored=3, first_explorable=1
    )
    for seed, n_candidates in ((0, 25), (1, 60)):
        offer = offer_with_all(seed, n_candidates)
        batch = draw(offer, rules)
        for b in range(N):
            assert_same(batch, draw(row_of(offer, b), rules), b)


def test_a_safe_slate_alone_is_that_of_the_batch() -> None:
    offer, rules = offer_with_all(2), DrawRules(n_slots=6, budget=0.5)
    batch = draw(offer, rules, safe=True)
    for b in range(N):
        assert_same(batch, draw(row_of(offer, b), rules, safe=True), b)


def test_a_slate_alone_in_shadow_says_what_the_batch_says() -> None:
    offer, rules = offer_with_all(3), DrawRules(n_slots=6, budget=0.5)
    batch = draw(offer, rules, shadow=True)
    for b in range(N):
        alone = draw(row_of(offer, b), rules, shadow=True)
        assert_same(batch, alone, b)
        assert batch.tried is not None and alone.tried is not None
        assert_same(batch.tried, alone.tried, b)


def test_the_rule_for_one_slot_gives_the_bits_of_that_for_many() -> None:
    rng = np.random.default_rng(4)
    for n_best in (1, 2, 5):
        value = np.round(rng.beta(1.5, 30, (200, 54)), 3)
        value[:, :n_best] = value.max(1, keepdims=True)
        free = rng.random(value.shape) < 0.9
        free[:, 0] = True
        many = igw(Slot(value, free, np.full(200, 0.02)))
        for b in range(200):
            one = igw_alone(np.where(free[b], value[b], value[b] - 2.0), 0, free[b], 0.02)
            assert one.tobytes() == many[b].tobytes()
