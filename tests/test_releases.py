"""Which version serves: a call back and what it says, and that nothing is learned or promoted under the brake."""

from __future__ import annotations

import json

import jsonschema
import numpy as np
import pytest

from stream_rec import codec
from stream_rec.component import digest
from stream_rec.events import Record, Topic
from stream_rec.simulate import Shop, ShopPlan
from stream_rec.stream.sampling import hash_one
from tests.laws.world import COMMON, HOUR_MS, ROOM, Chunk, World
from tests.test_pipeline import START_MS, Folding, events_of

USERS = np.arange(400, dtype=np.int64) * 7_919


def called_back(tmp_path):
    """A second version serves far worse than the first; returns the world, both versions and the tick's notices."""
    world = Folding(tmp_path)
    world.learn(120)
    guard, progress = world.pipeline.learner.versions.guard, world.pipeline.learner.versions.progress
    guard.add(USERS, np.full(400, 0.5), np.full(400, 0.1))
    world.learn(1, start=500)
    assert guard.watching
    guard.add(USERS, np.zeros(400), np.full(400, 0.1))
    before, worse = progress.previous, progress.champion
    return world, before, worse, world.learn(1, start=501)


def test_a_version_shown_worse_is_called_back_and_the_notice_says_why(tmp_path):
    world, before, worse, notices = called_back(tmp_path)
    (notice,) = notices
    assert (notice["event"], notice["version"], notice["parent"]) == ("rollback", before, worse)
    assert notice["verdict"]["reasons"][0].startswith(f"worse than {before} by more than 2%")
    assert len(notice["sha256"]) == 64
    jsonschema.validate(notice, codec.json_schemas()["version"])
    assert world.pipeline.learner.versions.champion_version == before
    assert world.pipeline.facts.accounting.notes["version_rollback"] == 1


def test_after_a_call_back_nothing_is_promoted_until_unfreeze(tmp_path):
    world = called_back(tmp_path)[0]
    for n in range(3):
        assert world.learn(120, start=1_000 * (n + 1)) == []
    assert events_of(world.fold(Topic.CONTROL, {"command": "unfreeze"})) == ["command"]
    assert events_of(world.learn(1, start=9_000)) == ["promote"]


def braked(tmp_path):
    world = Folding(tmp_path)
    world.learn(20)
    brake = world.pipeline.learner.oversight.brake
    brake.braking, brake.last_outside_ms, brake.outside = True, START_MS, {"join_rate": "join_rate: 0.0000 of 99"}
    return world


STATISTICS = (
    "item_counts", "decayed_popularity", "recent_popularity", "cooccurrence", "taken_after", "taken_near",
    "item_exposures",
)  # fmt: skip


def statistics(world):
    parts = world.pipeline.learner.components()
    return {name: digest(parts[name].snapshot()) for name in STATISTICS}


def test_under_the_brake_nothing_is_learned_or_promoted_and_the_statistics_hold_still(tmp_path):
    world = braked(tmp_path)
    versions, window = world.pipeline.learner.versions, world.pipeline.facts.window
    weights, before, n_held = versions.learner.value.copy(), statistics(world), len(window)
    assert world.learn(150, start=500) == [] == world.learn(1, start=900)
    np.testing.assert_array_equal(versions.learner.value, weights)
    assert statistics(world) == before
    assert len(window) == n_held + 151, "buffering goes on"
    assert world.pipeline.facts.accounting.notes["braked_ticks"] == 2


def test_the_very_tick_that_brakes_is_not_counted(tmp_path):
    world = Folding(tmp_path)
    world.learn(20)
    world.pipeline.learner.oversight.brake.outside = {"join_rate": "join_rate: 0.0000 of 99"}
    before = statistics(world)
    world.learn(150, start=500)
    assert world.pipeline.learner.oversight.braking
    assert statistics(world) == before


def test_a_refund_of_a_purchase_from_under_the_brake_takes_nothing_out_of_the_statistics(tmp_path):
    world = braked(tmp_path)
    brake, learner = world.pipeline.learner.oversight.brake, world.pipeline.learner
    bought = {"event_type": "purchase", "event_at": START_MS, "item_id": "i1"}
    world.fold(Topic.EVENTS, {**bought, "event_id": "a", "user_id": "she", "order_id": "under"})
    brake.braking, brake.outside = False, {}
    world.fold(Topic.EVENTS, {**bought, "event_id": "b", "user_id": "he", "order_id": "after"})
    row = world.pipeline.facts.items.find("i1")
    counted = int(learner.counts.in_visits[row])
    back = {"event_type": "refund", "event_at": START_MS, "item_id": "i1"}
    world.fold(Topic.EVENTS, {**back, "event_id": "c", "user_id": "she", "order_id": "under"})
    assert int(learner.counts.in_visits[row]) == counted
    world.fold(Topic.EVENTS, {**back, "event_id": "d", "user_id": "he", "order_id": "after"})
    assert int(learner.counts.in_visits[row]) == counted - 1


def test_unfreeze_accepts_a_stream_that_the_brake_does_not(tmp_path):
    world = braked(tmp_path)
    world.learn(150, start=500)
    assert events_of(world.fold(Topic.CONTROL, {"command": "unfreeze"})) == ["command"]
    world.learn(150, start=1_000)
    assert events_of(world.learn(1, start=1_500)) == ["promote"]


def spoilt(record: Record) -> Record | None:
    """No purchase, and every other action names another item than the one that was meant."""
    try:
        event = json.loads(record.value or b"")
        kind = event["event_type"]
    except (ValueError, KeyError, TypeError):
        return record
    if kind == "purchase":
        return None
    if "item_id" in event:
        event["item_id"] = f"SKU{10_000 + hash_one(0, record.timestamp_ms) % 300}"
    return record._replace(value=json.dumps(event).encode())


@pytest.mark.slow
def test_a_spoilt_stream_brakes_and_from_then_on_teaches_and_promotes_nothing() -> None:
    plan = ShopPlan(days=6.5, n_users=300, n_items=300, visits_per_day=900.0, outage_day=100.0)
    shop, spoilt_ms = Shop(0, plan), plan.start_ms + int(5.3 * 24 * HOUR_MS)
    world = World((*COMMON, *ROOM, "window.capacity=5000", "tick.max_records=512", "learn.light_cut_examples=1000"))
    found = []

    def note(_tick, effects):
        progress = world.pipeline.learner.versions.progress
        found.append((world.clock.now_ms(), bool(effects.brake), progress.n_steps, progress.n_promotions))

    world.on_commit = note
    world.arrive(Chunk(plan.start_ms, tuple(shop.catalogue())))
    for hour in range(1, int(plan.days * 24)):
        now_ms = plan.start_ms + hour * HOUR_MS
        records = shop.step(now_ms, lambda _user: None)
        if now_ms > spoilt_ms:
            records = [mended for record in records if (mended := spoilt(record)) is not None]
        world.arrive(Chunk(now_ms, tuple(records)))
        world.catch_up()
    first = next(n for n, (_, braking, _, _) in enumerate(found) if braking)
    assert spoilt_ms < found[first][0] <= spoilt_ms + 24 * HOUR_MS
    assert found[first][3] > 3
    assert {(steps, promoted) for _, _, steps, promoted in found[first:]} == {found[first][2:]}
