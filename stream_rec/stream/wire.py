"""Bytes to a JSON object: size, UTF-8, depth and syntax, each failure with its word; CloudEvents 1.0 unwrapped.

Whether a record is readable depends on its bytes alone, never on how deep the interpreter's stack is at the moment:
depth is measured before decoding.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from stream_rec.errors import BadRecord
from stream_rec.events import Record

MAX_DEPTH = 32
"""Deepest nesting of objects and arrays that is read."""

_ANY = msgspec.json.Decoder()
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"?+', re.DOTALL)
_NOT_BRACKETS = bytes(c for c in range(256) if c not in b"[]{}")
_NOT_FINITE = re.compile(rb"(?<![\w.])[+-]?(?:nan|inf|infinity)(?!\w)", re.IGNORECASE)
_BOM = b"\xef\xbb\xbf"


def check_depth(value: bytes) -> None:
    """Refuse nesting beyond `MAX_DEPTH`; two memory scans for a usual record.

    Raises:
        BadRecord: `too_deep`.
    """
    if value.count(b"{") + value.count(b"[") <= MAX_DEPTH:
        return
    brackets = np.frombuffer(_STRING.sub(b"", value).translate(None, _NOT_BRACKETS), dtype=np.uint8)
    # "[" and "{" are 0x5b and 0x7b, their partners 0x5d and 0x7d: bit 2 tells opening from closing.
    steps = np.where(brackets & 4, -1, 1)
    if len(steps) and int(np.cumsum(steps).max()) > MAX_DEPTH:
        raise BadRecord("too_deep")


def json_object(value: bytes, words: list[str]) -> dict[str, Any]:
    """The JSON object in `value`; `words` gets the repairs made (`bom`).

    >>> json_object(b'{"a": 1}', [])
    {'a': 1}

    Raises:
        BadRecord: `empty`, `not_utf8`, `not_finite`, `not_json`, `too_deep` or `not_an_object`.
    """
    if value.startswith(_BOM):
        value = value[3:]
        words.append("bom")
    check_depth(value)
    try:
        obj = _ANY.decode(value)
    except (ValueError, RecursionError):
        # The decoder's own message may hold a piece of the record, so it ends here.
        raise BadRecord(_why(value)) from None
    if type(obj) is not dict:
        raise BadRecord("not_an_object")
    return obj


def _why(value: bytes) -> str:
    """The reason word for bytes that did not decode."""
    if not value.strip():
        return "empty"
    try:
        value.decode()
    except UnicodeDecodeError:
        return "not_utf8"
    try:
        _ANY.decode(value)
    except msgspec.ValidationError:
        # Right syntax, impossible value: the decoder says this of numbers beyond 64-bit floats only.
        return "not_finite"
    except (ValueError, RecursionError):
        pass
    return "not_finite" if _NOT_FINITE.search(_STRING.sub(b"", value)) else "not_json"


def envelope_of(record: Record) -> dict[str, str] | None:
    """CloudEvents attributes in the headers (binary mode), or None when there are none.

    Kafka's binding writes `ce_id`, HTTP's `ce-id`; both are read, in any case.
    """
    if not record.headers:
        return None
    out = {}
    for name, content in record.headers:
        lower = name.lower()
        if lower.startswith(("ce_", "ce-")):
            out[lower[3:]] = content.decode("utf-8", "replace")
    return out if "specversion" in out else None


def unwrap(obj: dict[str, Any], words: list[str]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """(data, attributes) of a structured CloudEvent; any other object comes back as it is, with None.

    Raises:
        BadRecord: `bad_cloudevent` when the data is no object, and the words of `json_object`.
    """
    if "specversion" not in obj or not ("data" in obj or "data_base64" in obj):
        return obj, None
    if "data_base64" in obj:
        text = obj["data_base64"]
        try:
            data = json_object(base64.b64decode(text, validate=True), words) if isinstance(text, str) else None
        except (binascii.Error, ValueError):
            raise BadRecord("bad_cloudevent") from None
    else:
        data = obj["data"]
        if isinstance(data, str):
            data = json_object(data.encode("utf-8", "surrogatepass"), words)
    if not isinstance(data, dict):
        raise BadRecord("bad_cloudevent")
    return data, obj


def fill(data: dict[str, Any], attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Event fields that the data leaves out, from the envelope's attributes.

    `source` and `id` together are unique (CloudEvents 1.0, 3.1.1) and make the `event_id`; `time` is the `event_at`;
    the last dotted part of `type` the `event_type`.

    >>> fill({"item_id": "a"}, {"specversion": "1.0", "id": "7", "source": "/shop", "type": "com.shop.click"})
    {'event_id': '/shop 7', 'event_type': 'click', 'item_id': 'a'}

    Raises:
        BadRecord: `cloudevent_version`.
    """
    if not str(attributes.get("specversion")).startswith("1."):
        raise BadRecord("cloudevent_version")
    out: dict[str, Any] = {}
    if (event_id := attributes.get("id")) is not None:
        out["event_id"] = f"{attributes.get('source', '')} {event_id}"
    if isinstance(kind := attributes.get("type"), str):
        out["event_type"] = kind.rpartition(".")[2]
    if (at := attributes.get("time")) is not None:
        out["event_at"] = at
    return out | {name: value for name, value in data.items() if value is not None}
