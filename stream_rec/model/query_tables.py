"""What is kept of each query row: the embedding of its text, and which items were taken for it.

A row is known by its number and its birth: of a query that was there before, nothing counts for the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from stream_rec.component import Component
from stream_rec.events import MISSING

Rows = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

TAKEN = 16
"""Items counted of a query."""


class QueryTexts(Component):
    """One vector a query under the served adapter, made when the query first counts; zero where there is none.

    Vectors are rounded to float16, so a checkpoint holds exactly what is used. Under another adapter all are void.
    They are a pure function of text and adapter, so no rollback has to bring them back.

    Args:
        capacity: query rows.
        dim: width of a vector; 0 without an encoder.
    """

    half = "facts"
    columns = ("table", "born")
    scalars = ("under",)
    fixed = ("dim",)

    def __init__(self, capacity: int, dim: int) -> None:
        self.dim = dim
        self.table = np.zeros((capacity if dim else 0, dim), np.float16)
        self.born = np.zeros(len(self.table), np.int64)
        self.under = ""
        """Stands for the adapter that made the vectors."""

    def vectors(self, rows: Rows) -> Floats:
        """Of query rows, float32 [n, dim]."""
        return self.table[rows].astype(np.float32) if self.dim else np.zeros((len(rows), 0), np.float32)

    def make(
        self, rows: Rows, born: Ints, texts: Sequence[str], embed: Callable[[Sequence[str]], Floats], *, under: str
    ) -> None:
        """Embed those of the query rows that have no vector.

        Args:
            rows: different ones, [n].
            born: their births, [n].
            texts: their texts, [n].
            embed: texts to unit vectors, under the adapter that serves.
            under: stands for this adapter.
        """
        if under != self.under:
            self.table[:] = 0
            self.born[:] = 0
            self.under = under
        new = np.flatnonzero(self.born[rows] != born)
        if len(new):
            self.table[rows[new]] = embed([texts[i] for i in new.tolist()]).astype(np.float16)
            self.born[rows[new]] = born[new]

    def forget_queries(self, rows: Sequence[int]) -> None:
        """Start again for query rows that hold another query or none."""
        if self.dim:
            self.table[list(rows)] = 0
            self.born[list(rows)] = 0


class QueryItems(Component):
    """How often items were taken for a query: the TAKEN most frequent of each, by Space-Saving (Metwally et al. 2005).

    Columns: `item` int32 [rows, TAKEN], item row plus one, 0 = none; `n` float32 [rows, TAKEN].
    """

    half = "learned"
    columns = ("item", "n", "born")

    def __init__(self, capacity: int) -> None:
        self.born = np.zeros(capacity, np.int64)
        self.item = np.zeros((capacity, TAKEN), np.int32)
        self.n = np.zeros((capacity, TAKEN), np.float32)

    def add(self, queries: Rows, born: Ints, items: Rows) -> None:
        """Count that items were taken for queries, [n] each, in order."""
        self.forget_queries(queries[self.born[queries] != born].tolist())
        self.born[queries] = born
        for query, item in zip(queries.tolist(), items.tolist(), strict=True):
            place = np.flatnonzero(self.item[query] == item + 1)
            at = int(place[0]) if len(place) else int(self.n[query].argmin())
            self.item[query, at] = item + 1
            self.n[query, at] += 1

    def items_of(self, query: int, born: int) -> Rows:
        """Item rows taken for a query, padded with MISSING, int32 [TAKEN]."""
        return self.item[query] - 1 if self.born[query] == born else np.full(TAKEN, MISSING, np.int32)

    def taken(self, query: int, born: int, universe: Rows) -> Floats:
        """Times that each item of the universe (rising) was taken for a query, float32 [U]."""
        out, rows = np.zeros(len(universe), np.float32), self.items_of(query, born)
        if not len(universe):
            return out
        place = np.minimum(np.searchsorted(universe, rows), len(universe) - 1)
        there = (rows != MISSING) & (universe[place] == rows)
        out[place[there]] = self.n[query, there]
        return out

    def forget_queries(self, rows: Sequence[int]) -> None:
        """Start again for query rows that hold another query or none."""
        for column in (self.item, self.n, self.born):
            column[list(rows)] = 0

    def forget_items(self, rows: Rows) -> None:
        """Leave out item rows that were given to other items."""
        gone = np.isin(self.item - 1, rows)
        self.item[gone] = 0
        self.n[gone] = 0
