"""The item table: which row stands for which item, and what the catalogue says of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np

from stream_rec.events import MISSING, Item
from stream_rec.stream.rows import I32, Bools, Rows, RowTable, smallest

NEVER_BORN = 2**62
"""`born` of a row between two items: later than any history row, so none of them is taken for the next item's."""

MAX_TEXT = 512
"""Characters kept of a title, category or brand; longer ones are cut."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """What may be shown of what is listed and in stock. A price that nobody said is within the limits."""

    blocked: frozenset[str] = frozenset()
    """Item ids."""
    min_price: float = 0.0
    max_price: float = math.inf


class Upserted(NamedTuple):
    """What a catalogue record did."""

    row: int
    lost: bool
    """The item could be shown before and cannot any more."""
    older: bool
    """It was older than what is stored and changed nothing."""


class ItemTable(RowTable):
    """Item id to row, with title, category, brand, price and stock; bounded by `capacity` rows.

    An item that only events have named has a row too (`named` False) and may be recommended; a tombstone (`listed`
    False) or missing stock takes it out. When the table is full, the hundredth part that matters least makes room:
    delisted items first, then those not touched for longest. `take_evicted` tells which rows changed hands.

    Columns by row: `ids`, `titles`, `categories`, `brands` (str); `price` float64 (NaN: not said); `in_stock`,
    `listed`, `named` bool; `born` int64, the first history serial that can mean this item; `used_at` int64, the count
    of touches at its last one; `updated_at_ms` int64 (MISSING: not said); `n_events` int64, event lines that named it.
    """

    columns = (
        "ids", "titles", "categories", "brands",
        "price", "in_stock", "listed", "named", "born", "used_at", "updated_at_ms", "n_events",
    )  # fmt: skip
    scalars = (*RowTable.scalars, "n_touches")
    derived = (*RowTable.derived, "_index", "_evicted", "_retold")
    fixed = (*RowTable.fixed, "shelf")

    def __init__(self, capacity: int = 200_000, shelf: Shelf | None = None) -> None:
        super().__init__(capacity)
        self.shelf = shelf or Shelf()
        self.ids: list[str] = []
        self.titles: list[str] = []
        self.categories: list[str] = []
        self.brands: list[str] = []
        self.price = np.zeros(capacity, dtype=np.float64)
        self.in_stock = np.zeros(capacity, dtype=np.bool_)
        self.listed = np.zeros(capacity, dtype=np.bool_)
        self.named = np.zeros(capacity, dtype=np.bool_)
        self.born = np.zeros(capacity, dtype=np.int64)
        self.used_at = np.zeros(capacity, dtype=np.int64)
        self.updated_at_ms = np.zeros(capacity, dtype=np.int64)
        self.n_events = np.zeros(capacity, dtype=np.int64)
        self.n_touches = 0
        self._index: dict[str, int] = {}
        self._evicted: list[int] = []
        self._retold: list[int] = []

    @property
    def n(self) -> int:
        """Rows in use: every row number handed out so far is below it."""
        return self.n_rows

    def rebuild(self) -> None:
        """Index the ids again."""
        super().rebuild()
        self._index = {item_id: row for row, item_id in enumerate(self.ids) if item_id}
        self._evicted, self._retold = [], []

    def find(self, item_id: str) -> int:
        """Row of an item, or MISSING."""
        return self._index.get(item_id, MISSING)

    def row(self, item_id: str, serial: int) -> int:
        """Row of an item that an event names; a new item gets one, born at history `serial`.

        An empty id (a search names no item) is MISSING.

        >>> table = ItemTable(capacity=10)
        >>> table.row("cup", serial=0), table.row("jug", serial=0), table.row("cup", serial=5)
        (0, 1, 0)
        """
        if not item_id:
            return MISSING
        row = self._index.get(item_id, MISSING)
        if row == MISSING:
            row = self._insert(item_id, serial)
        self._touch(row)
        self.n_events[row] += 1
        return row

    def rows(self, item_ids: Sequence[str], serial: int) -> I32:
        """`row` of many event lines at once, in order: int32[len(item_ids)], the same rows and the same state."""
        find = self._index.get
        rows = np.array(list(map(find, item_ids, repeat(MISSING))), dtype=np.int32)
        unknown = [item_ids[i] for i in np.flatnonzero(rows < 0).tolist()]
        if fresh := dict.fromkeys(filter(None, unknown)):
            if len(fresh) > self.room:
                return np.array([self.row(item_id, serial) for item_id in item_ids], dtype=np.int32)
            for item_id in fresh:
                self._insert(item_id, serial)
            rows = np.array(list(map(find, item_ids, repeat(MISSING))), dtype=np.int32)
        named = rows[rows >= 0]
        self.used_at[named] = np.arange(self.n_touches + 1, self.n_touches + 1 + len(named))
        self.n_touches += len(named)
        np.add.at(self.n_events, named, 1)
        return rows

    def upsert(self, item: Item, serial: int, *, from_event: bool = False) -> Upserted:
        """Take what a catalogue record says; an update older than the stored one changes nothing.

        At equal time, or when a record says no time, the later arrival counts. Text that an event carried
        (`from_event`) fills in what is not known and never speaks against the catalogue.
        """
        row = self.find(item.item_id)
        if row == MISSING:
            row = self._insert(item.item_id, serial)
            was = False
        else:
            was = self._is_servable(row)
        self._touch(row)
        older = not from_event and MISSING != item.updated_at_ms < self.updated_at_ms[row]
        if from_event:
            self._fill_in(row, item)
        elif not older:
            self._overwrite(row, item)
        return Upserted(row, was and not self._is_servable(row), bool(older))

    def tombstone(self, item_id: str, serial: int) -> int:
        """Delist an item (known or not) until the catalogue names it again; returns its row."""
        row = self.find(item_id)
        if row == MISSING:
            row = self._insert(item_id, serial)
        self._touch(row)
        self.named[row] = True
        self.listed[row] = False
        return row

    def servable(self) -> Bools:
        """bool[n]: rows whose item is listed, in stock and allowed on the shelf."""
        price, shelf = self.price[: self.n_rows], self.shelf
        out = self.listed[: self.n_rows] & self.in_stock[: self.n_rows]
        out &= ~((price < shelf.min_price) | (price > shelf.max_price))
        out[[row for item_id in shelf.blocked if (row := self.find(item_id)) != MISSING]] = False
        return out

    def _is_servable(self, row: int) -> bool:
        price, shelf = self.price[row], self.shelf
        allowed = not (price < shelf.min_price or price > shelf.max_price) and self.ids[row] not in shelf.blocked
        return bool(self.listed[row] and self.in_stock[row] and allowed)

    def take_evicted(self) -> list[int]:
        """Rows that lost their item since the last call, in order; a row may already hold another item.

        Call it in the tick that added items: what is not taken is not part of a snapshot.
        """
        evicted, self._evicted = self._evicted, []
        return evicted

    def text(self, row: int) -> str:
        """What an encoder reads of an item: title, brand, category; empty when nothing is known."""
        parts = (self.titles[row], self.brands[row], self.categories[row])
        return ". ".join(part for part in parts if part)

    def take_retold(self) -> list[int]:
        """Rows whose text a record said since the last call, in order; it need not have changed.

        Call it in the tick that added items: what is not taken is not part of a snapshot.
        """
        retold, self._retold = self._retold, []
        return retold

    def _held(self) -> Bools:
        return np.array([bool(i) for i in self.ids], dtype=np.bool_)

    def _touch(self, row: int) -> None:
        self.n_touches += 1
        self.used_at[row] = self.n_touches

    def _insert(self, item_id: str, serial: int) -> int:
        if not item_id:
            raise ValueError("an item needs an id")
        if self.room == 0:
            self._make_room()
        row = self._take()
        if row == len(self.ids):
            for texts in (self.ids, self.titles, self.categories, self.brands):
                texts.append("")
        self.ids[row] = item_id
        self._index[item_id] = row
        self.price[row] = np.nan
        self.in_stock[row] = self.listed[row] = True
        self.born[row] = serial
        self.updated_at_ms[row] = MISSING
        return row

    def _make_room(self) -> None:
        worth = self.used_at[: self.n_rows] + self.listed[: self.n_rows] * NEVER_BORN
        rows = smallest(worth, max(1, self.capacity // 100)).tolist()
        for row in rows:
            del self._index[self.ids[row]]
        self._release(rows)
        self._evicted += rows

    def _blank(self, rows: Rows | slice) -> None:
        super()._blank(rows)
        if isinstance(rows, slice):
            return
        self.born[rows] = NEVER_BORN
        for row in rows.tolist():
            self.ids[row] = self.titles[row] = self.categories[row] = self.brands[row] = ""

    def _overwrite(self, row: int, item: Item) -> None:
        before = self.text(row)
        self.titles[row] = item.title[:MAX_TEXT]
        self.categories[row] = item.category[:MAX_TEXT]
        self.brands[row] = item.brand[:MAX_TEXT]
        if self.text(row) != before:
            self._retold.append(row)
        self.price[row] = item.price
        self.in_stock[row] = item.in_stock
        self.listed[row] = self.named[row] = True
        self.updated_at_ms[row] = max(item.updated_at_ms, self.updated_at_ms[row])

    def _fill_in(self, row: int, item: Item) -> None:
        if self.named[row]:
            return
        before = self.text(row)
        self.titles[row] = item.title[:MAX_TEXT] or self.titles[row]
        self.categories[row] = item.category[:MAX_TEXT] or self.categories[row]
        self.brands[row] = item.brand[:MAX_TEXT] or self.brands[row]
        if self.text(row) != before:
            self._retold.append(row)
        if not np.isnan(item.price):
            self.price[row] = item.price

    def record(self, row: int) -> dict[str, Any]:
        """What is known of the item in `row`, for people; empty texts and unknown numbers are left out."""
        said = {"title": self.titles[row], "category": self.categories[row], "brand": self.brands[row]}
        out: dict[str, Any] = {"item_id": self.ids[row], **{name: text for name, text in said.items() if text}}
        if not np.isnan(self.price[row]):
            out["price"] = float(self.price[row])
        return out
