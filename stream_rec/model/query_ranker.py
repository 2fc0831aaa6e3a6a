"""How well an item answers a user's query: one logit of the user's own, the two texts and what others took for it.

logit = h base + w . f + exp(t) (q M) . v, base being the user's logit without a query, f lexical match and how often
the item was taken for the query, q the query's text embedding, M a map that starts as identity, v the item's vector in
the tower. Learned by one softmax over the catalogue; the gradient is exact and by hand; Adam (Kingma & Ba 2015).
The tower's item vectors are constants here: what queries teach does not move what visits have taught.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from stream_rec.component import Component
from stream_rec.model import lexical

Rows = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Tensors = dict[str, npt.NDArray[Any]]

BM25_SCALE = np.float32(0.125)
"""Brings BM25 to the size of the other features."""
NAMES = ("base", *lexical.NAMES, "taken_for_it")
START = (0.5, 2.0, 1.0, 3.0, 2.0, 1.0)
"""Sensible signs and sizes, so that the first answers already name what the query says."""
START_SHARPNESS = 6.0
"""Of the cosine of query and title."""
BETAS = (0.9, 0.999)
EPSILON = 1e-8


class QueryWeights(Component):
    """One parameter set.

    Columns: `value` float32 [NAMES], `query_map` float32 [D, D], `sharpness` float32 [1], a logarithm.

    Args:
        dim: width D of a text embedding; 0 without an encoder.
    """

    half = "learned"
    columns: ClassVar[tuple[str, ...]] = ("value", "query_map", "sharpness")
    fixed: ClassVar[tuple[str, ...]] = ("dim",)

    def __init__(self, dim: int = 0) -> None:
        self.dim = dim
        self.value = np.array(START, np.float32)
        self.query_map = np.eye(dim, dtype=np.float32)
        self.sharpness = np.full(1, np.log(START_SHARPNESS), np.float32)

    def copy_from(self, other: QueryWeights) -> None:
        """Take the values of another set."""
        for name in QueryWeights.columns:
            setattr(self, name, getattr(other, name).copy())

    def tensors(self) -> Tensors:
        """Copies of all values, for a version's file."""
        return {f"search.{name}": getattr(self, name).copy() for name in QueryWeights.columns}


class Asked(NamedTuple):
    """B users with a query each, over U items."""

    base: Floats
    """Logits without the query, [B, U]."""
    of: Ints
    """Query of each user, [B] into Q."""
    match: Floats
    """Features of queries and items, [Q, U, NAMES - 1]."""
    query: Floats
    """Text embeddings of the queries, zero where there is none, [Q, D]."""
    vectors: Floats
    """Of the items, [U, D]."""

    def pick(self, users: Ints) -> Asked:
        """Some of the users."""
        return self._replace(base=self.base[users], of=self.of[users])


def features(match: Floats, taken: Floats) -> Floats:
    """Lexical match [U, lexical.NAMES] and times taken [U] as features, float32 [U, NAMES - 1]."""
    out = np.concatenate([match, np.log1p(taken)[:, None]], axis=1)
    out[:, 0] *= BM25_SCALE
    return out


def logits(weights: QueryWeights, asked: Asked) -> Floats:
    """Logits float32 [B, U]. Pure; a user's bits do not depend on the others."""
    answer = np.zeros(asked.match.shape[:2], np.float32)
    for i in range(asked.match.shape[2]):
        answer += weights.value[1 + i] * asked.match[:, :, i]
    if weights.dim:
        answer += np.exp(weights.sharpness) * _cosines(weights, asked)
    out: Floats = answer[asked.of] + weights.value[0] * asked.base
    return out


def _cosines(weights: QueryWeights, asked: Asked) -> Floats:
    """(q M) . v, [Q, U]; one query at a time, since a product's last bits depend on its shape."""
    parts = [asked.vectors @ (query @ weights.query_map) for query in asked.query]
    return np.array(parts, np.float32).reshape(len(asked.query), len(asked.vectors))


class QueryLearner(QueryWeights):
    """The parameter set that learns, with Adam's moments in the columns `mean_*` and `square_*`.

    Args:
        dim: width of a text embedding.
        rate: step size of the few scalars.
        map_rate: of the map.
    """

    columns: ClassVar[tuple[str, ...]] = (
        *QueryWeights.columns,
        *(f"{kind}_{name}" for kind in ("mean", "square") for name in QueryWeights.columns),
    )
    scalars = ("n_steps",)
    fixed: ClassVar[tuple[str, ...]] = (*QueryWeights.fixed, "rate", "map_rate")

    def __init__(self, dim: int = 0, rate: float = 0.02, map_rate: float = 5e-4) -> None:
        super().__init__(dim)
        self.rate, self.map_rate = rate, map_rate
        self.restart()

    def restart(self) -> None:
        """Forget the moments."""
        self.n_steps = 0
        for name in QueryWeights.columns:
            setattr(self, f"mean_{name}", np.zeros_like(getattr(self, name)))
            setattr(self, f"square_{name}", np.zeros_like(getattr(self, name)))

    def learn(self, asked: Asked, target: Ints, log_share: Floats | None = None) -> float:
        """One step; returns the mean loss before it, minus the log-softmax of the targets.

        Args:
            asked: users with their queries.
            target: place of what each took in the universe, [B].
            log_share: logarithm of each item's chance to be compared with, [U]; None: all are there.
        """
        told = logits(self, asked)
        if log_share is not None:
            told -= log_share
        told -= told.max(axis=1, keepdims=True)
        user = np.arange(len(target))
        loss = float(np.mean(np.log(np.exp(told).sum(axis=1)) - told[user, target]))
        np.exp(told, out=told)
        told /= told.sum(axis=1, keepdims=True)
        told[user, target] -= 1
        told /= len(target)
        self._step(self._gradients(asked, told))
        return loss

    def _gradients(self, asked: Asked, error: Floats) -> Tensors:
        """Of the mean loss, by column; `error` [B, U] is what the logits' own gradient is."""
        by_query = np.zeros(asked.match.shape[:2], np.float32)
        np.add.at(by_query, asked.of, error)
        value = [np.float32((error * asked.base).sum()), *np.einsum("qu,quf->f", by_query, asked.match)]
        out: Tensors = {"value": np.array(value, np.float32)}
        if self.dim:
            sharpness = np.exp(self.sharpness)
            out["query_map"] = sharpness * asked.query.T @ (by_query @ asked.vectors)
            out["sharpness"] = sharpness * (by_query * _cosines(self, asked)).sum()
        return out

    def _step(self, gradients: Tensors) -> None:
        self.n_steps += 1
        unbiased = (1 - BETAS[1] ** self.n_steps) ** 0.5 / (1 - BETAS[0] ** self.n_steps)
        for name, gradient in gradients.items():
            mean, square = getattr(self, f"mean_{name}"), getattr(self, f"square_{name}")
            mean += np.float32(1 - BETAS[0]) * (gradient - mean)
            square += np.float32(1 - BETAS[1]) * (gradient * gradient - square)
            rate = np.float32((self.map_rate if name == "query_map" else self.rate) * unbiased)
            setattr(self, name, getattr(self, name) - rate * mean / (np.sqrt(square) + np.float32(EPSILON)))
