"""Laws 1, 2, 3 and 6 with the text tower and an adapter that learns: equal folds, restores in mid-job, crashes."""

from __future__ import annotations

from typing import Any

import pytest

from stream_rec.pipeline import Pipeline
from tests.laws.world import SMALL, World, different, digests, pipeline_of, shop_stream
from tests.model import tiny


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    folder = tmp_path_factory.mktemp("encoder")
    return (
        *SMALL,
        f"model.encoder={tiny.tiny_encoder_folder(folder)}",
        f"run.dir={tmp_path_factory.mktemp('run')}",
        "model.min_examples=24",
        "model.embed_texts_per_tick=5",
        "model.adapter_every_examples=100",
        "model.adapter_steps=2",
        "model.adapter_texts_per_tick=9",
    )


@pytest.fixture(scope="module")
def ticks(sets: tuple[str, ...]) -> list[Any]:
    return World(sets, n_polls=3).play(shop_stream(days=1.2)).ticks()


def fold(pipeline: Pipeline, ticks: list[Any]) -> list[str]:
    return [pipeline.fold(tick, records).digest() for tick, records in ticks]


def test_two_folds_of_one_ledger_give_the_same_effects_and_state(sets: tuple[str, ...], ticks: list[Any]) -> None:
    one, two = pipeline_of(sets), pipeline_of(sets)
    assert fold(one, ticks) == fold(two, ticks)
    assert different(one, two) == []


def test_the_tower_learns_in_these_tests(sets: tuple[str, ...], ticks: list[Any]) -> None:
    pipeline = pipeline_of(sets)
    fold(pipeline, ticks)
    tower = pipeline.learner.tower
    assert tower is not None and tower.rounds is not None
    assert tower.moments.n_steps > 5 and tower.rounds.progress.n_rounds > 0


def test_a_restore_at_any_tick_goes_on_as_if_never_stopped(sets: tuple[str, ...], ticks: list[Any]) -> None:
    """Also between two micro-batches, while texts wait to be embedded and in every part of an adapter's round."""
    whole = pipeline_of(sets)
    kept, phases = {}, []
    places = range(len(ticks) // 6, len(ticks), max(1, len(ticks) // 6))
    effects = []
    for number, (tick, records) in enumerate(ticks):
        if number in places:
            kept[number] = whole.snapshot()
            assert whole.learner.tower is not None and whole.learner.tower.rounds is not None
            phases.append(whole.learner.tower.rounds.phase)
        effects.append(whole.fold(tick, records).digest())
    assert len(set(phases)) > 1
    for number, snapshot in kept.items():
        resumed = pipeline_of(sets)
        resumed.restore(snapshot)
        assert fold(resumed, ticks[number:]) == effects[number:]
        assert digests(resumed) == digests(whole)
