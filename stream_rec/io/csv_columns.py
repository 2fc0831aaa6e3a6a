"""Any CSV with one event a row, by a map from event field to column."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stream_rec.adapters import csv_map
from stream_rec.errors import SettingsError
from stream_rec.io.loaders import Event, Fields, Table, need_columns, number

ITEM_FIELDS = ("title", "description", "category", "brand", "price", "in_stock")
"""Catalogue fields; their map names are `item.title` and so on."""

_NUMBERS = ("position", "price", "quantity", "value", "rating")
_PREFIX = "item."


class CsvColumns:
    """Loader for a table whose columns are named by `--map event_field=column`.

    `--map event_type==purchase` gives every row that text. A field without a map is taken from a column of its name.
    `--map item.title=column` (and category, brand, description, price, in_stock) fills the catalogue from the first
    row of an item that has a title.
    """

    def __init__(self, column_map: Mapping[str, str]) -> None:
        """Check the map.

        Raises:
            SettingsError: a field of the map is not known.
        """
        known = csv_map.FIELDS + tuple(_PREFIX + name for name in ITEM_FIELDS)
        csv_map.check_fields(column_map, known)
        self._map = {field: column for field, column in column_map.items() if not field.startswith(_PREFIX)}
        self._item_map = {
            field.removeprefix(_PREFIX): column for field, column in column_map.items() if field.startswith(_PREFIX)
        }
        self._adapt = csv_map.mapped(self._map)
        self._items: dict[str, dict[str, Any]] = {}

    def table(self, header: Sequence[str]) -> Table:
        """Every mapped column must be there, and one for the type and one for the time."""
        columns = (*self._map.values(), *self._item_map.values())
        need_columns(header, [c for c in columns if not c.startswith(csv_map.LITERAL)], "csv")
        for field in ("event_type", "event_at"):
            if field not in header and field not in self._map:
                raise SettingsError(
                    f"csv: no column is named {field} and none is mapped to it; add --map {field}=COLUMN"
                    + (" or, if all rows are of one type, --map event_type==purchase" if field == "event_type" else "")
                )
        return Table(header, self._event)

    def items(self) -> Iterator[dict[str, Any]]:
        """One record an item for which a title was seen."""
        yield from self._items.values()

    def _event(self, row: Fields) -> Event:
        event = self._adapt(dict(row))[0]
        for name in _NUMBERS:
            if name in event:
                event[name] = number(event[name])
        item_id = event.get("item_id")
        if self._item_map and item_id and item_id not in self._items:
            self._learn(item_id, row)
        return event

    def _learn(self, item_id: str, row: Fields) -> None:
        item = {name: csv_map.cell(row, column) for name, column in self._item_map.items()}
        if item.get("title"):
            said = {name: value for name, value in item.items() if value}
            self._items[item_id] = {"item_id": item_id} | said
