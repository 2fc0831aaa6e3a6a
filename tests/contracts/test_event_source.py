"""What every EventSource promises, whatever it reads from."""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import msgspec
import pytest
import zstandard

from stream_rec.errors import InputGone
from stream_rec.events import Record, Topic
from stream_rec.io.files import FileSource
from stream_rec.io.memory import MemorySource
from stream_rec.io.memory_broker import MemoryBroker
from stream_rec.ports import EventSource, TopicPartition
from tests.contracts.live_topics import Topics
from tests.integration.broker import Broker

EVENTS = (Topic.EVENTS, 0)
ITEMS = (Topic.ITEMS, 0)
N_EVENTS = 50
N_ITEMS = 7
START_MS = 1_600_000_000_000
WAIT_S = 20.0


class Made(Protocol):
    """Makes a source over the records of this file."""

    def __call__(self, folder: Path, request: pytest.FixtureRequest) -> EventSource: ...


def event_lines() -> list[bytes]:
    """Events a second apart, one a line."""
    return [
        msgspec.json.encode(
            {"event_id": f"e{n}", "event_type": "click", "event_at": START_MS + 1000 * n, "item_id": f"i{n % N_ITEMS}"}
        )
        for n in range(N_EVENTS)
    ]


def item_lines() -> list[tuple[bytes, bytes]]:
    """(key, value) of catalogue records."""
    return [
        (f"i{n}".encode(), msgspec.json.encode({"item_id": f"i{n}", "title": f"Cup {n}", "updated_at": START_MS}))
        for n in range(N_ITEMS)
    ]


def memory(_folder: Path, _request: pytest.FixtureRequest) -> EventSource:
    return MemorySource(filled(ended=True))


def live_memory(_folder: Path, _request: pytest.FixtureRequest) -> EventSource:
    return MemorySource(filled(ended=False))


def filled(*, ended: bool) -> MemoryBroker:
    broker = MemoryBroker()
    for n, line in enumerate(event_lines()):
        broker.append(*EVENTS, line, timestamp_ms=START_MS + 1000 * n)
    for key, line in item_lines():
        broker.append(*ITEMS, line, key=key, timestamp_ms=START_MS)
    if ended:
        broker.end()
    return broker


def files(folder: Path, _request: pytest.FixtureRequest) -> EventSource:
    events, items = folder / "events.jsonl", folder / "items.jsonl"
    events.write_bytes(b"".join(line + b"\n" for line in event_lines()))
    items.write_bytes(b"".join(line + b"\n" for _, line in item_lines()))
    return FileSource(events, items)


def compressed_files(folder: Path, _request: pytest.FixtureRequest) -> EventSource:
    events, items = folder / "events.jsonl.gz", folder / "items.jsonl.zst"
    events.write_bytes(gzip.compress(b"".join(line + b"\n" for line in event_lines())))
    items.write_bytes(zstandard.compress(b"".join(line + b"\n" for _, line in item_lines())))
    return FileSource(events, items)


def live_topics(_folder: Path, request: pytest.FixtureRequest) -> EventSource:
    topics: Topics = request.getfixturevalue("topics")
    return topics.live()


def stored_topics(_folder: Path, request: pytest.FixtureRequest) -> EventSource:
    topics: Topics = request.getfixturevalue("topics")
    return topics.stretch()


@pytest.fixture(scope="module")
def topics(broker: Broker) -> Topics:
    """The records on the real broker; no test writes there."""
    events = [(None, line, START_MS + 1000 * n) for n, line in enumerate(event_lines())]
    items = [(key, line, START_MS) for key, line in item_lines()]
    return Topics(broker.bootstrap, "source-contract", {Topic.EVENTS: events, Topic.ITEMS: items})


LIVE = (live_memory, live_topics)
"""More may come: never exhausted."""
LATE = (live_topics,)
"""What is there may be under way: a poll may give less than it was asked for."""
ON_A_BROKER = (live_topics, stored_topics)
MAKERS = [
    memory,
    live_memory,
    files,
    compressed_files,
    *(pytest.param(m, marks=pytest.mark.kafka) for m in ON_A_BROKER),
]


