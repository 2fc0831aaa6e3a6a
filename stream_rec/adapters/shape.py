"""Taking a foreign object apart without ever failing: what has another shape than expected counts as missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from stream_rec.events import Kind

Names = Mapping[str, tuple[str, ...]]
"""Our field -> the names it may have in the other format, the best first."""

_EMPTY = (None, "", "(not set)")


def said(**fields: Any) -> dict[str, Any]:
    """The fields that are not empty.

    >>> said(user_id="", item_id="a", quantity=0)
    {'item_id': 'a', 'quantity': 0}
    """
    return {name: value for name, value in fields.items() if not _is_empty(value)}


def first(source: Mapping[str, Any], *names: str) -> Any:
    """The first of these fields that is not empty; None when all are.

    >>> first({"userId": None, "anonymousId": "a"}, "userId", "anonymousId")
    'a'
    """
    return next((source[name] for name in names if not _is_empty(source.get(name))), None)


def take(source: Mapping[str, Any], names: Names) -> dict[str, Any]:
    """Our fields that the source says."""
    return said(**{field: first(source, *others) for field, others in names.items()})


def as_object(value: Any) -> dict[str, Any]:
    """The value if it is an object; the first object of a list; else an empty one.

    >>> as_object([{"a": 1}]), as_object("text")
    ({'a': 1}, {})
    """
    if isinstance(value, list):
        value = next(iter(value), None)
    return value if isinstance(value, dict) else {}


def as_objects(value: Any) -> list[dict[str, Any]]:
    """The objects of a list; a single object as a list of one."""
    if isinstance(value, dict):
        return [value]
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def category_path(levels: Iterable[Any]) -> str | None:
    """The levels that are text as one path, `a > b`; None when there is none."""
    return " > ".join(level for level in levels if isinstance(level, str) and not _is_empty(level)) or None


def from_one(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Positions counted from 1 as positions from 0; a list that has a position 0 already counts so.

    >>> from_one([{"position": 1}, {"position": 2}])
    [{'position': 0}, {'position': 1}]
    """
    positions = [item["position"] for item in items if _is_count(item.get("position"))]
    if not positions or min(positions) < 1:
        return items
    return [item | {"position": item["position"] - 1} if _is_count(item.get("position")) else item for item in items]


def as_type(name: Any, types: Mapping[str, str]) -> Any:
    """Our event type of a foreign name; an unknown one in its own words, so that it is ignored and counted.

    >>> as_type("Product Added", {"product added": "add_to_cart"}), as_type("Page Viewed", {})
    ('add_to_cart', 'page_viewed')
    """
    if not isinstance(name, str):
        return None
    lower = name.strip().lower()
    # A foreign type must not become one of ours because it happens to have its name.
    return types.get(lower, f"other_{lower}" if lower in _OURS else lower.replace(" ", "_"))


_OURS = frozenset(kind.name.lower() for kind in Kind)


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value in _EMPTY)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
