"""Laws 1, 2 and 3 with commands about versions in the stream: rollbacks by version and by time, a pin, refusals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import pytest

from stream_rec.component import Snapshot
from stream_rec.events import Output, Record, Topic
from stream_rec.io.faults import Faults
from stream_rec.loop import Live
from stream_rec.pipeline import Pipeline
from stream_rec.stream.tick import Tick
from tests.laws.lives import Follower, Lives, sound
from tests.laws.world import (
    MINUTE_MS,
    SMALL,
    Chunk,
    World,
    at_rest,
    crashes_at,
    different,
    digests,
    pipeline_of,
    shop_stream,
)

N_POLLS, EVERY = 2, 4
"""Looks until weights are durable, and ticks between two checkpoints."""


def notices(world: World, *events: str) -> list[dict[str, Any]]:
    said = [json.loads(output.value or b"{}") for output in world.broker.outputs(Topic.VERSIONS)]
    return [notice for notice in said if not events or notice["event"] in events]


def said(world: World, step: int) -> Iterator[dict[str, Any]]:
    """What somebody at the console says before chunk `step`, seeing the notices so far."""
    served = [notice["version"] for notice in notices(world, "initial", "promote", "rollback")]
    match step:
        case 6:
            yield {"command": "pin", "version": served[-1]}
            yield {"command": "pin", "version": "v1-000000000000"}
        case 7:
            yield {"command": "rollback", "version": served[-2], "command_id": "to a version"}
            yield {"command": "rollback", "version": served[-1], "command_id": "twice"}
        case 9 | 13:
            yield {"command": "unfreeze"}
        case 11:
            at_ms = world.pipeline._releases.state.cuts[-2]["at_ms"]
            yield {"command": "rollback", "event_at": at_ms, "command_id": "to a time"}
        case 14:
            yield {"command": "rollback", "event_at": 1_000_000_000_000, "command_id": "too old"}
            yield {"command": "promote", "version": served[-1], "command_id": "serves already"}


def with_commands(world: World, step: int, chunk: Chunk) -> Chunk:
    at_ms = chunk.now_ms - MINUTE_MS
    told = [Record(Topic.CONTROL, 0, 0, at_ms, None, json.dumps(body).encode()) for body in said(world, step)]
    return Chunk(chunk.now_ms, (*chunk.records, *told))


@lru_cache
def played() -> tuple[World, tuple[Chunk, ...]]:
    """A worker that never stopped, to be looked at only, and its stream."""
    world, stream = World(n_polls=N_POLLS, checkpoint_every=EVERY), []
    for step, chunk in enumerate(shop_stream()):
        stream.append(with_commands(world, step, chunk))
        world.arrive(stream[-1])
        world.catch_up()
    return world, tuple(stream)


def written(world: World) -> list[Output]:
    return world.broker.outputs(Topic.LEDGER)


def test_every_command_is_answered_once_and_a_refusal_says_why() -> None:
    answers = {n["command_id"]: n for n in notices(played()[0], "command") if n["command_id"]}
    assert {name: answer["status"] for name, answer in answers.items()} == {
        "to a version": "done",
        "twice": "refused",
        "to a time": "done",
        "too old": "refused",
        "serves already": "refused",
    }
    assert answers["twice"]["reason"] == "another rollback is on its way"
    assert answers["too old"]["reason"] == "no version had been cut by that time"
    pins = [(n["status"], n.get("reason", "")) for n in notices(played()[0], "command") if n["command"] == "pin"]
    assert [status for status, _ in pins] == ["refused", "done", "refused"]
    assert pins[0][1].startswith("no version v1-000000000000 is known to this pipeline")


def test_after_a_rollback_nothing_is_promoted_until_unfreeze() -> None:
    told = [(n["event"], n.get("command")) for n in notices(played()[0], "promote", "rollback", "command")]
    back = [at for at, (event, _) in enumerate(told) if event == "rollback"]
    assert len(back) == 2
    for at in back:
        after = [what for what in told[at:] if what[0] == "promote" or what[1] == "unfreeze"]
        assert after[0] == ("command", "unfreeze")


@pytest.mark.parametrize("with_checkpoints", [True, False], ids=["checkpoints", "the ledger alone"])
def test_a_replay_of_the_ledger_goes_back_to_the_same_bytes(with_checkpoints: bool) -> None:
    world, ledger = played()[0], written(played()[0])
    replay = World(broker=world.broker, recovered=False)
    replay.start(with_checkpoints=with_checkpoints)
    assert different(world.pipeline, replay.pipeline) == []
    assert written(world) == ledger


def fold(
    pipeline: Pipeline, tick: Tick, records: list[Record], states: dict[int, dict[str, Snapshot]]
) -> str:  # fmt: skip
    asked = tick.restore
    return pipeline.fold(tick, records, states[asked.tick] if asked and not asked.refused else None).digest()


@lru_cache
def whole() -> tuple[dict[int, dict[str, Snapshot]], dict[int, str]]:
    """The state after each tick of a fold that never stopped, and the digest of its effects."""
    pipeline, states, effects = pipeline_of(), {}, {}
    pipeline.begin(dict.fromkeys(played()[0].broker.inputs, 0))
    for tick, records in played()[0].ticks():
        effects[tick.number] = fold(pipeline, tick, records, states)
        states[tick.number] = at_rest(pipeline.snapshot())
    return states, effects


def test_a_restore_before_in_and_after_a_rollback_goes_on_as_if_never_stopped() -> None:
    states, effects = whole()
    ticks = played()[0].ticks()
    places = [at for at, (tick, _) in enumerate(ticks) if tick.restore is not None]
    for at in sorted({place + step for place in places for step in (-2, -1, 0)}):
        again = pipeline_of()
        again.restore(states[ticks[at][0].number])
        for tick, records in ticks[at + 1 : at + 12]:
            assert fold(again, tick, records, states) == effects[tick.number]
        fresh = pipeline_of()
        fresh.restore(states[ticks[min(at + 11, len(ticks) - 1)][0].number])
        assert digests(again) == digests(fresh)


def test_a_crash_anywhere_around_a_rollback_loses_and_doubles_nothing() -> None:
    _, stream = played()
    ends = [step for step, chunk in enumerate(stream) if any(b'"rollback"' in (r.value or b"") for r in chunk.records)]
    first = n_points(stream[: ends[0]])
    last = n_points(stream[: ends[0] + 1])
    for step in range(first + 1, last, max(1, (last - first) // 8)):
        crashed = World(n_polls=N_POLLS, checkpoint_every=EVERY, recovered=False)
        assert crashes_at(crashed, stream[: ends[0] + 2], step)
        taken = {p: crashed.broker.end_offset(p) for p in crashed.broker.inputs}
        assert {p: crashed.pipeline.positions.next_of(p) for p in taken} == taken
        assert [n["status"] for n in notices(crashed, "command") if n.get("command_id") == "to a version"] == ["done"]
        replay = World(broker=crashed.broker, recovered=False)
        replay.start(with_checkpoints=False)
        assert different(crashed.pipeline, replay.pipeline) == []


def n_points(stream: tuple[Chunk, ...]) -> int:
    faults, world = Faults(), World(n_polls=N_POLLS, checkpoint_every=EVERY, recovered=False)
    world.start(faults)
    world.play(stream)
    return len(faults.order)


def lived(sets: tuple[str, ...] = SMALL) -> Lives:
    """A live worker, which goes back to checkpoints only."""
    world = Lives(sets, live=Live(idle_ms=60_000))
    for step, chunk in enumerate(shop_stream()):
        world.arrive(with_commands(world, step, chunk))
        world.catch_up()
    return world


def test_a_live_worker_goes_back_to_what_it_kept_and_its_ledger_says_all_of_it() -> None:
    world = lived()
    answers = {n["command_id"]: n for n in notices(world, "command") if n["command_id"]}
    assert (answers["to a version"]["status"], answers["to a time"]["status"]) == ("done", "done")
    assert answers["too old"]["reason"] == "a state as old as that is not kept any more"
    sound(world)


def test_a_replay_that_follows_goes_back_with_it() -> None:
    world = lived()
    follower = Follower(world).run()
    assert {t: o for t, o in follower.outputs().items() if t != Topic.LEDGER} == {
        t: o for t, o in world.outputs().items() if t != Topic.LEDGER
    }
