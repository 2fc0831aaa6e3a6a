"""The champion before this one, kept to serve again: its weights, and its table and adapter where these changed too."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stream_rec.component import Component
from stream_rec.model.item_texts import ItemTexts
from stream_rec.model.tower import TowerWeights

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int32]


class PreviousAdapter(Component):
    """The adapter behind the previous table; see `Previous`."""

    half = "learned"
    columns = ("value",)
    scalars = ("changed",)

    def __init__(self) -> None:
        self.value = np.zeros(0, np.float32)
        """Empty for the frozen base."""
        self.changed = False
        """Whether the champion serves under another adapter, so that the table is another one too."""


class Previous:
    """Weights, text table and adapter of the previous champion.

    Args:
        dim: width of a text embedding.
    """

    def __init__(self, dim: int) -> None:
        self.weights, self.texts, self.adapter = TowerWeights(dim), ItemTexts(dim), PreviousAdapter()

    def components(self) -> dict[str, Component]:
        """Everything that is state, by name."""
        return {
            "tower_previous": self.weights,
            "previous_texts": self.texts,
            "previous_adapter": self.adapter,
        }

    def keep(self, weights: TowerWeights, texts: ItemTexts, adapter: Floats | None) -> None:
        """Keep a champion that is about to be followed.

        Args:
            weights: its weights.
            texts: its table.
            adapter: its adapter, when the next champion brings another one; None: the table stays the same.
        """
        self.weights.copy_from(weights)
        kept = texts if adapter is not None else ItemTexts(texts.dim)
        self.texts.table, self.texts.waiting = kept.table.copy(), kept.waiting.copy()
        self.adapter.changed = adapter is not None
        self.adapter.value = np.zeros(0, np.float32) if adapter is None else adapter.copy()

    def tell(self, rows: Rows, n_items: int) -> None:
        """Note that texts are new; they are embedded when this champion serves again."""
        if self.adapter.changed:
            self.texts.tell(rows.tolist(), n_items)

    def forget_items(self, rows: Rows) -> None:
        """Start again for item rows that were given to other items."""
        self.weights.forget_items(rows)
        self.texts.forget_items(rows)
