"""A worker over real topics: what it takes, what stops it, and how it goes on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from typing import Any

import msgspec
import pytest
from kafka import KafkaAdminClient
from kafka import TopicPartition as KafkaPartition
from kafka.admin import NewPartitions

from stream_rec import assemble_kafka
from stream_rec.errors import InputGone, InputRefused, JobFailed, SettingsError, Unreachable
from stream_rec.events import Topic
from stream_rec.io.kafka import Access, Admin, Sending, Writer
from stream_rec.io.kafka_beat import KafkaBeat
from stream_rec.pipeline import Pipeline
from stream_rec.stream.ledger import chain_of
from stream_rec.worker_run import Start
from tests.contracts.live_topics import abort
from tests.integration.ground import EVENTS, Ground, event, item, until

NEW = (Topic.EVENTS, 1)
HUGE_BYTES = 10_000_000


@pytest.fixture
def attentive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Topics are looked at five times a second."""
    monkeypatch.setattr(assemble_kafka, "KafkaBeat", partial(KafkaBeat, beat_s=0.2))


def kafka_admin(ground: Ground) -> closing[KafkaAdminClient]:
    return closing(KafkaAdminClient(bootstrap_servers=ground.bootstrap))


def ran(ground: Ground, n: int = 10) -> Ground:
    """A pipeline that has taken `n` events and drained."""
    ground.create_topics().put_events(n)
    worker = ground.worker()
    ground.await_taken(n)
    worker.stop()
    return ground


def forget_checkpoints(ground: Ground) -> None:
    shutil.rmtree(ground.run_dir / "checkpoints")


def first_ranges(ground: Ground, partition: tuple[str, int]) -> list[int]:
    """Where each range of a partition begins."""
    ranges = (r for e in ground.entries() for r in e.get("tick", {}).get("ranges", ()))
    return [r[2] for r in ranges if (r[0], r[1]) == partition]


# ---- the first start


def test_a_worker_without_a_ledger_must_be_told_where_to_begin(ground: Ground) -> None:
    ground.create_topics()
    error = ground.worker(start=Start()).ended()
    assert isinstance(error, SettingsError) and error.exit_status == 2
    assert f"pipeline {ground.prefix} has no ledger in topic {ground.prefix}.ledger yet" in str(error)
    assert "--start earliest|latest|TIME" in str(error)
    assert ground.entries() == []


@pytest.mark.parametrize(("where", "first"), [("earliest", 0), ("latest", 5), (1_700_000_003_000, 3)])
def test_events_are_taken_from_where_it_was_told_and_the_catalogue_from_its_beginning(
    ground: Ground, where: str | int, first: int
) -> None:
    ground.create_topics(changed={Topic.EVENTS: {"retention.ms": "-1"}})
    ground.put([item(n) for n in range(3)])
    ground.put_events(5, at_ms=1_700_000_000_000)
    worker = ground.worker(start=Start(where))
    until(lambda: "genesis" in ground.kinds(), "it has begun")
    ground.put_events(1, first=5)
    ground.await_taken(6 - first)
    worker.stop()
    assert first_ranges(ground, EVENTS)[0] == first
    assert ground.n_taken((Topic.ITEMS, 0)) == 3
    assert {tuple(row) for row in ground.entries()[0]["start"]} >= {("events", 0, first), ("items", 0, 0)}


@pytest.mark.parametrize(
    ("topic", "configs", "n_partitions", "said"),
    [
        (Topic.ITEMS, {"min.compaction.lag.ms": "1000"}, 1, "min.compaction.lag.ms=1000 and needs 2592000000 or more"),
        (Topic.ITEMS, {"cleanup.policy": "delete"}, 1, "cleanup.policy=delete and must have compact"),
        (Topic.EVENTS, {"retention.ms": "3600000"}, 1, "retention.ms=3600000 and needs 2592000000 or more"),
        (Topic.SLATES, {"max.message.bytes": "1000"}, 1, "max.message.bytes=1000 and kafka.max_message"),
        (Topic.CONTROL, {}, 2, "2 partitions and must have exactly 1"),
    ],
)  # fmt: skip
def test_topics_that_are_not_kept_as_they_must_be_stop_the_start(
    ground: Ground, topic: str, configs: dict[str, str], n_partitions: int, said: str
) -> None:
    ground.create_topics(changed={topic: configs})
    if n_partitions > 1:
        with kafka_admin(ground) as admin:
            admin.create_partitions({ground.name(topic): NewPartitions(n_partitions)})
        with ground.admin() as admin:
            until(lambda: admin.topics([ground.name(topic)])[ground.name(topic)].n_partitions == n_partitions)
    error = ground.worker().ended()
    assert isinstance(error, SettingsError) and error.exit_status == 2
    assert f"topic {ground.name(topic)} has {said}" in str(error)
    assert ground.entries() == []


def test_a_topic_that_is_missing_stops_the_start(ground: Ground) -> None:
    error = ground.worker().ended()
    assert isinstance(error, SettingsError)
    assert f"topic {ground.prefix}.events is not there; `stream-rec topics create` makes it" in str(error)


