"""Shown slots as examples of the heads: through the joiner, with actions that come late, early, twice or never."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest

from stream_rec.events import Kind
from stream_rec.learn.delayed import Delayed
from stream_rec.learn.head_metrics import LEARNER, Calibration, HeadMetrics
from stream_rec.learn.impressions import HeadPlan, Impressions
from stream_rec.learn.promotion import Rules
from stream_rec.learn.soundness import miscalibrated
from stream_rec.learn.versions import Versions
from stream_rec.model.heads import CLICK, PURCHASE, HeadSets, design, logits, sigmoid
from stream_rec.stream.attribution import Joiner
from stream_rec.stream.decisions import Said
from stream_rec.stream.exposures import ShownLists

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
CUP, JUG, PAN = 0, 1, 2
ANN = 0
N_SLOTS = 3


def scored(n_slates: int = 1, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal([-4, 0, 2, 1], 1.0, (n_slates, N_SLOTS, 4)).astype(np.float16)


class Desk:
    """A joiner and the heads behind it, as the pipeline has them."""

    def __init__(self, delayed: Delayed = Delayed.NAIVE, *, capacity: int = 1_000, kept: float = 1.0) -> None:
        self.joiner = Joiner(capacity, capacity, N_SLOTS)
        self.heads = Impressions(
            HeadSets(), HeadPlan(delayed=delayed, kept=kept, capacity=capacity, n_slots=N_SLOTS, max_steps=64)
        )

    def show(
        self,
        users: list[int],
        at_ms: int,
        name: str = "d",
        said: np.ndarray | None = None,
        drawn: np.ndarray | None = None,
    ) -> None:
        """Publish a slate of cup, jug and pan for each user, and let them see it."""
        names = [f"{name}{user}" for user in users]
        items = np.tile(np.array([CUP, JUG, PAN], np.int32), (len(users), 1))
        said = scored(len(users)) if said is None else said
        self.joiner.publish_many(users, [1] * len(users), names, at_ms=at_ms - 1, items=items, said=Said(said, drawn))
        shown = ShownLists.of([N_SLOTS] * len(users), items.reshape(-1), np.tile(np.arange(N_SLOTS), len(users)))
        assert set(self.joiner.impressions(names, users, [at_ms] * len(users), shown=shown)) == {"exposed"}

    def act(self, kind: Kind, item: int, at_ms: int, decision: str = "", user: int = ANN) -> None:
        self.joiner.feedback(kind, user, item, decision, at_ms)

    def settle(self, watermark_ms: int) -> None:
        """What a tick does at its end."""
        self.heads.test(self.joiner.mature(watermark_ms))
        self.heads.train()

    def figures(self, head: int) -> list[float]:
        """Examples and positives that the learner was measured on."""
        bins = self.heads.metrics.interval[head, LEARNER]
        return [float(bins[:-1, 0].sum()), float(bins[:-1, 2].sum())]


# ---- what is an example, and once


def test_a_slot_is_an_example_of_the_click_head_after_the_click_wait_and_of_purchases_after_theirs():
    desk = Desk()
    desk.show([ANN], 1000)
    desk.act(Kind.CLICK, JUG, 2000, "d0")
    desk.settle(1000 + 30 * MINUTE_MS)
    assert (desk.figures(CLICK), desk.figures(PURCHASE)) == ([0, 0], [0, 0])
    desk.settle(1001 + 30 * MINUTE_MS)
    assert (desk.figures(CLICK), desk.figures(PURCHASE)) == ([3, 1], [0, 0])
    desk.act(Kind.PURCHASE, JUG, 3 * DAY_MS, "d0")
    desk.settle(8 * DAY_MS)
    assert (desk.figures(CLICK), desk.figures(PURCHASE)) == ([3, 1], [3, 1])


@pytest.mark.parametrize("how", Delayed)
def test_a_late_purchase_is_put_in_again_exactly_once(how: Delayed):
    desk = Desk(how)
    desk.show([ANN], 1000)
    desk.act(Kind.CLICK, JUG, 2000, "d0")
    desk.settle(HOUR_MS)
    assert desk.heads.counts.n["reinserted"] == 0
    desk.act(Kind.PURCHASE, JUG, 2 * HOUR_MS)
    desk.act(Kind.PURCHASE, JUG, 2 * HOUR_MS + 1, "d0")
    desk.settle(3 * HOUR_MS)
    assert desk.heads.counts.n["reinserted"] == 1
    assert desk.joiner.retract(ANN, JUG)
    desk.act(Kind.PURCHASE, JUG, 4 * HOUR_MS, "d0")
    for watermark_ms in (5 * HOUR_MS, 6 * HOUR_MS, 8 * DAY_MS):
        desk.settle(watermark_ms)
    assert desk.heads.counts.n["reinserted"] == 1


def test_what_was_positive_in_time_is_not_put_in_again():
    desk = Desk()
    desk.show([ANN], 1000)
    desk.act(Kind.PURCHASE, JUG, 2000, "d0")
    desk.settle(HOUR_MS)
    desk.act(Kind.PURCHASE, JUG, 2 * HOUR_MS, "d0")
    desk.settle(8 * DAY_MS)
    assert desk.heads.counts.n["reinserted"] == 0


def test_how_often_an_example_is_trained_is_what_the_correction_says():
    def trained(how: Delayed) -> int:
        desk = Desk(how)
        desk.show([ANN], 1000)
        desk.act(Kind.CLICK, JUG, 2000, "d0")
        desk.act(Kind.PURCHASE, PAN, 3000, "d0")
        desk.settle(HOUR_MS)
        desk.act(Kind.PURCHASE, JUG, 2 * HOUR_MS)
        desk.settle(8 * DAY_MS)
        return desk.heads.counts.n["trained"]

    # Three slots for each of two heads, and the late jug again.
    assert trained(Delayed.NAIVE) == 7
    # The early pan was a negative first.
    assert trained(Delayed.FAKE_NEGATIVE_WEIGHTED) == 8
    # When purchases are final the cup is a negative and the pan a positive once more.
    assert trained(Delayed.REAL_NEGATIVE) == 9


def test_a_purchase_without_a_decision_counts_for_the_slot_that_was_clicked_and_says_nothing_of_others():
    desk = Desk()
    desk.show([ANN], 1000)
    desk.act(Kind.CLICK, JUG, 2000, "d0")
    desk.act(Kind.PURCHASE, JUG, 3000)
    desk.act(Kind.PURCHASE, PAN, 3000)
    desk.settle(HOUR_MS)
    desk.settle(8 * DAY_MS)
    assert desk.figures(PURCHASE) == [2, 1]
    assert desk.figures(CLICK) == [2, 1]
    assert desk.heads.counts.n["unclear"] == 1


def test_an_impression_that_is_evicted_while_it_waits_is_counted_and_never_a_negative():
    desk = Desk(capacity=100)
    desk.show(list(range(100)), 1000, "a")
    desk.show(list(range(100, 110)), 2000, "b")
    desk.settle(HOUR_MS)
    assert desk.joiner.counts()["evicted_waiting"] == 10
    assert desk.figures(CLICK) == [300, 0]
    assert desk.heads.counts.n["trained"] == 600


def test_an_impression_that_is_evicted_before_its_purchases_are_final_is_counted_and_not_measured():
    desk = Desk(capacity=100)
    desk.show(list(range(100)), 1000, "a")
    desk.settle(HOUR_MS)
    desk.show(list(range(100, 110)), 2 * HOUR_MS, "b")
    desk.settle(3 * HOUR_MS)
    desk.settle(8 * DAY_MS)
    assert desk.joiner.counts()["evicted_open"] == 10
    assert desk.figures(PURCHASE) == [300, 0]


def test_a_shown_item_that_its_slate_did_not_have_is_no_example():
    desk = Desk()
    desk.show([ANN], 1000)
    desk.joiner.impressions(["d0"], [ANN], [1001], shown=ShownLists.of([1], [9], [3]))
    desk.show([1], 1000, "e", said=np.full((1, N_SLOTS, 4), -np.inf, np.float16))
    desk.settle(HOUR_MS)
    assert desk.figures(CLICK) == [3, 0]
    assert desk.heads.counts.n["unscored"] == 3


# ---- test, then train


def test_a_purchase_is_predicted_before_its_impression_was_learned():
    desk = Desk()
    said = scored()
    desk.show([ANN], 1000, said=said)
    before = logits(design(said[0], np.arange(N_SLOTS)), desk.heads.sets.learner.value[PURCHASE])
    desk.settle(HOUR_MS)
    desk.show(list(range(1, 300)), 2 * HOUR_MS, "e")
    desk.settle(3 * HOUR_MS)
    after = logits(design(said[0], np.arange(N_SLOTS)), desk.heads.sets.learner.value[PURCHASE])
    desk.settle(1001 + 7 * DAY_MS)
    predicted = desk.heads.metrics.interval[PURCHASE, LEARNER][:-1, 1].sum()
    assert predicted == pytest.approx(sigmoid(before).sum(), rel=2e-3)
    assert abs(predicted - sigmoid(after).sum()) > 0.002


def test_a_prediction_is_not_taken_for_that_of_a_later_exposure_in_the_same_row():
    desk = Desk()
    desk.show([ANN], 1000)
    desk.settle(HOUR_MS)
    desk.heads.tested.serial[0] += 1
    desk.settle(8 * DAY_MS)
    assert desk.figures(PURCHASE) == [0, 0]


def test_predictions_that_are_as_often_right_as_they_say_have_no_calibration_error_and_others_have():
    rng = np.random.default_rng(1)
    logit = rng.normal(-2, 1, 20_000)
    label = rng.random(20_000) < sigmoid(logit)
    metrics = HeadMetrics()
    metrics.add(CLICK, np.stack([logit - 1, logit], axis=1), label)
    table = metrics.take_interval()["click"]
    assert table["learner"]["ece"] < 0.01
    assert table["champion"]["ece"] > 0.06
    assert table["champion"]["auc"] == pytest.approx(table["learner"]["auc"], abs=2e-3)
    assert table["learner"]["log_loss"] < table["champion"]["log_loss"]
    assert table["learner"]["log_loss"] < table["rate"]["log_loss"]
    order = np.argsort(logit)
    rank = np.empty(20_000)
    rank[order] = np.arange(1, 20_001)
    exact = (rank[label].mean() - (label.sum() + 1) / 2) / (~label).sum()
    assert table["learner"]["auc"] == pytest.approx(exact, abs=3e-3)
    assert metrics.take_interval() == {}


def test_a_head_that_is_off_by_half_of_its_rate_is_called_miscalibrated_and_a_sound_one_is_not():
    rng = np.random.default_rng(2)
    logit = rng.normal(-4, 0.5, 50_000)
    label = rng.random(50_000) < sigmoid(logit)
    sound, off = HeadMetrics(), HeadMetrics()
    sound.add(CLICK, np.stack([logit, logit], axis=1), label)
    off.add(CLICK, np.stack([logit, logit + 0.7], axis=1), label)
    few = HeadMetrics()
    few.add(CLICK, np.stack([logit, logit + 0.7], axis=1)[:500], label[:500])
    assert miscalibrated(sound.of_challenger()) == []
    assert miscalibrated(off.of_challenger())[0].startswith("calibration of click: the expected error is 0.0")
    assert miscalibrated(few.of_challenger()) == []
    off.restart()
    assert miscalibrated(off.of_challenger()) == []


def test_a_challenger_whose_probabilities_are_off_is_rejected_and_goes_on_learning():
    off = Calibration(n=9_000, rate=0.02, log_loss=0.1, ece=0.018, chance=0.001, auc=0.7)
    versions = Versions(rules=Rules(min_users=0))
    versions.learner.value += 1
    versions.heads.learner.value += 1
    learned = versions.learner.value.copy(), versions.heads.learner.value.copy()
    verdict = versions.cut({"click": off}).verdict
    assert (verdict["verdict"], verdict["hard_check"]) == ("reject", False)
    assert verdict["reasons"][0].startswith("hard check failed: calibration of click: the expected error is 0.018")
    assert (versions.learner.value == learned[0]).all()
    assert (versions.heads.learner.value == learned[1]).all()
    assert versions.cut({"click": off._replace(ece=0.002)}).verdict["hard_check"]


# ---- calibrated in spite of delays


BUY_PROB = 0.35
LATE_SHARE = 0.7


@lru_cache
def after_delays(how: Delayed, kept: float = 1.0) -> float:
    """Mean purchase probability that the head says at the end, over the true one; most purchases come days later."""
    desk, rng = Desk(how, capacity=6_000, kept=kept), np.random.default_rng(7)
    per_turn, later = 100, list[tuple[int, int, int]]()
    weight = np.array([0.8, 0.3, 0.0, 0.0, -0.6, 0.0, np.log(BUY_PROB / (1 - BUY_PROB))])
    for turn in range(60):
        now_ms = (turn + 1) * 8 * HOUR_MS
        users = [turn * per_turn + k for k in range(per_turn)]
        said = scored(per_turn, turn)
        desk.show(users, now_ms, said=said)
        p = sigmoid(logits(design(said.reshape(-1, 4), np.tile(np.arange(N_SLOTS), per_turn)), weight))
        bought = np.flatnonzero(rng.random(len(p)) < p)
        for at in bought.tolist():
            in_ms = int(rng.exponential(0.5 * DAY_MS)) if rng.random() < LATE_SHARE else MINUTE_MS
            later.append((now_ms + max(in_ms, MINUTE_MS), users[at // N_SLOTS], at % N_SLOTS))
        later.sort()
        for until_ms in (now_ms + 2 * HOUR_MS, now_ms + 8 * HOUR_MS - 1):
            while later and later[0][0] < until_ms:
                at_ms, user, item = later.pop(0)
                desk.act(Kind.PURCHASE, item, at_ms, f"d{user}", user)
            desk.settle(until_ms)
    x = design(scored(4_000, 999).reshape(-1, 4), np.tile(np.arange(N_SLOTS), 4_000))
    said = sigmoid(logits(x, desk.heads.sets.learner.value[PURCHASE]))
    return float(said.mean() / sigmoid(logits(x, weight)).mean())


def test_with_late_purchases_the_naive_head_says_too_little():
    assert after_delays(Delayed.NAIVE) < 0.90


@pytest.mark.parametrize("how", [Delayed.FAKE_NEGATIVE_WEIGHTED, Delayed.REAL_NEGATIVE])
def test_with_late_purchases_a_corrected_head_is_calibrated(how: Delayed):
    assert after_delays(how) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("how", [Delayed.FAKE_NEGATIVE_WEIGHTED, Delayed.REAL_NEGATIVE])
def test_it_is_with_thinned_negatives_too(how: Delayed):
    assert after_delays(how, kept=0.25) == pytest.approx(1.0, abs=0.06)


# ---- utility


def test_utility_is_the_weighted_sum_of_the_probabilities_of_the_champion_and_nothing_where_nothing_is_shown():
    desk, said = Desk(), scored(2)
    said[1, 2] = -np.inf
    utility = desk.heads.worth(said)
    x = design(said[0], np.arange(N_SLOTS))
    click, purchase = (sigmoid(logits(x, desk.heads.sets.champion.value[head])) for head in (CLICK, PURCHASE))
    assert utility[0] == pytest.approx(0.2 * click + 0.8 * purchase)
    assert utility[1, 2] == 0
    assert ((utility >= 0) & (utility <= 1)).all()
