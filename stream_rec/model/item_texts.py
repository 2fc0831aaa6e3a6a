"""Embeddings of the items' texts, by item row, and the rows whose text still waits to be embedded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from stream_rec.component import Component

Rows = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]

FIRST_ROWS = 256


class Embedder(Protocol):
    """Turns texts into vectors."""

    @property
    def dim(self) -> int:
        """Width of a vector."""
        ...

    def embed(
        self, texts: Sequence[str], adapter: dict[str, npt.NDArray[Any]] | None = None, *, few: bool = False
    ) -> Floats:
        """Unit vectors float32 [n, dim]; a text's vector does not depend on the other texts of the call.

        With `few` a handful is sooner done; a text is always asked for in the same way.
        """
        ...


class ItemTexts(Component):
    """One vector an item row under one adapter; zero where an item has no text or has not been embedded yet.

    Vectors are rounded to float16, so a checkpoint holds exactly what is used.

    Args:
        dim: width of a vector.
    """

    half = "learned"
    columns = ("table", "waiting")
    fixed = ("dim",)

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.table = np.zeros((0, dim), np.float16)
        self.waiting = np.zeros(0, np.int32)
        """Rows to embed, in the order in which they were told."""

    def tell(self, rows: Sequence[int], n_items: int) -> None:
        """Say that the texts of `rows` are new; there are `n_items` rows now."""
        self.reserve(n_items)
        told = np.array(list(dict.fromkeys(rows)), np.int32)
        self.waiting = np.concatenate([self.waiting, told[~np.isin(told, self.waiting)]])

    def embed(self, quota: int, text_of: Callable[[int], str], embedder: Embedder) -> Rows:
        """Embed up to `quota` waiting rows; returns them, int32.

        Args:
            quota: rows at most.
            text_of: the text of a row; empty when there is none.
            embedder: of the adapter this table stands for.
        """
        rows, self.waiting = self.waiting[:quota].copy(), self.waiting[quota:].copy()
        texts = [text_of(row) for row in rows.tolist()]
        there = np.array([bool(text) for text in texts], np.bool_)
        self.table[rows[~there]] = 0
        if there.any():
            self.table[rows[there]] = embedder.embed([text for text in texts if text]).astype(np.float16)
        return rows

    def reserve(self, n_items: int) -> None:
        """Make room for `n_items` rows."""
        if n_items > len(self.table):
            self.table = grown(self.table, n_items)

    def forget_items(self, rows: Rows) -> None:
        """Start again for item rows that were given to other items."""
        held = rows[rows < len(self.table)]
        self.table[held] = 0
        self.waiting = self.waiting[~np.isin(self.waiting, rows)]


def grown(column: npt.NDArray[Any], n: int, fill: float = 0.0) -> npt.NDArray[Any]:
    """A copy of `column` with at least `n` rows, a power of two; new rows hold `fill`.

    >>> grown(np.ones((2, 3)), 300).shape
    (512, 3)
    """
    room = max(FIRST_ROWS, len(column))
    while room < n:
        room *= 2
    out = np.full((room, *column.shape[1:]), fill, column.dtype)
    out[: len(column)] = column
    return out
