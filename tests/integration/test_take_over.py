"""A learner takes over only when nothing is open on any of its output topics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from stream_rec.errors import JobFailed
from stream_rec.events import Output, Topic
from stream_rec.io import kafka_publisher
from stream_rec.io.kafka import Access, Admin, Sending, Writer
from stream_rec.io.kafka_publisher import KafkaPublisher
from tests.integration.broker import Broker
from tests.integration.ground import until

TOPICS = (Topic.SLATES, Topic.DEAD_LETTERS, Topic.LEDGER)


@pytest.fixture
def access(broker: Broker) -> Access:
    return Access((broker.bootstrap,), "PLAINTEXT", {})


@pytest.fixture
def made(access: Access, names: str) -> dict[str, str]:
    with closing(Admin(access)) as admin:
        for topic in TOPICS:
            admin.create(f"{names}-{topic}", n_partitions=2 if topic == Topic.SLATES else 1, replication=1, configs={})
    return {topic: f"{names}-{topic}" for topic in TOPICS}


@pytest.fixture
def publisher(access: Access, made: dict[str, str], names: str) -> Iterator[KafkaPublisher]:
    with closing(KafkaPublisher(access, made, names, transaction_timeout_ms=1_000)) as opened:
        yield opened


def leave_open(access: Access, topic: str, *, timeout_ms: int) -> Writer:
    """A foreign transaction with a record on the topic, neither committed nor aborted."""
    writer = Writer(access, f"{topic}-foreign", transaction_timeout_ms=timeout_ms)
    writer.begin_epoch()
    writer._producer.begin_transaction()
    future = writer._send(Sending(topic, b"k", b"v", 0))
    writer._producer.flush()
    assert future.get(0).offset == 0
    return writer


@pytest.mark.parametrize("topic", TOPICS)
def test_what_hangs_on_any_output_topic_stops_a_take_over_with_the_cure(
    topic: str, access: Access, made: dict[str, str], publisher: KafkaPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_publisher, "MARGIN_MS", 0)
    foreign = leave_open(access, made[topic], timeout_ms=60_000)
    with pytest.raises(JobFailed, match=f"hangs on topic {made[topic]}.*abort"):
        publisher.take_over()
    foreign.close(force=True)


def test_a_transaction_that_its_brokers_end_in_time_is_waited_for(
    access: Access, made: dict[str, str], publisher: KafkaPublisher
) -> None:
    leave_open(access, made[Topic.DEAD_LETTERS], timeout_ms=1_000).close(force=True)
    publisher.take_over()
    publisher.commit([Output(Topic.DEAD_LETTERS, b"d", b"{}")], b"entry")
    until(lambda: [raw for _, raw in publisher.read_ledger()] == [b"entry"], "the entry is there alone")
