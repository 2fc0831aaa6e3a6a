"""A record that was put back is read as the one that it was."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stream_rec.adapters.registry import ADAPTERS
from stream_rec.events import Record
from stream_rec.io.kafka_lines import redriven_sending
from stream_rec.stream import wire
from stream_rec.stream.front import Front, FrontBatch
from stream_rec.stream.privacy import Pseudonymiser, Sealer

AT_MS = 1_298_937_600_000
KEY = b"a key for tests"
CLICK = {"event_id": "e1", "event_type": "click", "event_at": AT_MS, "user_id": "u1", "item_id": "i1"}


def read(record: Record, **options: Any) -> FrontBatch:
    return Front(Pseudonymiser(KEY), Sealer(KEY), **options).read([record])


def put_back(record: Record) -> Record:
    return record._replace(headers=redriven_sending(record.topic, record).headers)


@pytest.mark.parametrize(
    ("topic", "key", "value"),
    [
        ("events", b"u1", json.dumps(CLICK).encode()),
        ("events", b"u1", json.dumps(CLICK | {"user_id": " 17850.0", "colour": "red"}).encode()),
        ("events", b"u1", json.dumps({"specversion": "1.0", "type": "shop.click", "data": CLICK}).encode()),
        ("events", b"u1", b'{"event_type": '),
        ("items", b"i1", b'{"item_id": "i1", "title": "Red mug"}'),
        ("items", b"i1", None),
        ("control", None, b'{"command": "freeze"}'),
    ],
)
def test_its_header_changes_nothing_of_what_is_read(topic: str, key: bytes | None, value: bytes | None) -> None:
    record = Record(topic, 0, 7, AT_MS, key, value)
    assert read(put_back(record)) == read(record)


def test_nor_of_what_an_adapter_reads() -> None:
    value = json.dumps({"type": "track", "event": "Product Viewed", "userId": "u1", "timestamp": AT_MS,
                        "properties": {"product_id": "i1"}}).encode()  # fmt: skip
    record = Record("events", 0, 7, AT_MS, b"u1", value)
    batch = read(put_back(record), adapter=ADAPTERS["segment"])
    assert batch.lines
    assert batch == read(record, adapter=ADAPTERS["segment"])


def test_a_cloudevent_in_binary_mode_stays_one() -> None:
    headers = (("ce_specversion", b"1.0"), ("ce_id", b"e1"), ("ce_type", b"shop.click"))
    body = {name: value for name, value in CLICK.items() if name not in ("event_id", "event_type")}
    record = Record("events", 0, 7, AT_MS, b"u1", json.dumps(body).encode(), headers)
    assert wire.envelope_of(put_back(record)) == wire.envelope_of(record)
    assert read(put_back(record)) == read(record)


def test_the_header_alone_makes_no_envelope() -> None:
    assert wire.envelope_of(put_back(Record("events", 0, 7, AT_MS, None, b"{}"))) is None
