"""Which items a user is scored over when the catalogue is too large to score whole, and what that costs in recall.

A capped union: the most popular by each half-life, the user's own, what goes with these, what the texts of the last
ones resemble, and the newest rows, so that no item has to wait for a past before it can be shown.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stream_rec.component import Component
from stream_rec.model import lists
from stream_rec.model.features import Profiles, Statistics

Rows = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]

PARTNERS = 20
"""Partners an item brings in, from each kind of pairs."""
N_NEWEST = 512
"""Newest item rows that are always candidates."""


def union(statistics: Statistics, rows: Profiles | None, *, n_items: int, n_popular: int, known: Mask | None) -> Rows:
    """Candidate rows, rising.

    Args:
        statistics: the live ones.
        rows: users; None: nobody's own items.
        n_items: item rows in use.
        n_popular: popular items of each half-life.
        known: rows that may be scored, [n_items]; None = all.
    """
    everything = np.arange(n_items, dtype=np.int32)
    mass = statistics.decayed.mass[:n_items]
    pools = [lists.most(mass[:, i], n_popular, everything) for i in range(mass.shape[1])]
    pools.append(everything[-N_NEWEST:])
    if rows is not None:
        pools += [rows.item, *(pairs.partners(rows.item, PARTNERS) for pairs in (statistics.together, statistics.near))]
        pools.append(statistics.after.partners(rows.item, PARTNERS))
        if statistics.alike is not None:
            pools.append(statistics.alike.of(rows.recent))
    joined = np.unique(np.concatenate(pools))
    joined = joined[(joined >= 0) & (joined < n_items)].astype(np.int32)
    return joined if known is None else joined[known[joined]]


class CandidateRecall(Component):
    """How much of the best items of a scan of the whole catalogue the candidates hold."""

    half = "learned"
    scalars = ("n_users", "n_best", "n_held", "n_candidates")

    def __init__(self) -> None:
        self.n_users = self.n_best = self.n_held = self.n_candidates = 0

    def add(self, best: Rows, universe: Rows) -> None:
        """Count users whose best items over everything are `best` [B, K] and who were scored over `universe` [U]."""
        there = best[best >= 0]
        self.n_users += len(best)
        self.n_candidates += len(best) * len(universe)
        self.n_best += len(there)
        self.n_held += int(np.isin(there, universe).sum())

    def table(self) -> dict[str, float] | None:
        """Recall, candidates a user and users measured; None while the catalogue is scored whole.

        >>> recall = CandidateRecall()
        >>> recall.add(np.array([[3, 9]], np.int32), np.array([1, 3], np.int32))
        >>> recall.table()
        {'recall@20': 0.5, 'candidates': 2.0, 'n_users': 1}
        """
        if not self.n_users:
            return None
        return {
            "recall@20": round(self.n_held / max(self.n_best, 1), 6),
            "candidates": round(self.n_candidates / self.n_users, 1),
            "n_users": self.n_users,
        }
