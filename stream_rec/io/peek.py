"""The cheap look at a line that tells a record's time and an item's id, without judging the record.

Validation is the business of `stream/quality.py`; what cannot be read here has simply no time of its own.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec

NO_TIME: Final = -1
"""No time could be read."""

PEEK_LIMIT_BYTES = 1 << 20
"""Longer lines are not looked at: a record of that size is not accepted, and its time would cost milliseconds."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
_END_MS = 253_402_300_800_000
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
    """Milliseconds since the epoch of an RFC 3339 text (naive = UTC) or an epoch number in s, ms, us or ns.

    The unit follows from the size: below 1e11 seconds, 1e14 ms, 1e17 us. NO_TIME when it is none of these.

    >>> time_ms("2010-12-01 08:26:00"), time_ms(1291191960), time_ms("1291191960000")
    (1291191960000, 1291191960000, 1291191960000)
    """
    try:
        if isinstance(value, str):
            if not value[4:5].isdigit() or len(value) < 5:
                return _rfc3339_ms(value)
            value = float(value) if len(value) <= 20 else None
        if isinstance(value, bool) or not isinstance(value, int | float):
            return NO_TIME
        return _epoch_ms(value)
    except _UNREADABLE:
        return NO_TIME


@lru_cache(maxsize=4096)
def _rfc3339_ms(text: str) -> int:
    text = text.strip()
    if text.endswith(" UTC"):
        text = text[:-4]
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max((moment - _EPOCH) // _MS, NO_TIME)


def _epoch_ms(number: float) -> int:
    if not 0 <= number < 1e20:
        return NO_TIME
    if number < 1e11:
        at_ms = int(number * 1000)
    elif number < 1e14:
        at_ms = int(number)
    else:
        at_ms = int(number // 1000) if number < 1e17 else int(number // 1_000_000)
    return at_ms if at_ms < _END_MS else NO_TIME


def event_time_ms(line: bytes) -> int:
    """The time an event line says it happened, in ms; NO_TIME when none can be read.

    Knows the fields of the product's own events, of CloudEvents and of the formats in `adapters`.

    >>> event_time_ms(b'{"event_at": "1970-01-01T00:00:01Z", "item_id": "a"}'), event_time_ms(b'{"event_at": ')
    (1000, -1)
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
