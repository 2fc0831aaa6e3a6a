"""Examples as columns: what window and reservoir keep of each, how they are taken back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stream_rec.events import Kind
from stream_rec.stream.rows import I8, I16, I32, I64, Bools, Rows, RowTable

Batch = Mapping[str, NDArray[Any]]
"""Examples by column name, equally long; see `ExampleTable` for names and types."""

EXAMPLE_COLUMNS: tuple[tuple[str, type[np.generic]], ...] = (
    ("user", np.int64),
    ("user_born", np.int64),
    ("item", np.int32),
    ("item_born", np.int64),
    ("at_ms", np.int64),
    ("kind", np.int8),
    ("source", np.int8),
    ("position", np.int16),
    ("label", np.int8),
    ("weight", np.float32),
    ("event", np.int64),
    ("order", np.int64),
    ("serial", np.int64),
)


class ExampleTable(RowTable):
    """Columns of examples in rows 0 to `n_rows`; `live` is False once one was taken back.

    Columns: `user` int64 row and `user_born` (tells a row's users apart), `item` int32 row and `item_born`, `at_ms`
    event time, `kind` (`events.Kind`), `source` (0 organic, 1 slate, 2 explored), `position` int16 (MISSING: none),
    `label` int8, `weight` float32, `event` and `order` int64 digests (0: no order), `serial` int64 row of the histories
    (MISSING: none). A batch must bring every column.
    """

    half = "learned"
    columns = (*(name for name, _ in EXAMPLE_COLUMNS), "live")

    user: I64
    user_born: I64
    item: I32
    item_born: I64
    at_ms: I64
    kind: I8
    source: I8
    position: I16
    label: I8
    weight: NDArray[np.float32]
    event: I64
    order: I64
    serial: I64

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        for name, dtype in EXAMPLE_COLUMNS:
            setattr(self, name, np.zeros(capacity, dtype))
        self.live: Bools = np.zeros(capacity, np.bool_)

    def rows(self) -> Rows:
        """Rows of the content, ascending; they hold until the table changes."""
        return np.flatnonzero(self.live[: self.n_rows])

    def __len__(self) -> int:
        """Number of examples in the content."""
        return len(self.rows())

    def retract(self, order: ArrayLike, item: ArrayLike) -> int:
        """Take back, for each (order, item) pair, the newest event that brought it; returns how many were found.

        Order 0 stands for "no order" and matches nothing.
        """
        orders, items = np.atleast_1d(order).tolist(), np.atleast_1d(item).tolist()
        bought: dict[tuple[int, int], list[int]] = {}
        rows = self._naming(items)
        for row in self._newest_last(rows[np.isin(self.order[rows], orders)]):
            bought.setdefault((int(self.order[row]), int(self.item[row])), []).append(row)
        n_found = 0
        for pair in zip(orders, items, strict=True):
            found = bought.get(pair, []) if pair[0] else []
            if found:
                self._take_back([row for row in found if self.event[row] == self.event[found[-1]]])
                bought[pair] = [row for row in found if self.live[row]]
                n_found += 1
        return n_found

    def retract_event(self, event: ArrayLike, item: ArrayLike) -> int:
        """Take back every example of each (event, item) pair; returns how many examples that were."""
        items = np.atleast_1d(item).tolist()
        pairs = set(zip(np.atleast_1d(event).tolist(), items, strict=True))
        rows = self._naming(items)
        rows = rows[np.isin(self.event[rows], np.asarray(event))]
        named = zip(rows.tolist(), self.event[rows].tolist(), self.item[rows].tolist(), strict=True)
        return self._take_back([row for row, *pair in named if tuple(pair) in pairs])

    def retract_purchase(self, user: int, item: int, *, at_ms: int) -> int:
        """Take back one purchase of an item by a user row at an event time; returns how many were found, 0 or 1."""
        rows = self._naming([item])
        rows = rows[(self.user[rows] == user) & (self.at_ms[rows] == at_ms) & (self.kind[rows] == Kind.PURCHASE)]
        return self._take_back(rows[-1:].tolist())

    def forget_users(self, born: ArrayLike) -> int:
        """Blank every example of some users, those that were taken back before too; returns how many still counted.

        Args:
            born: `Users.born` of each, int64 [n]: it names one user for good, whoever else had or gets the row.
        """
        rows = np.flatnonzero(np.isin(self.user_born[: self.n_rows], np.asarray(born, np.int64)))
        n_live = self._take_back(rows[self.live[rows]].tolist())
        self._blank(rows)
        return n_live

    def forget_items(self, items: Sequence[int]) -> int:
        """Take back every example of the given item rows, whichever item they stood for."""
        return self._take_back(self._naming(items).tolist())

    def _held(self) -> Bools:
        return np.ones(self.n_rows, np.bool_)

    def _naming(self, items: Sequence[int]) -> Rows:
        """Live rows whose item is one of `items`."""
        wanted = np.asarray(items, np.int64)
        wanted = wanted[wanted >= 0]
        if not len(wanted):
            return np.zeros(0, np.intp)
        item = self.item[: self.n_rows]
        if len(wanted) == 1:
            found = item == wanted[0]
        else:
            table = np.zeros(int(max(wanted.max(), item.max(initial=0))) + 1, np.bool_)
            table[wanted] = True
            found = table[item]
        return np.flatnonzero(found & self.live[: self.n_rows])

    def _newest_last(self, rows: Rows) -> list[int]:
        return [int(row) for row in rows[np.lexsort((self.event[rows], self.at_ms[rows]))]]

    def _take_back(self, rows: Sequence[int]) -> int:
        self.live[np.asarray(rows, np.intp)] = False
        return len(rows)

    def _write(self, batch: Batch, chosen: NDArray[Any], rows: Rows | slice) -> None:
        """Put the chosen examples of `batch` into `rows`."""
        for name, _ in EXAMPLE_COLUMNS:
            getattr(self, name)[rows] = batch[name][chosen]
        self.live[rows] = True
