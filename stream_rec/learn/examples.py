"""Turns a tick's positives into what is learned: first takes of an item in a visit, pairs, and training examples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stream_rec.events import MISSING
from stream_rec.learn.batch import HistoryReader, Positives, Retractions
from stream_rec.stream.sampling import hash64

Rows = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

ORDER_STAND_IN = 2
VISIT_ROWS = 100
"""Newest rows of a visit that are looked at for pairs and repeats."""
MAX_WEIGHT = 10.0


@dataclass(frozen=True, slots=True)
class Takes:
    """First takes: positives whose item is new in its visit. All statistics count these only."""

    fresh: Mask
    """[P]."""
    inside: Mask
    """Whether something was taken in the visit before this positive, [P]."""
    pair_a: Rows
    pair_b: Rows
    """Pairs of a fresh item with each other item of its visit before it, [pairs]."""


def first_takes(positives: Positives, histories: HistoryReader, born: Ints | None) -> Takes:
    """Find the first takes of a tick and the pairs they make."""
    n = len(positives)
    past = histories.gather(positives.before, VISIT_ROWS, born)
    here = (past.visit == positives.visit[:, None]) & (past.item >= 0) & (positives.visit != MISSING)[:, None]
    repeated = (here & (past.item == positives.item[:, None])).any(axis=1)
    fresh = ~repeated
    row, place = np.nonzero(here & fresh[:, None])
    other = past.item[row, place]
    keys = np.unique(row * (np.int64(1) << 32) + other)
    owner, partner = (keys >> 32), (keys & 0xFFFFFFFF).astype(np.int32)
    assert len(fresh) == n
    return Takes(fresh, here.any(axis=1), positives.item[owner], partner)


@dataclass(frozen=True, slots=True)
class TakenBack:
    """What retractions undo."""

    item: Rows
    at_ms: Ints
    pair_a: Rows
    pair_b: Rows


def taken_back(retractions: Retractions, histories: HistoryReader, born: Ints | None) -> TakenBack:
    """Retractions whose item is no longer in their visit by any other event, with the pairs that fall away."""
    past = histories.gather(retractions.pointer, 4 * VISIT_ROWS, born)
    here = (past.visit == retractions.visit[:, None]) & (past.item >= 0) & (retractions.visit != MISSING)[:, None]
    gone = ~(here & (past.item == retractions.item[:, None])).any(axis=1)
    row, place = np.nonzero(here & gone[:, None])
    keys = np.unique(row * (np.int64(1) << 32) + past.item[row, place])
    owner, partner = (keys >> 32), (keys & 0xFFFFFFFF).astype(np.int32)
    alike = (retractions.visit[:, None] == retractions.visit) & (retractions.visit != MISSING)
    first, second = np.nonzero(np.triu(alike & gone[:, None] & gone, k=1))
    item = retractions.item
    differ = item[first] != item[second]
    return TakenBack(
        item[gone],
        retractions.at_ms[gone],
        np.concatenate([item[owner], item[first[differ]]]),
        np.concatenate([partner, item[second[differ]]]),
    )


def weight_of(positives: Positives, exponent: float = 1.0) -> Floats:
    """Weight of each positive: 1 when organic, 1 / examination(position) when a slate caused it, at most 10.

    examination(position) = (1 + position) ** -exponent.
    """
    seen = np.where(positives.source > 0, np.maximum(positives.position, 0), 0).astype(np.float64)
    return np.minimum((1.0 + seen) ** exponent, MAX_WEIGHT).astype(np.float32)


def lowest_hash(digest: Ints, limit: int, seed: int) -> Ints:
    """Places of at most `limit` digests, those with the lowest hash, in rising order: a fair, stateless thinning."""
    if len(digest) <= limit:
        return np.arange(len(digest))
    order = np.lexsort((np.arange(len(digest)), hash64(seed, digest)))
    return np.sort(order[:limit])
