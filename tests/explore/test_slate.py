"""Slates: what is never shown, what is deterministic, what exploration may cost, and that draws are keyed."""

from __future__ import annotations

import numpy as np
import pytest

from stream_rec.errors import SettingsError
from stream_rec.events import MISSING
from stream_rec.explore.policy import POLICIES, Known
from stream_rec.explore.slate import DrawRules, Slates, draw, slate_seeds
from tests.explore.ground import offer_of, repeated

WIDE = DrawRules(n_slots=6, budget=0.5, max_explored=6, first_explorable=0)
NAMES = list(POLICIES)


def rules(base: DrawRules = WIDE, **named) -> DrawRules:
    told = {name: getattr(base, name) for name in DrawRules.__slots__}
    return DrawRules(**{**told, **named})


def same(a: Slates, b: Slates) -> bool:
    return all(getattr(a, n).tobytes() == getattr(b, n).tobytes() for n in Slates.__slots__ if n != "tried")


@pytest.mark.parametrize("policy", NAMES)
def test_no_candidate_is_shown_twice_and_none_that_is_not_allowed(policy: str) -> None:
    offer = offer_of(50, 15)
    offer.allowed[:, ::4] = False
    slates = draw(offer, rules(policy=policy))
    for row in slates.column:
        assert len(set(row.tolist())) == 6
    assert np.take_along_axis(offer.allowed, slates.column.astype(np.intp), 1).all()


def test_with_fewer_candidates_than_slots_the_last_slots_are_empty() -> None:
    offer = offer_of(4, 10)
    offer.allowed[:] = False
    offer.allowed[:, 2:5] = True
    slates = draw(offer, WIDE)
    assert (slates.column[:, 3:] == MISSING).all() and (slates.column[:, :3] != MISSING).all()
    assert (slates.propensity[:, 3:] == 1).all() and not slates.known[:, 3:].any()


def test_a_candidate_without_a_finite_utility_is_not_shown() -> None:
    offer = offer_of(20, 8)
    offer.utility[:, 0] = np.nan
    offer.utility[:, 1] = np.inf
    slates = draw(offer, WIDE)
    assert not np.isin(slates.column, [0, 1]).any() and np.isfinite(slates.propensity).all()


def test_after_the_cap_of_explored_slots_all_are_deterministic() -> None:
    slates = draw(offer_of(400, 20), rules(policy="uniform", max_explored=2))
    assert slates.explored.sum(1).max() == 2
    before = np.cumsum(slates.explored, 1) - slates.explored
    assert (slates.known[before >= 2] == Known.DETERMINISTIC).all()
    assert (slates.propensity[before >= 2] == 1).all()
    assert (slates.known[before < 2] == Known.CLOSED_FORM).all()


def test_slots_before_the_first_explorable_are_deterministic_and_the_best() -> None:
    slates = draw(offer_of(100, 20), rules(policy="uniform", first_explorable=2))
    assert not slates.known[:, :2].any() and slates.known[:, 2:].all()
    assert not slates.loss[:, :2].any()


def test_a_pinned_candidate_stands_in_its_slot_and_in_no_other() -> None:
    pinned = np.full((100, 6), MISSING, np.int32)
    pinned[:, 3] = 17
    slates = draw(offer_of(100, 20, pinned=pinned), rules(policy="uniform"))
    assert (slates.column[:, 3] == 17).all() and not slates.known[:, 3].any()
    assert not (np.delete(slates.column, 3, 1) == 17).any()


def test_a_pin_that_is_not_allowed_is_as_if_it_were_not_there() -> None:
    pinned = np.full((10, 6), MISSING, np.int32)
    pinned[:, 1] = 9
    offer = offer_of(10, 12, pinned=pinned)
    offer.allowed[:, 9] = False
    slates = draw(offer, WIDE)
    assert not (slates.column == 9).any() and (slates.column != MISSING).all()


def test_safe_slates_are_the_greedy_ones_and_the_others_are_not_touched() -> None:
    offer, safe = offer_of(60, 20), np.arange(60) % 2 == 0
    greedy, free = draw(offer, rules(policy="greedy")), draw(offer, WIDE)
    mixed = draw(offer, WIDE, safe=safe)
    assert np.array_equal(mixed.column[safe], greedy.column[safe]) and not mixed.known[safe].any()
    assert np.array_equal(mixed.column[~safe], free.column[~safe])


def test_in_shadow_greedy_slates_are_served_and_the_draws_are_told() -> None:
    offer = offer_of(40, 20)
    slates = draw(offer, WIDE, shadow=True)
    assert np.array_equal(slates.column, draw(offer, rules(policy="greedy")).column)
    assert not slates.known.any() and not slates.slate_loss.any()
    assert slates.tried is not None and same(slates.tried, draw(offer, WIDE))


@pytest.mark.parametrize("policy", NAMES)
def test_a_slate_does_not_depend_on_what_it_is_drawn_beside(policy: str) -> None:
    offer = offer_of(30, 20)
    whole = draw(offer, rules(policy=policy))
    one = {n: v[7:8] if isinstance(v := getattr(offer, n), np.ndarray) else v for n in type(offer).__slots__}
    alone = draw(type(offer)(**one), rules(policy=policy))
    assert np.array_equal(whole.column[7:8], alone.column) and np.allclose(whole.propensity[7:8], alone.propensity)


def test_another_tick_key_cause_or_seed_gives_other_draws() -> None:
    seeds = {
        int(slate_seeds(seed, tick, [key], cause)[0])
        for seed in (0, 1)
        for tick in (0, 1)
        for key in ("*", "a")
        for cause in ("touched", "refresh")
    }
    assert len(seeds) == 16


def test_the_loss_of_a_slate_is_counted_against_the_greedy_one_beside_it() -> None:
    offer = offer_of(30, 20)
    slates, greedy = draw(offer, WIDE), draw(offer, rules(policy="greedy"))
    rows = np.arange(30)[:, None]
    lost = offer.utility[rows, greedy.column].sum(1) - offer.utility[rows, slates.column].sum(1)
    assert np.allclose(slates.slate_loss, lost) and lost.max() > 0


def test_equals_are_drawn_equally_often_and_are_not_called_explored() -> None:
    offer = repeated(4_000, [0.2, 0.2, 0.2, 0.1], vectors=None)
    slates = draw(offer, rules(n_slots=1, budget=0.02))
    often = np.bincount(slates.column[:, 0], minlength=4) / 4_000
    assert np.allclose(often[:3], 1 / 3, atol=0.03)
    assert not slates.explored[slates.column < 3].any() and slates.explored[slates.column == 3].all()


def test_items_on_trial_are_shown_for_their_share_of_the_budget() -> None:
    utility = [0.4, 0.3, 0.3, 0.0, 0.0]
    trial = np.tile([False, False, False, True, True], (40_000, 1))
    slates = draw(repeated(40_000, utility, vectors=None, trial=trial), rules(n_slots=1, budget=0.1))
    often = np.bincount(slates.column[:, 0], minlength=5) / 40_000
    assert (often[3:] > 0.025).all()
    assert slates.expected_loss[0, 0] <= 0.1 * 0.4


@pytest.mark.parametrize("wrong", [{"policy": "best"}, {"budget": 0.0}, {"budget": np.nan}, {"strength": 2.0}])
def test_settings_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(SettingsError, match="explore"):
        rules(**wrong)
