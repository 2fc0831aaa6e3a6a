"""Lines of files, and dead letters, to the records that stand for them in the input topics: key, value, time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from stream_rec.errors import BadRecord
from stream_rec.events import Record
from stream_rec.io.kafka import Sending
from stream_rec.io.peek import event_time_ms, peek_item
from stream_rec.stream import quality, wire
from stream_rec.stream.fields import id_text

Adapter = Callable[[dict[str, Any]], Sequence[dict[str, Any]]]
"""A foreign JSON object to events of ours; never raises."""

REDRIVEN = "stream-rec-redriven"
"""Header of a record that was put back: the position of the one that died."""
NO_ITEM = b""
"""Key of an item line that names none: a compacted topic takes no record without a key."""


class RecordTimes:
    """Times for records that keep their own.

    A line without one, or with one that the clock has not reached (brokers refuse it), gets that of the line before;
    0 in front of the first.

    Args:
        now_ms: the clock.

    >>> times = RecordTimes(lambda: 1_700_000_000_000)
    >>> [times.of(at_ms) for at_ms in (-1, 1_600_000_000_000, -1, 1_900_000_000_000)]
    [0, 1600000000000, 1600000000000, 1600000000000]
    """

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._before_ms = 0

    def of(self, at_ms: int) -> int:
        """The record time, in ms, of a line that says `at_ms` (negative: nothing)."""
        if self.passed(at_ms):
            self._before_ms = at_ms
        return self._before_ms

    def passed(self, at_ms: int) -> bool:
        """Whether `at_ms` is a time, and one that the clock has reached."""
        return 0 <= at_ms <= self._now_ms()


def event_sending(
    topic: str, line: bytes, *, adapter: Adapter | None = None, times: RecordTimes | None = None
) -> Sending:
    """An event line as a record, keyed by its user, else its session; a broken line goes as it is, without a key.

    Args:
        topic: as the cluster calls it.
        line: as it stands in the file.
        adapter: of a foreign format.
        times: gives records their own time; None: the producer's.

    >>> event_sending("events", b'{"user_id": 17850, "event_type": "click"}').key
    b'17850'
    """
    at_ms = None if times is None else times.of(event_time_ms(line))
    return Sending(topic, _who(line, adapter), line, timestamp_ms=at_ms)


def item_sending(topic: str, line: bytes, *, times: RecordTimes | None = None) -> Sending:
    """A catalogue line as a record, keyed by its item; one that says `deleted` becomes a tombstone.

    A line that names no item goes as it is under `NO_ITEM`. With `times` a line keeps its `updated_at`; one without,
    or with one to come, gets the producer's time.

    >>> item_sending("items", b'{"item_id": "a1", "deleted": true}')[:3]
    ('items', b'a1', None)
    """
    peek = peek_item(line)
    key = _clean(peek.item_id, "bad_item_id") if peek.item_id is not None else _said(line, "item_id", "bad_item_id")
    at_ms = peek.at_ms if times is not None and peek.at_ms > 0 and times.passed(peek.at_ms) else None
    return Sending(topic, key or NO_ITEM, None if peek.deleted and key else line, timestamp_ms=at_ms)


def redriven_sending(topic: str, record: Record) -> Sending:
    """A dead record as it goes back into its topic: as it arrived, and a header that says where it died."""
    headers = tuple(header for header in record.headers if header[0] != REDRIVEN)
    where = f"{record.topic}/{record.partition}/{record.offset}".encode()
    return Sending(topic, record.key, record.value, headers=(*headers, (REDRIVEN, where)))


def _who(line: bytes, adapter: Adapter | None) -> bytes | None:
    """User, else session, as the intake reads them; None when it reads neither."""
    said = _object(line)
    if adapter is not None:
        said = next(iter(adapter(said)), {})
    return _clean(said.get("user_id"), "bad_user_id") or _clean(said.get("session_id"), "bad_session_id")


def _said(line: bytes, field: str, reason: str) -> bytes | None:
    return _clean(_object(line).get(field), reason)


def _object(line: bytes) -> dict[str, Any]:
    """The JSON object of a line, out of its CloudEvents envelope; empty where the intake reads none."""
    try:
        return wire.unwrap(wire.json_object(line, []), [])[0]
    except BadRecord:
        return {}


def _clean(value: Any, reason: str) -> bytes | None:
    """An id with the repairs that the intake makes, so that one user has one key."""
    try:
        return quality.clean_id(id_text(value, reason, []) or "", reason, []).encode() or None
    except BadRecord:
        return None
