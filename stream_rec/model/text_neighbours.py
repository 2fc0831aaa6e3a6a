"""Which items have the most similar texts: a short list an item, so that it can borrow what its neighbours earned."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stream_rec.component import Component
from stream_rec.model.item_texts import grown

Rows = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]

N_NEIGHBOURS = 8
SHARPNESS = 10.0
"""Weights are a softmax of cosine x this."""
CHUNK = 256


class TextNeighbours(Component):
    """The N_NEIGHBOURS most similar other items of each item row, by cosine of their frozen text embeddings.

    Columns: `row` int32 [rows, N], `cosine` float32 [rows, N], -1 where there is none.
    """

    half = "learned"
    columns = ("row", "cosine")

    def __init__(self) -> None:
        self.row = np.zeros((0, N_NEIGHBOURS), np.int32)
        self.cosine = np.zeros((0, N_NEIGHBOURS), np.float32)

    def renew(self, rows: Rows, table: npt.NDArray[np.float16]) -> None:
        """Find the neighbours of `rows`, whose texts are new, and offer these to all others.

        Args:
            rows: item rows int32.
            table: embeddings of all rows, [rows, D]; zero where there is none.
        """
        if len(self.row) < len(table):
            self.row, self.cosine = grown(self.row, len(table)), grown(self.cosine, len(table), -1.0)
        everyone = table.astype(np.float32)
        self.forget_items(rows)
        for low in range(0, len(rows), CHUNK):
            some = rows[low : low + CHUNK]
            cosine = everyone[some] @ everyone.T
            cosine[np.arange(len(some)), some] = -1.0
            self._keep(some, cosine)
            cosine[:, rows] = -1.0  # these have seen everyone themselves
            self._offer(some, cosine)

    def _keep(self, some: Rows, cosine: Floats) -> None:
        best = np.argpartition(-cosine, N_NEIGHBOURS, axis=1)[:, :N_NEIGHBOURS]
        best.sort(axis=1)
        found = np.take_along_axis(cosine, best, axis=1)
        self.row[some] = best
        self.cosine[some] = np.where(found > 0, found, -1.0)

    def _offer(self, some: Rows, cosine: Floats) -> None:
        """Let rows that are nearer to another row than its farthest neighbour take that one's place."""
        better = cosine > np.maximum(self.cosine.min(axis=1), 0.0)
        for place in np.flatnonzero(better.any(axis=1)).tolist():
            others = np.flatnonzero(better[place])
            weakest = self.cosine[others].argmin(axis=1)
            nearer = cosine[place, others] > self.cosine[others, weakest]
            others, weakest = others[nearer], weakest[nearer]
            self.row[others, weakest], self.cosine[others, weakest] = some[place], cosine[place, others]

    def smoothed(self, values: Floats) -> Floats:
        """Each item's weighted mean of its neighbours' values, float32 [B, N] like `values`."""
        n = values.shape[1]
        out = np.zeros_like(values)
        held = min(n, len(self.row))
        cosine = self.cosine[:held]
        weight = np.where(cosine > 0, np.exp(SHARPNESS * np.maximum(cosine, 0)), 0).astype(np.float32)
        weight /= np.maximum(weight.sum(axis=1, keepdims=True), 1e-9)
        row = np.minimum(self.row[:held], n - 1)
        for place in range(N_NEIGHBOURS):
            out[:, :held] += values[:, row[:, place]] * weight[:, place]
        return out

    def of(self, rows: Rows) -> Rows:
        """Neighbours of any of `rows`, each once, rising."""
        held = np.unique(rows[(rows >= 0) & (rows < len(self.row))])
        return np.unique(self.row[held][self.cosine[held] > 0])

    def forget_items(self, rows: Rows) -> None:
        """Start again for item rows that were given to other items or have another text now."""
        held = rows[rows < len(self.row)]
        self.cosine[held] = -1.0
        self.cosine[np.isin(self.row, rows)] = -1.0
