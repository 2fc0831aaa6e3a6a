"""Top lists: the simple ones every model is measured against, and the cut of a score matrix to its best."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stream_rec.events import MISSING
from stream_rec.model.features import Profiles

Rows = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


def top(score: Floats, k: int, universe: Rows, allowed: Mask | None = None) -> tuple[Rows, Floats]:
    """The best k of each row, best first, equal scores by item row.

    Args:
        score: [B, U]; not changed.
        k: length of the lists.
        universe: item row of each column, rising, [U].
        allowed: columns that may appear, [U]; None = all.

    Returns:
        Items int32 [B, k] padded with MISSING and their scores, -inf where padded.

    >>> top(np.array([[1.0, 3.0, 2.0]], np.float32), 2, np.arange(3, dtype=np.int32))[0].tolist()
    [[1, 2]]
    """
    if allowed is not None:
        universe, score = universe[allowed], score[:, allowed]
    n, width = score.shape
    held = min(k, width)
    items, scores = np.full((n, k), MISSING, np.int32), np.full((n, k), -np.inf, np.float32)
    if not held or not n:
        return items, scores
    best = np.argpartition(-score, held - 1, axis=1)[:, :held]
    best.sort(axis=1)
    found = np.take_along_axis(score, best, axis=1)
    order = np.argsort(-found, axis=1, kind="stable")
    items[:, :held] = universe[np.take_along_axis(best, order, axis=1)]
    scores[:, :held] = np.take_along_axis(found, order, axis=1)
    return items, scores


def most(values: npt.NDArray[np.float64], k: int, universe: Rows, allowed: Mask | None = None) -> Rows:
    """The k items with the largest values above zero, int32 [k] padded with MISSING."""
    items, scores = top(values.astype(np.float32)[None, :], k, universe, allowed)
    return np.where(scores[0] > 0, items[0], np.int32(MISSING))


def repeat(rows: Profiles, k: int, allowed: Mask | None = None) -> Rows:
    """Each user's own items of earlier visits, most visits first, equal ones the most recent first, int32 [B, k]."""
    use = rows.before if allowed is None else rows.before & allowed[rows.item]
    chosen = np.flatnonzero(use)
    order = np.lexsort((rows.item[chosen], -rows.values[chosen, 2], -rows.n_before[chosen], rows.owner[chosen]))
    chosen = chosen[order]
    owner = rows.owner[chosen]
    rank = np.arange(len(owner)) - np.searchsorted(owner, owner)
    out = np.full((rows.n_users, k), MISSING, np.int32)
    keep = rank < k
    out[owner[keep], rank[keep]] = rows.item[chosen[keep]]
    return out


def fill(own: Rows, popular: Rows) -> Rows:
    """Own lists [B, k] filled up with the items of `popular` [m] that they do not hold yet.

    >>> fill(np.array([[5, -1, -1]], np.int32), np.array([4, 5, 6], np.int32)).tolist()
    [[5, 4, 6]]
    """
    n, k = own.shape
    both = np.concatenate([own, np.broadcast_to(popular, (n, len(popular)))], axis=1)
    repeated = np.zeros(both.shape, np.bool_)
    repeated[:, k:] = (popular[None, :, None] == own[:, None, :]).any(axis=2)
    empty = (both == MISSING) | repeated
    order = np.argsort(empty, axis=1, kind="stable")[:, :k]
    out = np.where(empty, np.int32(MISSING), both)
    return np.take_along_axis(out, order, axis=1)
