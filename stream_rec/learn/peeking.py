"""Intervals of a mean that stay valid however often one looks: asymptotic confidence sequences, two-sided.

Normal mixture with an estimated variance (Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas, "Time-uniform central limit
theory and asymptotic confidence sequences", 2021, theorem 2.2): with t clusters (users), standard error s and

    rho**2 = (log(1 - 2 log alpha) - 2 log alpha) / TUNED_AT

the interval is mean -+ s * sqrt(2 (t rho**2 + 1) / (t rho**2) * log(sqrt(t rho**2 + 1) / alpha)). The chance that it
ever misses the mean, over all looks together, is about alpha, so an experiment may be watched and ended at any time.
The price: it is wider than an interval for one look, by about half where it is tightest.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from stream_rec.learn.sequences import Sample

TUNED_AT = 1_000
"""Clusters at which the interval is tightest; chosen before any data is seen."""
FEWEST_CLUSTERS = 30
"""Below it an estimated variance is not to be trusted: the sequence is asymptotic."""


class Peeked(NamedTuple):
    """A mean with its interval."""

    mean: float
    low: float
    high: float
    error: float
    """Standard error, by clusters."""
    n: int
    n_clusters: int


def factor(n_clusters: int, alpha: float = 0.05) -> float:
    """Standard errors that an interval reaches to each side; 1.96 would do for one look.

    >>> [round(factor(t), 2) for t in (100, 1_000, 100_000)]
    [3.86, 3.04, 3.56]
    """
    free = -2.0 * math.log(alpha)
    mixed = n_clusters * (free + math.log1p(free)) / TUNED_AT
    return math.sqrt(2.0 * (mixed + 1.0) / mixed * math.log(math.sqrt(mixed + 1.0) / alpha))


def peeked(value: ArrayLike, cluster: ArrayLike, alpha: float = 0.05) -> Peeked:
    """The mean of values, some of them of the same user, with its interval.

    Args:
        value: float [n], n at least 1.
        cluster: int [n], the user of each.
        alpha: chance of ever missing the mean.

    >>> told = peeked([0.0, 1.0] * 500, range(1_000))
    >>> round(told.mean, 3), round(told.low, 3), round(told.high, 3)
    (0.5, 0.452, 0.548)
    """
    paid, (_, own) = np.asarray(value, np.float64), np.unique(np.asarray(cluster), return_inverse=True)
    sample = Sample.of(np.bincount(own, paid).astype(np.float64), np.bincount(own).astype(np.float64))
    error = math.sqrt(sample.variance) / sample.n
    half = factor(sample.n_clusters, alpha) * error
    return Peeked(sample.mean, sample.mean - half, sample.mean + half, error, sample.n, sample.n_clusters)


def difference(ours: Peeked, theirs: Peeked, alpha: float = 0.05) -> Peeked:
    """What one arm has above another, with its interval; the arms share no user.

    >>> ours, theirs = peeked([1.0, 1.0, 0.0] * 300, range(900)), peeked([1.0, 0.0, 0.0] * 300, range(900))
    >>> told = difference(ours, theirs)
    >>> round(told.mean, 3), round(told.low, 3), round(told.high, 3)
    (0.333, 0.265, 0.401)
    """
    mean, error = ours.mean - theirs.mean, math.hypot(ours.error, theirs.error)
    n_clusters = ours.n_clusters + theirs.n_clusters
    half = factor(n_clusters, alpha) * error
    return Peeked(mean, mean - half, mean + half, error, ours.n + theirs.n, n_clusters)
