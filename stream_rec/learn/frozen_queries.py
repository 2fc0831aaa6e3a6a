"""Queries of a version that stands still: what it says of a query is what the worker said at the tick of the copy.

Of queries only digests are kept, and which items were taken for each: what people typed stays in the worker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from stream_rec.learn.learner import Learner
from stream_rec.learn.query_side import WORDS
from stream_rec.model import query_ranker
from stream_rec.model.lexical import Lexicon
from stream_rec.model.query_ranker import QueryWeights
from stream_rec.stream.queries import Queries, digest_of, normal

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Embed = Callable[[Sequence[str]], Floats]
"""Texts to unit vectors float32 [n, D], under the version's adapter."""


def copied(learner: Learner, titles: Sequence[str], queries: Queries) -> dict[str, Any]:
    """Copies of what queries are answered from, beside `frozen.copied`; the state must not change meanwhile."""
    born, counted = queries.born[: queries.n_rows], learner.query_items
    rows = np.flatnonzero((born != 0) & (counted.born[: len(born)] == born))
    return {
        "titles": list(titles),
        "queries.text": [queries.texts[row] for row in rows.tolist()],
        "queries.item": counted.item[rows],
        "queries.n": counted.n[rows],
    }


def compacted(columns: Mapping[str, Any]) -> dict[str, Any]:
    """The same without what people typed: `queries.digest` [Q], and of each pair `queries.of`, `.item` and `.n` [P]."""
    item, n = columns["queries.item"], columns["queries.n"]
    of, place = np.nonzero(item)
    return {
        "titles": columns["titles"],
        "queries.digest": np.array([digest_of(text) for text in columns["queries.text"]], np.uint64),
        "queries.of": of.astype(np.int32),
        "queries.item": item[of, place] - 1,
        "queries.n": n[of, place],
    }


class FrozenQueries:
    """Logits for queries by a version's weights and the columns of `compacted`. Pure.

    Args:
        weights: tensors of the version's file.
        columns: of `frozen.compacted`.
        vectors: of the items under the version, float32 [n, D]; [n, 0] without a tower.
        embed: of the tower's encoder; None: there is no tower.
    """

    def __init__(
        self, weights: Mapping[str, Array], columns: Mapping[str, Any], vectors: Floats, embed: Embed | None
    ) -> None:
        self._weights, self._vectors, self._embed = QueryWeights(vectors.shape[1]), vectors, embed
        for name in QueryWeights.columns:
            setattr(self._weights, name, weights[f"search.{name}"])
        self._lexicon = Lexicon(WORDS)
        self._lexicon.tell(range(len(columns["titles"])), columns["titles"])
        self._rows = {int(digest): row for row, digest in enumerate(columns["queries.digest"])}
        self._of, self._item, self._n = (columns[f"queries.{name}"] for name in ("of", "item", "n"))

    def logits(self, base: Floats, queries: Sequence[str]) -> Floats:
        """Logits for queries over all item rows, float32 [B, n].

        Args:
            base: of the same users without a query, [B, n].
            queries: one a user, [B]; any text.
        """
        place = {text: q for q, text in enumerate(dict.fromkeys(map(normal, queries)))}
        universe = np.arange(base.shape[1], dtype=np.int32)
        match = [query_ranker.features(self._lexicon.match(text, universe), self._taken(text, base)) for text in place]
        vectors = np.zeros((len(place), 0), np.float32)
        if self._embed is not None:
            # The worker keeps them so.
            vectors = self._embed(list(place)).astype(np.float16).astype(np.float32)
        of = np.array([place[normal(text)] for text in queries], np.int64)
        asked = query_ranker.Asked(base, of, np.array(match, np.float32), vectors, self._vectors)
        return query_ranker.logits(self._weights, asked)

    def _taken(self, text: str, base: Floats) -> Floats:
        """How often each item was taken for a query, float32 [n]."""
        out = np.zeros(base.shape[1], np.float32)
        own = self._of == self._rows.get(digest_of(text), -1)
        out[self._item[own]] = self._n[own]
        return out
