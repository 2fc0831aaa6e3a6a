"""Recall of a challenger and of its rivals on the same visits, summed by clusters of users: what the gate judges.

Only what organic visits took counts as a target here: people choose from what they are shown, so what a slate caused
is no evidence about the model behind it. Clusters are users by hash, so the memory does not grow with visits or users
and nothing has to be dropped, which a bound over all looks needs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from stream_rec.component import Component
from stream_rec.learn.sequences import Sample
from stream_rec.stream.sampling import hash64

Ints = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

SLICES = ("all", "new_users", "new_items", "head", "tail")
CHALLENGER, RIVAL = 0, 1


def cluster_of(user_key: Ints, n_clusters: int) -> Ints:
    """Cluster of each user, in [0, n_clusters)."""
    return (hash64(0, user_key) % np.uint64(n_clusters)).astype(np.int64)


class Comparison(Component):
    """Paired sums of recall, one pair for each rival.

    Args:
        rivals: names, e.g. `champion`, `yesterday` and the pinned baselines.
        slices: names; the first is everything.
        n_clusters: of users; below 200 the bounds get loose.

    >>> comparison = Comparison(("champion",), ("all",), n_clusters=64)
    >>> challenger, champion = np.array([[1.0], [0.0], [0.5]]), np.array([[0.0], [0.0], [0.25]])
    >>> comparison.add("champion", np.array([7, 8, 9]), challenger, champion, there=np.ones((3, 1), bool))
    >>> comparison.sample("champion").mean, comparison.level("champion")
    (0.4166666666666667, 0.08333333333333333)
    """

    half = "learned"
    columns = ("recall", "visits")
    fixed = ("rivals", "slices", "n_clusters")

    def __init__(self, rivals: Sequence[str], slices: Sequence[str] = SLICES, *, n_clusters: int = 1_024) -> None:
        self.rivals, self.slices, self.n_clusters = tuple(rivals), tuple(slices), n_clusters
        self.recall = np.zeros((len(rivals), len(slices), 2, n_clusters), np.float64)
        """Sums of the challenger and of the rival."""
        self.visits = np.zeros((len(rivals), len(slices), n_clusters), np.float64)

    def add(self, rival: str, user_key: Ints, challenger: Doubles, recall: Doubles, *, there: Mask) -> None:
        """Count E organic visits that the challenger and a rival both made lists for.

        Args:
            rival: which.
            user_key: pseudonymous key of the visit's user, int64 [E].
            challenger: recall in [0, 1] on the organic targets of each slice, float64 [E, slices].
            recall: the rival's, the same shape.
            there: which slices the visit belongs to and has organic targets in, bool [E, slices].
        """
        r, cluster = self.rivals.index(rival), cluster_of(user_key, self.n_clusters)
        for s in range(len(self.slices)):
            use = there[:, s]
            at = cluster[use]
            for side, value in ((CHALLENGER, challenger), (RIVAL, recall)):
                self.recall[r, s, side] += np.bincount(at, value[use, s], self.n_clusters)
            self.visits[r, s] += np.bincount(at, minlength=self.n_clusters)

    def restart(self, rival: str | None = None) -> None:
        """Begin anew against one rival that changed, or against all of them for another challenger."""
        which = slice(None) if rival is None else self.rivals.index(rival)
        self.recall[which] = 0.0
        self.visits[which] = 0.0

    def forget_users(self, user_key: Ints) -> None:
        """Take the clusters of some users out of the comparison, whole: single visits are not kept."""
        at = np.unique(cluster_of(user_key, self.n_clusters))
        self.recall[..., at] = 0.0
        self.visits[..., at] = 0.0

    def sums(self, rival: str, slice_: str = "all", *, margin: float = 0.0) -> tuple[Doubles, Doubles]:
        """By cluster: sum of challenger - (1 - margin) * rival, and number of visits; float64 [clusters] each."""
        r, s = self.rivals.index(rival), self.slices.index(slice_)
        recall = self.recall[r, s]
        return recall[CHALLENGER] - (1.0 - margin) * recall[RIVAL], self.visits[r, s]

    def sample(self, rival: str, slice_: str = "all", *, margin: float = 0.0) -> Sample:
        """The same as a sample. A mean below zero is a challenger worse by more than `margin` (relative)."""
        return Sample.of(*self.sums(rival, slice_, margin=margin))

    def level(self, rival: str, slice_: str = "all") -> float:
        """Mean recall of the rival on the compared visits."""
        r, s = self.rivals.index(rival), self.slices.index(slice_)
        return float(self.recall[r, s, RIVAL].sum() / max(self.visits[r, s].sum(), 1.0))
