"""The transactions of a publisher on a real broker: what is refused, waited for, lost on the way, and told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from kafka.errors import KafkaError

from stream_rec.errors import InputGone, JobFailed, Unsettled
from stream_rec.events import Output, Topic
from stream_rec.io import kafka_publisher
from stream_rec.io.faults import Crash, Faults
from stream_rec.io.kafka import Access, Reader, Sending, Writer
from stream_rec.io.kafka_publisher import TAIL_RECORDS, KafkaPublisher
from stream_rec.io.metrics_file import MetricsFile
from tests.contracts.kafka_place import KafkaPlace
from tests.contracts.live_topics import abort
from tests.integration.broker import Broker
from tests.integration.ground import until
from tests.integration.proxy import Proxy

SLATE = Output(Topic.SLATES, b"u", b'{"slate":1}')


@pytest.fixture
def place(broker: Broker, names: str) -> Iterator[KafkaPlace]:
    made = KafkaPlace(broker.bootstrap, names)
    yield made
    made.close()


@contextmanager
def publishing(place: KafkaPlace, *, access: Access | None = None, **more: object) -> Iterator[KafkaPublisher]:
    """A publisher that has taken over."""
    with closing(KafkaPublisher(access or place.access, place.names, place.prefix, **more)) as publisher:  # type: ignore[arg-type]
        publisher.take_over()
        yield publisher


@contextmanager
def left_open(place: KafkaPlace, topic: str, *, timeout_ms: int) -> Iterator[Writer]:
    """A transaction of somebody else that has a record in a topic and is not ended."""
    other = Writer(place.access, f"{place.prefix}-other", transaction_timeout_ms=timeout_ms)
    other.begin_epoch()
    other._producer.begin_transaction()
    other._send(Sending(place.names[topic], None, b"of another", 0))
    other._producer.flush()
    try:
        yield other
    finally:
        with suppress(KafkaError):  # Brokers may have done so.
            other._producer.abort_transaction()
        other.close(force=True)


def entries(publisher: KafkaPublisher) -> list[bytes]:
    return [entry for _, entry in publisher.read_ledger()]


# ---- refused before anything is begun


def test_nothing_is_committed_before_the_ledger_was_taken_over(place: KafkaPlace) -> None:
    with pytest.raises(Unsettled, match="has not taken over yet"):
        place.open().commit([], b"{}")
    assert place.topic(Topic.LEDGER) == []


@pytest.mark.parametrize("large", [Topic.SLATES, Topic.LEDGER])
def test_a_record_above_the_limit_is_refused_before_the_transaction_opens(place: KafkaPlace, large: str) -> None:
    limit, n_bytes = 20_000, 20_001
    outputs = [SLATE, Output(Topic.SLATES, b"u", b"x" * n_bytes)] if large == Topic.SLATES else [SLATE]
    entry = b"x" * n_bytes if large == Topic.LEDGER else b"{}"
    access = Access(place.access.bootstrap, "PLAINTEXT", {}, max_message_bytes=limit)
    with publishing(place, access=access) as publisher:
        with pytest.raises(JobFailed) as refused:
            publisher.commit(outputs, entry)
        assert publisher.commit([SLATE], b"after") == 0, "nothing was written in front of it"
        place.settle()
        assert entries(publisher) == [b"after"]
    said = str(refused.value)
    assert f"a record for topic {place.names[large]} has 20" in said
    assert f"kafka.max_message_bytes is {limit}; raise it and the topic's max.message.bytes" in said


def test_a_record_of_just_the_limit_is_published(place: KafkaPlace) -> None:
    """The default of topics is a MiB: what is let through must fit."""
    n_bytes = place.access.max_message_bytes - kafka_publisher._OVERHEAD_BYTES
    access = Access(place.access.bootstrap, "PLAINTEXT", {}, compression=None)
    with publishing(place, access=access) as publisher:
        publisher.commit([], b"x" * n_bytes)
        place.settle()
        assert [len(entry) for entry in entries(publisher)] == [n_bytes]


# ---- transactions of others, and of the dead


def test_a_dead_publisher_leaves_records_that_no_reader_sees(place: KafkaPlace) -> None:
    faults = Faults()
    faults.crash_at("before_entry")
    dying = place.open(faults)
    dying.take_over()
    with pytest.raises(Crash):
        dying.commit([SLATE, SLATE], b"{}")
    with closing(Reader(place.access, committed=False)) as reader:
        slates = (place.names[Topic.SLATES], 0)
        reader.assign([slates])
        reader.seek(slates, 0)
        until(lambda: len(reader.poll(100, 10).get(slates, ())) == 2, "they are on the broker")
    assert place.topic(Topic.SLATES) == []
    with publishing(place) as publisher:
        publisher.commit([SLATE], b"{}")
        place.settle()
    assert place.topic(Topic.SLATES) == [SLATE.value]


@pytest.mark.slow
@pytest.mark.parametrize("topic", [Topic.LEDGER, Topic.SLATES])
def test_what_another_producer_left_open_is_waited_for(place: KafkaPlace, topic: str) -> None:
    """What was committed behind it can only be read then."""
    with publishing(place) as before, left_open(place, topic, timeout_ms=1_500):
        before.commit([SLATE], b"behind it")
        assert place.topic(topic) == []
        with publishing(place, transaction_timeout_ms=2_000) as publisher:
            assert entries(publisher) == [b"behind it"]
            assert place.topic(Topic.SLATES) == [SLATE.value]


@pytest.mark.parametrize("topic", [Topic.LEDGER, Topic.SLATES])
def test_a_transaction_that_hangs_stops_the_start_and_says_how_to_end_it(
    place: KafkaPlace, monkeypatch: pytest.MonkeyPatch, topic: str
) -> None:
    monkeypatch.setattr(kafka_publisher, "MARGIN_MS", -500)
    with left_open(place, topic, timeout_ms=60_000), pytest.raises(JobFailed) as hangs:
        _take_over(place)
    said = str(hangs.value)
    assert f"a transaction hangs on topic {place.names[topic]}: it has been open at offset 0" in said
    assert f"describe-producers --topic {place.names[topic]} --partition 0" in said
    assert "end it with `abort`" in said and "then start the worker again" in said


def _take_over(place: KafkaPlace) -> None:
    with publishing(place, transaction_timeout_ms=1_000):
        pass


# ---- lost on the way


def test_a_commit_whose_answer_is_lost_is_unsettled_and_the_ledger_tells_that_it_happened(
    place: KafkaPlace, proxy: Proxy
) -> None:
    access = Access((proxy.bootstrap,), "PLAINTEXT", {})
    with publishing(place, access=access, transaction_timeout_ms=1_000) as publisher:
        proxy.fault("EndTxn", action="drop_response", times=None)
        with pytest.raises(Unsettled) as lost:
            publisher.commit([SLATE], b"{}")
        assert (lost.value.counts, lost.value.fenced) == (False, False), "no fault of the tick, nobody else's doing"
        with pytest.raises(Unsettled, match="has not taken over yet"):
            publisher.commit([SLATE], b"{}")
        proxy.clear()
        publisher.take_over()
        assert entries(publisher) == [b"{}"]
    assert place.topic(Topic.SLATES) == [SLATE.value]


def test_records_that_never_arrive_keep_their_transaction_from_being_committed(place: KafkaPlace, proxy: Proxy) -> None:
    access = Access((proxy.bootstrap,), "PLAINTEXT", {})
    with publishing(place, access=access, transaction_timeout_ms=1_000) as publisher:
        proxy.fault("Produce", action="drop_request", times=None)
        with pytest.raises(Unsettled) as lost:
            publisher.commit([SLATE], b"{}")
        # Brokers may have ended it for its time-out by then, which looks like a fencing.
        assert not lost.value.counts, "no fault of the tick"
        proxy.clear()
        publisher.take_over()
        assert entries(publisher) == []
    assert place.topic(Topic.SLATES) == []


# ---- the newest entry


def test_the_newest_entry_of_an_empty_ledger_is_none(place: KafkaPlace) -> None:
    assert place.open().newest() is None


def test_the_newest_entry_is_found_behind_any_number_of_aborted_ones(place: KafkaPlace) -> None:
    with publishing(place) as publisher:
        publisher.commit([], b"older")
        offset = publisher.commit([], b"newest")
        sending = Sending(place.names[Topic.LEDGER], None, b"never", 0)
        abort(place.access, f"{place.prefix}-other", [sending] * (TAIL_RECORDS + 10))
        newest = publisher.newest()
    assert newest is not None
    assert (newest.offset, newest.raw) == (offset, b"newest")


def test_a_ledger_of_which_everything_expired_is_no_new_ledger(place: KafkaPlace) -> None:
    with publishing(place) as publisher:
        publisher.commit([], b"{}")
        place.settle()
        place.forget_before(2)
        with pytest.raises(InputGone, match=f"every entry of the ledger in topic {place.names[Topic.LEDGER]} is gone"):
            publisher.newest()


# ---- what is written


@pytest.mark.parametrize("compression", [None, "gzip", "lz4", "zstd"])
def test_what_is_published_can_be_compressed(place: KafkaPlace, compression: str | None) -> None:
    access = Access(place.access.bootstrap, "PLAINTEXT", {}, compression=compression)
    outputs = [Output(Topic.SLATES, b"u%d" % n, b'{"n":%d}' % n * 40) for n in range(50)]
    with publishing(place, access=access) as publisher:
        publisher.commit(outputs, b"{}")
        place.settle()
    assert place.topic(Topic.SLATES) == [o.value for o in outputs]


def test_metrics_go_to_their_file_and_to_no_topic(place: KafkaPlace, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with publishing(place, metrics=MetricsFile(path)) as publisher:
        publisher.commit([SLATE, Output(Topic.METRICS, b"", b'{"tick":1}')], b"{}")
        place.settle()
    assert path.read_bytes() == b'{"tick":1}\n'
    assert [len(place.topic(topic)) for topic in (Topic.SLATES, Topic.LEDGER)] == [1, 1]
