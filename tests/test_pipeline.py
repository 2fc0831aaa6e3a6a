"""Commands to the running pipeline: what is obeyed, what is refused in words."""

from __future__ import annotations

import jsonschema
import msgspec
import pytest

from stream_rec import assemble, codec
from stream_rec.events import Record, Topic
from stream_rec.stream.privacy import Pseudonymiser
from stream_rec.stream.tick import Tick, ranges_of
from tests.shop_files import KEY, small_settings

START_MS = 1_767_571_200_000


class Folding:
    """A pipeline fed by hand, one tick a call."""

    def __init__(self, tmp_path):
        self.pipeline = assemble.pipeline_of(small_settings(tmp_path, "learn.light_cut_examples=100"))
        self.offsets = {Topic.EVENTS: 0, Topic.CONTROL: 0}
        self.durable = []
        self.now_ms = START_MS

    def fold(self, topic=Topic.EVENTS, *bodies):
        records = []
        for body in bodies:
            records.append(Record(topic, 0, self.offsets[topic], START_MS, None, msgspec.json.encode(body)))
            self.offsets[topic] += 1
        p = self.pipeline
        first = {(t, 0): p.positions.next_of((t, 0)) for t in self.offsets}
        tick = Tick(p.positions.number + 1, ranges_of(records, first), self.now_ms, weights_durable=tuple(self.durable))
        self.now_ms += 1_000
        effects = p.fold(tick, records)
        p.positions.number += 1
        self.durable = list(effects.weights)
        notices = [o for o in effects.outputs if o.topic == Topic.VERSIONS and o.key != b"champion"]
        return [msgspec.json.decode(o.value) for o in notices]

    def learn(self, n, start=0):
        events = [
            {
                "event_id": f"e{i}",
                "event_type": "view_item",
                "event_at": START_MS,
                "user_id": f"u{i}",
                "item_id": f"i{i % 9}",
            }
            for i in range(start, start + n)
        ]
        return self.fold(Topic.EVENTS, *events)


def events_of(notices):
    return [notice["event"] for notice in notices]


def test_a_challenger_is_promoted_in_the_tick_that_says_its_weights_are_stored(tmp_path):
    world = Folding(tmp_path)
    assert events_of(world.learn(120)) == ["initial"]
    assert events_of(world.learn(1, start=500)) == ["promote"]


def test_nothing_is_promoted_while_frozen_and_what_waited_is_after(tmp_path):
    world = Folding(tmp_path)
    world.learn(120)
    assert events_of(world.fold(Topic.CONTROL, {"command": "freeze"})) == ["command"]
    assert world.learn(150, start=500) == []
    assert events_of(world.fold(Topic.CONTROL, {"command": "unfreeze"})) == ["command", "promote"]


@pytest.mark.parametrize("command", ["rollback", "promote", "pin"])
def test_a_command_of_a_later_build_is_refused_in_a_notice(tmp_path, command):
    world = Folding(tmp_path)
    world.learn(1)
    notices = world.fold(Topic.CONTROL, {"command": command, "version": "v1-0123456789ab", "command_id": "c1"})
    assert [(n["command"], n["status"], n["command_id"]) for n in notices] == [(command, "refused", "c1")]


def outputs_of(world, topic, *bodies):
    """(topic, key, value or None) of everything a tick published."""
    kept, fold = [], world.pipeline.fold
    world.pipeline.fold = lambda tick, records: kept.append(fold(tick, records)) or kept[-1]
    world.fold(topic, *bodies)
    world.pipeline.fold = fold
    return [(o.topic, o.key, o.value) for o in kept[0].outputs]


def key_of(user):
    return Pseudonymiser(KEY.encode()).user_key(user).hex()


def test_a_forgotten_user_gets_a_tombstone_and_no_slate_then_a_notice_says_that_it_is_done(tmp_path):
    world = Folding(tmp_path)
    world.learn(3)
    key = key_of("u1")
    said = outputs_of(world, Topic.CONTROL, {"command": "forget", "user_key": key, "command_id": "c1"})
    assert [o[2] for o in said if o[1] == key.encode()] == [None]
    assert (Topic.SLATES, key_of("u0").encode()) in [o[:2] for o in said]
    at = said.index((Topic.SLATES, key.encode(), None))
    notice = msgspec.json.decode(said[at + 1][2])
    assert {name: notice[name] for name in ("command", "status", "found", "command_id")} == {
        "command": "forget", "status": "done", "found": True, "command_id": "c1"
    }  # fmt: skip
    assert key not in str(notice)
    jsonschema.validate(notice, codec.json_schemas()["version"])


def test_to_forget_nobody_known_is_done_and_tombstones_all_the_same(tmp_path):
    world = Folding(tmp_path)
    world.learn(3)
    key = key_of("never seen")
    said = outputs_of(world, Topic.CONTROL, {"command": "forget", "user_key": key})
    assert (Topic.SLATES, key.encode(), None) in said
    notices = [msgspec.json.decode(o[2]) for o in said if o[:2] == (Topic.VERSIONS, b"command-forget")]
    assert [(n["status"], n["found"]) for n in notices] == [("done", False)]


def test_of_two_commands_to_forget_somebody_the_second_finds_nobody(tmp_path):
    world = Folding(tmp_path)
    world.learn(3)
    bodies = [{"command": "forget", "user_key": key_of(user)} for user in ("u1", "u2", "u1")]
    assert [n["found"] for n in world.fold(Topic.CONTROL, *bodies)] == [True, True, False]


def test_the_front_remembers_no_raw_id_after_a_forget(tmp_path):
    world = Folding(tmp_path)
    world.learn(3)
    lines = world.pipeline._intake._front._events
    assert "u1" in lines._users
    world.fold(Topic.CONTROL, {"command": "forget", "user_key": key_of("u1")})
    assert not (lines._users or lines._sessions or lines._orders)