@pytest.fixture(params=MAKERS, ids=lambda make: make.__name__)
def make(request: pytest.FixtureRequest) -> Made:
    made: Made = request.param
    return made


@pytest.fixture
def source(make: Made, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EventSource]:
    made = make(tmp_path, request)
    if make in (memory, live_memory):
        yield made
        return
    with closing(made):  # type: ignore[type-var]
        yield made


class Take(Protocol):
    """The next `n` records of a partition, fewer only at its end."""

    def __call__(self, partition: TopicPartition, n: int) -> list[Record]: ...


@pytest.fixture
def take(make: Made, source: EventSource) -> Take:
    """One poll gives them, unless they may be under way."""

    def taken(partition: TopicPartition, n: int) -> list[Record]:
        got = list(source.poll(partition, n))
        assert len(got) <= n
        until_s = time.monotonic() + WAIT_S
        while make in LATE and len(got) < n and source.behind(partition) and time.monotonic() < until_s:
            got += source.poll(partition, n - len(got))
            time.sleep(0.001)
        assert len(got) <= n
        return got

    return taken


def test_partitions_are_in_order_and_hold_events_and_items(source: EventSource) -> None:
    partitions = list(source.partitions())
    assert partitions == sorted(partitions)
    assert {EVENTS, ITEMS} <= set(partitions)


def test_polling_gives_every_record_once_in_offset_order(source: EventSource, take: Take) -> None:
    seen = []
    while records := take(EVENTS, 8):
        seen += records
    assert [r.value for r in seen] == event_lines()
    assert [r.offset for r in seen] == sorted({r.offset for r in seen})


def test_a_record_names_its_topic_partition_and_time(source: EventSource, take: Take) -> None:
    second = take(EVENTS, 2)[1]
    assert (second.topic, second.partition, second.timestamp_ms) == (*EVENTS, START_MS + 1000)


def test_an_item_record_is_keyed_by_its_item(source: EventSource, take: Take) -> None:
    assert [r.key for r in take(ITEMS, 100)] == [key for key, _ in item_lines()]


def test_the_size_of_polls_changes_nothing(source: EventSource, take: Take) -> None:
    one_by_one = [r for _ in range(N_EVENTS) for r in take(EVENTS, 1)]
    source.seek({EVENTS: 0})
    assert one_by_one == take(EVENTS, 1000)


def test_partitions_move_independently(source: EventSource, take: Take) -> None:
    take(EVENTS, 10)
    assert take(ITEMS, 1)[0].value == item_lines()[0][1]


def test_seeking_back_gives_the_same_records_again(source: EventSource, take: Take) -> None:
    take(EVENTS, 10)
    middle = take(EVENTS, 10)
    take(EVENTS, 10)
    source.seek({EVENTS: middle[0].offset})
    assert take(EVENTS, 10) == middle


def test_seeking_one_partition_leaves_the_others_where_they_are(source: EventSource, take: Take) -> None:
    items = take(ITEMS, 3)
    take(EVENTS, 10)
    source.seek({EVENTS: 0})
    assert [r.key for r in (*items, *take(ITEMS, 100))] == [key for key, _ in item_lines()]


def test_seeking_forward_skips(source: EventSource, take: Take) -> None:
    fortieth = take(EVENTS, 41)[40]
    source.seek({EVENTS: 0})
    take(EVENTS, 3)
    source.seek({EVENTS: fortieth.offset})
    assert take(EVENTS, 1)[0] == fortieth


def test_a_range_is_read_exactly_and_moves_nothing(source: EventSource, take: Take) -> None:
    polled = take(EVENTS, 20)
    assert list(source.read_range(EVENTS, polled[5].offset, 7)) == polled[5:12]
    assert take(EVENTS, 1)[0].value == event_lines()[20]


