"""Batches of a fetch: the same records as kafka-python reads out of them, and none that stops the reader."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka.consumer.fetcher import Fetcher
from kafka.protocol.consumer import IsolationLevel
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder
from kafka.structs import TopicPartition

from stream_rec.io.kafka_decode import Polled, quickened

NONE, GZIP, ZSTD = 0, 1, 4
PARTITION = TopicPartition("events", 3)


class Damaged(Exception):
    pass


QUICK = quickened(SimpleNamespace(PartitionRecords=Fetcher.PartitionRecords), Damaged).PartitionRecords
bodies = st.none() | st.binary(max_size=300)
headers = st.lists(st.tuples(st.text(max_size=80), st.binary(max_size=80)), max_size=3)
records = st.lists(st.tuples(st.integers(0, 2**44), bodies, bodies, headers), min_size=1, max_size=80)


def batch(rows: list[Any], *, first: int = 0, codec: int = NONE, producer_id: int = -1) -> bytes:
    builder = MemoryRecordsBuilder(
        2, codec, 1 << 20, offset=first, transactional=producer_id >= 0, producer_id=producer_id, producer_epoch=0,
        base_sequence=0,
    )  # fmt: skip
    for at_ms, key, value, named in rows:
        builder.append(at_ms, key, value, named)
    builder.close()
    return bytes(builder.buffer())


def read(cls: Any, raw: bytes, *, first: int = 0, at_once: int = 7, **more: Any) -> list[Any]:
    opened, out = cls(first, PARTITION, MemoryRecords(raw), **more), []
    while opened:
        out += opened.take(at_once)
        where = opened.next_fetch_offset
    return [*out, where]


def as_ours(r: Any) -> Any:
    if isinstance(r, int):
        return r
    return Polled(r.topic, r.partition, r.offset, r.timestamp, r.key, r.value, tuple(r.headers))


@given(records, records, st.sampled_from([NONE, GZIP, ZSTD]), st.integers(0, 170))
@settings(max_examples=60, derandomize=True, deadline=None)
def test_batches_give_what_kafka_python_reads_from_any_offset_on(
    one: list[Any], two: list[Any], codec: int, first: int
) -> None:
    raw = batch(one, codec=codec) + batch(two, first=len(one) + 5, codec=codec)
    stock = read(Fetcher.PartitionRecords, raw, first=first)
    assert read(QUICK, raw, first=first) == [as_ours(each) for each in stock]


def test_records_of_an_aborted_transaction_are_left_out() -> None:
    rows = [(1, b"k", b"v", [])]
    raw = batch(rows, producer_id=7) + batch(rows, first=1, producer_id=8)
    aborted = [type("Aborted", (), {"producer_id": 7, "first_offset": 0})()]
    committed = {"isolation_level": IsolationLevel.READ_COMMITTED, "aborted_transactions": aborted}
    assert [each.offset for each in read(QUICK, raw, **committed)[:-1]] == [1]


def test_a_header_whose_name_is_no_text_stops_nobody() -> None:
    raw = bytearray(batch([(1, None, b"v", [("NAME", b"x")])]))
    at = raw.index(b"NAME")
    raw[at : at + 2] = b"\xff\xfe"
    assert read(QUICK, bytes(raw), check_crcs=False)[0].headers == (("\ufffd\ufffdME", b"x"),)


def test_a_header_without_content_is_empty() -> None:
    raw = batch([(1, None, b"v", [("a", None)])])
    assert read(QUICK, raw)[0].headers == (("a", b""),)


def test_a_batch_whose_bytes_were_changed_is_refused() -> None:
    raw = bytearray(batch([(1, b"k", b"value", [])]))
    raw[raw.index(b"value")] ^= 1
    with pytest.raises(Damaged, match="checksum of events/3"):
        read(QUICK, bytes(raw))


def test_records_that_do_not_fill_their_batch_are_refused() -> None:
    raw = bytearray(batch([(1, b"k", b"value", [])]))
    raw[raw.index(b"value") - 1] -= 2
    with pytest.raises(Damaged, match="cannot be read"):
        read(QUICK, bytes(raw), check_crcs=False)
