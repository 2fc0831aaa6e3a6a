"""Law 1, over the lives of a worker: a replay that follows its ledger gives the same bytes and the same state.

The ledger that is followed holds two lives, a change of settings and a partition that appeared.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec
import pytest

from stream_rec.errors import InputGone, JobFailed, LedgerMismatch
from stream_rec.events import Output, Topic
from stream_rec.io.faults import Crash, Faults
from stream_rec.io.memory import MemoryWeights
from tests.laws.lives import CHANGED, NEW, PUBLISHED, Follower, Lives, copy_of, uninterrupted
from tests.laws.test_law_03_crash_anywhere import steps_of
from tests.laws.world import SMALL, different

NEITHER = (*SMALL, "learn.micro_batch=4")


def live() -> Lives:
    return uninterrupted()[0]


@lru_cache
def whole() -> tuple[Follower, list[str]]:
    """A follower that never crashed, and the points that its stores passed."""
    follower = Follower(live())
    follower.faults = Faults()
    return follower.run(), list(follower.faults.order)


def published(outputs: dict[str, list[Output]]) -> dict[str, list[Output]]:
    return {topic: outputs[topic] for topic in PUBLISHED}


def is_the_state_of(follower: Follower, world: Lives) -> bool:
    """But for the chain of its own ledger."""
    one, other = follower.loop.pipeline, world.pipeline
    same_place = one.positions.next_by_name == other.positions.next_by_name
    return set(different(one, other)) <= {"positions"} and same_place and one.positions.number == other.positions.number


def test_the_followed_ledger_holds_two_lives_other_settings_and_a_new_partition() -> None:
    entries = live().entries()
    assert [e["kind"] for e in entries if e["kind"] != "tick"] == ["genesis", "claim"]
    assert len({e["settings"] for e in entries}) == 2
    assert [e["tick"]["appeared"] for e in entries if e.get("tick", {}).get("appeared")] == [[list(NEW)]]
    assert live().pipeline.learner.versions.progress.n_promotions >= 1
    assert all(live().outputs().values())


@pytest.mark.parametrize("sets", [SMALL, CHANGED, NEITHER], ids=["as it began", "as it ended", "neither"])
def test_following_gives_the_live_bytes_and_the_live_state_whatever_the_settings_are_now(sets: tuple[str, ...]) -> None:
    follower = Follower(live(), sets).run()
    assert published(follower.outputs()) == published(live().outputs())
    assert is_the_state_of(follower, live())
    assert sorted(follower.broker.weights) == sorted(live().broker.weights)


def test_its_own_ledger_says_the_same_ticks_and_who_made_them() -> None:
    def said(entry: dict[str, Any]) -> dict[str, Any]:
        return {
            name: entry.get(name) for name in ("n", "kind", "tick", "effects_digest", "outputs", "counts", "settings")
        }

    own = [msgspec.json.decode(output.value or b"") for output in whole()[0].outputs()[Topic.LEDGER]]
    assert [said(entry) for entry in own] == [said(entry) for entry in live().entries()]
    assert {entry["learner"] for entry in own} == {"replay"}
    assert own[0]["mode"] == "replay"


@pytest.mark.parametrize("nth", [1, 3, -2])
def test_a_follower_that_crashes_goes_on_to_the_same_bytes(nth: int) -> None:
    follower, order = whole()
    step = steps_of(order, 4)[nth]
    broken = Follower(live())
    broken.faults = Faults()
    broken.faults.crash_at_step(step)
    with pytest.raises(Crash):
        broken.run()
    broken.faults = None
    assert broken.run().outputs() == follower.outputs()
    assert different(broken.loop.pipeline, follower.loop.pipeline) in ([], ["positions"]), (
        "only ledger offsets may differ"
    )
    assert is_the_state_of(broken, live())


def test_a_follower_that_is_done_follows_nothing_again() -> None:
    follower = whole()[0]
    follower.faults, written = None, follower.outputs()
    assert follower.run().outputs() == written


def test_what_lies_outside_of_the_range_is_folded_and_not_published() -> None:
    middle = live().entries()[len(live().entries()) // 2]["n"]
    follower = Follower(live()).run(publish=lambda entry: entry["n"] > middle)
    muted = Follower(live()).run(publish=lambda entry: entry["n"] <= middle)
    for topic in PUBLISHED:
        assert muted.outputs()[topic] + follower.outputs()[topic] == live().outputs()[topic]
    assert follower.outputs()[Topic.SLATES] and muted.outputs()[Topic.SLATES]
    assert is_the_state_of(follower, live())


# ---- what ends it


def test_a_tick_that_gives_other_effects_ends_it_before_they_are_published() -> None:
    world = copy_of(live())
    ledger = world.broker._logs[Topic.LEDGER]
    nth = [i for i, (_, output) in enumerate(ledger) if output and b'"kind":"tick"' in (output.value or b"")][4]
    transaction, output = ledger[nth]
    assert output is not None
    entry = msgspec.json.decode(output.value or b"")
    forged = output._replace(value=msgspec.json.encode({**entry, "effects_digest": "0" * 64}))
    ledger[nth] = (transaction, forged)
    follower = Follower(world)
    with pytest.raises(LedgerMismatch, match=f"tick {entry['n']} gave other effects"):
        follower.run()
    last = msgspec.json.decode(follower.outputs()[Topic.LEDGER][-1].value or b"")
    assert last["n"] == entry["n"] - 1


def test_input_that_is_gone_ends_it_with_its_place() -> None:
    world = copy_of(live())
    world.broker.drop_before((Topic.EVENTS, 1), 5)
    with pytest.raises(InputGone, match=r"events/1: .* can no longer all be read"):
        Follower(world).run()


class FullDisk(MemoryWeights):
    """Says of whatever was put that it could not be written."""

    def durable(self) -> Sequence[str]:
        if self._waiting:
            raise JobFailed(f"cannot write {self._waiting.pop(0)[0]}: no space left")
        return []


def test_weights_that_cannot_be_written_end_it_and_the_next_start_writes_them() -> None:
    follower = Follower(live())
    follower.weights = FullDisk
    for _ in range(2):
        with pytest.raises(JobFailed, match="no space left"):
            follower.run()
    follower.weights = MemoryWeights
    assert sorted(follower.run().broker.weights) == sorted(live().broker.weights) != []
    assert published(follower.outputs()) == published(live().outputs())
