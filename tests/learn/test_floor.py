"""The baseline floor: what greedy slates would have earned, known from drawn ones, and when slates fall back."""

from __future__ import annotations

import numpy as np
import pytest

from stream_rec.explore.chances import greedy_weight, is_drawn
from stream_rec.explore.slate import DrawRules, draw
from stream_rec.learn.floor import DAY_MS, EPOCH_MS, FEWEST, BaselineFloor
from tests.explore.ground import repeated

UTILITY = [0.30, 0.28, 0.26, 0.2, 0.1, 0.1]
RULES = DrawRules(n_slots=3, budget=0.3, diversity="none", first_explorable=0, max_explored=3)


def earned(n, *, told=UTILITY, true=UTILITY, seed=0, rules=RULES):
    """Drawn slates of a shop whose items are clicked with the `true` chances: what each earned, and its weight."""
    slates = draw(repeated(n, list(told), seed), rules)
    chance = np.asarray(true)[slates.column]
    clicks = (np.random.default_rng(seed).random(chance.shape) < chance).sum(1)
    return clicks.astype(float), greedy_weight(slates.code)


def grown(floor, reward, weight, *, step=200, at_ms=0):
    """Looks after every `step` slates; whether the floor ever fell."""
    for low in range(0, len(reward), step):
        floor.add(reward[low : low + step], weight[low : low + step], at_ms)
    return floor.n_falls > 0


@pytest.mark.parametrize("policy", ["igw", "epsilon", "softmax", "thompson"])
def test_drawn_slates_under_their_weights_earn_what_greedy_ones_do(policy):
    rules = DrawRules(**{n: getattr(RULES, n) for n in DrawRules.__slots__} | {"policy": policy})
    reward, weight = earned(40_000, rules=rules)
    greedy = sum(UTILITY[:3])
    assert abs(weight.mean() - 1) < 5 * weight.std() / 200
    assert abs((weight * reward).mean() - greedy) < 5 * (weight * reward).std() / 200
    assert is_drawn(draw(repeated(10, UTILITY), rules).code).all()


def test_safe_and_greedy_slates_are_no_drawn_ones():
    assert not is_drawn(draw(repeated(10, UTILITY), RULES, safe=True).code).any()
    assert not is_drawn(draw(repeated(1, UTILITY), RULES, safe=True).code).any()


def test_where_items_are_worth_what_is_believed_slates_almost_never_fall_back():
    n_falls = sum(grown(BaselineFloor(0.9), *earned(6_000, seed=seed)) for seed in range(60))
    assert n_falls <= 3


def test_where_explored_items_earn_nothing_slates_fall_back():
    true = [0.30, 0.28, 0.26, 0.0, 0.0, 0.0]
    rules = DrawRules(n_slots=3, budget=0.9, diversity="none", first_explorable=0, max_explored=3)
    told = [0.30, 0.29, 0.28, 0.27, 0.27, 0.27]
    assert all(
        grown(BaselineFloor(0.9), *earned(20_000, told=told, true=true, rules=rules, seed=seed)) for seed in range(5)
    )


def test_the_same_loss_is_let_be_where_nothing_is_asked():
    assert not grown(BaselineFloor(0.0), np.arange(2_000) % 2 * 1.0, np.arange(2_000) % 2 * 2.0)


def test_few_slates_and_few_that_stand_for_greedy_decide_nothing():
    half = np.arange(FEWEST - 2) % 2 == 0
    assert not grown(BaselineFloor(0.9), half * 1.0, half * 2.0)
    rare = np.arange(10_000) % 200 == 0
    assert not grown(BaselineFloor(0.9), rare * 1.0, rare * 200.0)


def test_a_day_after_the_fall_slates_are_drawn_again_and_judged_by_what_is_new():
    floor, half = BaselineFloor(0.9), np.arange(3_000) % 2 == 0
    floor.add(half * 1.0, half * 2.0, 1_000)
    assert floor.is_below and "explore.baseline_floor" in floor.why()
    floor.add(np.zeros(0), np.zeros(0), 1_000 + DAY_MS - 1)
    assert floor.is_below
    floor.add(np.zeros(0), np.zeros(0), 1_000 + DAY_MS)
    assert not floor.is_below and floor.why() == "" and floor.figures() == {}


def test_an_old_good_time_does_not_count_for_ever():
    floor = BaselineFloor(0.9)
    floor.add(np.ones(1_000), np.ones(1_000), 0)
    floor.add(np.ones(10), np.ones(10), EPOCH_MS - 1)
    assert floor.moments[0, 0] == 1_010
    floor.add(np.ones(10), np.ones(10), EPOCH_MS)
    assert floor.moments[0, 0] == 10


def test_a_restored_floor_decides_as_the_one_that_never_stopped():
    whole, again = BaselineFloor(0.9), BaselineFloor(0.9)
    reward, weight = earned(2_000)
    grown(whole, reward[:1_000], weight[:1_000])
    again.restore(whole.snapshot())
    for floor in (whole, again):
        grown(floor, reward[1_000:], weight[1_000:])
    assert whole.figures() == again.figures() and whole.moments.tobytes() == again.moments.tobytes()


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(ValueError, match="0 <= share < 1"):
        BaselineFloor(share)
