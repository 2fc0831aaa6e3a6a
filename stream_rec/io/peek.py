"""The cheap look at a line that tells a record's time and an item's id, without judging the record.

Validation is the business of `stream/quality.py`; what cannot be read here has simply no time of its own.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec

from stream_rec.errors import BadRecord
from stream_rec.stream import quality

NO_TIME: Final = -1
"""No time could be read."""

PEEK_LIMIT_BYTES = 1 << 20
"""Longer lines are not looked at: a record of that size is not accepted, and its time would cost milliseconds."""

_UNREADABLE = (msgspec.DecodeError, ValueError, RecursionError, OverflowError)


class _Inner(msgspec.Struct, gc=False):
    event_at: Any = None
    updated_at: Any = None
    item_id: Any = None
    deleted: Any = None


class _Event(msgspec.Struct, gc=False):
    event_at: Any = None
    data: msgspec.Raw = msgspec.Raw()
    time: Any = None
    timestamp: Any = None
    event_timestamp: Any = None
    timestamp_micros: Any = None
    derived_tstamp: Any = None
    collector_tstamp: Any = None


class _Item(msgspec.Struct, gc=False):
    item_id: Any = None
    updated_at: Any = None
    deleted: Any = None
    data: msgspec.Raw = msgspec.Raw()


class ItemPeek(NamedTuple):
    """What the transport must know of an item line."""

    item_id: str | None
    at_ms: int
    """Its `updated_at`; 0 when not said, NO_TIME when the line cannot be read."""
    deleted: bool


_event_decoder = msgspec.json.Decoder(_Event)
_item_decoder = msgspec.json.Decoder(_Item)
_inner_decoder = msgspec.json.Decoder(_Inner)


def time_ms(value: object) -> int:
    """Milliseconds since the epoch of a time as records give it (`quality.time_ms`); NO_TIME when it is none.

    >>> time_ms("2010-12-01 08:26:00"), time_ms(1291191960), time_ms("soon")
    (1291191960000, 1291191960000, -1)
    """
    if isinstance(value, str):
        return _text_ms(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _judged(value)
    return NO_TIME


def _judged(value: str | int | float) -> int:
    try:
        return quality.time_ms(value, [])
    except (BadRecord, ValueError, OverflowError):
        return NO_TIME


_text_ms = lru_cache(maxsize=4096)(_judged)


def event_time_ms(line: bytes) -> int:
    """The time an event line says it happened, in ms; NO_TIME when none can be read.

    Knows the fields of the product's own events, of CloudEvents and of the formats in `adapters`.

    >>> event_time_ms(b'{"event_at": "2019-10-01T00:00:01Z"}'), event_time_ms(b'{"event_at": ')
    (1569888001000, -1)
    """
    if len(line) > PEEK_LIMIT_BYTES:
        return NO_TIME
    try:
        event = _event_decoder.decode(line)
        if event.event_at is not None:
            return time_ms(event.event_at)
        inner = _inner(event.data)
        if inner is not None and inner.event_at is not None:
            return time_ms(inner.event_at)
    except _UNREADABLE:
        return NO_TIME
    return next((time_ms(value) for value in _other_times(event) if value is not None), NO_TIME)


def _inner(data: msgspec.Raw) -> _Inner | None:
    try:
        return _inner_decoder.decode(data)
    except msgspec.DecodeError:
        return None


def _other_times(event: _Event) -> tuple[Any, ...]:
    return (
        event.derived_tstamp,
        event.timestamp,
        event.event_timestamp,
        event.timestamp_micros,
        event.collector_tstamp,
        event.time,
    )


def peek_item(line: bytes) -> ItemPeek:
    """Id, time and whether it delists, of one line of an items file.

    >>> peek_item(b'{"item_id": "a1", "deleted": true}')
    ItemPeek(item_id='a1', at_ms=0, deleted=True)
    """
    unreadable = ItemPeek(None, NO_TIME, False)
    if len(line) > PEEK_LIMIT_BYTES:
        return unreadable
    try:
        outer = _item_decoder.decode(line)
        item = (_inner(outer.data) if outer.item_id is None else None) or outer
    except _UNREADABLE:
        return unreadable
    at_ms = 0 if item.updated_at is None else time_ms(item.updated_at)
    return ItemPeek(_item_key(item.item_id), at_ms, item.deleted is True)


def _item_key(item_id: object) -> str | None:
    if isinstance(item_id, str):
        return item_id.strip() or None
    if isinstance(item_id, int) and not isinstance(item_id, bool):
        return str(item_id)
    return None


def item_time_ms(line: bytes) -> int:
    """The time of an item line in ms: 0 when it says none (known from the start), NO_TIME when unreadable."""
    return peek_item(line).at_ms
