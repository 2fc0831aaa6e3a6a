"""Values that can be repaired safely, and the words for those that cannot.

Every function takes `words`, a list that gets one word a repair, and raises `BadRecord` with one word when there is
no safe reading. Neither ever holds a value. The tables of both stand in `REPAIRS` and `REASONS`.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any

from stream_rec.errors import BadRecord
from stream_rec.events import MISSING, Kind

MAX_ID = 256
"""Most characters of an id."""
MAX_EVENT_ID = 1024
"""Event ids may hold a CloudEvents source; only their digest is kept."""
MAX_NUMBER = 1e12
"""Prices, quantities and values from here on are not believed (and would lose cents in float32)."""
MAX_POSITION = 10_000
MIN_AT_MS = 631_152_000_000
"""1990-01-01: no online shop is older. Epoch milliseconds below 1e11 cannot be told from seconds."""
MAX_AT_MS = 4_102_444_800_000
"""2100-01-01."""

REPAIRS = {
    "bom": "a byte order mark was cut off",
    "id_trimmed": "spaces around an id were cut off",
    "id_float": "an id like 17850.0 became 17850",
    "id_number": "an id given as a number became text",
    "id_blank": "a blank optional id counts as missing",
    "event_id_derived": "a missing event_id was made from topic, partition and offset",
    "type_case": "event_type was trimmed, lowered or had - or space for _",
    "time_naive": "a time without offset was read as UTC",
    "time_text": "a number or a time was given as unusual text",
    "epoch_s": "seconds since 1970 became ms",
    "epoch_us": "microseconds since 1970 became ms",
    "epoch_ns": "nanoseconds since 1970 became ms",
    "epoch_float": "fractional ms since 1970 were rounded",
    "numeric_string": "a number given as text was read",
    "number_form": "a whole number given as 3.0 was read",
    "currency_case": "a currency code was trimmed or raised to upper case",
    "currency_dropped": "a currency that is no three-letter code was dropped",
    "value_dropped": "an unusable total value was dropped",
    "price_dropped": "a price of zero or less was dropped (a purchase with one is dead-lettered)",
    "quantity_sign": "a refund's negative quantity became positive",
    "quantity_dropped": "a quantity of zero or less of another type than purchase or refund became 1",
    "position_dropped": "an unusable position was dropped",
    "position_from_order": "an impression without positions got those of its list order",
    "rating_dropped": "an unusable rating was dropped",
    "decision_id_dropped": "an unusable decision_id was dropped",
    "items_form": "items was given as one object, or as bare ids",
    "text_form": "a text field was given as a number or a list, or held control characters",
    "text_cut": "a text was cut to its longest length",
    "text_dropped": "an unusable text field was dropped",
    "boolean_form": "a yes or no was given as text or number",
    "title_missing": "an item has no title",
    "not_a_product": "some lines of the event name codes that are no products and were left out",
    "part_ignored": "some events of the record have a type that is not used and were left out",
    "query_scrubbed": "an e-mail address, phone, card number or user id was taken out of a query",
}
"""Repair word to what was done."""

_DECODE_REASONS = {
    "no_value": "the record has no value",
    "empty": "the value is blank",
    "too_large": "the value is larger than quality.max_record_bytes",
    "not_utf8": "the bytes are no UTF-8",
    "not_json": "the text is no JSON",
    "not_finite": "a number is NaN, infinite or beyond 64-bit floats",
    "not_an_object": "the JSON is no object",
    "too_deep": "objects and arrays are nested deeper than 32",
    "bad_cloudevent": "the CloudEvents envelope has no readable data",
    "cloudevent_version": "the CloudEvents version is not 1.x",
}
_ADAPT_REASONS = {"adapter_failed": "the format adapter could not read the object"}
_VALIDATE_REASONS = {
    "missing_event_type": "event_type is missing",
    "bad_event_type": "event_type is no text",
    "missing_event_at": "event_at is missing",
    "bad_event_at": "event_at is no time",
    "event_at_out_of_range": "event_at is before 1990 or after 2100",
    "bad_event_id": "event_id is no text or longer than 1,024 characters",
    "bad_updated_at": "an item's updated_at is no time, or before 1990 or after 2100",
    "bad_user_id": "user_id is no id",
    "bad_session_id": "session_id is no id",
    "bad_order_id": "order_id is no id",
    "missing_item": "no item is named",
    "bad_item_id": "an item_id is no id: empty, longer than 256 characters or with control characters",
    "item_id_mismatch": "the record's key and its item_id differ",
    "bad_items": "items is no list of objects",
    "too_many_items": "more than 1,000 items",
    "bad_quantity": "a purchase or refund of zero items, or a purchase of fewer",
    "bad_price": "a purchase at a price of zero or less, or a price that is no number",
    "bad_query": "query is no text",
    "bad_command": "the control record's command or an argument of it is not usable",
    "unexpected": "a defect of this program; please report it",
}
_ORDER_REASONS = {"in_future": "event_at is in the future"}
REASONS = _DECODE_REASONS | _ADAPT_REASONS | _VALIDATE_REASONS | _ORDER_REASONS
"""Dead-letter reason to what it means."""
_STAGES = {"decode": _DECODE_REASONS, "adapt": _ADAPT_REASONS, "validate": _VALIDATE_REASONS, "order": _ORDER_REASONS}
_STAGE_OF = {reason: stage for stage, reasons in _STAGES.items() for reason in reasons}

IGNORED = {
    "unknown_type": "the event type is not used",
    "empty_query": "a search without text and items",
    "not_a_product": "all lines name codes that are no products",
    "no_events": "the format adapter found no event in the record",
    "unknown_topic": "the topic is not an input",
}
"""Reason of an ignored record to what it means."""


def stage_of(reason: str) -> str:
    """Where a record with this reason ended: `decode`, `adapt`, `validate` or `order`.

    >>> stage_of("not_json"), stage_of("bad_price")
    ('decode', 'validate')
    """
    return _STAGE_OF.get(reason, "validate")


class Ignored(Exception):
    """The record is fine and not for us; `args[0]` is a word of `IGNORED`."""


_BAD_IN_ID = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_FLOAT_ID = re.compile(r"([0-9]+)\.0+\Z")
_NUMBER = re.compile(r"[+-]?[0-9]{1,40}(?:\.[0-9]{0,40})?(?:[eE][+-]?[0-9]{1,3})?\Z")
_NOT_FINITE = re.compile(r"[+-]?(?:nan|inf|infinity)\Z", re.IGNORECASE)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
_KINDS = {kind.name.lower(): int(kind) for kind in Kind}


def clean_id(raw: str, reason: str, words: list[str]) -> str:
    """The id trimmed, `17850.0` as `17850`; empty when blank.

    >>> words = []; clean_id(" 17850.0", "bad_user_id", words), words
    ('17850', ['id_trimmed', 'id_float'])

    Raises:
        BadRecord: `reason`, for more than 256 characters or a control character.
    """
    text = raw.strip()
    if text != raw:
        words.append("id_trimmed")
    if len(text) > MAX_ID or _BAD_IN_ID.search(text):
        raise BadRecord(reason, "validate")
    if not text:
        words.append("id_blank")
    elif match := _FLOAT_ID.match(text):
        words.append("id_float")
        return match.group(1)
    return text


def kind_of(event_type: str, words: list[str]) -> int:
    """The number of an event type.

    Raises:
        BadRecord: `missing_event_type`.
        Ignored: `unknown_type`.
    """
    kind = _KINDS.get(event_type)
    if kind is not None:
        return kind
    text = event_type.strip().lower()
    if not text:
        raise BadRecord("missing_event_type", "validate")
    kind = _KINDS.get(text.replace("-", "_").replace(" ", "_"))
    if kind is None:
        raise Ignored("unknown_type")
    words.append("type_case")
    return kind


def time_ms(value: int | float | str, words: list[str]) -> int:
    """Event time in ms since 1970 UTC, from RFC 3339 text or an epoch number whose unit its size tells.

    Below 1e11 a number counts seconds (to the year 5138), below 1e14 ms, below 1e17 microseconds, else nanoseconds.

    >>> time_ms("2011-01-04T10:00:00Z", []), time_ms(1294135200, []), time_ms("2011-01-04 10:00", [])
    (1294135200000, 1294135200000, 1294135200000)

    Raises:
        BadRecord: `bad_event_at`, `not_finite` or `event_at_out_of_range`.
    """
    at_ms = _text_ms(value, words) if isinstance(value, str) else _epoch_ms(value, words)
    if not MIN_AT_MS <= at_ms <= MAX_AT_MS:
        raise BadRecord("event_at_out_of_range", "validate")
    return at_ms


def _text_ms(value: str, words: list[str]) -> int:
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        text = value.strip()
        if _NUMBER.match(text) or _NOT_FINITE.match(text):
            words.append("time_text")
            return _epoch_ms(_parsed(text), words)
        text = text.removesuffix("UTC").rstrip() + ("Z" if text.endswith("UTC") else "")
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            raise BadRecord("missing_event_at" if not text else "bad_event_at", "validate") from None
        words.append("time_text")
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
        words.append("time_naive")
    return (at - _EPOCH) // _MS


def _epoch_ms(value: int | float, words: list[str]) -> int:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise BadRecord("not_finite", "validate")
        if 1e11 <= abs(value) < 1e14:
            words.append("epoch_float")
            return round(value)
        if abs(value) < 1e11:
            words.append("epoch_s")
            return round(value * 1000)
        value = int(value)
    size = abs(value)
    if size < 10**11:
        words.append("epoch_s")
        return value * 1000
    if size < 10**14:
        return value
    words.append("epoch_us" if size < 10**17 else "epoch_ns")
    return value // 1000 if size < 10**17 else value // 1_000_000


def _parsed(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)


def number(value: Any, reason: str, words: list[str]) -> float | None:
    """A finite number, also out of text; None for null or blank text.

    >>> number(" 12.50 ", "bad_price", [])
    12.5

    Raises:
        BadRecord: `not_finite`, or `reason` for anything that is no number.
    """
    if isinstance(value, str):
        text = value.strip()
        if not text:
            words.append("numeric_string")
            return None
        if not _NUMBER.match(text):
            raise BadRecord("not_finite" if _NOT_FINITE.match(text) else reason, "validate")
        words.append("numeric_string")
        value = float(text)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRecord(reason, "validate")
    # Compared before converting: an int of JSON may be beyond float.
    if isinstance(value, int) and abs(value) > 10**300:
        raise BadRecord(reason, "validate")
    if not math.isfinite(value):
        raise BadRecord("not_finite", "validate")
    return float(value)


def price_of(kind: int, price: float, words: list[str]) -> float:
    """The price of one unit; NaN where one of zero or less is dropped.

    Raises:
        BadRecord: `bad_price` for a purchase at zero or less, or an unbelievable price; `not_finite`.
    """
    if 0 < price < MAX_NUMBER:
        return price
    if not math.isfinite(price):
        raise BadRecord("not_finite", "validate")
    if price > 0 or kind == Kind.PURCHASE:
        raise BadRecord("bad_price", "validate")
    words.append("price_dropped")
    return math.nan


def quantity_of(kind: int, quantity: float, words: list[str]) -> float:
    """Units, above zero.

    Raises:
        BadRecord: `bad_quantity` for a purchase of zero or less, a refund of zero, or an unbelievable number;
            `not_finite`.
    """
    if 0 < quantity < MAX_NUMBER:
        return quantity
    if not math.isfinite(quantity):
        raise BadRecord("not_finite", "validate")
    if kind == Kind.REFUND and -MAX_NUMBER < quantity < 0:
        words.append("quantity_sign")
        return -quantity
    if abs(quantity) >= MAX_NUMBER or kind in (Kind.PURCHASE, Kind.REFUND):
        raise BadRecord("bad_quantity", "validate")
    words.append("quantity_dropped")
    return 1.0


def position_of(position: int, words: list[str]) -> int:
    """A 0-based position below 10,000, else MISSING."""
    if 0 <= position < MAX_POSITION:
        return position
    words.append("position_dropped")
    return MISSING
