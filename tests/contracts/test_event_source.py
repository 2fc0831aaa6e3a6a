"""What every EventSource promises, whatever it reads from."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import zstandard

from stream_rec.errors import InputGone
from stream_rec.events import Topic
from stream_rec.io.files import FileSource
from stream_rec.io.memory import MemorySource
from stream_rec.io.memory_broker import MemoryBroker
from stream_rec.ports import EventSource

EVENTS = (Topic.EVENTS, 0)
ITEMS = (Topic.ITEMS, 0)
N_EVENTS = 50
N_ITEMS = 7
START_MS = 1_600_000_000_000

Make = Callable[[Path], EventSource]


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


def memory(_folder: Path) -> EventSource:
    broker = MemoryBroker()
    for n, line in enumerate(event_lines()):
        broker.append(*EVENTS, line, timestamp_ms=START_MS + 1000 * n)
    for key, line in item_lines():
        broker.append(*ITEMS, line, key=key, timestamp_ms=START_MS)
    broker.end()
    return MemorySource(broker)


def files(folder: Path) -> EventSource:
    events, items = folder / "events.jsonl", folder / "items.jsonl"
    events.write_bytes(b"".join(line + b"\n" for line in event_lines()))
    items.write_bytes(b"".join(line + b"\n" for _, line in item_lines()))
    return FileSource(events, items)


def compressed_files(folder: Path) -> EventSource:
    events, items = folder / "events.jsonl.gz", folder / "items.jsonl.zst"
    events.write_bytes(gzip.compress(b"".join(line + b"\n" for line in event_lines())))
    items.write_bytes(zstandard.compress(b"".join(line + b"\n" for _, line in item_lines())))
    return FileSource(events, items)


MAKERS: list[Make] = [memory, files, compressed_files]


@pytest.fixture(params=MAKERS, ids=lambda make: make.__name__)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> EventSource:
    make: Make = request.param
    return make(tmp_path)


def test_partitions_are_in_order_and_hold_events_and_items(source: EventSource) -> None:
    partitions = list(source.partitions())
    assert partitions == sorted(partitions)
    assert {EVENTS, ITEMS} <= set(partitions)


def test_polling_gives_every_record_once_in_offset_order(source: EventSource) -> None:
    seen = []
    while records := source.poll(EVENTS, 8):
        assert len(records) <= 8
        seen += records
    assert [r.value for r in seen] == event_lines()
    assert [r.offset for r in seen] == sorted({r.offset for r in seen})


def test_a_record_names_its_topic_partition_and_time(source: EventSource) -> None:
    second = source.poll(EVENTS, 2)[1]
    assert (second.topic, second.partition, second.timestamp_ms) == (*EVENTS, START_MS + 1000)


def test_an_item_record_is_keyed_by_its_item(source: EventSource) -> None:
    assert [r.key for r in source.poll(ITEMS, 100)] == [key for key, _ in item_lines()]


def test_the_size_of_polls_changes_nothing(source: EventSource) -> None:
    one_by_one = [r for _ in range(N_EVENTS) for r in source.poll(EVENTS, 1)]
    source.seek({EVENTS: 0})
    assert one_by_one == list(source.poll(EVENTS, 1000))


def test_partitions_move_independently(source: EventSource) -> None:
    source.poll(EVENTS, 10)
    assert source.poll(ITEMS, 1)[0].value == item_lines()[0][1]


def test_seeking_back_gives_the_same_records_again(source: EventSource) -> None:
    source.poll(EVENTS, 10)
    middle = list(source.poll(EVENTS, 10))
    source.poll(EVENTS, 10)
    source.seek({EVENTS: middle[0].offset})
    assert list(source.poll(EVENTS, 10)) == middle


def test_seeking_forward_skips(source: EventSource) -> None:
    fortieth = source.poll(EVENTS, 41)[40]
    source.seek({EVENTS: 0})
    source.poll(EVENTS, 3)
    source.seek({EVENTS: fortieth.offset})
    assert source.poll(EVENTS, 1)[0] == fortieth


def test_a_range_is_read_exactly_and_moves_nothing(source: EventSource) -> None:
    polled = list(source.poll(EVENTS, 20))
    assert list(source.read_range(EVENTS, polled[5].offset, 7)) == polled[5:12]
    assert source.poll(EVENTS, 1)[0].value == event_lines()[20]


def test_a_range_past_the_end_is_gone(source: EventSource) -> None:
    with pytest.raises(InputGone, match="events"):
        source.read_range(EVENTS, N_EVENTS - 2, 5)


def test_a_partition_is_exhausted_only_after_its_last_record(source: EventSource) -> None:
    source.poll(EVENTS, N_EVENTS - 1)
    assert not source.exhausted(EVENTS)
    source.poll(EVENTS, 1)
    source.poll(EVENTS, 1)
    assert source.exhausted(EVENTS)
    assert not source.exhausted(ITEMS)


def test_seeking_back_ends_exhaustion(source: EventSource) -> None:
    while source.poll(EVENTS, 100):
        pass
    source.seek({EVENTS: 0})
    assert not source.exhausted(EVENTS)


def test_lag_is_zero_when_all_is_read(source: EventSource) -> None:
    for partition in source.partitions():
        while source.poll(partition, 100):
            pass
    assert source.lag() == 0


def test_no_record_of_a_quiet_stream_lies_in_the_future(source: EventSource) -> None:
    records = source.poll(EVENTS, N_EVENTS)
    assert not any(source.in_future(EVENTS, r.offset) for r in records)
