"""Bytes to JSON objects, and CloudEvents envelopes."""

from __future__ import annotations

import base64
import json

import pytest

from stream_rec.errors import BadRecord
from stream_rec.events import Record, Topic
from stream_rec.stream import wire


def reason(value: bytes) -> str:
    with pytest.raises(BadRecord) as bad:
        wire.json_object(value, [])
    return bad.value.reason


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"\xef\xbb\xbf", "empty"),
        (b'{"a": "\xff"}', "not_utf8"),
        (b"\xff\xfe{\x00}\x00", "not_utf8"),
        (b'{"a": ', "not_json"),
        (b'{"a": 1} x', "not_json"),
        (b'{"a": "\\ud800"}', "not_json"),
        (b'{"a": "NaN" x}', "not_json"),
        (b'{"a": NaN}', "not_finite"),
        (b'{"a": -Infinity}', "not_finite"),
        (b'{"a": 1e999}', "not_finite"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not_finite"),
        (b"[1]", "not_an_object"),
        (b'"text"', "not_an_object"),
        (b"[" * 33 + b"]" * 33, "too_deep"),
        (b"[" * 500_000, "too_deep"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "too_deep"),
    ],
)
def test_unreadable_bytes_have_a_word(value: bytes, word: str) -> None:
    assert reason(value) == word


def test_brackets_in_text_are_no_depth() -> None:
    assert wire.json_object(json.dumps({"a": "[" * 5000 + '\\"' + "{" * 5000}).encode(), [])


def test_many_shallow_objects_are_no_depth() -> None:
    assert wire.json_object(json.dumps({"a": [{"b": [1]}] * 5000}).encode(), [])


def test_depth_is_judged_the_same_wherever_the_stack_is() -> None:
    value = b"[" * 900

    def deep(n: int) -> str:
        return reason(value) if n == 0 else deep(n - 1)

    assert deep(0) == deep(150) == "too_deep"


def test_a_byte_order_mark_is_a_repair() -> None:
    words: list[str] = []
    assert wire.json_object(b'\xef\xbb\xbf{"a": 1}', words) == {"a": 1}
    assert words == ["bom"]


DATA = {"event_type": "click", "event_at": 5}
ENVELOPE = {
    "specversion": "1.0",
    "id": "7",
    "source": "/shop",
    "type": "com.shop.click",
    "time": "2024-01-01T00:00:00Z",
}


@pytest.mark.parametrize(
    "content",
    [
        {"data": DATA},
        {"data": json.dumps(DATA)},
        {"data_base64": base64.b64encode(json.dumps(DATA).encode()).decode()},
    ],
)
def test_a_structured_cloud_event_is_unwrapped(content: dict) -> None:
    assert wire.unwrap({**ENVELOPE, **content}, [])[0] == DATA


@pytest.mark.parametrize(
    "content", [{"data": 3}, {"data_base64": "%"}, {"data_base64": 3}, {"data": None}, {"data": []}]
)
def test_a_cloud_event_without_readable_data_is_bad(content: dict) -> None:
    with pytest.raises(BadRecord) as bad:
        wire.unwrap({**ENVELOPE, **content}, [])
    assert bad.value.reason == "bad_cloudevent"


@pytest.mark.parametrize("prefix", ["ce_", "ce-", "CE_"])
def test_binary_headers_are_read_in_both_spellings(prefix: str) -> None:
    headers = tuple((prefix + name, value.encode()) for name, value in ENVELOPE.items())
    assert wire.envelope_of(Record(Topic.EVENTS, 0, 0, 0, None, b"{}", headers)) == ENVELOPE


def test_other_headers_are_no_envelope() -> None:
    assert wire.envelope_of(Record(Topic.EVENTS, 0, 0, 0, None, b"{}", (("traceparent", b"00"),))) is None


def test_the_envelope_fills_only_what_the_data_leaves_out() -> None:
    assert wire.fill({"event_id": "e", "event_at": None}, ENVELOPE) == {
        "event_id": "e",
        "event_type": "click",
        "event_at": ENVELOPE["time"],
    }


def test_another_cloud_events_version_is_refused() -> None:
    with pytest.raises(BadRecord, match="cloudevent_version"):
        wire.fill({}, {**ENVELOPE, "specversion": "0.3"})
