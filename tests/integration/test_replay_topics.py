"""A replay of stored topics: its own pipeline beside the live one, equal to itself and to what it follows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stream_rec import replay_topics
from stream_rec.errors import SettingsError
from stream_rec.events import Topic
from stream_rec.replay_topics import Asked, own_settings, run_replay
from stream_rec.worker_run import Start
from tests.integration.ground import Ground, item

OUTPUTS = (Topic.SLATES, Topic.VERSIONS, Topic.DEAD_LETTERS)


@pytest.fixture
def lived(ground: Ground) -> dict[str, Any]:
    """A live worker took two lots of events in two lives, and a change of settings between them."""
    ground.create_topics(n_partitions=2)
    ground.put(item(n) for n in range(11))
    ground.put_events(60)
    ground.put_events(40, first=100, partition=1)
    worker = ground.worker(start=Start("earliest"))
    ground.await_taken(60)
    ground.await_taken(40, (Topic.EVENTS, 1))
    worker.stop()
    ground.put_events(50, first=60)
    worker = ground.worker("learn.learning_rate=0.01")
    ground.await_taken(110)
    return worker.stop()


def replayed(ground: Ground, name: str, asked: Asked) -> dict[str, Any]:
    return run_replay(ground.settings(f"replay.name={name}", out=ground.folder / name), asked)


def outputs(ground: Ground, name: str | None = None) -> dict[str, Any]:
    ending = "" if name is None else f".{ground.prefix}-{name}"
    return {topic: ground.values(topic, ending=ending) for topic in OUTPUTS}


def test_a_replay_from_the_ledger_gives_the_live_bytes_and_the_live_state(
    ground: Ground, lived: dict[str, Any]
) -> None:
    told = replayed(ground, "proof", Asked(from_ledger=True))
    assert told["state_digest"] == lived["state_digest"]
    assert outputs(ground, "proof") == outputs(ground)
    assert len(outputs(ground)[Topic.SLATES]) > 20


def test_two_backfills_of_one_range_are_equal_and_disturb_nobody(ground: Ground, lived: dict[str, Any]) -> None:
    before = outputs(ground)
    one, two = (replayed(ground, name, Asked()) for name in ("one", "two"))
    assert one["state_digest"] == two["state_digest"]
    assert one["consumed"] == lived["consumed"]
    assert outputs(ground, "one") == outputs(ground, "two")
    assert outputs(ground) == before


@pytest.mark.parametrize("from_ledger", [True, False])
def test_a_replay_that_was_interrupted_goes_on_to_the_same_end(
    ground: Ground, lived: dict[str, Any], from_ledger: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked(from_ledger=from_ledger)
    whole = replayed(ground, "whole", asked)
    honest, n = replay_topics.Pace.keep, [0]

    def dying(*arguments: Any) -> None:
        n[0] += 1
        if n[0] == 2:
            raise OSError("the process died here")
        honest(*arguments)

    monkeypatch.setattr(replay_topics.Pace, "keep", dying)
    with pytest.raises(OSError, match="died here"):
        replayed(ground, "broken", asked)
    assert replayed(ground, "broken", asked)["state_digest"] == whole["state_digest"]
    assert outputs(ground, "broken") == outputs(ground, "whole")
    assert replayed(ground, "broken", asked)["state_digest"] == whole["state_digest"]


def test_another_range_under_the_same_name_is_refused(ground: Ground, lived: dict[str, Any]) -> None:
    replayed(ground, "one", Asked())
    with pytest.raises(SettingsError, match=r"until_ms differ.*replay\.name"):
        replayed(ground, "one", Asked(until_ms=1))


def test_partitions_and_the_output_topic_may_be_chosen(ground: Ground, lived: dict[str, Any]) -> None:
    told = replayed(ground, "part", Asked(partitions=(1,), output_topic=f"{ground.prefix}.other"))
    assert told["accepted"] == 40 + 11
    assert ground.stored(f"{ground.prefix}.other") != {}
    with pytest.raises(SettingsError, match="has no partition 7"):
        replayed(ground, "none", Asked(partitions=(7,)))


def test_a_live_worker_begins_from_a_replay_and_goes_on_behind_it(ground: Ground, lived: dict[str, Any]) -> None:
    replayed(ground, "history", Asked())
    folder = own_settings(ground.settings("replay.name=history", out=ground.folder / "history")).run_dir
    names = [f"topics.{t}={ground.prefix}.next-{t}" for t in ("slates", "versions", "ledger", "dead_letters")]
    sets = (f"pipeline.name={ground.prefix}-next", *names)
    following = Ground(ground.bootstrap, ground.prefix, ground.folder / "next", *sets)
    following.create_topics(n_partitions=2)
    worker = following.worker(start=Start(init_from=folder))
    ground.put_events(5, first=500)
    following.await_taken(5)
    assert worker.stop()["consumed"] == lived["consumed"] + 5
    first = following.entries()[0]
    chain = json.loads((Path(folder) / "summary.json").read_text())["ledger_chain"]
    assert (first["kind"], first["prev"]) == ("genesis", chain)
