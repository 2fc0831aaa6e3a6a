"""Slates for queries: who gets one, what it ranks, what it says, and what clicks after a search teach."""

from __future__ import annotations

import hashlib

import jsonschema
import msgspec
import numpy as np
import pytest

from stream_rec import assemble, codec
from stream_rec.events import Record, Topic
from stream_rec.stream.tick import Tick, ranges_of
from tests.model import tiny
from tests.shop_files import small_settings

START_MS = 1_767_571_200_000
MINUTE_MS = 60_000


class Shop:
    """A pipeline fed by hand, one tick a call; records of the slates come back as (key, body or None)."""

    def __init__(self, folder, *sets):
        self.pipeline = assemble.pipeline_of(
            small_settings(folder, "slate.refresh_users_per_tick=0", "slate.n_slots=3", "search.capacity=100", *sets)
        )
        self.offsets = {Topic.EVENTS: 0, Topic.ITEMS: 0, Topic.CONTROL: 0}
        self.now_ms = START_MS
        self.n_events = 0
        self.ticks = []

    def tick(self, *records):
        taken = []
        for topic, key, body in records:
            value = None if body is None else msgspec.json.encode(body)
            taken.append(Record(topic, 0, self.offsets[topic], self.now_ms, key, value))
            self.offsets[topic] += 1
        p = self.pipeline
        first = {(topic, 0): p.positions.next_of((topic, 0)) for topic in self.offsets}
        tick = Tick(p.positions.number + 1, ranges_of(taken, first), self.now_ms)
        effects = p.fold(tick, taken)
        self.ticks.append((tick, taken, effects.digest()))
        p.positions.number += 1
        self.now_ms += MINUTE_MS
        slates = [(o.key.decode(), o.value) for o in effects.outputs if o.topic == Topic.SLATES]
        return [(key, value and msgspec.json.decode(value)) for key, value in slates]

    def answers(self, *records):
        """Slates of a tick that answer a query."""
        return [slate for _, slate in self.tick(*records) if slate and slate.get("query")]

    def event(self, user, kind, **said):
        self.n_events += 1
        event = {"event_id": f"e{self.n_events}", "event_type": kind, "event_at": self.now_ms, "user_id": user}
        return (Topic.EVENTS, None, event | said)

    def search(self, user, query):
        return self.event(user, "search", query=query)


def item(item_id, title, **said):
    return (Topic.ITEMS, item_id.encode(), {"item_id": item_id, "title": title, **said})


TITLES = ["red jug", "blue vase", "green lamp", "wood chair", "glass star", "large bag", "small bag", "blue jug"]


@pytest.fixture
def shop(tmp_path):
    return opened(Shop(tmp_path))


def opened(world):
    world.tick(*[item(f"i{n}", title) for n, title in enumerate(TITLES)])
    return world


def shown(slate):
    return [slot["item_id"] for slot in slate["slots"]]


def test_who_searches_gets_a_slate_for_the_query_beside_the_own_one(shop):
    slates = shop.tick(shop.search("u1", "Red  JUG"))
    (own,) = [key for key, slate in slates if key != "*" and not slate.get("query")]
    digest = hashlib.sha256(b"red jug").hexdigest()[:16]
    (answer,) = [slate for key, slate in slates if key == f"{own}/{digest}"]
    assert (answer["user_key"], answer["query"], answer["cause"]) == (own, "red jug", "searched")
    jsonschema.validate(answer, codec.json_schemas()["slate"])


def test_a_cold_item_answers_a_matching_query_in_the_tick_after_the_catalogue_names_it(shop):
    shop.tick(*[shop.event(f"u{n}", "view_item", item_id=f"i{n % 4}") for n in range(40)])
    shop.tick(item("new", "walnut nutcracker"))
    (answer,) = shop.answers(shop.search("u1", "nutcracker"))
    assert shown(answer)[0] == "new"
    assert "matches the query" in answer["slots"][0]["reasons"]


def test_it_answers_in_the_very_tick_that_names_it_too(shop):
    (answer,) = shop.answers(item("new", "walnut nutcracker"), shop.search("u1", "walnut"))
    assert shown(answer)[0] == "new"


def test_what_is_taken_after_a_search_moves_up_for_others_who_search_for_the_same(shop):
    (before,) = shop.answers(shop.search("u0", "gift for her"))
    wanted = next(f"i{n}" for n in range(len(TITLES)) if f"i{n}" not in shown(before))
    for n in range(1, 5):
        shop.tick(shop.search(f"u{n}", "gift for her"), shop.event(f"u{n}", "click", item_id=wanted))
    shop.tick(*[shop.event(f"v{n}", "click", item_id=shown(before)[0]) for n in range(12)])
    (after,) = shop.answers(shop.search("u9", "gift for her"))
    assert shown(after)[0] == wanted
    assert "taken for this query" in after["slots"][0]["reasons"]


def test_what_is_taken_after_the_window_is_no_pair(shop):
    shop.tick(shop.search("u1", "gift"))
    shop.now_ms += 31 * MINUTE_MS
    shop.tick(shop.event("u1", "click", item_id="i5"))
    assert not shop.pipeline._search.side.items.n.any()


