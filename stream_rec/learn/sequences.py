"""Bounds on a mean that hold at every look at once: asymptotic confidence sequences over clusters of users.

A challenger is looked at as often as it is cut, so a test of a fixed size would sooner or later call an equal one
worse. The bounds here are Robbins' normal mixture, one-sided (Howard, Ramdas, McAuliffe, Sekhon, Ann. Statist. 49,
2021, section 3.2), with an estimated variance (Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas, "Time-uniform central
limit theory and asymptotic confidence sequences", Ann. Statist. 52, 2024, theorem 2.2): the chance that a true mean
of zero or more is ever called worse is at most alpha, however often one looks and whenever one stops.

The variance is that of the sum by clusters of users. Visits of one user are alike, so the sum is less like a random
walk than the bound assumes: values at two looks are more strongly correlated. By Slepian's inequality that makes a
crossing rarer, not more frequent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

ALPHA = 0.05
TUNED_AT = 1_000.0
"""Visits at which the bound is tightest."""
_TUNING = -2.0 * math.log(ALPHA) + math.log(1.0 - 2.0 * math.log(ALPHA))
FLOOR = 1.0
"""Added to the variance of a sum: one unseen visit that differs by 1, so that equal lists never look certain."""
BISECTIONS = 60


class Sample(NamedTuple):
    """Values of visits, summed by cluster.

    >>> Sample.of(np.array([1.0, 0.0, -1.0]), np.array([2.0, 0.0, 2.0]))
    Sample(n=4, n_clusters=2, mean=0.0, variance=4.0)
    """

    n: int
    """Visits."""
    n_clusters: int
    mean: float
    """Over visits; 0 when there is none."""
    variance: float
    """Of the sum over all visits, by clusters (Liang, Zeger 1986, with the factor G / (G - 1))."""

    @classmethod
    def of(cls, totals: Doubles, counts: Doubles) -> Sample:
        """Sample of cluster sums.

        Args:
            totals: sum of the values of each cluster, float64 [G].
            counts: visits of each, float64 [G]; a cluster without one is none.
        """
        n, n_clusters = float(counts.sum()), int(np.count_nonzero(counts))
        if not n_clusters:
            return cls(0, 0, 0.0, 0.0)
        mean = float(totals.sum()) / n
        left = totals - counts * mean
        return cls(int(n), n_clusters, mean, float(left @ left) * n_clusters / max(n_clusters - 1, 1))


def log_evidence(z: float, n: float) -> float:
    """Log of the e-value against a mean of zero or less: the mixture over positive means of the likelihood ratio.

    Args:
        z: sum by its standard deviation.
        n: visits.

    >>> round(log_evidence(0.0, 1000), 3), round(log_evidence(3.5, 1000), 3)
    (-1.095, 5.037)
    """
    ratio = _TUNING * n / TUNED_AT
    shrunk = z * math.sqrt(ratio / (1.0 + ratio))
    return math.log(2.0) - 0.5 * math.log1p(ratio) + 0.5 * shrunk * shrunk + _log_normal(shrunk)


def p_at_least(sample: Sample, bar: float = 0.0) -> float:
    """Anytime-valid p-value of "the mean is at least `bar`": small when the mean is below it.

    >>> p_at_least(Sample(1000, 400, 0.0, 40.0))
    1.0
    >>> round(p_at_least(Sample(1000, 400, -0.03, 40.0)), 6)
    8.7e-05
    """
    if not sample.n:
        return 1.0
    z = (bar - sample.mean) * sample.n / math.sqrt(sample.variance + FLOOR)
    return min(1.0, math.exp(-log_evidence(z, sample.n)))


def bounds(sample: Sample, alpha: float = ALPHA) -> tuple[float, float]:
    """Low and high of the mean; all looks together miss it with a chance of at most `alpha`, half on each side.

    >>> [round(b, 4) for b in bounds(Sample(1000, 400, 0.01, 40.0))]
    [-0.0094, 0.0294]
    >>> bounds(Sample(0, 0, 0.0, 0.0))
    (-1.0, 1.0)
    """
    if not sample.n:
        return -1.0, 1.0
    need = -math.log(alpha / 2.0)
    low, high = 0.0, 1.0
    while log_evidence(high, sample.n) < need:
        high *= 2.0
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if log_evidence(middle, sample.n) < need else (low, middle)
    half = high * math.sqrt(sample.variance + FLOOR) / sample.n
    return max(-1.0, sample.mean - half), min(1.0, sample.mean + half)


def holm(p_values: Mapping[str, float], alpha: float = ALPHA) -> set[str]:
    """Claims refused when all are tested together: Holm's step-down (Holm 1979).

    >>> sorted(holm({"a": 0.01, "b": 0.03, "c": 0.02}))
    ['a', 'b', 'c']
    >>> sorted(holm({"a": 0.01, "b": 0.03, "c": 0.04}))
    ['a']
    """
    refused: set[str] = set()
    for name in sorted(p_values, key=lambda name: (p_values[name], name)):
        if p_values[name] > alpha / (len(p_values) - len(refused)):
            break
        refused.add(name)
    return refused


def _log_normal(x: float) -> float:
    """Log of the standard normal distribution function."""
    if x < -30.0:
        return -0.5 * x * x - math.log(-x * math.sqrt(2.0 * math.pi))
    return math.log(0.5 * math.erfc(-x / math.sqrt(2.0)))
