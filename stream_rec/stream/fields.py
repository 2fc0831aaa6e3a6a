"""A JSON object to a typed record: what has the right types passes as it is, the rest field by field with repairs."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from stream_rec.codec import Event, EventItem
from stream_rec.errors import BadRecord
from stream_rec.stream import quality

MAX_ITEMS = 1_000
TEXT_LIMITS = {"title": 1_000, "description": 10_000, "category": 1_000, "brand": 256}
"""Most characters of each text field."""
MAX_QUERY = 512

_EVENT_FIELDS = frozenset(Event.__struct_fields__)
_ITEM_FIELDS = frozenset(EventItem.__struct_fields__)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


def event_of(obj: dict[str, Any], words: list[str]) -> tuple[Event, int]:
    """The event in `obj` and how many fields of it are not known.

    >>> event, n_unknown = event_of({"event_type": "click", "event_at": 0, "item_id": 7, "price": "2", "x": 1}, [])
    >>> event.item_id, event.price, n_unknown
    ('7', 2.0, 1)

    Raises:
        BadRecord: a field that cannot be read safely.
    """
    n_unknown = 0 if obj.keys() <= _EVENT_FIELDS else len(obj.keys() - _EVENT_FIELDS)
    items = obj.get("items")
    if type(items) is list:
        for item in items:
            if type(item) is dict and not item.keys() <= _ITEM_FIELDS:
                n_unknown += len(item.keys() - _ITEM_FIELDS)
    try:
        return msgspec.convert(obj, Event), n_unknown
    except msgspec.ValidationError:
        return _repaired(obj, words), n_unknown


def _repaired(obj: dict[str, Any], words: list[str]) -> Event:
    get = obj.get
    event_type, at = get("event_type"), get("event_at")
    if event_type is None or at is None:
        raise BadRecord("missing_event_type" if event_type is None else "missing_event_at", "validate")
    if not isinstance(event_type, str):
        raise BadRecord("bad_event_type", "validate")
    if isinstance(at, bool) or not isinstance(at, int | float | str):
        raise BadRecord("bad_event_at", "validate")
    return Event(
        event_type=event_type,
        event_at=quality.time_ms(at, words) if isinstance(at, float) else at,
        event_id=id_text(get("event_id"), "bad_event_id", words),
        user_id=id_text(get("user_id"), "bad_user_id", words),
        session_id=id_text(get("session_id"), "bad_session_id", words),
        order_id=id_text(get("order_id"), "bad_order_id", words),
        items=_items(get("items"), words),
        query=_query(get("query"), words),
        decision_id=_or_dropped(id_text, get("decision_id"), "decision_id_dropped", words),
        value=_or_dropped(quality.number, get("value"), "value_dropped", words),
        currency=_currency(get("currency"), words),
        rating=_or_dropped(quality.number, get("rating"), "rating_dropped", words),
        **_about(obj, words),
    )


def _items(items: Any, words: list[str]) -> list[EventItem] | None:
    if items is None:
        return None
    if isinstance(items, dict):
        words.append("items_form")
        items = [items]
    if not isinstance(items, list):
        raise BadRecord("bad_items", "validate")
    if len(items) > MAX_ITEMS:
        raise BadRecord("too_many_items", "validate")
    return [_item(item, words) for item in items]


def _item(item: Any, words: list[str]) -> EventItem:
    if isinstance(item, str | int) and not isinstance(item, bool):
        words.append("items_form")
        return EventItem(item_id=str(item))
    if not isinstance(item, dict):
        raise BadRecord("bad_items", "validate")
    texts: dict[str, Any] = {
        name: text_of(item[name], name, words) for name in TEXT_LIMITS if item.get(name) is not None
    }
    return EventItem(**_about(item, words), **texts)


def _about(obj: dict[str, Any], words: list[str]) -> dict[str, Any]:
    """The four fields that an item of an event and an event of one item share."""
    return {
        "item_id": id_text(obj.get("item_id"), "bad_item_id", words),
        "position": _position(obj.get("position"), words),
        "price": quality.number(obj.get("price"), "bad_price", words),
        "quantity": quality.number(obj.get("quantity"), "bad_quantity", words),
    }


def id_text(value: Any, reason: str, words: list[str]) -> str | None:
    """An id as text; whole numbers become text.

    >>> id_text(17850.0, "bad_user_id", [])
    '17850'

    Raises:
        BadRecord: `reason`, for anything else.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 10**200:
        raise BadRecord(reason, "validate")
    words.append("id_number")
    return str(value)


def _or_dropped(read: Any, value: Any, word: str, words: list[str]) -> Any:
    try:
        return read(value, word, words)
    except BadRecord:
        words.append(word)
        return None


def _position(value: Any, words: list[str]) -> int | None:
    if value is None or type(value) is int:
        return value
    n = _or_dropped(quality.number, value, "position_dropped", words)
    if n is None:
        return None
    if not n.is_integer():
        words.append("position_dropped")
        return None
    if isinstance(value, float):
        words.append("number_form")
    return int(n)


def _query(value: Any, words: list[str]) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRecord("bad_query", "validate")
    words.append("text_form")
    return msgspec.json.encode(value).decode() if abs(value) < 2**63 else "0"


def _currency(value: Any, words: list[str]) -> str | None:
    if value is None or isinstance(value, str):
        return value
    words.append("currency_dropped")
    return None


def text_of(value: Any, field: str, words: list[str]) -> str:
    """A text field trimmed, without control characters, cut to its limit; empty for null.

    >>> text_of(["Home", "Mugs"], "category", [])
    'Home > Mugs'
    """
    if value is None:
        return ""
    if isinstance(value, list) and all(isinstance(v, str) for v in value):
        words.append("text_form")
        value = " > ".join(value)
    elif isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**63:
        words.append("text_form")
        value = str(value)
    if not isinstance(value, str):
        words.append("text_dropped")
        return ""
    text = value.strip()
    if not text.isprintable() and _CONTROL.search(text):
        words.append("text_form")
        text = _CONTROL.sub(" ", text).strip()
    if len(text) > TEXT_LIMITS.get(field, MAX_QUERY):
        words.append("text_cut")
        text = text[: TEXT_LIMITS.get(field, MAX_QUERY)]
    return text
