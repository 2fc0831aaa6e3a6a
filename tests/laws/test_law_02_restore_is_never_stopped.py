"""Law 2: snapshot then restore = never stopped, for every stateful component and for the whole, in mid-job too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_rec.component import SCALARS, Component, Snapshot, digest
from stream_rec.events import Record
from stream_rec.io.checkpoint import FolderCheckpoints
from stream_rec.pipeline import Pipeline
from stream_rec.stream.tick import Tick
from tests.laws.walk import fingerprint, parts
from tests.laws.world import LAW, SMALL, World, at_rest, different, digests, pipeline_of, restored, shop_stream

Ticks = list[tuple[Tick, list[Record]]]


@lru_cache
def ticks() -> Ticks:
    """A live run's ticks; weights take a while to be durable, so that challengers wait over several ticks."""
    return World(n_polls=3).play(shop_stream()).ticks()


@dataclass
class Whole:
    """A pipeline that never stopped: after every tick its effects digest, its state and the digests of its state."""

    pipeline: Pipeline
    effects: list[str]
    states: list[dict[str, Snapshot]]
    digests: list[dict[str, str]]


@lru_cache
def whole() -> Whole:
    run = Whole(pipeline_of(), [], [], [])
    for tick, records in ticks():
        run.states.append(at_rest(run.pipeline.snapshot()))
        run.effects.append(run.pipeline.fold(tick, records).digest())
        run.digests.append(digests(run.pipeline))
    return run


def resumed(number: int) -> Pipeline:
    """A fresh pipeline with the state from before tick `number`."""
    pipeline = pipeline_of()
    pipeline.restore(whole().states[number])
    return pipeline


def continues(pipeline: Pipeline, number: int) -> None:
    """Fold the rest and compare every tick with the run that never stopped."""
    run = whole()
    for i, (tick, records) in enumerate(ticks()[number:], start=number):
        assert pipeline.fold(tick, records).digest() == run.effects[i], f"effects of tick {i}"
        now = digests(pipeline)
        assert [name for name in now if now[name] != run.digests[i][name]] == [], f"state after tick {i}"


@settings(LAW, max_examples=4)
@given(number=st.integers(1, 30))
def test_a_restored_pipeline_goes_on_as_if_it_had_never_stopped(number: int) -> None:
    number = min(number, len(ticks()) - 1)
    again = resumed(number)
    assert digests(again) == whole().digests[number - 1]
    continues(again, number)


def test_being_copied_changes_nothing() -> None:
    pipeline = pipeline_of()
    for i, (tick, records) in enumerate(ticks()):
        first, second = digests(pipeline), digests(pipeline)
        assert first == second
        assert pipeline.fold(tick, records).digest() == whole().effects[i]


def test_a_copy_that_is_still_being_written_is_not_touched_by_what_follows() -> None:
    """A checkpoint is written while the loop goes on; three of them may be on their way."""
    pipeline = pipeline_of((*SMALL, "dedupe.capacity=300000", "users.capacity=140000"))
    held: list[tuple[dict[str, Snapshot], dict[str, str]]] = []
    for tick, records in ticks()[:12]:
        pipeline.fold(tick, records)
        snapshots = pipeline.snapshot()
        held.append((snapshots, {name: digest(snapshot) for name, snapshot in snapshots.items()}))
        for kept, before in held[-3:]:
            assert {name: digest(snapshot) for name, snapshot in kept.items()} == before


@pytest.mark.parametrize("name", list(pipeline_of().components()))
def test_every_component_restores_to_the_bytes_it_was_copied_from(name: str) -> None:
    for number in (5, len(ticks()) - 1):
        before, fresh = whole().states[number][name], pipeline_of().components()[name]
        fresh.restore(before)
        assert fingerprint(at_rest({name: fresh.snapshot()})[name]) == fingerprint(before)


def waiting_for_weights() -> list[int]:
    """Ticks before which a challenger waits."""
    return [i for i, state in enumerate(whole().states) if state["progress"][SCALARS]["challenger"]]


