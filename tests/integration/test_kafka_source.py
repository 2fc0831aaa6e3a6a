"""Input topics on a real broker: what is gone, what is late, what is stuck, and what must not be seen."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress

import pytest
from kafka import KafkaAdminClient, KafkaProducer
from kafka import TopicPartition as KafkaPartition
from kafka.admin import NewPartitions

from stream_rec.errors import InputGone, JobFailed, Unreachable
from stream_rec.events import Record, Topic
from stream_rec.fold import reread
from stream_rec.io import kafka_ranges, kafka_source
from stream_rec.io.kafka import Access, Admin, Reader, Sending, Writer
from stream_rec.io.kafka_beat import STALLED_BEATS, KafkaBeat
from stream_rec.io.kafka_buffers import POLLED_RECORDS
from stream_rec.io.kafka_source import BUFFERED_RECORDS, KafkaSource
from stream_rec.io.kafka_stretch import KafkaStretch
from stream_rec.io.kafka_topics import InputTopics
from stream_rec.ports import TopicPartition
from stream_rec.stream.positions import Positions
from stream_rec.stream.tick import Tick, ranges_of
from tests.contracts.live_topics import abort
from tests.integration.broker import Broker, free_port
from tests.integration.ground import EVENTS, until
from tests.integration.proxy import Proxy

START_MS = 1_700_000_000_000
ITEMS = (Topic.ITEMS, 0)
SEALED: Mapping[str, str] = {"cleanup.policy": "compact", "segment.ms": "100", "min.cleanable.dirty.ratio": "0.01"}
"""A topic that is compacted as soon as anything follows."""


class Feed:
    """One input topic of a test."""

    def __init__(self, bootstrap: str, name: str, ours: str = Topic.EVENTS, *, kept: Mapping[str, str] | None = None):
        self.access, self.name = Access((bootstrap,), "PLAINTEXT", {}), name
        self.topics = InputTopics({ours: name})
        self.kept = {"retention.ms": "-1"} if kept is None else kept

    def create(self, n_partitions: int = 1) -> Feed:
        with closing(Admin(self.access)) as admin:
            admin.create(self.name, n_partitions=n_partitions, replication=1, configs=self.kept)
            self.topics.refresh(admin)
        return self

    def sending(self, value: bytes, *, partition: int = 0, at_ms: int = START_MS, key: bytes | None = None) -> Sending:
        return Sending(self.name, key, value, partition, (), at_ms)

    def put(self, *sendings: Sending, compression: str | None = None) -> None:
        access = Access(self.access.bootstrap, "PLAINTEXT", {}, compression=compression)
        with closing(Writer(access)) as writer:
            writer.settle([writer.send(sending) for sending in sendings])

    def put_numbers(self, n: int, *, first: int = 0) -> None:
        self.put(*(self.sending(b"%d" % i, at_ms=START_MS + i) for i in range(first, first + n)))

    @contextmanager
    def source(self, beat: KafkaBeat | None = None, *, via: Proxy | None = None) -> Iterator[KafkaSource]:
        access = self.access if via is None else Access((via.bootstrap,), "PLAINTEXT", {})
        with closing(KafkaSource(access, self.topics, beat)) as source:
            source.seek(dict.fromkeys(source.partitions(), 0))
            yield source

    @contextmanager
    def beat(self) -> Iterator[KafkaBeat]:
        """One that looks only when told to; brokers are ready to take its offsets."""
        with closing(Admin(self.access)) as admin:
            until(lambda: _committed(admin, f"{self.name}-group", (self.name, 0)), "offsets can be committed")
        with closing(KafkaBeat(self.access, self.topics, f"{self.name}-group", beat_s=3600)) as beat:
            yield beat
            if beat._admin is not None:
                beat._admin.close()

    @contextmanager
    def admin(self) -> Iterator[KafkaAdminClient]:
        with closing(KafkaAdminClient(bootstrap_servers=list(self.access.bootstrap))) as admin:
            yield admin


def _committed(admin: Admin, group: str, at: TopicPartition) -> bool:
    with suppress(Unreachable):
        admin.commit_offsets(group, {at: 0})
        return True
    return False


@pytest.fixture
def feed(broker: Broker, names: str) -> Feed:
    return Feed(broker.bootstrap, names)


def taken(source: KafkaSource, n: int, partition: TopicPartition = EVENTS) -> list[Record]:
    """The next `n` records of a partition, however they come."""
    got: list[Record] = []

    def enough() -> bool:
        got.extend(source.poll(partition, n - len(got)))
        return len(got) >= n

    until(enough, f"{n} records")
    return got


def stepped_over(source: KafkaSource, partition: TopicPartition = EVENTS) -> None:
    """Return when nothing but what was taken lies in a partition."""
    until(lambda: not source.poll(partition, 1) and not source.behind(partition), "the marker is stepped over")


def tick_of(records: list[Record]) -> Tick:
    """The tick that takes them, the first one of its partition."""
    return Tick(0, ranges_of(records, {(records[0].topic, records[0].partition): 0}), START_MS)


# ---- gone


@pytest.mark.parametrize("how", ["poll", "read_range"])
def test_records_that_retention_deleted_stop_the_reader_who_needs_them(feed: Feed, how: str) -> None:
    feed.create().put_numbers(20)
    with feed.admin() as admin:
        admin.delete_records({KafkaPartition(feed.name, 0): 12})
    ways: dict[str, Callable[[KafkaSource], object]] = {
        "poll": lambda source: taken(source, 20),
        "read_range": lambda source: source.read_range(EVENTS, 5, 3),
    }
    with feed.source() as source, pytest.raises(InputGone) as gone:
        ways[how](source)
    said = str(gone.value)
    assert f"{feed.name}/0 offset {0 if how == 'poll' else 5}" in said
    assert "restore a newer checkpoint, or start a new pipeline.name" in said and "retention.ms" in said


def test_a_range_behind_the_deleted_records_is_read(feed: Feed) -> None:
    feed.create().put_numbers(20)
    with feed.admin() as admin:
        admin.delete_records({KafkaPartition(feed.name, 0): 12})
    with feed.source() as source:
        assert [r.offset for r in source.read_range(EVENTS, 12, 8)] == list(range(12, 20))


def compacted(feed: Feed, n: int) -> list[Record]:
    """`n` records of as many keys, read; then each of the first half was written again, and compaction has passed."""

    def write(value: bytes, keys: Iterable[int]) -> None:
        # A segment is as old as the time of its first record says.
        feed.put(*(feed.sending(value, key=b"%d" % key, at_ms=round(time.time() * 1000)) for key in keys))

    feed.create()
    write(b"old", range(n))
    with feed.source() as source:
        records = taken(source, n, ITEMS)
    write(b"new", range(n // 2))

    def cleaned() -> bool:
        # Another segment must begin before the one in front of it is looked at.
        write(b"more", [n])
        with feed.source() as again:
            return taken(again, 1, ITEMS)[0].offset > 0

    until(cleaned, "compaction has passed")
    return records


@pytest.mark.slow
def test_a_range_of_which_compaction_took_records_stops(broker: Broker, names: str) -> None:
    """Also where enough records follow: they are not those that the tick took."""
    feed = Feed(broker.bootstrap, names, Topic.ITEMS, kept=SEALED)
    records = compacted(feed, 20)
    with feed.source() as source, pytest.raises(InputGone) as gone:
        reread(tick_of(records), source, Positions())
    assert "tick 0 read 20 records of items/0 from offset 0 on" in str(gone.value)
    with (
        feed.source() as source,
        pytest.raises(InputGone, match=r"items/0: 90 records from offset 0 on.*compacted away"),
    ):
        source.read_range(ITEMS, 0, 90)


# ---- what must not be seen, and what must be


def test_markers_and_aborted_records_are_no_lag_and_no_sign_of_a_stuck_consumer(feed: Feed) -> None:
    feed.create().put_numbers(3)
    abort(feed.access, feed.name, [feed.sending(b"never")] * 5)
    with feed.beat() as beat, feed.source(beat) as source:
        assert [r.value for r in taken(source, 3)] == [b"0", b"1", b"2"]
        stepped_over(source)
        beat.positions = source.beyond({EVENTS: 3})
        for _ in range(STALLED_BEATS + 1):
            beat.beat()
        assert (beat.lag, source.lag(), beat.stalled.is_set()) == (0, 0, False)
        with closing(Admin(feed.access)) as admin:
            assert admin.committed_offsets(f"{feed.name}-group") == {(feed.name, 0): 9}


def test_a_position_with_records_before_it_stays(feed: Feed) -> None:
    feed.create().put_numbers(10)
    abort(feed.access, feed.name, [feed.sending(b"never")])
    with feed.source() as source:
        taken(source, 4)
        assert source.beyond({EVENTS: 4}) == {EVENTS: 4}
        taken(source, 6)
        stepped_over(source)
        assert source.beyond({EVENTS: 4}) == {EVENTS: 4}, "ticks have not come as far as the source"


@pytest.mark.parametrize("compression", [None, "gzip", "lz4", "zstd"])
def test_compressed_records_are_read(feed: Feed, compression: str | None) -> None:
    feed.create()
    wanted = [feed.sending(b"%d" % i * 50, at_ms=START_MS + i) for i in range(100)]
    feed.put(*wanted, compression=compression)
    with feed.source() as source:
        assert [(r.value, r.timestamp_ms) for r in taken(source, 100)] == [(s.value, s.timestamp_ms) for s in wanted]


# ---- late and ahead


AHEAD, LATE = (Topic.EVENTS, 0), (Topic.EVENTS, 1)


@contextmanager
def under_way(feed: Feed, *seconds: int) -> Iterator[tuple[KafkaSource, KafkaProducer]]:
    """A source that has taken what is to be had of LATE, where an open transaction holds a record of 50 s; AHEAD holds
    records of these seconds. The producer can end the transaction."""
    feed.create(2)
    feed.put(feed.sending(b"l", partition=1))
    with feed.source() as source, closing(Writer(feed.access, feed.name)) as writer:
        taken(source, 1, LATE)
        writer.begin_epoch()
        writer._producer.begin_transaction()
        writer._send(feed.sending(b"open", partition=1, at_ms=START_MS + 50_000))
        writer._producer.flush()
        until(lambda: not source.poll(LATE, 1) and source.behind(LATE), "the open record is known of")
        feed.put(*(feed.sending(b"a", at_ms=START_MS + 1000 * s) for s in seconds))
        yield source, writer._producer


def seconds_of(records: Sequence[Record]) -> list[int]:
    return [(r.timestamp_ms - START_MS) // 1000 for r in records]


def test_a_partition_waits_for_one_whose_records_are_under_way_within_a_minute_of_record_time(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_source, "PATIENCE_S", 3600.0)
    with under_way(feed, 0, 30, 60, 61, 100, 200) as (source, producer):
        assert seconds_of(taken(source, 3, AHEAD)) == [0, 30, 60]
        until(lambda: source._buffers.held[AHEAD] or source._buffers.pump(50) < 0, "the others are there")
        assert source.poll(AHEAD, 100) == []
        assert source._n_ready() == 0, "nobody waits for records that may not be handed out"
        producer.commit_transaction()
        taken(source, 1, LATE)
        stepped_over(source, LATE)
        assert seconds_of(taken(source, 3, AHEAD)) == [61, 100, 200]


def test_a_partition_that_stays_away_is_waited_for_no_longer_than_patience(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_source, "PATIENCE_S", 0.05)
    with under_way(feed, 0, 200) as (source, _):
        assert seconds_of(taken(source, 2, AHEAD)) == [0, 200]


def test_no_more_is_read_ahead_of_a_partition_than_its_buffer_takes(feed: Feed) -> None:
    n = 3 * BUFFERED_RECORDS
    feed.create().put_numbers(n)
    with feed.source() as source:
        until(lambda: len(source._buffers.held[EVENTS]) > BUFFERED_RECORDS or source._buffers.pump(50) < 0)
        for _ in range(5):
            source._buffers.pump(50)
        assert len(source._buffers.held[EVENTS]) <= BUFFERED_RECORDS + POLLED_RECORDS
        assert [r.offset for r in taken(source, n)] == list(range(n))


# ---- stuck


def test_a_consumer_that_gives_nothing_is_made_anew_and_goes_on_at_the_very_place(feed: Feed, proxy: Proxy) -> None:
    feed.create().put_numbers(5)
    abort(feed.access, feed.name, [feed.sending(b"never")] * 5)
    feed.put_numbers(5, first=5)
    with feed.beat() as beat, feed.source(beat, via=proxy) as source:
        got = taken(source, 8)
        proxy.fault("Fetch", action="hold_request")
        # Only a consumer that is polled sends fetches, and the last one may have left before the fault was set.
        until(lambda: source._buffers.pump(10) < 0 or proxy.fired, "its fetches are held")
        source._buffers.held[EVENTS].clear()
        feed.put_numbers(5, first=10)
        beat.positions = {EVENTS: got[-1].offset + 1}
        for _ in range(STALLED_BEATS):
            beat.beat()
            assert not beat.stalled.is_set()
        beat.beat()
        assert beat.stalled.is_set()
        assert [r.value for r in (*got, *taken(source, 7))] == [b"%d" % i for i in range(15)]
        assert not beat.stalled.is_set()


def test_a_partition_that_moves_is_not_stuck_however_far_it_is_behind(feed: Feed) -> None:
    feed.create().put_numbers(20)
    with feed.beat() as beat:
        for at in range(STALLED_BEATS * 3):
            beat.positions = {EVENTS: at}
            beat.beat()
        assert not beat.stalled.is_set() and beat.lag == 20 - (STALLED_BEATS * 3 - 1)


def test_a_stretch_that_gives_nothing_more_says_so(feed: Feed, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_ranges, "SILENCE_S", 0.2)
    feed.create().put_numbers(5)
    access = Access((proxy.bootstrap,), "PLAINTEXT", {})
    with closing(KafkaStretch(access, feed.topics, {EVENTS: (0, 5)})) as stretch:
        stretch.seek({EVENTS: 0})
        proxy.fault("Fetch", action="hold_request", times=None)
        with pytest.raises(Unreachable, match="Kafka gives nothing more although the end is not reached"):
            stretch.poll(EVENTS, 5)


def test_nobody_there_is_said_with_address_and_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    access = Access((f"127.0.0.1:{port}",), "PLAINTEXT", {}, connect_timeout_ms=300)
    said = rf"connecting: Kafka at 127\.0\.0\.1:{port} \(PLAINTEXT\) is not reachable or not authorised; check kafka\."
    for client in (Reader, Admin, Writer):
        with pytest.raises(Unreachable, match=said):
            client(access)


# ---- topics that change


def test_a_partition_that_appears_is_seen_and_read_from_its_beginning(feed: Feed) -> None:
    feed.create(1)
    new = (Topic.EVENTS, 1)
    with feed.beat() as beat, feed.source(beat) as source:
        with feed.admin() as admin:
            admin.create_partitions({feed.name: NewPartitions(2)})
        until(lambda: beat.beat() or list(source.partitions()) == [EVENTS, new], "the new partition is known")
        assert source.behind(new), "before it was looked at it must be assumed to hold records"
        feed.put(feed.sending(b"first", partition=1))
        source.seek({new: 0})
        assert [r.value for r in taken(source, 1, new)] == [b"first"]
        assert beat.trouble is None


def test_a_topic_that_was_made_anew_stops_whoever_reads_it(feed: Feed) -> None:
    feed.create(2).put_numbers(5)
    before = feed.topics.ids[Topic.EVENTS]
    with feed.beat() as beat, feed.source(beat) as source:
        beat.beat()
        assert beat.trouble is None
        with feed.admin() as admin:
            admin.delete_topics([feed.name])
            with pytest.raises(JobFailed, match=f"there is no topic {feed.name}"):
                until(lambda: beat.beat(), "it is gone")
        assert beat.trouble is None, "a topic that brokers cannot tell of yet is no other topic"
        feed.create(1)
        beat.beat()
        with pytest.raises(InputGone) as gone:
            source.poll(EVENTS, 10)
    assert f"topic events was deleted and made anew (id {feed.topics.ids[Topic.EVENTS]}, the ledger" in str(gone.value)
    assert before in str(gone.value)


def test_a_partition_nobody_made_cannot_be_sought(feed: Feed) -> None:
    feed.create()
    with feed.source() as source, pytest.raises(JobFailed, match="there is no input partition events/3"):
        source.seek({(Topic.EVENTS, 3): 0})
