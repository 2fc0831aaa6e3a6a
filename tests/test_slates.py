"""Which slates a tick owes: the one for everybody, the touched, those with a lost item, and the rest in turn."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from stream_rec import assemble
from stream_rec.component import digest
from stream_rec.events import Record, Topic
from stream_rec.slates import Refresh
from stream_rec.stream.tick import Tick, ranges_of
from tests.shop_files import small_settings

START_MS = 1_767_571_200_000
MINUTE_MS = 60_000


class Shop:
    """A pipeline fed by hand, one tick a call; slates come back decoded."""

    def __init__(self, tmp_path, *sets):
        self.pipeline = assemble.pipeline_of(
            small_settings(
                tmp_path, "slate.refresh_users_per_tick=2", "slate.refresh_users_per_s=3", "slate.n_slots=3", *sets
            )
        )
        self.offsets = {Topic.EVENTS: 0, Topic.ITEMS: 0}
        self.now_ms = START_MS
        self.n_events = 0

    def tick(self, *records):
        taken = []
        for topic, key, body in records:
            value = None if body is None else msgspec.json.encode(body)
            taken.append(Record(topic, 0, self.offsets[topic], self.now_ms, key, value))
            self.offsets[topic] += 1
        p = self.pipeline
        first = {(topic, 0): p.positions.next_of((topic, 0)) for topic in self.offsets}
        effects = p.fold(Tick(p.positions.number + 1, ranges_of(taken, first), self.now_ms), taken)
        p.positions.number += 1
        self.now_ms += MINUTE_MS
        return [msgspec.json.decode(o.value) for o in effects.outputs if o.topic == Topic.SLATES]

    def items(self, *ids):
        return self.tick(*[(Topic.ITEMS, i.encode(), {"item_id": i, "title": i}) for i in ids])

    def view(self, user, item):
        self.n_events += 1
        event = {"event_id": f"e{self.n_events}", "event_type": "view_item", "event_at": self.now_ms, "user_id": user}
        return (Topic.EVENTS, None, {**event, "item_id": item})


def causes(slates):
    return [slate["cause"] for slate in slates]


def shown(slate):
    return [slot["item_id"] for slot in slate["slots"]]


@pytest.fixture
def shop(tmp_path):
    world = Shop(tmp_path)
    assert world.items("a", "b", "c", "d", "e") == []
    return world


def test_the_first_event_brings_the_slate_for_everybody_and_the_user_s_own(shop):
    assert causes(shop.tick(shop.view("u1", "a"))) == ["everybody", "touched"]


def test_a_user_touched_twice_in_a_tick_gets_one_slate(shop):
    slates = shop.tick(shop.view("u1", "a"), shop.view("u2", "a"), shop.view("u1", "b"))
    keys = [slate["user_key"] for slate in slates]
    assert len(keys) == len(set(keys)) == 3


def test_users_who_were_not_touched_are_refreshed_in_turn_within_the_quota(shop):
    shop.tick(*[shop.view(f"u{i}", "a") for i in range(5)])
    same = (Topic.ITEMS, b"a", {"item_id": "a", "title": "a"})
    turns = [{s["user_key"] for s in shop.tick(same) if s["cause"] == "refresh"} for _ in range(5)]
    assert all(len(turn) == 2 for turn in turns) and len(set.union(*turns)) == 5


def test_short_ticks_share_the_turns_of_a_second(shop):
    same = (Topic.ITEMS, b"a", {"item_id": "a", "title": "a"})
    shop.tick(*[shop.view(f"u{i}", "a") for i in range(5)])
    turns = []
    for _ in range(100):
        shop.now_ms -= MINUTE_MS - 20
        turns.append(sum(slate["cause"] == "refresh" for slate in shop.tick(same)))
    # 100 ticks of 20 ms: two seconds.
    assert sum(turns) == 2 * 3 and max(turns) == 1


def test_a_tick_without_records_turns_nobody_s_slate_over(shop):
    shop.tick(*[shop.view(f"u{i}", "a") for i in range(5)])
    assert causes(shop.tick()) == []


def test_a_lost_item_is_replaced_in_the_same_tick_for_everybody_and_for_who_was_shown_it(shop):
    shop.tick(shop.view("u1", "a"), shop.view("u2", "b"))
    slates = shop.tick((Topic.ITEMS, b"a", None))
    assert causes(slates)[:2] == ["everybody", "item_lost"]
    assert all("a" not in shown(slate) for slate in slates)


def test_an_item_that_is_out_of_stock_is_not_shown(shop):
    shop.tick(shop.view("u1", "a"))
    slates = shop.tick((Topic.ITEMS, b"a", {"item_id": "a", "title": "a", "in_stock": False}), shop.view("u1", "b"))
    assert slates and all("a" not in shown(slate) for slate in slates)


def test_the_slate_for_everybody_is_made_anew_when_its_hour_is_over(shop):
    shop.tick(shop.view("u1", "a"))
    assert "everybody" not in causes(shop.tick(shop.view("u1", "a")))
    shop.now_ms += 60 * MINUTE_MS
    assert "everybody" in causes(shop.tick(shop.view("u1", "a")))


def test_a_slate_names_its_tick_its_version_and_until_when_it_holds(shop):
    slate = shop.tick(shop.view("u1", "a"))[1]
    assert slate["statistics_tick"] == shop.pipeline.positions.number
    assert slate["model_version"] == shop.pipeline.learner.versions.champion_version
    assert slate["valid_until"] - slate["event_at"] == 7 * 24 * 60 * MINUTE_MS


def test_each_slot_says_what_an_impression_of_it_is_worth_and_less_of_a_lower_one(shop):
    slots = shop.tick(shop.view("u1", "a"))[0]["slots"]
    utilities = [slot["utility"] for slot in slots]
    assert len(utilities) == 3
    assert all(0 < utility < 1 for utility in utilities)
    assert utilities == sorted(utilities, reverse=True)
    assert shop.pipeline.facts.joiner.decisions.scored[0, :3].min() > -100


def test_decision_ids_depend_on_seed_tick_key_and_cause_alone(tmp_path):
    def first(*sets):
        world = Shop(tmp_path, *sets)
        world.items("a", "b")
        return [slate["decision_id"] for slate in world.tick(world.view("u1", "a"))]

    assert first() == first("learn.learning_rate=0.5") != first("run.seed=1")


def test_a_forgotten_user_waits_for_no_slate_and_the_others_keep_their_turn():
    refresh, twin = Refresh(6), Refresh(6)
    refresh.add(np.array([4, 2, 9, 2, 7], np.int32))
    refresh.forget([2, 7, -1])
    assert refresh.queue.tolist() == [4, 9, 0, 0, 0, 0]
    twin.restore(refresh.snapshot())
    assert digest(twin.snapshot()) == digest(refresh.snapshot())
    assert refresh.take(5).tolist() == [4, 9]
