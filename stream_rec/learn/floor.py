"""Whether drawn slates earn what greedy ones would have: else slates are greedy for a day, whatever the heads say.

The budget bounds what exploring loses in the heads' own eyes. This asks what was earned. Of drawn slates both sides are
known: r, what a slate earned, is its policy's; W r, with W from `chances.greedy_weight`, is what greedy slates earn for
the same users at the same time, and as every propensity is exact, so is that in expectation. No control arm is needed.

With floor f and v = sum of W r / sum of W (SNIPS), each slate gives the score r - f (W r - v (W - 1)), whose mean is
earned - f * baseline. Its interval is the asymptotic confidence sequence of `stream_rec.learn.peeking`, by slates:
the target is the mean of what slates were expected to earn given the past, so what one user's slates have in common is
no noise, and the sequence may be looked at in every tick.

Slates fall back to greedy as soon as the score's upper bound is below zero; and when its lower bound is, once the
interval is narrow enough to tell: half of it at most half of the margin (1 - f) v. So a loss within half of the margin
is not punished for being uncertain. After a day the accounts begin anew, and so they do every EPOCH_MS: an old good
time must not hide a bad one.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from stream_rec.component import Component
from stream_rec.events import MISSING
from stream_rec.learn.peeking import factor

Doubles = NDArray[np.float64]
DAY_MS = 86_400_000
EPOCH_MS = 14 * DAY_MS
FEWEST = 200
"""Drawn slates below which nothing is said, and effective ones that stand for greedy: the sequence is asymptotic."""
ALPHA = 0.05
"""Chance of ever falling back in an epoch although less than half of the margin is lost."""


class BaselineFloor(Component):
    """Accounts of drawn slates that were seen.

    Args:
        share: f, of the baseline that must be earned, in [0, 1); 0: nothing is asked.

    >>> floor = BaselineFloor(0.9)
    >>> greedy = np.arange(3_000) % 2 == 0  # half of the slates explore, and earn nothing
    >>> floor.add(greedy * 1.0, greedy * 2.0, at_ms=0)
    >>> floor.is_below, {name: round(figure, 3) for name, figure in floor.figures().items()}
    (True, {'earned': 0.5, 'baseline': 1.0, 'above_floor_low': -0.428, 'above_floor_high': -0.372})
    """

    columns = ("moments",)
    scalars = ("began_at_ms", "held_until_ms", "n_falls")
    fixed = ("share",)

    def __init__(self, share: float) -> None:
        if not 0.0 <= share < 1.0:
            raise ValueError("wanted: 0 <= share < 1")
        self.share = share
        self.moments = np.zeros((4, 4))
        """Sums of products of (1, r, W, W r)."""
        self.began_at_ms, self.held_until_ms = MISSING, MISSING
        self.n_falls = 0

    @property
    def is_below(self) -> bool:
        """Whether slates must be greedy now."""
        return self.held_until_ms != MISSING

    def add(self, reward: Doubles, weight: Doubles, at_ms: int) -> None:
        """Account drawn slates whose wait has closed, and decide.

        Args:
            reward: r of each, float64 [n].
            weight: W of each, float64 [n].
            at_ms: event time now.
        """
        if self.is_below:
            if at_ms >= self.held_until_ms:
                self._begin(at_ms)
            return
        if self.began_at_ms == MISSING or at_ms - self.began_at_ms >= EPOCH_MS:
            self._begin(at_ms)
        told = np.stack([np.ones(len(reward)), reward, weight, weight * reward])
        self.moments += told @ told.T
        if self._falls():
            self.held_until_ms = at_ms + DAY_MS
            self.n_falls += 1

    def figures(self) -> dict[str, float]:
        """Earned a slate, the baseline, and the interval of earned - f * baseline; empty before there is enough."""
        if not self._is_enough():
            return {}
        earned, baseline, half = self._measured()
        above = earned - self.share * baseline
        return {
            "earned": earned,
            "baseline": baseline,
            "above_floor_low": above - half,
            "above_floor_high": above + half,
        }

    def why(self) -> str:
        """In words for people; empty when it holds nothing."""
        if not self.is_below:
            return ""
        earned, baseline, _ = self._measured()
        return (
            f"drawn slates earned {earned:.4g} each where greedy ones earn {baseline:.4g}; explore.baseline_floor asks "
            f"for {self.share:.0%} of it. It draws again a day after it fell"
        )

    def _is_enough(self) -> bool:
        weights, squares = float(self.moments[0, 2]), float(self.moments[2, 2])
        return self.moments[0, 0] >= FEWEST and weights * weights >= FEWEST * squares

    def _falls(self) -> bool:
        if self.share == 0.0 or not self._is_enough():
            return False
        earned, baseline, half = self._measured()
        above = earned - self.share * baseline
        is_told = half <= (1.0 - self.share) * baseline / 2
        return above + half < 0 or (is_told and above - half < 0)

    def _measured(self) -> tuple[float, float, float]:
        """Earned, baseline, and half of the interval of earned - f * baseline."""
        n, f = float(self.moments[0, 0]), self.share
        weights = max(float(self.moments[0, 2]), 1e-300)
        baseline = float(self.moments[0, 3]) / weights
        score = np.array([-f * baseline, 1.0, f * baseline, -f])
        mean = float(score @ self.moments[0]) / n
        variance = max(float(score @ self.moments @ score) / n - mean * mean, 0.0)
        return float(self.moments[0, 1]) / n, baseline, factor(int(n), ALPHA) * math.sqrt(variance / n)

    def _begin(self, at_ms: int) -> None:
        self.moments[:] = 0.0
        self.began_at_ms, self.held_until_ms = at_ms, MISSING
