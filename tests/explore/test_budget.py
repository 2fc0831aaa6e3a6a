"""The bound on the loss of a slot, and the accounts of what was lost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from stream_rec.component import digest
from stream_rec.explore.budget import LossBudget
from stream_rec.explore.policy import POLICIES, one_slot
from stream_rec.explore.slate import DrawRules, draw
from tests.explore.ground import offer_of

BOUNDED = [policy.name for policy in POLICIES.values() if policy.is_bounded]
VALUES = arrays.arrays(np.float64, st.integers(1, 60), elements=st.floats(0, 1))


@pytest.mark.parametrize("name", BOUNDED)
@settings(deadline=None, max_examples=150)
@given(values=VALUES, budget=st.floats(1e-4, 1))
def test_the_expected_loss_is_within_the_budget_for_any_values(name: str, values: np.ndarray, budget: float) -> None:
    p = POLICIES[name].probabilities(one_slot(values, budget))[0]
    assert p @ (values.max() - values) <= budget * values.max() * (1 + 1e-9)
    assert abs(p.sum() - 1) < 1e-12


@settings(deadline=None, max_examples=150)
@given(values=VALUES, budget=st.floats(1e-4, 1))
def test_no_propensity_of_igw_is_below_its_floor(values: np.ndarray, budget: float) -> None:
    p = POLICIES["igw"].probabilities(one_slot(values, budget))[0]
    assert p.min() >= budget / ((1 + budget) * len(values)) * (1 - 1e-9)


@pytest.mark.parametrize("policy", [name for name in BOUNDED if name != "greedy"])
@pytest.mark.parametrize("has_trial", [False, True])
def test_the_bound_holds_in_every_slot_given_the_slots_before(policy: str, has_trial: bool) -> None:
    trial = np.random.default_rng(1).random((300, 25)) < 0.2 if has_trial else None
    rules = DrawRules(policy=policy, n_slots=8, budget=0.05, strength=0.7, max_explored=8)
    slates = draw(offer_of(300, 25, trial=trial), rules)
    assert (slates.expected_loss <= 0.05 * slates.best * (1 + 1e-9)).all()


def served(account: LossBudget, rules: DrawRules, n_batches: int) -> list[bool]:
    """Batches of slates, safe when the account says so."""
    told = []
    for tick in range(n_batches):
        told.append(account.is_spent())
        account.add(draw(offer_of(32, 25, tick=tick), rules, safe=told[-1]))
    return told


def test_the_realised_loss_stays_within_the_budget_and_the_depth_whatever_is_drawn() -> None:
    """Uniform draws respect no budget by themselves; safe mode does it for them."""
    rules = DrawRules(policy="uniform", n_slots=8, budget=0.05, max_explored=8)
    account = LossBudget(0.05, depth_slots=20)
    told = served(account, rules, 60)
    per_batch = account.value / 60
    assert account.loss <= 0.05 * account.value + 20 * account.value / account.n_slots + per_batch
    assert any(told) and not all(told[5:])


def test_what_was_lost_agrees_with_what_the_propensities_promised() -> None:
    account = LossBudget(0.05)
    served(account, DrawRules(n_slots=8, budget=0.05, max_explored=8), 100)
    shares = account.shares()
    assert shares["loss"] == pytest.approx(shares["expected_loss"], rel=0.15)
    assert 0.01 < shares["loss"] < 0.05


def test_the_accounts_restore_to_what_they_were() -> None:
    account, again = LossBudget(0.05), LossBudget(0.05)
    served(account, DrawRules(n_slots=4), 3)
    again.restore(account.snapshot())
    assert digest(again.snapshot()) == digest(account.snapshot())
