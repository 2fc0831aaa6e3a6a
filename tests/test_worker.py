"""When a live worker cuts a tick, by a clock that moves only when told."""

from __future__ import annotations

import msgspec
import pytest

from stream_rec import assemble
from stream_rec.clock import ManualClock
from stream_rec.errors import JobFailed
from stream_rec.events import Topic
from stream_rec.fold import Identity
from stream_rec.io.memory import MemoryCheckpoints, MemoryPublisher, MemorySource, MemoryWeights
from stream_rec.io.memory_broker import MemoryBroker
from stream_rec.loop import Live, Loop
from stream_rec.ports import Ports
from stream_rec.worker import Worker
from tests.shop_files import small_settings

START_MS = 1_767_571_200_000


class World:
    """A broker with a live worker over it; ticks hold four records, a record waits 100 ms at most."""

    def __init__(self, tmp_path, **live):
        self.broker = MemoryBroker({"events": 2, "items": 1})
        self.weights = MemoryWeights(self.broker)
        ports = Ports(
            MemorySource(self.broker), MemoryPublisher(self.broker), MemoryCheckpoints(self.broker), self.weights
        )
        settings = small_settings(tmp_path)
        self.loop = Loop(
            lambda: assemble.pipeline_of(settings),
            ports,
            Identity("s", "b", "me", {"mode": "test"}),
            max_records=4,
            live=Live(**live),
        )
        self.clock = ManualClock(START_MS)
        self.worker = Worker(self.loop, self.clock, max_wait_ms=100, checkpoint_every_ms=1_000)
        self.worker.start()

    def say(self, n, *, partition=0):
        for _ in range(n):
            at = self.broker.end_offset((Topic.EVENTS, partition))
            now = self.clock.now_ms()
            event = {"event_id": f"{partition}-{at}", "event_type": "view_item", "event_at": now}
            event |= {"user_id": "u", "item_id": "i"}
            self.broker.append(Topic.EVENTS, partition, msgspec.json.encode(event), timestamp_ms=now)

    def ticks(self):
        entries = [msgspec.json.decode(o.value) for o in self.broker.outputs(Topic.LEDGER)]
        return [e["tick"] for e in entries if e["kind"] == "tick"]

    def sizes(self):
        return [sum(r[4] for r in tick["ranges"]) for tick in self.ticks()]


def test_a_full_tick_is_cut_at_once(tmp_path):
    world = World(tmp_path)
    world.say(5)
    assert world.worker.turn() and world.clock.now_ms() == START_MS
    assert world.sizes() == [4]


def test_a_lone_record_waits_its_time_and_no_longer(tmp_path):
    world = World(tmp_path)
    world.say(1)
    assert not world.worker.turn()
    assert world.clock.now_ms() == START_MS + 100
    assert world.worker.turn() and world.sizes() == [1]


def test_an_idle_worker_cuts_nothing_that_is_not_due(tmp_path):
    world = World(tmp_path)
    world.say(1)
    world.worker.catch_up()
    n = len(world.ticks())
    assert not world.worker.turn() and len(world.ticks()) == n


def test_a_silent_partition_is_called_idle_and_stops_holding_the_watermark(tmp_path):
    world = World(tmp_path, idle_ms=5_000)
    world.say(1, partition=0)
    world.say(1, partition=1)
    world.worker.catch_up()
    world.clock.wait(6_000)
    world.say(1, partition=0)
    world.worker.catch_up()
    assert world.ticks()[-1]["idle"] == [1]
    assert world.loop.pipeline.facts.watermarks.global_ms == START_MS + 6_000 - 60_000


def test_more_waiting_records_than_allowed_thin_the_training(tmp_path):
    world = World(tmp_path, lagging_records=3)
    world.say(40)
    world.worker.catch_up()
    lagging = [tick.get("lagging", False) for tick in world.ticks()]
    assert lagging[0] and not lagging[-1]


def test_a_tick_after_a_slow_one_thins_the_training(tmp_path):
    world = World(tmp_path, lagging_ms=400)
    for took_s in (0.399, 0.4):
        world.loop.took_s = took_s
        world.say(4)
        world.worker.turn()
    assert [tick.get("lagging", False) for tick in world.ticks()[-2:]] == [False, True]


def test_a_checkpoint_is_due_by_the_clock(tmp_path):
    world = World(tmp_path)
    world.say(4)
    world.worker.turn()
    before = len(world.broker.checkpoints)
    for _ in range(3):
        world.say(4)
        world.worker.turn()
    assert len(world.broker.checkpoints) == before
    world.clock.wait(1_000)
    world.say(4)
    world.worker.turn()
    assert len(world.broker.checkpoints) == before + 1


def test_stopping_drains_and_saves_the_last_committed_tick(tmp_path):
    world = World(tmp_path)
    world.say(2)
    world.worker.stop()
    positions = world.loop.pipeline.positions
    assert positions.finished and f"{positions.number:010d}-{positions.chain[:16]}" in world.broker.checkpoints


@pytest.mark.parametrize("n", [0, 3])
def test_the_catalogue_is_read_to_its_end_before_the_first_event(tmp_path, n):
    world = World(tmp_path)
    world.say(2)
    for i in range(4 + n):
        world.broker.append(
            Topic.ITEMS, 0, msgspec.json.encode({"item_id": f"i{i}", "title": "cup"}), key=b"x", timestamp_ms=START_MS
        )
    world.worker.catch_up()
    topics = [[r[0] for r in tick["ranges"]] for tick in world.ticks() if tick["ranges"]]
    assert topics[-1] == ["events"] and all(t == ["items"] for t in topics[:-1])


def test_weights_that_a_full_disk_refused_are_stored_later_and_promoted(tmp_path):
    world = World(tmp_path)
    full, durable = [True], world.weights.durable

    def refuse():
        done = durable()
        if done and full:
            full.clear()
            raise JobFailed(f"cannot write {done[0]}: no space left on device")
        return done

    world.weights.durable = refuse
    world.say(2, partition=1)
    world.say(2)
    world.worker.catch_up()
    assert world.loop.pipeline.pending_weights() and not full
    world.clock.wait(1_000)
    world.say(4)
    world.worker.turn()
    world.worker.catch_up()
    assert world.loop.pipeline.pending_weights() == {}
