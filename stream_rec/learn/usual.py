"""What is usual for a share (joined of joinable, bought of looked at): a range from its own past, and what is outside.

Odds, not shares, are stretched, so that a share near one is as narrow as one near zero; and a share counts as outside
only when its whole interval is, so that a few events decide nothing.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

Z = 4.0
"""Half-width of the interval of a share, in standard errors: events come in visits, so they are less sure than many."""


class Range(NamedTuple):
    """Shares that are usual, and those that are allowed; each in [0, 1]."""

    low: float
    high: float
    least: float
    most: float


def usual_range(hits: Doubles, trials: Doubles, tolerance: float) -> Range:
    """From the 5 % to the 95 % point of past shares; allowed is `tolerance` times the odds beyond.

    Args:
        hits: of each past bin, float64 [n], n >= 1.
        trials: of each, at least its hits.
        tolerance: factor of the odds, above 1.

    >>> [round(x, 3) for x in usual_range(np.full(9, 20.0), np.full(9, 100.0), 2.0)]
    [0.203, 0.203, 0.113, 0.337]
    """
    odds = np.quantile((hits + 0.5) / (trials - hits + 0.5), (0.05, 0.95))
    low, high = float(odds[0]), float(odds[1])
    return Range(_share(low), _share(high), _share(low / tolerance), _share(high * tolerance))


def interval(hits: float, trials: float) -> tuple[float, float]:
    """Wilson's interval of a share (Wilson 1927) at Z standard errors; (0, 1) without trials.

    >>> [round(x, 4) for x in interval(0.0, 784.0)]
    [0.0, 0.02]
    """
    if trials <= 0.0:
        return 0.0, 1.0
    share, squared = hits / trials, Z * Z
    middle = (share + squared / (2.0 * trials)) / (1.0 + squared / trials)
    spread = share * (1.0 - share) / trials + squared / (4.0 * trials * trials)
    half = Z * math.sqrt(max(spread, 0.0)) / (1.0 + squared / trials)
    return max(0.0, middle - half), min(1.0, middle + half)


def _share(odds: float) -> float:
    return odds / (1.0 + odds)
