"""Item and control records: a JSON object to an `Item`, or to a command with its arguments."""

from __future__ import annotations

import math
import re
from typing import Any, get_args

from stream_rec.codec import Command, EventItem, ItemRecord
from stream_rec.errors import BadRecord
from stream_rec.events import MISSING, Item
from stream_rec.stream import quality
from stream_rec.stream.fields import id_text, text_of

_FIELDS = frozenset(ItemRecord.__struct_fields__)
_COMMANDS = frozenset(get_args(Command))
_USER_KEY = re.compile(r"[0-9a-f]{32}\Z")
_YES_NO = {
    "true": True, "yes": True, "y": True, "1": True, "in stock": True, "in_stock": True, "instock": True,
    "false": False, "no": False, "n": False, "0": False, "out of stock": False, "out_of_stock": False,
    "outofstock": False,
}  # fmt: skip


def key_id(key: bytes | None, words: list[str]) -> str:
    """The item id in a record's key; empty without a key.

    Raises:
        BadRecord: `not_utf8` or `bad_item_id`.
    """
    if key is None:
        return ""
    try:
        return quality.clean_id(key.decode(), "bad_item_id", words)
    except UnicodeDecodeError:
        raise BadRecord("not_utf8", "validate") from None


def item_of(key: bytes | None, obj: dict[str, Any], words: list[str]) -> tuple[Item, int]:
    """The catalogue item in `obj` and how many fields of it are not known.

    >>> item, _ = item_of(b"a1", {"title": "Red mug", "price": "3.5", "in_stock": "no"}, [])
    >>> item.item_id, item.price, item.in_stock, item.updated_at_ms
    ('a1', 3.5, False, -1)

    Raises:
        BadRecord: `missing_item`, `bad_item_id`, `item_id_mismatch` or `bad_updated_at`.
    """
    said = key_id(key, words)
    item_id = quality.clean_id(id_text(obj.get("item_id"), "bad_item_id", words) or "", "bad_item_id", [])
    if said and item_id and said != item_id:
        raise BadRecord("item_id_mismatch", "validate")
    if not (said or item_id):
        raise BadRecord("missing_item", "validate")
    title = text_of(obj.get("title"), "title", words)
    if not title:
        words.append("title_missing")
    item = Item(
        said or item_id,
        title,
        text_of(obj.get("description"), "description", words),
        text_of(obj.get("category"), "category", words),
        text_of(obj.get("brand"), "brand", words),
        _price(obj.get("price"), words),
        _in_stock(obj.get("in_stock"), words),
        _updated_at(obj.get("updated_at"), words),
    )
    return item, len(obj.keys() - _FIELDS)


def carried(item_id: str, item: EventItem, price: float, at_ms: int, words: list[str]) -> Item:
    """The catalogue item that an event carries, as of the event."""
    return Item(
        item_id,
        text_of(item.title, "title", words),
        text_of(item.description, "description", words),
        text_of(item.category, "category", words),
        text_of(item.brand, "brand", words),
        price,
        True,
        at_ms,
    )


def _price(value: Any, words: list[str]) -> float:
    try:
        price = quality.number(value, "bad_price", words)
    except BadRecord:
        price = -1.0
    if price is None or 0 < price < quality.MAX_NUMBER:
        return math.nan if price is None else price
    words.append("price_dropped")
    return math.nan


def _in_stock(value: Any, words: list[str]) -> bool:
    if value is None or isinstance(value, bool):
        return value is not False
    words.append("boolean_form")
    if isinstance(value, int | float):
        return value > 0
    return _YES_NO.get(value.strip().lower(), True) if isinstance(value, str) else True


def _updated_at(value: Any, words: list[str]) -> int:
    if value is None:
        return MISSING
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise BadRecord("bad_updated_at", "validate")
        return quality.time_ms(value, words)
    except BadRecord:
        raise BadRecord("bad_updated_at", "validate") from None


def control_of(obj: dict[str, Any], words: list[str]) -> tuple[str, dict[str, Any]]:
    """The command of a control record and its checked arguments.

    Arguments: `version`, `event_at_ms`, `user_key` (32 hex digits), `explore` (bool), `command_id`.

    >>> control_of({"command": "rollback", "version": "v3-0a1b"}, [])
    ('rollback', {'version': 'v3-0a1b'})

    Raises:
        BadRecord: `bad_command`.
    """
    command = obj.get("command")
    out: dict[str, Any] = {}
    for name in ("version", "command_id"):
        if (value := obj.get(name)) is not None:
            if not isinstance(value, str) or not 0 < len(value) <= quality.MAX_ID or not value.isprintable():
                raise BadRecord("bad_command", "validate")
            out[name] = value
    if command == "rollback" and (at := obj.get("event_at")) is not None:
        if isinstance(at, bool) or not isinstance(at, int | float | str):
            raise BadRecord("bad_command", "validate")
        out["event_at_ms"] = quality.time_ms(at, words)
    if command == "explore":
        out["explore"] = obj.get("explore")
    if command == "forget":
        out["user_key"] = obj.get("user_key")
    if not (isinstance(command, str) and command in _COMMANDS and _complete(command, out)):
        raise BadRecord("bad_command", "validate")
    return command, out


def _complete(command: str, arguments: dict[str, Any]) -> bool:
    if command in ("promote", "pin"):
        return "version" in arguments
    if command == "rollback":
        return ("version" in arguments) != ("event_at_ms" in arguments)
    if command == "explore":
        return isinstance(arguments["explore"], bool)
    if command == "forget":
        return isinstance(arguments["user_key"], str) and _USER_KEY.match(arguments["user_key"]) is not None
    return True
