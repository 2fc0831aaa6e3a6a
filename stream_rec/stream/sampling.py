"""Choosing by keyed hash: no draw has a state, so a choice depends on what is chosen and never on when."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stream_rec.stream.examples import Batch, ExampleTable
from stream_rec.stream.rows import smallest

U64 = NDArray[np.uint64]
MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15
FIRST, SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def hash64(seed: int, *values: ArrayLike) -> U64:
    """uint64 hash of each tuple of integers under `seed`; the values broadcast against each other.

    The finaliser of SplitMix64 (Steele, Lea, Flood 2014), chained over the values. Negative integers count as their
    two's complement.

    >>> hash64(1, [7, 8], 9).tolist()
    [4068713303513120995, 7173230983748622160]
    """
    mixed = np.array([_mix_one((seed & MASK) + GOLDEN & MASK)], dtype=np.uint64)
    shape = np.broadcast_shapes(*(np.shape(v) for v in values))
    for value in values:
        mixed = _mix((mixed ^ np.atleast_1d(_as_u64(value))) + np.uint64(GOLDEN))
    return np.broadcast_to(mixed, shape or (1,)).reshape(shape)


def hash_one(seed: int, *values: int) -> int:
    """`hash64` of one tuple of Python integers, without numpy's cost.

    >>> hash_one(1, 7, 9) == int(hash64(1, 7, 9))
    True
    """
    mixed = _mix_one((seed & MASK) + GOLDEN & MASK)
    for value in values:
        mixed = _mix_one((mixed ^ value & MASK) + GOLDEN & MASK)
    return mixed


def hash01(seed: int, *values: ArrayLike) -> NDArray[np.float64]:
    """`hash64` as float64 in [0, 1), uniform on multiples of 2**-53.

    >>> round(float(hash01(1, 7, 9)), 6)
    0.220565
    """
    return np.asarray((hash64(seed, *values) >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def in_sample(digest: ArrayLike, one_in: int, seed: int) -> NDArray[np.bool_]:
    """Which digests belong to the fixed sample that keeps one in `one_in`; 1 keeps all."""
    if one_in < 1:
        raise ValueError("one_in must be at least 1")
    return np.asarray(hash64(seed, digest) % np.uint64(one_in) == 0)


class Thinned(NamedTuple):
    """Which examples stay, and what to add to their logits."""

    kept: NDArray[np.bool_]
    logit_offset: NDArray[np.float64]
    """-log(keep probability of the stratum), for every example of it, positive or negative, kept or not."""


def thin(label: ArrayLike, stratum: ArrayLike, keep_prob: ArrayLike, *keys: ArrayLike, seed: int) -> Thinned:
    """Keep every positive and, of each stratum's negatives, the share `keep_prob[stratum]`.

    Dropping negatives at rate p multiplies the odds by 1 / p. A model trained with `logit + logit_offset` on what is
    kept learns that factor away: its plain logit stays calibrated for the full data. This holds because the stratum
    is a function of the features, never of the label.

    Args:
        label: int or bool[n], above zero = positive.
        stratum: int[n], index into `keep_prob`.
        keep_prob: float[n_strata], each in (0, 1].
        keys: int[n] each; what identifies an example (its event, its item).
        seed: of the hash.

    Raises:
        ValueError: a probability outside (0, 1].

    >>> thinned = thin([1, 0, 0, 0], [0, 0, 0, 1], [0.25, 1.0], [10, 11, 12, 13], seed=3)
    >>> thinned.kept.tolist(), thinned.logit_offset.round(3).tolist()
    ([True, True, True, True], [1.386, 1.386, 1.386, -0.0])
    """
    share = np.asarray(keep_prob, dtype=np.float64)
    if not bool(np.all((share > 0) & (share <= 1))):
        raise ValueError("keep probabilities must lie in (0, 1]")
    own = share[np.asarray(stratum)]
    kept = (np.asarray(label) > 0) | (hash01(seed, *keys) < own)
    return Thinned(kept, -np.log(own))


class Reservoir(ExampleTable):
    """The `capacity` examples with the smallest keyed hash of (event, item): bottom-k sampling (Cohen, Kaplan 2007).

    Without retractions the content depends only on the set of examples added, not on their order. A taken-back
    example leaves a gap that only hashes below `ceiling` may fill (the smallest hash ever turned away), so what
    remains is always a uniform sample of what was not taken back.
    """

    columns = (*ExampleTable.columns, "rank")
    scalars = (*ExampleTable.scalars, "ceiling")
    fixed = (*ExampleTable.fixed, "seed")

    def __init__(self, capacity: int = 10_000, *, seed: int) -> None:
        super().__init__(capacity)
        self.seed = seed
        self.rank: U64 = np.zeros(capacity, np.uint64)
        self.ceiling = MASK

    def add(self, batch: Batch) -> int:
        """Offer examples; returns how many were taken. Columns as `ExampleTable` names them."""
        rank = hash64(self.seed, batch["event"], batch["item"])
        offered = np.flatnonzero(rank < np.uint64(self.ceiling))
        if not len(offered):
            return 0
        held = self.rows()
        n_over = len(held) + len(offered) - self.capacity
        if n_over > 0:
            both = np.concatenate((self.rank[held], rank[offered]))
            stays = np.zeros(len(both), np.bool_)
            stays[smallest(both, self.capacity)] = True
            self.ceiling = int(both[~stays].min())
            self.live[held[~stays[: len(held)]]] = False
            offered = offered[stays[len(held) :]]
        rows = np.flatnonzero(~self.live[: self.n_rows + len(offered)])[: len(offered)]
        self._write(batch, offered, rows)
        self.rank[rows] = rank[offered]
        self.n_rows = max(self.n_rows, int(rows.max(initial=-1)) + 1)
        return len(offered)


def _as_u64(value: ArrayLike) -> U64:
    array: NDArray[Any] = np.asarray(value)
    if array.dtype == np.uint64:
        return array
    return array.astype(np.int64).view(np.uint64)


def _mix(z: U64) -> U64:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(FIRST)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(SECOND)
    return z ^ (z >> np.uint64(31))


def _mix_one(z: int) -> int:
    z = ((z ^ (z >> 30)) * FIRST) & MASK
    z = ((z ^ (z >> 27)) * SECOND) & MASK
    return z ^ (z >> 31)
