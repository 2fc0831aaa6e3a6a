"""Which record stands for a line: its key, value and time; and what goes back of a dead one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_rec.adapters.registry import ADAPTERS
from stream_rec.events import Record
from stream_rec.io.kafka import Sending
from stream_rec.io.kafka_lines import (
    NO_ITEM,
    REDRIVEN,
    RecordTimes,
    event_sending,
    item_sending,
    redriven_sending,
)

NOW_MS = 1_700_000_000_000
AT_MS = 1_298_937_600_000


def line(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def key(**fields: Any) -> bytes | None:
    return event_sending("shop.events", line(**fields)).key


def test_an_event_goes_as_it_is_under_its_user() -> None:
    raw = b' {"user_id":"u1",  "session_id": "s1", "event_type":"click"} '
    assert event_sending("shop.events", raw) == Sending("shop.events", b"u1", raw)


def test_a_session_stands_for_a_missing_user_and_without_both_there_is_no_key() -> None:
    assert key(session_id="s1") == b"s1"
    assert key(user_id=" ", session_id="s1") == b"s1"
    assert key(order_id="o1") is None


@pytest.mark.parametrize("user_id", [17850, 17850.0, "17850", " 17850.0 "])
def test_one_user_has_one_key_however_the_id_is_written(user_id: Any) -> None:
    assert key(user_id=user_id) == b"17850"


@pytest.mark.parametrize("raw", [b"", b"{", b"[1]", b"\xff\xfe", b'{"user_id": NaN}', b'{"user_id": "a\\u0007"}'])
def test_a_broken_event_goes_as_it_is_without_a_key(raw: bytes) -> None:
    assert event_sending("events", raw) == Sending("events", None, raw)


def test_the_user_of_a_cloudevent_is_in_its_data() -> None:
    assert key(specversion="1.0", id="1", data={"user_id": "u1"}) == b"u1"
    assert key(specversion="1.0", id="1", data='{"user_id": "u1"}') == b"u1"


def test_the_user_of_a_foreign_format_is_the_one_that_its_adapter_finds() -> None:
    raw = line(type="track", event="Product Viewed", userId="u1", anonymousId="a1")
    assert event_sending("events", raw).key is None
    assert event_sending("events", raw, adapter=ADAPTERS["segment"]).key == b"u1"


def test_an_event_keeps_its_own_time_where_asked() -> None:
    raw = line(event_at="2011-03-01T00:00:00Z")
    assert event_sending("events", raw).timestamp_ms is None
    assert event_sending("events", raw, times=RecordTimes(lambda: NOW_MS)).timestamp_ms == AT_MS


def test_an_event_without_a_time_or_with_one_to_come_gets_that_of_the_line_before() -> None:
    times = RecordTimes(lambda: NOW_MS)
    lines = (b"{", line(event_at=AT_MS), b"{", line(event_at=NOW_MS + 1), line(event_at=AT_MS - 5))
    assert [event_sending("events", raw, times=times).timestamp_ms for raw in lines] == [
        0, AT_MS, AT_MS, AT_MS, AT_MS - 5,
    ]  # fmt: skip


def test_an_item_goes_as_it_is_under_its_id() -> None:
    raw = line(item_id=" 22423.0", title="Red mug")
    assert item_sending("shop.items", raw) == Sending("shop.items", b"22423", raw)
    assert item_sending("items", line(item_id=7.0)).key == b"7"


def test_a_deleted_item_is_a_tombstone() -> None:
    assert item_sending("items", line(item_id="a", deleted=True)) == Sending("items", b"a", None)
    assert item_sending("items", line(item_id="a", deleted=False)).value is not None


@pytest.mark.parametrize("raw", [b"", b"{", line(title="no id"), line(deleted=True), line(item_id="x" * 257)])
def test_an_item_line_without_an_id_goes_as_it_is_under_a_key_that_a_compacted_topic_takes(raw: bytes) -> None:
    assert item_sending("items", raw) == Sending("items", NO_ITEM, raw)


def test_an_item_keeps_its_updated_at_where_asked_and_is_of_now_without_one() -> None:
    times = RecordTimes(lambda: NOW_MS)

    def time_of(**fields: Any) -> int | None:
        return item_sending("items", line(item_id="a", **fields), times=times).timestamp_ms

    assert time_of(updated_at=AT_MS) == AT_MS
    assert time_of() is None
    assert time_of(updated_at=NOW_MS + 1) is None
    assert item_sending("items", line(item_id="a", updated_at=AT_MS)).timestamp_ms is None


@settings(derandomize=True, deadline=None)
@given(st.binary(max_size=64) | st.from_regex(rb'\{"(user_id|item_id|data)": ?[^}]{0,20}\}', fullmatch=True))
def test_whatever_a_line_holds_it_becomes_a_record(raw: bytes) -> None:
    for adapter in (None, *ADAPTERS.values()):
        assert event_sending("events", raw, adapter=adapter).value == raw
    sending = item_sending("items", raw)
    assert sending.key is not None
    assert sending.value in (raw, None)


def test_a_dead_record_goes_back_byte_for_byte_and_says_where_it_died() -> None:
    record = Record("events", 2, 7, AT_MS, b"\xffk", b"\x00{", (("ce_id", b"1"), ("ce_id", b"2")))
    headers = (("ce_id", b"1"), ("ce_id", b"2"), (REDRIVEN, b"events/2/7"))
    assert redriven_sending("shop.events", record) == Sending("shop.events", b"\xffk", b"\x00{", headers=headers)


def test_a_record_that_dies_twice_says_only_where_it_died_last() -> None:
    record = Record("events", 2, 9, AT_MS, None, b"{", ((REDRIVEN, b"events/2/7"),))
    assert redriven_sending("events", record).headers == ((REDRIVEN, b"events/2/9"),)
