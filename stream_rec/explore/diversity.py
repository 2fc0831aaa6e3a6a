"""Diversity inside the slot step: how much less a candidate is worth beside those already in the slate.

The gain of a candidate is in units of u and never above zero, so a slot's value u + gain never exceeds u, and a bound
on the loss of value is a bound in shares of u.

- `dpp`: greedy MAP of a determinantal point process (Chen, Zhang, Zhou, NeurIPS 2018) with kernel
  sqrt(u_i u_j) * (s * cos_ij + (1 - s) * [i = j]). The value u * d**2, d from an incremental Cholesky factor, is the
  factor by which a candidate multiplies the determinant of the prefix; the greedy choice is Chen's.
- `mmr`: maximal marginal relevance (Carbonell & Goldstein, SIGIR 1998), u - s * top * (largest cosine to the prefix),
  `top` the largest u of the slate; clipped at zero.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_rec.errors import SettingsError

Doubles = NDArray[np.float64]
Array = NDArray[Any]

KINDS = ("dpp", "mmr", "none")
AT_ONCE = 8
"""Up to so many candidates a slot all cosines are computed at once."""
DEPENDENT = 1e-9
"""A squared distance d**2 below this is none: the candidate lies in the span of the prefix."""


class Cosines:
    """Cosines between the candidates of B slates; of few all at once, of many a row when it is asked for."""

    def __init__(self, vectors: Array, n_slots: int) -> None:
        """`vectors` float [B, M, D]; a vector of zeros is like nothing."""
        self._vectors, self._whole = vectors, None
        if vectors.shape[1] <= AT_ONCE * n_slots:
            self._whole = vectors @ vectors.transpose(0, 2, 1)
            square = np.diagonal(self._whole, axis1=1, axis2=2)
        else:
            square = np.einsum("bmd,bmd->bm", vectors, vectors)
        self._inverse = 1.0 / np.sqrt(np.where(square > 0, square, 1.0).astype(np.float64))
        self._slate = np.arange(len(vectors))

    def rows(self, picks: NDArray[np.intp]) -> Doubles:
        """Cosine of each slate's pick to its candidates, float64 [B, M]."""
        if self._whole is not None:
            row = self._whole[self._slate, picks]
        else:
            row = (self._vectors @ self._vectors[self._slate, picks][:, :, None])[:, :, 0]
        return np.asarray(row * (self._inverse * self._inverse[self._slate, picks][:, None]))

    def rows_of_one(self) -> Callable[[int], Doubles]:
        """`rows` of a single slate: from its pick to float64 [M]."""
        own = self._inverse[0]
        if self._whole is not None:
            table: Doubles = self._whole[0] * (own * own[:, None])
            return lambda pick: table[pick]
        vectors = self._vectors[0]
        return lambda pick: np.asarray((vectors @ vectors[pick]) * (own * own[pick]))

    def of(self, slates: NDArray[np.intp]) -> Cosines:
        """Those of some of the slates."""
        out = copy.copy(self)
        out._vectors, out._inverse = self._vectors[slates], self._inverse[slates]
        out._whole = None if self._whole is None else self._whole[slates]
        out._slate = np.arange(len(slates))
        return out


class Diversity:
    """The gains of one batch of slates while they are filled. No state: it lives for one call.

    Args:
        u: float64 [B, M], the candidates' utility, at least zero.
        cosines: of the same candidates; None where nothing is known about them.
        kind: `dpp`, `mmr` or `none`.
        strength: s, in [0, 1].
        n_slots: how many picks there will be at most.

    >>> vectors = np.array([[[1.0, 0.0], [1.0, 0.0], [0.6, 0.8]]])
    >>> u = np.array([[0.5, 0.4, 0.2]])
    >>> dpp = Diversity(u, Cosines(vectors, 2), "dpp", strength=1.0, n_slots=2)
    >>> dpp.take(np.array([0]))
    >>> dpp.value().round(3).tolist()
    [[0.0, 0.0, 0.128]]
    >>> mmr = Diversity(u, Cosines(vectors, 2), "mmr", strength=0.5, n_slots=2)
    >>> mmr.take(np.array([0]))
    >>> mmr.value().round(3).tolist()
    [[0.25, 0.15, 0.05]]
    """

    def __init__(self, u: Doubles, cosines: Cosines | None, kind: str, *, strength: float, n_slots: int) -> None:
        if kind not in KINDS:
            raise SettingsError(f"explore.diversity: {kind!r} is none of {', '.join(KINDS)}")
        if not 0.0 <= strength <= 1.0:
            raise SettingsError("explore.diversity_strength must lie in [0, 1]")
        self._u, self._strength = u, strength
        self._cosines = None if kind == "none" or strength == 0.0 else cosines
        self._is_dpp = kind == "dpp"
        self._slate, self._n_taken = np.arange(len(u)), 0
        if self._cosines is None:
            return
        if self._is_dpp:
            self._left = np.ones(u.shape)
            self._factor = np.zeros((len(u), n_slots, u.shape[1]))
        else:
            self._nearest = np.zeros(u.shape)
            self._top = u.max(1, keepdims=True, initial=0.0)

    def value(self) -> Doubles:
        """Utility plus gain, at least zero, float64 [B, M]."""
        if self._cosines is None or self._n_taken == 0:
            return self._u
        if self._is_dpp:
            return np.asarray(self._u * self._left)
        return np.asarray(np.maximum(self._u - self._strength * self._top * self._nearest, 0.0))

    def take(self, picks: NDArray[np.intp]) -> None:
        """Append one candidate to every slate; `picks` int [B]."""
        if self._cosines is None:
            return
        row = self._cosines.rows(picks)
        if self._is_dpp:
            self._lengthen(self._strength * row, picks)
        else:
            np.maximum(self._nearest, row, out=self._nearest)
        self._n_taken += 1

    def _lengthen(self, row: Doubles, picks: NDArray[np.intp]) -> None:
        row[self._slate, picks] = 1.0
        before = self._factor[:, : self._n_taken]
        if self._n_taken:
            own = before[self._slate, :, picks]
            row -= (own[:, None, :] @ before)[:, 0]
        left = self._left[self._slate, picks]
        alive = left > DEPENDENT
        row *= np.where(alive, 1.0 / np.sqrt(np.where(alive, left, 1.0)), 0.0)[:, None]
        self._factor[:, self._n_taken] = row
        self._left -= row * row
        np.maximum(self._left, 0.0, out=self._left)
