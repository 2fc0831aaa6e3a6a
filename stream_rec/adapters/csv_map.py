"""Rows of a table, as dicts, to events by a map from event field to column."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

from stream_rec.errors import SettingsError

FIELDS = (
    "event_id", "event_type", "event_at", "user_id", "session_id", "order_id", "item_id", "position", "price",
    "quantity", "query", "decision_id", "value", "currency", "rating",
)  # fmt: skip
"""Event fields that a column can fill."""

LITERAL = "="
"""A column that begins with this is a text for every row: `event_type` from `=purchase`."""


def csv_row(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The event of a row whose columns are named like the event's fields; others and empty cells are left out.

    >>> csv_row({"event_type": "click", "item_id": "a", "price": "", "colour": "red"})
    [{'event_type': 'click', 'item_id': 'a'}]
    """
    return [{field: row[field] for field in FIELDS if row.get(field) not in (None, "")}]


def mapped(column_map: Mapping[str, str]) -> Callable[[dict[str, Any]], list[dict[str, Any]]]:
    """An adapter that takes each field of `column_map` from its column, the others from columns of their own name.

    >>> mapped({"item_id": "sku", "event_type": "=click"})({"sku": "a", "price": "2.5"})
    [{'event_type': 'click', 'item_id': 'a', 'price': '2.5'}]

    Raises:
        SettingsError: a field of the map is no event field.
    """
    check_fields(column_map, FIELDS)
    columns = {field: column_map.get(field, field) for field in FIELDS}

    def adapt(row: dict[str, Any]) -> list[dict[str, Any]]:
        return csv_row({field: cell(row, column) for field, column in columns.items()})

    return adapt


def cell(row: Mapping[str, Any], column: str) -> Any:
    """The value of a column, or the text of a literal; None when the row has no such column."""
    return column[len(LITERAL) :] if column.startswith(LITERAL) else row.get(column)


def check_fields(column_map: Mapping[str, str], known: tuple[str, ...]) -> None:
    """Refuse a map with a field that is not known.

    Raises:
        SettingsError: names the field and the nearest known one.
    """
    for field in column_map:
        if field not in known:
            near = difflib.get_close_matches(field, known, 1)
            meant = f"did you mean {near[0]}? " if near else ""
            raise SettingsError(f"--map: there is no event field {field}; {meant}fields: {', '.join(known)}")