def test_it_holds_while_a_challenger_waits_for_durable_weights() -> None:
    numbers = waiting_for_weights()
    assert len(numbers) >= 3
    for number in (numbers[0], numbers[-1]):
        again = resumed(number)
        assert again.learner.versions.progress.challenger in again.pending_weights()
        continues(again, number)


def test_it_holds_while_slates_of_lost_items_are_still_owed() -> None:
    slowly = (*SMALL, "slate.refresh_users_per_tick=1", "attribution.max_decisions=200")
    never_stopped, again = pipeline_of(slowly), None
    taken = World(slowly).play(shop_stream()).ticks()
    for number, (tick, records) in enumerate(taken):
        if again is None and never_stopped._slates.refresh.n_queued > 1:
            again = restored(never_stopped, slowly)
        effects = never_stopped.fold(tick, records).digest()
        if again is not None:
            assert again.fold(tick, records).digest() == effects
            if number % 4 == 0 or number == len(taken) - 1:
                assert different(never_stopped, again) == []
    assert again is not None


def test_it_holds_through_a_checkpoint_on_the_disk(tmp_path: Path) -> None:
    number = waiting_for_weights()[0]
    name = f"{number:010d}-{'0' * 16}"
    store = FolderCheckpoints(tmp_path)
    store.save(name, {"tick": number, "chain": "0", "ledger_offset": 0, "cut_at_ms": 0}, resumed(number).snapshot())
    store.close()
    again = pipeline_of()
    again.restore(FolderCheckpoints(tmp_path).load(name)[1])
    continues(again, number)


def components_within(component: Component) -> Iterator[tuple[str, Component]]:
    """A component and those it holds."""
    yield type(component).__name__, component
    for value in vars(component).values():
        if isinstance(value, Component):
            yield from components_within(value)


def test_every_attribute_of_every_component_is_declared() -> None:
    for name, component in whole().pipeline.components().items():
        for inner, part in components_within(component):
            kind = type(part)
            declared = {*kind.columns, *kind.scalars, *kind.derived, *kind.fixed}
            assert set(vars(part)) - declared == set(), f"{name}, {inner}: state outside the table"
            assert declared - set(dir(part)) == set(), f"{name}, {inner}: declared and not there"


def test_fixed_attributes_never_change() -> None:
    fresh, used = pipeline_of().components(), whole().pipeline.components()
    for name in fresh:
        for (inner, before), (_, after) in zip(
            components_within(fresh[name]), components_within(used[name]), strict=True
        ):
            for attribute in type(before).fixed:
                left, right = getattr(before, attribute), getattr(after, attribute)
                if not isinstance(left, Component):
                    assert fingerprint(left) == fingerprint(right), f"{name}, {inner}.{attribute}"


def test_every_component_that_the_pipeline_reaches_is_in_the_table() -> None:
    pipeline = whole().pipeline
    tabled: set[int] = set()
    for component in pipeline.components().values():
        tabled |= {id(part) for _, part in components_within(component)}
    assert [type(c).__name__ for c in parts(pipeline, Component) if id(c) not in tabled] == []


def test_no_object_outside_the_table_changes_from_tick_to_tick() -> None:
    pipeline = pipeline_of()
    before: dict[str, Any] = fingerprint(pipeline, skip=(Component,))
    for tick, records in ticks():
        pipeline.fold(tick, records)
        assert fingerprint(pipeline, skip=(Component,)) == before


def test_tables_hold_nothing_beyond_the_rows_they_copy() -> None:
    """Rows past `used()` are blank, else a restored table would differ from the one that ran on."""
    blank = pipeline_of(SMALL).components()
    for name, component in whole().pipeline.components().items():
        for (inner, part), (_, empty) in zip(components_within(component), components_within(blank[name]), strict=True):
            n = part.used()
            for column in type(part).columns:
                values = getattr(part, column)
                if n is not None and not isinstance(values, list):
                    assert fingerprint(values[n:]) == fingerprint(getattr(empty, column)[n:]), (
                        f"{name}, {inner}.{column}"
                    )
