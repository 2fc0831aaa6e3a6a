"""Law 3: crash between any two effects: no record lost, none doubled, the recovered state is the fold of the ledger.

In memory a crash falls on every point that publisher, weight store and checkpoint store pass; in a run folder on every
point of the files being written. Recovered and finished, both must be byte-equal to the run that never crashed.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import msgspec
import pytest

from stream_rec.events import Output, Topic
from stream_rec.io.checkpoint import FolderCheckpoints
from stream_rec.io.faults import Crash, Faults
from stream_rec.io.files import FileSource
from stream_rec.io.folder import FolderPublisher, FolderWeights
from stream_rec.loop import Live, Loop
from stream_rec.pipeline import Pipeline
from stream_rec.ports import Ports
from stream_rec.stream.ledger import GENESIS_CHAIN, chain_of
from tests.laws.world import (
    SMALL,
    World,
    crashes_at,
    different,
    identity_of,
    pipeline_of,
    settings_of,
    shop_stream,
)

STREAM = shop_stream(days=1.0)
SHORTER = shop_stream(days=0.7)
"""Enough for a promotion in a run folder, whose every step is on a disk."""


def steps_of(order: list[str], most: int) -> list[int]:
    """Steps to crash at, 1-based: the first of each kind and `most` in all, evenly, the same at every run."""
    first = {point: i for i, point in reversed(list(enumerate(order, start=1)))}
    evenly = range(1, len(order) + 1, max(1, -(-len(order) // most)))
    return sorted({*first.values(), *evenly, len(order)})


def unbroken(ledger: list[Output]) -> None:
    """No gap and an intact chain."""
    chain = GENESIS_CHAIN
    for n, entry in enumerate(ledger):
        said = msgspec.json.decode(entry.value or b"")
        assert (said["n"], said["prev"]) == (n, chain)
        chain = chain_of(entry.value or b"")


# ---- in memory


@lru_cache
def uninterrupted(checkpoint_every: int) -> tuple[World, list[str]]:
    """The run without a crash, and the points its stores passed, in order."""
    world, faults = World(checkpoint_every=checkpoint_every, recovered=False), Faults()
    world.start(faults)
    world.play(STREAM)
    assert world.pipeline.learner.versions.progress.n_promotions >= 1
    return world, faults.order


def check_memory(step: int, checkpoint_every: int) -> bool:
    """Crash at one step; compare everything a reader of the topics and the next process could see."""
    expected, _ = uninterrupted(checkpoint_every)
    world = World(checkpoint_every=checkpoint_every, recovered=False)
    crashed = crashes_at(world, STREAM, step)
    got, wanted = world.outputs(), expected.outputs()
    assert [topic for topic in wanted if got[topic] != wanted[topic]] == []
    unbroken(got[Topic.LEDGER])
    # Ledger offsets have gaps where a transaction was aborted; they are the one thing a crash may change.
    world.pipeline.positions.ledger_offset = expected.pipeline.positions.ledger_offset
    assert different(world.pipeline, expected.pipeline) == []
    assert sorted(world.broker.weights) == sorted(expected.broker.weights)
    return crashed


@pytest.mark.parametrize("checkpoint_every", [pytest.param(0, marks=pytest.mark.slow), 3])
def test_a_crash_at_a_point_of_memory_changes_nothing(checkpoint_every: int) -> None:
    order = uninterrupted(checkpoint_every)[1]
    assert all(check_memory(step, checkpoint_every) for step in steps_of(order, 3))
    assert not check_memory(len(order) + 1, checkpoint_every)


@pytest.mark.slow
@pytest.mark.parametrize(("checkpoint_every", "most"), [(0, 60), (1, 60), (3, 150)])
def test_a_crash_at_any_point_of_memory_changes_nothing(checkpoint_every: int, most: int) -> None:
    order = uninterrupted(checkpoint_every)[1]
    assert all(check_memory(step, checkpoint_every) for step in steps_of(order, most))


def test_crashes_in_a_row_change_nothing() -> None:
    """Each start gets a little further than the one before, also through its own recovery."""
    expected = uninterrupted(3)[0]
    world, n_crashes = World(checkpoint_every=3, recovered=False), 0
    for chunk in STREAM:
        world.arrive(chunk)
        while True:
            faults = Faults()
            faults.crash_at_step(29 + 13 * (n_crashes % 5))
            try:
                world.start(faults)
                world.catch_up()
                break
            except Crash:
                n_crashes += 1
    assert n_crashes >= 4
    assert world.outputs() == expected.outputs()
    assert sorted(world.broker.weights) == sorted(expected.broker.weights)


@pytest.mark.parametrize(
    "step", [pytest.param(5, marks=pytest.mark.slow), 60, pytest.param(200, marks=pytest.mark.slow)]
)
def test_slow_weights_and_a_crash_lose_and_double_nothing(step: int) -> None:
    """When a version becomes durable is a fact from outside: the ledger of a crashed run may say another tick.

    What must hold all the same: the ledger replays to the recovered state, and every version comes to be stored.
    """
    world = World(n_polls=2, checkpoint_every=2, recovered=False)
    assert crashes_at(world, STREAM, step)
    unbroken(world.outputs()[Topic.LEDGER])
    again = World(broker=world.broker)
    again.start(with_checkpoints=False)
    assert different(world.pipeline, again.pipeline) == []
    taken = {(r.topic, r.partition): r.next for tick, _ in world.ticks() for r in tick.ranges}
    assert taken == {p: world.broker.end_offset(p) for p in taken}
    named = {msgspec.json.decode(o.value or b"").get("version") for o in world.outputs()[Topic.VERSIONS]} - {None}
    assert named <= set(world.broker.weights)


@pytest.mark.parametrize(
    "step", [pytest.param(9, marks=pytest.mark.slow), 40, pytest.param(150, marks=pytest.mark.slow)]
)
def test_a_live_worker_that_crashes_claims_the_ledger_and_goes_on(step: int) -> None:
    """A claim takes a number of its own; the ledger stays unbroken and replays to the recovered state."""
    live = Live(idle_ms=60_000)
    world = World(n_polls=1, checkpoint_every=2, live=live, recovered=False)
    assert crashes_at(world, STREAM, step)
    unbroken(world.outputs()[Topic.LEDGER])
    assert [entry["kind"] for entry in world.entries()].count("claim") == 1
    again = World(broker=world.broker, live=live, recovered=False)
    again.make(with_checkpoints=False)
    again.loop.recover()
    state = different(world.pipeline, again.pipeline)
    assert state == ["positions"], "the second start has claimed too, and nothing else"
    taken = {(r.topic, r.partition): r.next for tick, _ in world.ticks() for r in tick.ranges}
    assert taken == {p: world.broker.end_offset(p) for p in taken}


def test_a_torn_checkpoint_falls_back_to_the_one_before() -> None:
    world, _ = uninterrupted(3)
    again = World(broker=world.broker)
    names = again.ports.checkpoints.names()
    again.ports.checkpoints.tear(names[0])  # type: ignore[attr-defined]
    again.start()
    assert different(world.pipeline, again.pipeline) == []


# ---- in a run folder


class Folder:
    """A file of events replayed into a run folder, by the parts of the replay program."""

    def __init__(self, input_dir: Path, run_dir: Path) -> None:
        self.input_dir, self.run_dir = input_dir, run_dir

    def run(self, faults: Faults | None = None, *, checkpoint_every: int = 2) -> Pipeline:
        """One process: recover and go on to the end, or to the crash."""
        publisher = FolderPublisher(self.run_dir, faults=faults)
        source = FileSource(self.input_dir / "events.jsonl", self.input_dir / "items.jsonl")
        checkpoints = FolderCheckpoints(self.run_dir / "checkpoints", sync_first=publisher.sync)
        weights = FolderWeights(self.run_dir / "weights", synchronous=True, faults=faults)
        ports = Ports(source, publisher, checkpoints, weights)
        try:
            loop = Loop(pipeline_of, ports, identity_of(), max_records=settings_of(*SMALL).tick.max_records)
            loop.recover()

            def after_step() -> None:
                if checkpoint_every and loop.pipeline.positions.number % checkpoint_every == 0:
                    loop.checkpoint()
                    checkpoints.flush()

            if not loop.finished:
                loop.run_to_end(after_step)
            return loop.pipeline
        finally:
            checkpoints.close()
            weights.close()
            publisher.close()

    def files(self) -> dict[str, bytes]:
        """The files of the run whose bytes are promised."""
        weights = sorted(self.run_dir.glob("weights/*.safetensors"))
        return {
            p.relative_to(self.run_dir).as_posix(): p.read_bytes() for p in [*self.run_dir.glob("*.jsonl"), *weights]
        }


@pytest.fixture(scope="module")
def input_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("input")
    events, items = [], []
    for record in (r for chunk in SHORTER for r in chunk.records):
        if record.topic == Topic.EVENTS:
            events.append(record.value or b"")
        elif record.topic == Topic.ITEMS:
            key = (record.key or b"").decode()
            items.append(record.value or msgspec.json.encode({"item_id": key, "deleted": True}))
    (folder / "events.jsonl").write_bytes(b"\n".join(events) + b"\n")
    (folder / "items.jsonl").write_bytes(b"\n".join(items) + b"\n")
    return folder


def check_folder(input_dir: Path, tmp_path: Path, most: int, checkpoint_every: int) -> None:
    whole, faults = Folder(input_dir, tmp_path / "whole"), Faults()
    final = whole.run(faults, checkpoint_every=checkpoint_every)
    assert final.learner.versions.progress.n_promotions >= 1
    assert {"slates.jsonl", "versions.jsonl", "ledger.jsonl", "dead-letters.jsonl", "metrics.jsonl"} <= set(
        whole.files()
    )
    for step in steps_of(faults.order, most):
        folder, broken = Folder(input_dir, tmp_path / f"step-{step}"), Faults()
        broken.crash_at_step(step)
        with pytest.raises(Crash):
            folder.run(broken, checkpoint_every=checkpoint_every)
        again = folder.run(checkpoint_every=checkpoint_every)
        got, wanted = folder.files(), whole.files()
        point = faults.order[step - 1]
        assert sorted(got) == sorted(wanted), f"step {step}, {point}"
        assert [name for name in wanted if got[name] != wanted[name]] == [], f"step {step}, {point}"
        assert different(again, final) == [], f"step {step}, {point}"


@pytest.mark.parametrize("checkpoint_every", [pytest.param(0, marks=pytest.mark.slow), 3])
def test_a_crash_at_a_point_of_the_folder_leaves_a_resumable_run(
    input_dir: Path, tmp_path: Path, checkpoint_every: int
) -> None:
    check_folder(input_dir, tmp_path, 4, checkpoint_every)


@pytest.mark.slow
@pytest.mark.parametrize(("checkpoint_every", "most"), [(0, 40), (1, 40), (3, 100)])
def test_a_crash_at_any_point_of_the_folder_leaves_a_resumable_run(
    input_dir: Path, tmp_path: Path, checkpoint_every: int, most: int
) -> None:
    check_folder(input_dir, tmp_path, most, checkpoint_every)
