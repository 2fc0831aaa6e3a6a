"""Laws 1, 2, 3 and 6 with the text tower and an adapter that learns: equal folds, restores in mid-job, crashes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from stream_rec.component import Snapshot
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
        "learn.replay=window",
        "learn.replay_examples=16",
    )


@pytest.fixture(scope="module")
def ticks(sets: tuple[str, ...]) -> list[Any]:
    return World(sets, n_polls=3).play(shop_stream(days=1.2)).ticks()


def fold(pipeline: Pipeline, ticks: list[Any]) -> list[str]:
    return [pipeline.fold(tick, records).digest() for tick, records in ticks]


@dataclass(frozen=True)
class Whole:
    """A fold that never stopped: digests of its effects, snapshots and the parts of a round that these fall in."""

    pipeline: Pipeline
    effects: list[str]
    kept: dict[int, dict[str, Snapshot]]
    phases: set[str]


@pytest.fixture(scope="module")
def whole(sets: tuple[str, ...], ticks: list[Any]) -> Whole:
    made = Whole(pipeline_of(sets), [], {}, set())
    places = range(len(ticks) // 6, len(ticks), max(1, len(ticks) // 6))
    for number, (tick, records) in enumerate(ticks):
        if number in places:
            made.kept[number] = made.pipeline.snapshot()
            assert made.pipeline.learner.tower is not None and made.pipeline.learner.tower.rounds is not None
            made.phases.add(made.pipeline.learner.tower.rounds.phase)
        made.effects.append(made.pipeline.fold(tick, records).digest())
    return made


def test_two_folds_of_one_ledger_give_the_same_effects_and_state(
    whole: Whole, sets: tuple[str, ...], ticks: list[Any]
) -> None:
    again = pipeline_of(sets)
    assert fold(again, ticks) == whole.effects
    assert different(again, whole.pipeline) == []


def test_the_tower_learns_in_these_tests(whole: Whole) -> None:
    tower = whole.pipeline.learner.tower
    assert tower is not None and tower.rounds is not None
    assert tower.moments.n_steps > 5 and tower.rounds.progress.n_rounds > 0


def test_a_restore_at_any_tick_goes_on_as_if_never_stopped(
    whole: Whole, sets: tuple[str, ...], ticks: list[Any]
) -> None:
    """Also between two micro-batches, while texts wait to be embedded and in every part of an adapter's round."""
    assert len(whole.phases) > 1
    for number, snapshot in whole.kept.items():
        resumed = pipeline_of(sets)
        resumed.restore(snapshot)
        assert fold(resumed, ticks[number:]) == whole.effects[number:]
        assert digests(resumed) == digests(whole.pipeline)