# ---- what it takes


def test_a_record_of_ten_megabytes_is_dead_lettered_and_the_next_ones_are_taken(ground: Ground) -> None:
    ground.create_topics(changed={Topic.EVENTS: {"max.message.bytes": str(HUGE_BYTES + 10_000)}})
    huge = Sending(ground.name(Topic.EVENTS), b"u", b"x" * HUGE_BYTES, 0)
    access = Access(ground.access().bootstrap, "PLAINTEXT", {}, compression=None, max_message_bytes=HUGE_BYTES + 5_000)
    ground.put_events(3)
    with closing(Writer(access)) as writer:
        writer.settle([writer.send(huge)])
    ground.put_events(3, first=3)
    worker = ground.worker()
    ground.await_taken(7)
    worker.stop()
    assert (ground.totals()["accepted"], ground.totals()["dead_lettered"]) == (6, 1)
    [(_, letter)] = ground.values(Topic.DEAD_LETTERS)
    said = msgspec.json.decode(letter or b"")
    assert (said["reason"], said["offset"], said["length"]) == ("too_large", 3, HUGE_BYTES)
    assert len(letter or b"") < 200_000


def test_mostly_dead_letters_stop_the_worker_before_their_commit(ground: Ground) -> None:
    ground.create_topics().put(Sending(Topic.EVENTS, None, b"no record", 0) for _ in range(300))
    error = ground.worker("quality.dead_letter_share=0.5", "tick.max_records=300").ended()
    assert isinstance(error, InputRefused) and error.exit_status == 3
    assert "quality.dead_letter_share" in str(error) and "events" in str(error)
    assert ground.n_taken() < 300


def test_whoever_has_taken_everything_is_caught_up_for_lag_tools_also_behind_a_marker(
    ground: Ground, attentive: None
) -> None:
    ground.create_topics().put_events(5)
    abort(ground.access(), f"{ground.prefix}-shop", [Sending(ground.name(Topic.EVENTS), b"u", event(9), 0)] * 3)
    worker = ground.worker("worker.silence_ms=1000")
    ground.await_taken(5)
    with ground.admin() as admin:
        inputs = [(ground.name(topic), 0) for topic in (Topic.EVENTS, Topic.ITEMS, Topic.CONTROL)]
        ends = admin.ends(inputs, committed=True)
        assert ends[inputs[0]] == 9

        def told() -> dict[tuple[str, int], int]:
            with suppress(Unreachable):  # Brokers make the topic of offsets at its first use.
                return admin.committed_offsets(ground.prefix)
            return {}

        until(lambda: told() == ends, "lag is zero")
    until(lambda: worker.told.table()["lag"] == 0, "health says so")
    assert worker.told.n_rebuilds == 0


# ---- stopping and going on


def test_a_signal_drains_and_the_next_start_mutes_nothing(ground: Ground) -> None:
    ground.create_topics().put_events(20)
    worker = ground.process("worker", "--start", "earliest")
    ground.await_taken(20)
    assert worker.stop() == 0, worker.words()
    last = ground.ledger()[-1].value or b""
    drained = msgspec.json.decode(last)
    assert drained["tick"]["drain"] is True
    newest = sorted(path.name for path in (ground.run_dir / "checkpoints").iterdir() if path.is_dir())[-1]
    assert newest == f"{drained['n']:010d}-{chain_of(last)[:16]}", "the checkpoint is that of the very last entry"
    again = ground.process("worker")
    again.await_state("running")
    claim = next(e for e in ground.entries() if e["n"] == drained["n"] + 1)
    assert claim["kind"] == "claim"
    assert again.stop() == 0, again.words()


def test_a_worker_that_lost_its_checkpoints_folds_its_ledger_again(ground: Ground) -> None:
    ran(ground)
    forget_checkpoints(ground)
    worker = ground.worker(start=Start())
    ground.put_events(5, first=10)
    ground.await_taken(15)
    summary = worker.stop()
    assert summary["accepted"] == 15 and summary["n_ticks"] == ground.entries()[-1]["n"]


def test_input_that_retention_took_from_muted_ticks_stops_the_start(ground: Ground) -> None:
    ran(ground)
    forget_checkpoints(ground)
    with kafka_admin(ground) as admin:
        admin.delete_records({KafkaPartition(ground.name(Topic.EVENTS), 0): 8})
    error = ground.worker().ended()
    assert isinstance(error, InputGone) and error.exit_status == 1
    assert f"{ground.name(Topic.EVENTS)}/0 offset 0" in str(error) and "start a new pipeline.name" in str(error)


def test_a_checkpoint_makes_input_and_entries_before_it_dispensable(ground: Ground) -> None:
    ran(ground)
    last = ground.ledger()[-1].offset
    with kafka_admin(ground) as admin:
        admin.delete_records(
            {KafkaPartition(ground.name(Topic.EVENTS), 0): 8, KafkaPartition(ground.name(Topic.LEDGER), 0): last}
        )
    worker = ground.worker()
    ground.put_events(5, first=10)
    ground.await_taken(15)
    assert worker.stop()["accepted"] == 15


