"""Examination by position from items that chance has moved, against a world in which it is known."""

from __future__ import annotations

import numpy as np
import pytest

from stream_rec.explore.examination import CLIP, Examination
from stream_rec.explore.slate import DrawRules, Offer, draw, slate_seeds

ETA = np.array([1.0, 0.7, 0.5, 0.4, 0.25])
RULES = DrawRules(n_slots=5, budget=0.2, first_explorable=0, max_explored=5, strength=0.3)
PLAIN = DrawRules(n_slots=5, budget=0.2, first_explorable=0, max_explored=5, diversity="none")
N, M = 20_000, 12


def shown(seed, rules=RULES):
    """Lists of a shop: their codes, and how attractive each shown item is.

    Where items are good they are close to each other, so draws stray more often than where they are bad.
    """
    rng = np.random.default_rng(seed)
    good = rng.random((N, 1)) < 0.5
    utility = np.where(good, rng.uniform(0.5, 0.9, (N, M)), rng.beta(1, 4, (N, M)))
    utility = np.sort(utility, axis=1)[:, ::-1].copy()
    seeds = slate_seeds(seed, 1, [str(k) for k in range(N)], "touched")
    slates = draw(Offer(utility, np.ones((N, M), np.bool_), seeds, vectors=rng.normal(size=(N, M, 2))), rules)
    return slates.code, np.take_along_axis(utility, slates.column.astype(np.intp), 1)


def told(n=4, curve=None, rules=RULES, eta=ETA, blind=False):
    """Examination of `n` runs of N lists; the heads expect what they see, but for `curve` in place of `eta`.

    `blind`: they expect the same of every slot.
    """
    out, clicks = Examination(5), np.zeros(5)
    place = np.tile(np.arange(5), (N, 1))
    for seed in range(n):
        code, worth = shown(seed, rules)
        clicked = np.random.default_rng(100 + seed).random((N, 5)) < worth * eta
        own, item = np.ones(5) if curve is None else curve, np.full((N, 5), 0.3) if blind else worth
        out.add(code, place, clicked, item * own, item * np.append(own[0], own[:-1]))
        clicks += clicked.sum(0)
    return out, clicks


def test_in_a_known_world_it_is_found_and_clicks_by_position_alone_are_far_off():
    examination, clicks = told()
    assert np.allclose(examination.eta(), ETA, rtol=0.05)
    assert not np.allclose(clicks / clicks[0], ETA, rtol=0.15)


def test_it_is_found_by_the_weights_alone_where_the_heads_know_nothing_of_the_items():
    examination, _ = told(n=6, blind=True, rules=PLAIN)
    assert np.allclose(examination.eta(), ETA, rtol=0.06)


def test_it_is_found_from_the_second_slot_on_when_the_first_is_never_drawn():
    rules = DrawRules(**{n: getattr(RULES, n) for n in DrawRules.__slots__} | {"first_explorable": 1})
    examination, _ = told(rules=rules)
    assert np.allclose(examination.eta(), [1.0, *(ETA[1:] / ETA[1])], rtol=0.1)


def test_heads_that_know_it_are_left_alone_and_those_that_do_not_are_corrected_by_it():
    knowing, ignorant = told(curve=ETA)[0], told()[0]
    assert np.allclose(knowing.correction(), 1.0, rtol=0.05) and np.allclose(ignorant.correction(), ETA, rtol=0.05)
    assert np.allclose(knowing.eta(), ETA, rtol=0.05)


def test_before_there_is_evidence_nothing_is_corrected():
    assert Examination(5).eta() == [] and (Examination(5).correction() == 1.0).all()
    few = told(n=1, curve=ETA)[0]
    few.sums /= 1_000
    assert np.allclose(few.correction(), 1.0, atol=0.05)


def test_a_correction_stays_within_its_limits():
    examination = Examination(3)
    examination.sums[:, :, (0, 2, 3)] = 1e6
    examination.sums[:, 0, 1], examination.sums[:, 1, 1] = 1e6, 1.0
    assert examination.correction().tolist() == [1.0, 1 / CLIP, 1 / CLIP]


def test_an_item_below_one_that_was_passed_over_counts_only_if_it_is_that_one() -> None:
    one = Examination(2)
    worth, place = np.full((1, 2), 0.5), np.array([[0, 1]])
    one.add(np.array([[-0.75, 0.5]], np.float16), place, np.ones((1, 2), np.bool_), worth, worth)
    assert not one.sums.any()
    one.add(np.array([[-0.75, 2.5]], np.float16), place, np.ones((1, 2), np.bool_), worth, worth)
    assert one.sums[0].tolist() == [[0, 0, 0, 0], [1.5, 1.5, 0.75, 0.75]]


@pytest.mark.parametrize("broken", ["gap", "unknown", "empty"])
def test_pairs_that_are_none_do_not_count(broken):
    code, worth = shown(0)
    place = np.tile(np.arange(5), (N, 1))
    if broken == "gap":
        place[:] = [0, 2, 4, 6, 8]
    if broken == "unknown":
        worth = np.full_like(worth, np.nan)
    if broken == "empty":
        place[:] = -1
    examination = Examination(5)
    examination.add(code, place, np.ones((N, 5), np.bool_), worth, worth)
    assert not examination.sums.any()


def test_it_goes_on_from_a_snapshot_as_if_it_had_never_stopped():
    whole, _ = told(n=1)
    again = Examination(5)
    again.restore(whole.snapshot())
    code, worth = shown(7)
    for one in (whole, again):
        one.add(code, np.tile(np.arange(5), (N, 1)), worth > 0.3, worth, worth)
    assert whole.sums.tobytes() == again.sums.tobytes()
