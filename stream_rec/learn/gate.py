"""Whether a challenger may serve: the hard check, and the paired recall difference with its interval.

Visits are compared in pairs (both lists made at the same first event) over organic targets only: people choose from
what they are shown, so what a slate caused is no evidence for the model behind it. The interval resamples users, not
visits, since visits of one user are alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from stream_rec.component import Component

Ints = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]

N_RESAMPLES = 400
MIN_USERS = 30


class PairedRecall(Component):
    """The latest scored visits: recall of the learner minus recall of the champion.

    Args:
        capacity: visits held; the oldest are overwritten.
    """

    half = "learned"
    columns = ("user_key", "difference")
    scalars = ("n_seen",)
    fixed = ("capacity",)

    def __init__(self, capacity: int = 10_000) -> None:
        self.capacity, self.n_seen = capacity, 0
        self.user_key = np.zeros(capacity, np.int64)
        self.difference = np.zeros(capacity, np.float64)

    def used(self) -> int:
        """Rows that hold a visit."""
        return min(self.n_seen, self.capacity)

    def add(self, user_key: Ints, difference: Doubles) -> None:
        """Keep visits [E] in order."""
        user_key, difference = user_key[-self.capacity :], difference[-self.capacity :]
        at = (self.n_seen + np.arange(len(user_key))) % self.capacity
        self.user_key[at], self.difference[at] = user_key, difference
        self.n_seen += len(user_key)

    def forget_users(self, user_key: Ints) -> None:
        """Take the visits of some users out of the comparison; the others keep their order."""
        used = self.used()
        oldest_first = np.arange(self.n_seen - used, self.n_seen) % self.capacity
        kept = oldest_first[~np.isin(self.user_key[oldest_first], user_key)]
        if len(kept) == used:
            return
        for column in (self.user_key, self.difference):
            column[: len(kept)] = column[kept]
            column[len(kept) :] = 0
        self.n_seen = len(kept)

    def clear(self) -> None:
        """Start a new comparison, after a promotion."""
        self.user_key[:] = 0
        self.difference[:] = 0.0
        self.n_seen = 0

    def interval(self, seed: int) -> dict[str, Any]:
        """Mean difference with a 95 % bootstrap-by-user interval; None where fewer than 30 users were seen."""
        used = self.used()
        mean, low, high, n_users = bootstrap(self.user_key[:used], self.difference[:used], seed)
        judged = n_users >= MIN_USERS
        return {
            "recall_difference": round(mean, 6) if used else None,
            "interval": [round(low, 6), round(high, 6)] if judged else None,
            "n_visits": used,
            "n_users": n_users,
        }


def bootstrap(group: Ints, value: Doubles, seed: int) -> tuple[float, float, float, int]:
    """Mean of `value` with the 2.5 % and 97.5 % points of its mean when whole groups are resampled.

    Returns:
        Mean, low, high, number of groups; zeros when there is nothing.

    >>> bootstrap(np.arange(40) // 2, np.ones(40), 0)
    (1.0, 1.0, 1.0, 20)
    """
    if not len(group):
        return 0.0, 0.0, 0.0, 0
    _, which = np.unique(group, return_inverse=True)
    n_groups = int(which.max()) + 1
    totals, sizes = np.bincount(which, value, n_groups), np.bincount(which, minlength=n_groups).astype(np.float64)
    draws = np.random.Generator(np.random.PCG64(seed)).poisson(1.0, (N_RESAMPLES, n_groups)).astype(np.float64)
    means = (draws @ totals) / np.maximum(draws @ sizes, 1.0)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(value.mean()), float(low), float(high), n_groups


def verdict(tensors: Mapping[str, npt.NDArray[Any]], comparison: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a decision: `promote` or `reject` with reasons, and the comparison.

    A light challenger that passes the hard check is promoted; the comparison is reported beside it.

    >>> verdict({"w": np.array([np.nan])}, {})["verdict"]
    'reject'
    """
    sound = all(bool(np.isfinite(tensor).all()) for tensor in tensors.values())
    return {
        "verdict": "promote" if sound else "reject",
        "reasons": ["hard check passed"] if sound else ["hard check failed: weights are not finite"],
        "hard_check": sound,
        **comparison,
    }
