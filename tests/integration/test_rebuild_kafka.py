"""`versions rebuild` of a worker: ledger and input are topics, and nobody else hears of it."""

from __future__ import annotations

import json
import shutil
from contextlib import closing

import pytest
from click.testing import Result
from kafka import KafkaAdminClient
from kafka import TopicPartition as KafkaPartition
from typer.testing import CliRunner

from stream_rec import assemble_kafka
from stream_rec.cli import app
from stream_rec.events import Topic
from stream_rec.io import kafka_publisher
from stream_rec.io.kafka import Sending
from stream_rec.io.kafka_publisher import KafkaPublisher
from stream_rec.replay_topics import Asked, run_replay
from stream_rec.simulate import Shop, ShopPlan
from tests.integration.ground import KEY, Ground

SETS = ("gate.margin=0.9", "learn.sample_one_in=1")
RATE, CHANGED = "learn.learning_rate=0.05", "learn.learning_rate=0.04"
PLAN = ShopPlan(days=2, n_users=60, n_items=100, visits_per_day=150)


@pytest.fixture
def lived(ground: Ground) -> Ground:
    """A pipeline in which versions were promoted, in two lives with a change of settings between them."""
    ground.create_topics()
    shop = Shop(5, PLAN)
    ground.put(Sending(r.topic, r.key, r.value, 0) for r in shop.catalogue())
    events = [Sending(r.topic, r.key, r.value, 0) for r in shop.step(shop.end_ms, lambda user: None)]
    half = len(events) // 2
    for rate, some in ((RATE, events[:half]), (CHANGED, events[half:])):
        end = ground.put(some)[-1] + 1
        worker = ground.worker(*SETS, rate)
        ground.await_taken(end)
        worker.stop()
    return ground


def rebuild(ground: Ground, *words: str, sets: tuple[str, ...] = ()) -> Result:
    given = [*ground.sets, f"run.dir={ground.run_dir}", f"privacy.key={KEY}", *sets]
    options = [word for text in given for word in ("--set", text)]
    return CliRunner().invoke(app, ["versions", "rebuild", *words, *options])


def told(ground: Ground) -> list[str]:
    """Versions with weights, oldest first."""
    notices = [json.loads(value) for _, value in ground.values(Topic.VERSIONS) if value]
    return [n["version"] for n in notices if n.get("event") == "promote" and "sha256" in n]


def delete_before(ground: Ground, topic: str, offset: int) -> None:
    with closing(KafkaAdminClient(bootstrap_servers=ground.bootstrap)) as admin:
        admin.delete_records({KafkaPartition(ground.name(topic), 0): offset})


def test_every_version_is_proven_from_checkpoints_and_from_the_beginning(lived: Ground) -> None:
    names = told(lived)
    assert len(names) > 1
    for name in {names[0], names[-1]}:
        near, whole = (json.loads(rebuild(lived, name, "--json", *more).stdout) for more in ([], ["--whole"]))
        assert near["proven"]
        assert whole["proven"]
        assert near["after_tick"] >= 0 > whole["after_tick"]


def test_a_ledger_that_is_read_while_it_is_read_gives_every_entry_once(
    lived: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rollback on the way is folded with a state that the same ledger vouches for."""
    monkeypatch.setattr(kafka_publisher, "READ_RECORDS", 2)
    names = assemble_kafka.output_names(lived.settings())
    with closing(KafkaPublisher(lived.access(), names, "reads only")) as publisher:
        whole, nested = list(publisher.read_ledger()), []
        for entry in publisher.read_ledger():
            next(publisher.read_ledger(whole[3][0]))
            nested.append(entry)
    assert nested == whole


def test_a_worker_that_runs_is_not_disturbed(lived: Ground) -> None:
    worker, n_taken = lived.worker(*SETS, CHANGED), lived.n_taken()
    lived.put_events(5)
    lived.await_taken(n_taken + 5)
    n_claims = lived.kinds().count("claim")
    assert rebuild(lived, "champion").exit_code == 0
    lived.put_events(5, first=10)
    lived.await_taken(n_taken + 10)
    worker.stop()
    assert (worker.error, worker.told.n_rebuilds) == (None, 0)
    assert lived.kinds().count("claim") == n_claims


def test_weights_that_were_lost_are_put_back(lived: Ground) -> None:
    name = told(lived)[-1]
    path = lived.run_dir / "weights" / f"{name}.safetensors"
    whole = path.read_bytes()
    path.unlink()
    assert rebuild(lived, name, "--write").exit_code == 0
    assert path.read_bytes() == whole


def test_input_that_retention_took_is_named_by_its_offsets(lived: Ground) -> None:
    shutil.rmtree(lived.run_dir / "checkpoints")
    delete_before(lived, Topic.EVENTS, 100)
    result = rebuild(lived, "champion")
    assert result.exit_code == 1
    assert "cannot be rebuilt" in result.stderr
    assert "events/0" in result.stderr


def test_a_ledger_that_lost_its_beginning_is_told(lived: Ground) -> None:
    shutil.rmtree(lived.run_dir / "checkpoints")
    delete_before(lived, Topic.LEDGER, lived.ledger()[5].offset)
    result = rebuild(lived, "champion")
    assert result.exit_code == 1
    assert "the ledger begins at tick" in result.stderr


def test_another_privacy_key_is_refused(lived: Ground) -> None:
    result = rebuild(lived, "champion", sets=("privacy.key=quite another key",))
    assert result.exit_code == 2
    assert "bring the old key back" in result.stderr


def test_a_version_of_a_replay_of_topics_is_proven_by_the_topics_that_it_wrote(lived: Ground) -> None:
    run_replay(lived.settings(*SETS, "replay.name=again", out=lived.folder / "again"), Asked())
    name = f"{lived.prefix}-again"
    theirs = [f"topics.{t}={lived.prefix}.{t}.{name}" for t in ("versions", "ledger")]
    result = rebuild(lived, "champion", "--json", sets=(*theirs, f"run.dir={lived.folder / 'again'}"))
    assert json.loads(result.stdout)["proven"]
