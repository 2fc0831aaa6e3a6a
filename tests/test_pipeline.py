"""Commands to the running pipeline: what is obeyed, what is refused in words."""

from __future__ import annotations

import msgspec
import pytest

from stream_rec import assemble
from stream_rec.events import Record, Topic
from stream_rec.stream.tick import Tick, ranges_of
from tests.shop_files import small_settings

START_MS = 1_767_571_200_000


class Folding:
    """A pipeline fed by hand, one tick a call."""

    def __init__(self, tmp_path):
        self.pipeline = assemble.pipeline_of(small_settings(tmp_path, "learn.light_cut_examples=100"))
        self.offsets = {Topic.EVENTS: 0, Topic.CONTROL: 0}
        self.durable = []

    def fold(self, topic=Topic.EVENTS, *bodies):
        records = []
        for body in bodies:
            records.append(Record(topic, 0, self.offsets[topic], START_MS, None, msgspec.json.encode(body)))
            self.offsets[topic] += 1
        p = self.pipeline
        first = {(t, 0): p.positions.next_of((t, 0)) for t in self.offsets}
        tick = Tick(p.positions.number + 1, ranges_of(records, first), START_MS, weights_durable=tuple(self.durable))
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
