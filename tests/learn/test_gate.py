"""The gate in the learner: who is promoted when users mostly see the champion's slates, and what comes after."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stream_rec.component import digest
from stream_rec.learn.guard import GuardRules
from stream_rec.learn.learner import Learner
from stream_rec.learn.promotion import Rules
from stream_rec.model.ranker import initial_weights
from tests.learn.shop import CATALOGUE, MINUTE_MS, N_ITEMS, SETTINGS, Shop, Take

N_USERS, N_SLOTS, ORGANIC = 120, 5, 0.2
VISIT_MS = 90 * MINUTE_MS
GATED = replace(SETTINGS, max_pending_visits=400, gate=Rules(), guard=GuardRules(n_visits=400))
GOOD, BAD = initial_weights(), -initial_weights()
"""Rank what a user took before first, or last."""


def own_items(user: int) -> list[int]:
    """What a user likes: only these are chosen from the whole catalogue."""
    return [(3 * user + k) % N_ITEMS for k in range(3)]


class Town:
    """Users who come back: four visits in five take what the slate shows, one in five what the user likes."""

    def __init__(self, learner: Learner, seed: int = 0) -> None:
        self.learner, self.shop, self.rng = learner, Shop(), np.random.default_rng(seed)
        self.n_visits = 0

    def days(self, n: int, *, learns: bool = False) -> None:
        for _ in range(n):
            self.tick(learns=learns)

    def tick(self, *, learns: bool) -> None:
        start_ms, takes, learner = self.n_visits * MINUTE_MS + VISIT_MS, [], self.learner
        users = self.rng.permutation(N_USERS)[:60].tolist()
        pointer = np.array([self.shop.last.get(user, -1) for user in users])
        closed = np.full(len(users), -1)
        ranked = learner.rank(pointer, closed, self.shop.histories, now_ms=start_ms, catalogue=CATALOGUE, k=20)
        for place, user in enumerate(users):
            self.n_visits += 2
            items, source = own_items(user), 0
            if self.rng.random() > ORGANIC and pointer[place] >= 0:
                items, source = ranked.items[place, :N_SLOTS].tolist(), 1
            for item in self.rng.permutation(items)[:2].tolist():
                at_ms = self.n_visits * MINUTE_MS + VISIT_MS
                takes.append(Take(user, item, at_ms, self.n_visits, source=source, position=0 if source else -1))
        batch = self.shop.tick(takes, served=ranked.items.astype(np.int32))
        learner.test(batch, self.shop.histories, CATALOGUE)
        learner.absorb(batch, self.shop.histories, CATALOGUE)
        learner.mature(batch.watermark_ms)
        learner.train(None if learns else 0)


def town(champion: np.ndarray, challenger: np.ndarray, *, n_days: int = 30) -> Town:
    """A shop in which two fixed rankers have been compared for a while."""
    out = Town(Learner(GATED))
    out.learner.versions.champion.value = champion.copy()
    out.learner.versions.learner.value = challenger.copy()
    out.days(n_days)
    return out


def test_an_identical_challenger_is_promoted_with_no_difference() -> None:
    cut = town(GOOD, GOOD).learner.cut()
    assert (cut.verdict["verdict"], cut.verdict["recall_difference"]) == ("promote", 0.0)


def test_a_better_challenger_is_promoted_although_users_mostly_take_what_the_champion_shows() -> None:
    learner = town(BAD, GOOD).learner
    metrics = learner.metrics_interval()["next_visit"]
    assert metrics["ranker"]["all"]["recall@20"] > metrics["learner"]["all"]["recall@20"]
    cut = learner.cut()
    assert cut.verdict["verdict"] == "promote"
    assert cut.verdict["interval"][0] > 0.0


def test_a_worse_challenger_never_reaches_the_slates() -> None:
    shop = town(GOOD, BAD)
    first = shop.learner.versions.champion_version
    for _ in range(5):
        cut = shop.learner.cut()
        assert cut.verdict["verdict"] == "reject"
        assert not shop.learner.promote(cut.version)
        shop.days(6)
    assert shop.learner.versions.champion_version == first
    assert "worse than champion by more than 2%" in cut.verdict["reasons"][0]


def test_a_challenger_that_is_turned_down_for_its_quality_goes_on_learning() -> None:
    learner = town(GOOD, BAD).learner
    learner.cut()
    np.testing.assert_array_equal(learner.versions.learner.value, BAD)


def test_without_enough_organic_visits_a_challenger_is_held() -> None:
    shop = Town(Learner(GATED))
    cut = shop.learner.cut()
    assert cut.verdict["verdict"] == "hold"
    assert cut.verdict["reasons"] == ["not measurable: 0 organic visits of 0 users, 30 users needed"]
    assert not shop.learner.promote(cut.version)


def test_a_challenger_that_is_not_finite_is_rejected_however_good_it_was() -> None:
    learner = town(BAD, GOOD).learner
    learner.versions.learner.value[0, 0, 0] = np.nan
    cut = learner.cut()
    assert (cut.verdict["verdict"], cut.verdict["hard_check"]) == ("reject", False)
    np.testing.assert_array_equal(learner.versions.learner.value, BAD)
    assert not learner.versions.comparison.visits.any()


# ---- the guard


def called_back(shop: Town) -> bool:
    return shop.learner.versions.guard.look()["verdict"] == "roll_back"


def served_badly() -> Town:
    """A bad version slips through and serves for a while."""
    shop = town(GOOD, GOOD, n_days=40)
    versions = shop.learner.versions
    versions.learner.value = BAD.copy()
    cut = versions.cut()
    assert versions.promote(cut.version)
    return shop


def test_a_version_that_serves_badly_is_called_back_while_it_is_watched() -> None:
    shop = served_badly()
    before = shop.learner.versions.progress.previous
    for _ in range(30):
        shop.days(1)
        if called_back(shop):
            break
    assert called_back(shop)
    assert shop.learner.versions.roll_back()
    assert shop.learner.versions.champion_version == before
    np.testing.assert_array_equal(shop.learner.versions.champion.value, GOOD)
    np.testing.assert_array_equal(shop.learner.versions.learner.value, GOOD)
    assert not shop.learner.versions.guard.watching


def test_there_is_only_one_step_back() -> None:
    shop = served_badly()
    assert shop.learner.versions.roll_back()
    assert not shop.learner.versions.roll_back()


def test_a_version_that_serves_well_passes_the_watch() -> None:
    shop = town(GOOD, GOOD, n_days=40)
    versions = shop.learner.versions
    assert versions.promote(versions.cut().version)
    verdicts = []
    for _ in range(45):
        shop.days(1)
        verdicts.append(versions.guard.look()["verdict"])
    assert set(verdicts) == {"watch", "passed"}


@pytest.mark.parametrize("when", ["compared", "watched", "called back"])
def test_a_learner_restored_in_the_middle_of_it_goes_on_as_if_never_stopped(when: str) -> None:
    shops = [town(GOOD, BAD, n_days=5) if when == "compared" else served_badly() for _ in "ab"]
    for shop in shops:
        shop.days(3)
        if when == "called back":
            shop.learner.versions.roll_back()
    fresh = Learner(GATED)
    for name, part in fresh.components().items():
        part.restore(shops[1].learner.components()[name].snapshot())
    shops[1].learner = fresh
    for shop in shops:
        shop.days(3, learns=True)
        shop.learner.cut()
    one, two = ({n: digest(c.snapshot()) for n, c in shop.learner.components().items()} for shop in shops)
    assert one == two
