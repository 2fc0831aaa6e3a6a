"""Turns a tick's positives into what is learned: first takes of an item in a visit, pairs, and training examples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stream_rec.events import MISSING
from stream_rec.learn.batch import HistoryReader, Positives, Retractions
from stream_rec.model.features import NEAR_DECAY, RECENT
from stream_rec.stream.sampling import hash64

Rows = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

ORDER_STAND_IN = 2
VISIT_ROWS = 100
"""Newest rows of a visit that are looked at for pairs and repeats."""
PAIRED_ITEMS = 30
"""A visit pairs only its first items: a wholesaler's order of hundreds says little about what goes together."""
BEFORE_ROWS = 100
"""Newest rows of the history before a visit that what is taken in it counts as following."""
BACK_ROWS = 400
MAX_WEIGHT = 10.0


@dataclass(frozen=True, slots=True)
class Takes:
    """First takes: positives whose item is new in its visit. All statistics count these only."""

    fresh: Mask
    """[P]."""
    inside: Mask
    """Whether something was taken in the visit before this positive, [P]."""
    n_inside: Ints
    """Items of the visit before a fresh positive, 0 for the others, [P]."""
    pair_a: Rows
    pair_b: Rows
    """Pairs of a fresh item with each item of its visit before it, [pairs]; none beyond a visit's first 30 items."""
    near_a: Rows
    near_b: Rows
    """Pairs of a fresh item with what the user took shortly before it in its visit, [near]."""
    near_weight: Floats
    """NEAR_DECAY to the number of items in between, [near]."""


def first_takes(positives: Positives, histories: HistoryReader, born: Ints | None) -> Takes:
    """Find the first takes of a tick and the pairs they make."""
    past = histories.gather(positives.before, VISIT_ROWS, born)
    here = (past.visit == positives.visit[:, None]) & (past.item >= 0) & (positives.visit != MISSING)[:, None]
    repeated = (here & (past.item == positives.item[:, None])).any(axis=1)
    fresh = ~repeated
    owner, partner = _cells(here & fresh[:, None], past.item)
    n_inside = np.bincount(owner, minlength=len(fresh))
    small = n_inside[owner] < PAIRED_ITEMS
    pair_a, pair_b = positives.item[owner[small]], partner[small]
    last = past.item[:, :RECENT]
    near = here[:, :RECENT] & (last != positives.item[:, None]) & fresh[:, None]
    row, place = np.nonzero(near)
    weight = (NEAR_DECAY ** np.arange(RECENT)).astype(np.float32)[place]
    return Takes(
        fresh, here.any(axis=1), n_inside, pair_a, pair_b, positives.item[row], last[row, place], weight
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class TakenBack:
    """What retractions undo."""

    item: Rows
    at_ms: Ints
    pair_a: Rows
    pair_b: Rows
    before: Rows
    after: Rows
    weight: Floats


def taken_back(retractions: Retractions, histories: HistoryReader, born: Ints | None) -> TakenBack:
    """Retractions whose item is no longer in their visit by any other event, with the pairs that fall away.

    Where a visit is larger than its pairs reach, none are taken back: which were counted is not known any more.
    """
    past = histories.gather(retractions.pointer, BACK_ROWS, born)
    there = (past.item >= 0) & (retractions.visit != MISSING)[:, None]
    here, earlier = (
        there & (past.visit == retractions.visit[:, None]),
        there & (past.visit < retractions.visit[:, None]),
    )
    gone = ~(here & (past.item == retractions.item[:, None])).any(axis=1)
    size = here.sum(axis=1)
    owner, partner = _cells(here & (gone & (size < PAIRED_ITEMS))[:, None], past.item)
    alike = (retractions.visit[:, None] == retractions.visit) & (retractions.visit != MISSING)
    first, second = np.nonzero(np.triu(alike & gone[:, None] & gone, k=1))
    item = retractions.item
    differ = item[first] != item[second]
    follower, before = _cells(earlier & (np.cumsum(earlier, axis=1) <= BEFORE_ROWS) & gone[:, None], past.item)
    return TakenBack(
        item[gone],
        retractions.at_ms[gone],
        np.concatenate([item[owner], item[first[differ]]]),
        np.concatenate([partner, item[second[differ]]]),
        before,
        item[follower],
        (1.0 / (size[follower] + 1.0)).astype(np.float32),
    )


@dataclass(frozen=True, slots=True)
class Followed:
    """What was taken in a visit after what had been taken in earlier ones."""

    before: Rows
    after: Rows
    weight: Floats
    """[pairs]; a visit gives each earlier item a weight of one in all, however much it took."""
    exposed: Rows
    """Earlier items of the visits that began to take something, once a visit."""


def followed(positives: Positives, takes: Takes, histories: HistoryReader, born: Ints | None) -> Followed:
    """Pairs (an earlier item, an item taken now) of the tick's first takes."""
    use = np.flatnonzero(takes.fresh & (positives.visit_before != MISSING))
    _, first, visit = np.unique(positives.visit[use], return_index=True, return_inverse=True)
    first = use[first]
    past = histories.gather(positives.visit_before[first], BEFORE_ROWS, born)
    owner, before = _cells(past.item >= 0, past.item)
    n_before = np.bincount(owner, minlength=len(first))
    starts = np.cumsum(n_before) - n_before
    size = np.bincount(visit, minlength=len(first)) + takes.n_inside[first]
    n = n_before[visit]
    place = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n) + np.repeat(starts[visit], n)
    weight = np.repeat(1.0 / size[visit], n).astype(np.float32)
    exposed = before[~takes.inside[first][owner]]
    return Followed(before[place], np.repeat(positives.item[use], n), weight, exposed)


def _cells(mask: Mask, item: Rows) -> tuple[Ints, Rows]:
    """Rows and items of the masked cells of [B, L], each item once a row, in rising order."""
    row, place = np.nonzero(mask)
    keys = np.unique(row * (np.int64(1) << 32) + item[row, place])
    return keys >> 32, (keys & 0xFFFFFFFF).astype(np.int32)


def weight_of(positives: Positives, exponent: float = 1.0) -> Floats:
    """Weight of each positive: 1 when organic, 1 / examination(position) when a slate caused it, at most 10.

    examination(position) = (1 + position) ** -exponent.
    """
    return slate_weight(positives.source, positives.position, exponent)


def slate_weight(source: npt.NDArray[np.int8], position: npt.NDArray[np.int16], exponent: float) -> Floats:
    """`weight_of` by the columns themselves, [P] each."""
    seen = np.where(source > 0, np.maximum(position, 0), 0).astype(np.float64)
    return np.minimum((1.0 + seen) ** exponent, MAX_WEIGHT).astype(np.float32)


def lowest_hash(digest: Ints, limit: int, seed: int) -> Ints:
    """Places of at most `limit` digests, those with the lowest hash, in rising order: a fair, stateless thinning."""
    if len(digest) <= limit:
        return np.arange(len(digest))
    order = np.lexsort((np.arange(len(digest)), hash64(seed, digest)))
    return np.sort(order[:limit])