def test_a_ledger_that_lost_its_beginning_needs_a_checkpoint(ground: Ground) -> None:
    ran(ground)
    forget_checkpoints(ground)
    with kafka_admin(ground) as admin:
        admin.delete_records({KafkaPartition(ground.name(Topic.LEDGER), 0): ground.ledger()[1].offset})
    error = ground.worker().ended()
    assert isinstance(error, InputGone)
    assert "the ledger begins at tick 1" in str(error) and "bring a checkpoint back" in str(error)


def test_events_that_retention_took_while_nobody_read_them_stop_the_worker(ground: Ground) -> None:
    ran(ground).put_events(20, first=10)
    with kafka_admin(ground) as admin:
        admin.delete_records({KafkaPartition(ground.name(Topic.EVENTS), 0): 25})
    error = ground.worker().ended()
    assert isinstance(error, InputGone) and f"{ground.name(Topic.EVENTS)}/0 offset 10" in str(error)


# ---- partitions and topics that change


@pytest.mark.parametrize("running", [True, False])
def test_a_partition_that_appears_is_read_from_its_beginning_by_a_fact_and_survives_a_restart(
    ground: Ground, attentive: None, running: bool
) -> None:
    ran(ground)
    worker = ground.worker() if running else None
    with kafka_admin(ground) as admin:
        admin.create_partitions({ground.name(Topic.EVENTS): NewPartitions(2)})
    with ground.admin() as looking:
        until(lambda: looking.topics([ground.name(Topic.EVENTS)])[ground.name(Topic.EVENTS)].n_partitions == 2)
    ground.put_events(5, first=100, partition=1)
    worker = worker or ground.worker()
    ground.await_taken(5, NEW)
    worker.stop()
    assert [e["tick"]["appeared"] for e in ground.entries() if e.get("tick", {}).get("appeared")] == [[["events", 1]]]
    assert first_ranges(ground, NEW)[0] == 0
    forget_checkpoints(ground)
    again = ground.worker()
    ground.put_events(3, first=200, partition=1)
    ground.await_taken(8, NEW)
    assert again.stop()["accepted"] == 18
    assert len([e for e in ground.entries() if e.get("tick", {}).get("appeared")]) == 1


@pytest.mark.parametrize("running", [True, False])
def test_a_topic_that_was_made_anew_stops_the_worker(ground: Ground, attentive: None, running: bool) -> None:
    ran(ground)
    n_entries = len(ground.entries())
    worker = ground.worker() if running else None
    if running:
        until(lambda: len(ground.entries()) > n_entries, "it runs")
    with kafka_admin(ground) as admin:
        admin.delete_topics([ground.name(Topic.EVENTS)])
    ground.create_topics()
    error = (worker or ground.worker()).ended()
    assert isinstance(error, JobFailed) and error.exit_status == 1
    assert "topic events was deleted and made anew" in str(error) and "start a new pipeline.name" in str(error)


# ---- a tick that fails


SECRET = "ann@shop.example"


class Broken:
    """A fold that fails at an event, so many times."""

    def __init__(self, n_failures: int) -> None:
        self.n_failures, self.n = n_failures, 0

    def patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        honest: Callable[..., Any] = Pipeline.fold

        def fold(pipeline: Pipeline, tick: Any, records: Any) -> Any:
            if any(r.topic == Topic.EVENTS and r.offset == 5 for r in records) and self.n < self.n_failures:
                self.n += 1
                raise ValueError(f"a message that quotes {SECRET}")
            return honest(pipeline, tick, records)

        monkeypatch.setattr(Pipeline, "fold", fold)


def test_a_tick_that_fails_three_times_stops_the_worker_with_its_ranges(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Though each try has made a claim before, and so another number of the tick."""
    ran(ground, 5)
    broken = Broken(99)
    broken.patch(monkeypatch)
    ground.put_events(3, first=5)
    error = ground.worker().ended()
    assert isinstance(error, JobFailed) and error.exit_status == 1
    assert broken.n == 3
    assert "failed 3 times, the last time with: ValueError; it reads events/0 offsets 5 to" in str(error)
    assert SECRET not in str(error) and SECRET not in caplog.text
    assert ground.n_taken() == 5
    assert ground.kinds()[-3:] == ["claim"] * 3


def test_a_tick_that_fails_twice_and_then_works_is_there_once(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    ran(ground, 5)
    broken = Broken(2)
    broken.patch(monkeypatch)
    ground.put_events(3, first=5)
    worker = ground.worker()
    ground.await_taken(8)
    assert worker.stop()["accepted"] == 8 == ground.n_taken()
    assert worker.told.n_rebuilds == 2


def test_offsets_of_a_stranger_say_nothing(ground: Ground) -> None:
    """Recovery reads the ledger; what tools were told is no truth."""
    ran(ground)
    with closing(Admin(ground.access())) as admin:
        admin.commit_offsets(ground.prefix, {(ground.name(Topic.EVENTS), 0): 3})
    worker = ground.worker()
    ground.put_events(1, first=10)
    ground.await_taken(11)
    assert worker.stop()["duplicate"] == 0 and ground.n_taken() == 11
