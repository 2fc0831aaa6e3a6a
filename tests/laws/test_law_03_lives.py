"""Law 3, over the lives of a worker: crashes around new settings, new partitions, other beginnings and take-overs."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import pytest

from stream_rec.errors import Fenced, InputGone, JobFailed, SettingsError
from stream_rec.events import Topic
from stream_rec.fold import Loaded
from stream_rec.io.faults import Crash, Faults
from stream_rec.io.memory import MemoryCheckpoints
from stream_rec.io.memory_broker import MemoryBroker
from tests.laws.lives import (
    CHANGED,
    NEW,
    STREAM,
    Lives,
    copy_of,
    drain,
    folded_again,
    lived,
    offsets_of,
    sound,
    uninterrupted,
)
from tests.laws.test_law_03_crash_anywhere import steps_of
from tests.laws.world import DAY_MS, SMALL, Chunk, crashes_at, different, new_broker, slates_of

HALF = 4


# ---- settings and partitions


def test_without_a_crash_the_state_is_the_fold_of_the_ledger() -> None:
    sound(uninterrupted()[0])


@pytest.mark.parametrize("nth", [1, -2])
def test_a_crash_around_new_settings_and_a_new_partition_loses_and_doubles_nothing(nth: int) -> None:
    faults = Faults()
    faults.crash_at_step(steps_of(list(uninterrupted()[1]), 4)[nth])
    world, n_crashes = lived(faults)
    assert n_crashes == 1
    sound(world)
    assert [e["tick"]["appeared"] for e in world.entries() if e.get("tick", {}).get("appeared")] == [[list(NEW)]]


@pytest.mark.slow
def test_a_crash_at_any_point_of_the_lives_loses_and_doubles_nothing() -> None:
    for step in steps_of(list(uninterrupted()[1]), 40):
        faults = Faults()
        faults.crash_at_step(step)
        sound(lived(faults)[0])


def test_every_checkpoint_of_every_life_leads_to_the_same_state() -> None:
    world = uninterrupted()[0]
    names = list(world.broker.checkpoints)
    settings = {world.broker.checkpoints[name].read()[0]["settings"] for name in names}
    assert len(settings) == 2 and len(names) >= 6
    for name in names[::3]:
        assert different(world.pipeline, folded_again(world, name).pipeline) == [], name


def test_new_settings_count_from_the_claim_on_and_not_for_what_was_committed_before() -> None:
    world = uninterrupted()[0]
    kinds = [(e["kind"], "semantic" in e, e["settings"]) for e in world.entries()]
    claim = next(i for i, (kind, *_) in enumerate(kinds) if kind == "claim")
    assert kinds[claim][1] and not any(said for kind, said, _ in kinds[1:claim])
    assert len({digest for *_, digest in kinds[:claim]}) == len({digest for *_, digest in kinds[claim:]}) == 1
    changed_ms = world.entries()[claim - 1]["tick"]["cut_at_ms"]
    slates = slates_of(world.outputs()[Topic.SLATES])
    valid_ms = {(s["event_at"] > changed_ms, s["valid_until"] - s["event_at"]) for s in slates if not s.get("query")}
    assert valid_ms == {(False, 7 * DAY_MS), (True, DAY_MS)}


def test_settings_that_size_a_table_are_refused_and_nothing_is_written() -> None:
    world = uninterrupted()[0]
    written = world.outputs()
    other = Lives((*CHANGED, "users.capacity=101"), world.broker, recovered=False)
    other.make()
    with pytest.raises(SettingsError, match=r"users\.capacity cannot be changed while a pipeline runs"):
        other.loop.recover()
    assert world.outputs() == written


def test_a_partition_that_appears_while_nobody_runs_is_read_from_its_beginning() -> None:
    world = Lives()
    for chunk in STREAM[:3]:
        world.arrive(chunk)
    world.catch_up()
    world.broker.add_partition(*NEW)
    world.arrive(Chunk(STREAM[3].now_ms, tuple(r._replace(partition=2) for r in STREAM[3].records if r.partition == 1)))
    world.start()
    world.catch_up()
    sound(world)
    assert world.pipeline.positions.next_of(NEW) == world.broker.end_offset(NEW) > 0


# ---- from a replay


@lru_cache
def history() -> Lives:
    """A bounded replay of the first half, drained, with its last checkpoint."""
    world = Lives(live=None)
    world.play(STREAM[:HALF])
    drain(world)
    world.loop.checkpoint()
    return world


def newest() -> Loaded:
    store = MemoryCheckpoints(history().broker)
    return store.load(store.names()[0])


def next_pipeline(sets: tuple[str, ...] = SMALL, init: Callable[[], Loaded] | None = newest) -> Lives:
    """A worker that is to begin from the replay, over the same input topics; not made yet."""
    broker: MemoryBroker = new_broker()
    for partition, log in history().broker.inputs.items():
        broker.inputs[partition] = list(log)
        broker._next[partition] = history().broker.end_offset(partition)
    return Lives(sets, broker, init=init, recovered=False)


def gone_on(world: Lives) -> Lives:
    """The same with the second half of the stream."""
    return world.play(STREAM[HALF:])  # type: ignore[return-value]


@pytest.mark.parametrize("sets", [SMALL, CHANGED], ids=["same settings", "other settings"])
def test_a_worker_that_begins_from_a_replay_has_its_state_and_reads_on_behind_it(sets: tuple[str, ...]) -> None:
    world = next_pipeline(sets)
    world.start()
    assert different(world.pipeline, history().pipeline) == ["positions"]
    genesis = world.entries()[0]
    last = history().entries()[-1]
    assert (genesis["kind"], genesis["n"]) == ("genesis", last["n"] + 1)
    assert genesis["prev"] == history().pipeline.positions.chain
    sound(gone_on(world), start=offsets_of(newest()))


@pytest.mark.parametrize("step", [4, 30])
def test_a_crash_after_such_a_beginning_loses_and_doubles_nothing(step: int) -> None:
    world, faults = next_pipeline(), Faults()
    faults.crash_at_step(step)
    assert crashes_at(world, STREAM[HALF:], step)
    sound(world, start=offsets_of(newest()))


def test_such_a_ledger_without_a_checkpoint_needs_the_replay_again() -> None:
    world = next_pipeline()
    world.start()
    gone_on(world)
    orphan = Lives(SMALL, world.broker, recovered=False)
    orphan.make(with_checkpoints=False)
    with pytest.raises(JobFailed, match="--init-from"):
        orphan.loop.recover()


def test_such_a_ledger_with_a_checkpoint_does_not_need_the_replay() -> None:
    world = next_pipeline()
    world.start()
    gone_on(world)
    again = Lives(SMALL, world.broker, live=None)
    assert different(world.pipeline, again.pipeline) == []


def test_a_ledger_that_lost_its_beginning_is_not_begun_anew() -> None:
    world = copy_of(uninterrupted()[0])
    last = uninterrupted()[0].pipeline.positions.ledger_offset
    world.broker.forget_before(Topic.LEDGER, last)
    orphan = Lives(CHANGED, world.broker, recovered=False)
    orphan.make(with_checkpoints=False)
    with pytest.raises(InputGone, match="the ledger begins at tick"):
        orphan.loop.recover()


# ---- two learners


def half_lived() -> Lives:
    world = Lives(learner="one")
    return world.play(STREAM[:HALF])  # type: ignore[return-value]


def test_whoever_is_taken_over_publishes_nothing_more() -> None:
    one = half_lived()
    two = Lives(broker=one.broker, learner="two")
    written = one.outputs()
    one.broker.extend(STREAM[HALF].records)
    with pytest.raises(Fenced):
        one.loop.step(cut_at_ms=STREAM[HALF].now_ms)
    assert one.outputs() == written
    two.play([Chunk(STREAM[HALF].now_ms, ()), *STREAM[HALF + 1 :]])
    sound(two)
    assert [e["learner"] for e in two.entries() if e["kind"] != "tick"] == ["one", "two"]


def test_what_the_first_commits_while_the_second_folds_is_folded_by_the_second_too() -> None:
    """Only then is it fenced: the ticks of that time stand in front of the claim."""
    one = half_lived()
    two = Lives(broker=one.broker, learner="two", recovered=False)
    two.make()
    one.ports.publisher.take_over()  # Opening a publisher of topics fences nobody; that of memory does.
    take_over, n_before = two.ports.publisher.take_over, len(one.entries())

    def late() -> None:
        one.play(STREAM[HALF : HALF + 1])
        take_over()

    two.ports.publisher.take_over = late  # type: ignore[method-assign]
    two.loop.recover()
    kinds = [e["kind"] for e in two.entries()[n_before:]]
    assert kinds == ["tick"] * (len(kinds) - 1) + ["claim"] and len(kinds) > 1
    assert set(different(one.pipeline, two.pipeline)) == {"positions"}
    two.clock.set(one.clock.now_ms())
    two.play(STREAM[HALF + 1 :])
    sound(two)


@pytest.mark.parametrize("step", [2, 4])
def test_a_second_that_crashes_in_its_take_over_takes_over_again(step: int) -> None:
    one = half_lived()
    two, faults = Lives(broker=one.broker, learner="two", recovered=False), Faults()
    faults.crash_at_step(step)
    with pytest.raises(Crash):
        two.start(faults)
    two.start()
    two.clock.set(one.clock.now_ms())
    two.play(STREAM[HALF:])
    sound(two)
    assert faults.order[step - 1] in {"before_outputs", "before_entry", "before_commit", "after_commit"}
