"""The guard: calls a worse version back, leaves a good one alone however often it is asked, and stops in time."""

from __future__ import annotations

import json

import numpy as np
import pytest

from stream_rec.component import digest
from stream_rec.learn.guard import Guard, GuardRules
from tests.learn.visits_drawn import Drawn, draw

N_SEEDS = 200
N_VISITS = GuardRules().n_visits
STEP = 200


def popularity(visits: Drawn, seed: int) -> np.ndarray:
    """A list that finds two thirds of what the champion finds."""
    return np.where(np.random.default_rng([seed, 7]).random(len(visits.champion)) < 2 / 3, visits.champion, 0.0)


def tell(guard: Guard, visits: Drawn, seed: int, part: slice, *, paired: bool) -> None:
    columns = visits.user_key, visits.challenger, popularity(visits, seed)
    guard.add(*(column[part] for column in columns), visits.champion[part] if paired else None)


def watched(seed: int, effect: float, *, paired: bool) -> list[dict]:
    """A champion serves for a while; then a version `effect` better than it, looked at every STEP visits."""
    guard = Guard(n_clusters=256)
    before = draw(seed + 10_000, N_VISITS)
    tell(guard, before._replace(challenger=before.champion), seed, slice(None), paired=False)
    guard.begin("v2", "v1")
    visits, out = draw(seed, N_VISITS, effect), []
    for start in range(0, N_VISITS, STEP):
        tell(guard, visits, seed, slice(start, start + STEP), paired=paired)
        out.append(guard.look())
        if out[-1]["verdict"] == "roll_back":
            break
    return out


@pytest.mark.parametrize("paired", [True, False], ids=["previous", "popularity"])
def test_a_version_as_good_as_the_one_before_is_called_back_in_at_most_five_of_a_hundred_runs(paired: bool) -> None:
    called_back = sum(watched(seed, 0.0, paired=paired)[-1]["verdict"] == "roll_back" for seed in range(N_SEEDS))
    assert called_back <= 0.05 * N_SEEDS


@pytest.mark.parametrize(("paired", "effect"), [(True, -0.06), (False, -0.12)], ids=["previous", "popularity"])
def test_a_clearly_worse_version_is_called_back_in_nine_of_ten_runs(paired: bool, effect: float) -> None:
    last = [watched(seed, effect, paired=paired)[-1] for seed in range(100)]
    assert sum(record["verdict"] == "roll_back" for record in last) >= 90
    assert {record["against"] for record in last} == {"previous" if paired else "popularity"}


def test_a_broken_version_is_called_back_within_a_tenth_of_the_watch() -> None:
    records = watched(0, -0.3, paired=True)
    assert records[-1]["verdict"] == "roll_back"
    assert records[-1]["n_visits"] <= N_VISITS // 10
    assert records[-1]["reasons"][0].startswith("worse than v1 by more than 2%: -0.")


def test_the_watch_is_over_after_its_count_of_visits() -> None:
    verdicts = [record["verdict"] for record in watched(1, 0.01, paired=True)]
    assert verdicts == ["watch"] * (N_VISITS // STEP - 1) + ["passed"]


def test_without_enough_users_nothing_is_said() -> None:
    guard = Guard()
    guard.begin("v1", "v0")
    guard.add(np.arange(20), np.zeros(20), np.ones(20), np.ones(20))
    record = guard.look()
    assert (record["verdict"], record["against"]) == ("watch", None)
    assert record["reasons"] == ["not measurable: 20 organic visits of 20 users"]


def test_without_a_promotion_it_is_idle() -> None:
    guard = Guard()
    guard.add(np.arange(200), np.zeros(200), np.ones(200))
    assert guard.look() == {"verdict": "idle", "reasons": []}


def test_what_a_called_back_version_served_is_not_usual_for_the_next_one() -> None:
    guard, visits = Guard(), draw(3, 1_000)
    tell(guard, visits, 3, slice(0, 500), paired=False)
    kept = guard.lead.copy()
    guard.begin("v2", "v1")
    tell(guard, visits, 3, slice(500, 1_000), paired=True)
    guard.stop()
    guard.begin("v3", "v1")
    assert (guard.usual == kept).all()


def test_a_champion_that_served_too_shortly_is_measured_with_the_ones_before_it() -> None:
    guard, visits = Guard(), draw(4, 1_000)
    tell(guard, visits, 4, slice(0, 500), paired=False)
    guard.begin("v1", "v0")
    tell(guard, visits, 4, slice(500, 510), paired=True)
    guard.begin("v2", "v1")
    assert guard.usual_visits.sum() == 510


def test_a_record_is_json() -> None:
    record = watched(5, 0.0, paired=False)[-1]
    assert json.loads(json.dumps(record)) == record


def test_a_forgotten_user_leaves_nothing() -> None:
    guard, visits = Guard(), draw(6, 300)
    tell(guard, visits, 6, slice(0, 100), paired=False)
    guard.begin("v1", "v0")
    tell(guard, visits, 6, slice(100, 300), paired=True)
    guard.forget_users(visits.user_key)
    assert not any(getattr(guard, name).any() for name in guard.columns)


def test_a_restored_guard_goes_on_as_if_never_stopped() -> None:
    one, two, visits = Guard(), Guard(), draw(7, 900)
    tell(one, visits, 7, slice(0, 300), paired=False)
    one.begin("v1", "v0")
    tell(one, visits, 7, slice(300, 600), paired=True)
    two.restore(one.snapshot())
    for guard in (one, two):
        tell(guard, visits, 7, slice(600, 900), paired=True)
    assert one.look() == two.look()
    assert digest(one.snapshot()) == digest(two.snapshot())
    assert set(vars(one)) == {*one.columns, *one.scalars, *one.derived, *one.fixed}