def test_a_range_begins_at_the_first_record_that_is_not_in_front_of_it(source: EventSource, take: Take) -> None:
    """`first` of a range is the `next` of the one before, which may be no record's offset."""
    records = take(EVENTS, N_EVENTS)
    for before, after in pairwise(records):
        assert list(source.read_range(EVENTS, before.offset + 1, 1)) == [after]


def test_ranges_can_be_read_backwards_and_twice(source: EventSource, take: Take) -> None:
    records = take(EVENTS, N_EVENTS)
    for first in (30, 10, 10, 20):
        assert list(source.read_range(EVENTS, records[first].offset, 5)) == records[first : first + 5]


def test_a_range_past_the_end_is_gone(source: EventSource, take: Take) -> None:
    first = take(EVENTS, N_EVENTS)[-2].offset
    with pytest.raises(InputGone, match="events"):
        source.read_range(EVENTS, first, 5)


def test_what_is_left_is_behind(source: EventSource, take: Take) -> None:
    take(EVENTS, N_EVENTS - 1)
    assert source.behind(EVENTS)
    take(EVENTS, 1)
    take(EVENTS, 1)
    assert not source.behind(EVENTS)
    assert source.behind(ITEMS)


def test_seeking_back_makes_a_partition_behind_again(source: EventSource, take: Take) -> None:
    take(EVENTS, 1000)
    source.seek({EVENTS: 0})
    assert source.behind(EVENTS)


def test_a_partition_that_ends_is_exhausted_only_after_its_last_record(
    make: Made, source: EventSource, take: Take
) -> None:
    take(EVENTS, N_EVENTS - 1)
    assert not source.exhausted(EVENTS)
    take(EVENTS, 1)
    take(EVENTS, 1)
    assert source.exhausted(EVENTS) is (make not in LIVE)
    assert not source.exhausted(ITEMS)


def test_seeking_back_ends_exhaustion(source: EventSource, take: Take) -> None:
    take(EVENTS, 1000)
    source.seek({EVENTS: 0})
    assert not source.exhausted(EVENTS)


def test_lag_is_zero_when_all_is_read(source: EventSource, take: Take) -> None:
    for partition in source.partitions():
        take(partition, 1000)
    assert source.lag() == 0


def test_no_record_of_a_quiet_stream_lies_in_the_future(source: EventSource, take: Take) -> None:
    assert not any(source.in_future(EVENTS, r.offset) for r in take(EVENTS, N_EVENTS))


def test_a_source_is_the_same_as_itself(source: EventSource) -> None:
    source.same_topics(source.topic_ids(), source.partitions())


def test_topics_keep_their_identity_from_one_source_to_the_next(
    make: Made, source: EventSource, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    again = make(tmp_path, request)
    source.same_topics(again.topic_ids(), again.partitions())
    assert dict(again.topic_ids()) == dict(source.topic_ids())


def test_topics_of_a_broker_are_told_by_their_ids(make: Made, source: EventSource) -> None:
    ids = source.topic_ids()
    assert set(ids) == ({Topic.EVENTS, Topic.ITEMS} if make in ON_A_BROKER else set())
    assert len(set(ids.values())) == len(ids)


def test_another_topic_under_the_old_name_is_refused(make: Made, source: EventSource) -> None:
    if make in (files, compressed_files):
        pytest.skip("files are told by the digest of their content, in the genesis entry")
    with pytest.raises(InputGone, match="topic events was deleted and made anew"):
        source.same_topics({**source.topic_ids(), Topic.EVENTS: "another"}, source.partitions())


def test_a_partition_that_is_no_more_is_refused(make: Made, source: EventSource) -> None:
    if make in (files, compressed_files):
        pytest.skip("files have one partition each")
    with pytest.raises(InputGone, match="topic events has no partition 7 any more"):
        source.same_topics(source.topic_ids(), [*source.partitions(), (Topic.EVENTS, 7)])