def test_a_click_that_names_its_query_is_a_pair_without_a_search_before_it(shop):
    shop.tick(shop.event("u1", "click", item_id="i5", query="Gift"))
    assert shop.pipeline._search.side.items.n.sum() == 1


def test_a_click_a_cart_and_a_purchase_after_one_search_are_one_pair(shop):
    steps = [shop.event("u1", kind, item_id="i5") for kind in ("click", "add_to_cart", "purchase")]
    shop.tick(shop.search("u1", "gift"), *steps)
    assert shop.pipeline._search.side.items.n.sum() == 1


def test_pairs_move_the_weights_that_rank_for_queries(shop):
    shop.tick(shop.search("u1", "jug"), shop.event("u1", "click", item_id="i0"))
    learner = shop.pipeline.learner.versions.query.learner
    assert learner.n_steps == 1
    assert np.isfinite(learner.value).all()


def test_a_query_slate_names_the_version_that_serves_and_its_tick(shop):
    (answer,) = shop.answers(shop.search("u1", "jug"))
    assert answer["model_version"] == shop.pipeline.learner.versions.champion_version
    assert answer["statistics_tick"] == shop.pipeline.positions.number
    assert answer["valid_until"] - answer["event_at"] == 86_400_000


def test_one_slate_a_user_query_and_tick_however_often_it_is_searched(shop):
    assert len(shop.answers(*[shop.search("u1", text) for text in ("jug", "JUG", "jug ", "lamp")])) == 2


def test_no_more_slates_a_tick_than_the_quota_and_the_rest_is_counted(tmp_path):
    world = opened(Shop(tmp_path, "search.slates_per_tick=2"))
    assert len(world.answers(*[world.search(f"u{n}", "jug") for n in range(5)])) == 2
    assert world.pipeline.facts.accounting.notes["query_slates_beyond_quota"] == 3


def test_a_query_of_enough_people_has_a_slate_for_everybody(tmp_path):
    world = opened(Shop(tmp_path, "search.frequent_users=3"))
    for_all = [s for s in world.answers(*[world.search("u1", "jug")] * 5) if s["user_key"] == "*"]
    assert for_all == []
    answers = world.answers(world.search("u2", "jug"), world.search("u3", "jug"))
    assert [(s["query"], s["cause"]) for s in answers if s["user_key"] == "*"] == [("jug", "frequent_query")]
    again = world.answers(world.search("u4", "jug"))
    assert [s for s in again if s["user_key"] == "*"] == []


def test_two_folds_and_a_restore_in_between_give_the_same_bytes(tmp_path):
    folder, sets = tmp_path / "run", (f"model.encoder={tiny.tiny_encoder_folder(tmp_path / 'encoder')}",)
    world = opened(Shop(folder, *sets))
    for n in range(6):
        world.tick(world.search(f"u{n % 3}", TITLES[n]), world.event(f"u{n % 3}", "click", item_id=f"i{n}"))
    whole, again = world.pipeline, Shop(folder, *sets).pipeline
    for number, (tick, records, digest) in enumerate(world.ticks):
        if number == 4:
            snapshots, again = again.snapshot(), Shop(folder, *sets).pipeline
            again.restore(snapshots)
        assert again.fold(tick, records).digest() == digest
        again.positions.number += 1
    assert again._search.side.texts.table.any()
    for name, component in whole.components().items():
        np.testing.assert_equal(again.components()[name].snapshot(), component.snapshot())


def test_with_a_tower_the_map_of_queries_learns_and_an_item_without_a_shared_word_can_answer(tmp_path):
    world = opened(Shop(tmp_path / "run", f"model.encoder={tiny.tiny_encoder_folder(tmp_path / 'encoder')}"))
    world.tick(world.search("u1", "crimson pitcher"), world.event("u1", "click", item_id="i0"))
    learner = world.pipeline.learner.versions.query.learner
    assert not np.array_equal(learner.query_map, np.eye(learner.dim, dtype=np.float32))


def test_a_forgotten_user_s_query_slates_are_withdrawn_and_the_query_goes_too(shop):
    (answer,) = shop.answers(shop.search("u1", "my own words"))
    digest = hashlib.sha256(b"my own words").hexdigest()[:16]
    slates = shop.tick((Topic.CONTROL, None, {"command": "forget", "user_key": answer["user_key"]}))
    assert (f"{answer['user_key']}/{digest}", None) in slates
    assert "my own words" not in shop.pipeline.facts.searches.queries.texts


def test_a_user_has_so_many_query_slates_out_at_a_time_and_the_others_are_withdrawn(shop):
    out = set()
    for n in range(12):
        for key, slate in shop.tick(shop.search("u1", f"word {n}")):
            if "/" in key:
                (out.discard if slate is None else out.add)(key)
    assert len(out) == 8


def test_a_click_on_a_query_slate_is_joined_to_it_and_the_own_slate_stays_in_force(shop):
    facts = shop.pipeline.facts
    (answer,) = shop.answers(shop.search("u1", "jug"))
    row = facts.users.find(bytes.fromhex(answer["user_key"]))
    said = {"decision_id": answer["decision_id"], "item_id": shown(answer)[0]}
    shop.tick(shop.event("u1", "impression", **said), shop.event("u1", "click", **said))
    assert facts.joiner.counts()["exact"] == 1
    assert len(facts.joiner.decisions._rows_of_user[row]) == 2
