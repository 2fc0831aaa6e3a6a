"""The guard: after a promotion what is served is watched, and called back when shown worse than what was before.

A challenger that passed the gate may still serve badly: the light rule lets everything pass that is not shown worse.
For a fixed number of organic visits the guard compares what was served with the lists of the previous champion or,
where nobody makes those any more, with popularity: the lead over popularity must not be smaller than the previous
champion's was. The bound holds at every look, so the guard may be asked after every tick.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stream_rec.component import Component
from stream_rec.learn.comparison import cluster_of
from stream_rec.learn.sequences import ALPHA, Sample, bounds, p_at_least

Ints = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]

SERVED, OTHER = 0, 1


@dataclass(frozen=True, slots=True)
class GuardRules:
    """Settings of the guard."""

    n_visits: int = 2_000
    """Organic visits watched after a promotion."""
    margin: float = 0.02
    """Share of the previous champion's recall."""
    alpha: float = ALPHA
    """Chance of calling back a version that is no worse, over all looks."""
    min_users: int = 30
    """Clusters of users, on either side, below which nothing is said."""


class Guard(Component):
    """Watches one promotion at a time.

    Args:
        rules: settings.
        n_clusters: of users.
    """

    half = "learned"
    columns = ("paired", "paired_visits", "lead", "lead_visits", "usual", "usual_visits")
    scalars = ("version", "previous", "n_watched")
    fixed = ("rules", "n_clusters")

    def __init__(self, rules: GuardRules | None = None, *, n_clusters: int = 1_024) -> None:
        self.rules, self.n_clusters = rules or GuardRules(), n_clusters
        self.paired = np.zeros((2, n_clusters), np.float64)
        """Sums of the recall of what was served and of the previous champion's lists, since the promotion."""
        self.paired_visits = np.zeros(n_clusters, np.float64)
        self.lead = np.zeros((2, n_clusters), np.float64)
        """Sums of the recall of what was served and of popularity, since the promotion."""
        self.lead_visits = np.zeros(n_clusters, np.float64)
        self.usual = np.zeros((2, n_clusters), np.float64)
        """The same of the champion before, as of the promotion; if too shortly, with the ones before it."""
        self.usual_visits = np.zeros(n_clusters, np.float64)
        self.version = self.previous = ""
        """Empty when nothing is watched."""
        self.n_watched = 0

    @property
    def watching(self) -> bool:
        """Whether a promotion is being watched."""
        return bool(self.version)

    def begin(self, version: str, previous: str) -> None:
        """Watch a version that now serves instead of `previous`."""
        if np.count_nonzero(self.lead_visits) < self.rules.min_users:
            self.lead, self.lead_visits = self.lead + self.usual, self.lead_visits + self.usual_visits
        self.usual, self.usual_visits = self.lead, self.lead_visits
        self._clear()
        self.version, self.previous = version, previous

    def stop(self) -> None:
        """Watch no more: the previous champion serves again, and what it served before is what is usual."""
        self._clear()
        self.lead, self.lead_visits = self.usual.copy(), self.usual_visits.copy()
        self.version = self.previous = ""

    def add(self, user_key: Ints, served: Doubles, popularity: Doubles, previous: Doubles | None = None) -> None:
        """Count E organic visits; to be called at all times, since what is served now is usual for the next promotion.

        Args:
            user_key: pseudonymous key of each visit's user, int64 [E].
            served: recall in [0, 1] of what was served, on organic targets, float64 [E].
            popularity: of the pinned popularity list, float64 [E].
            previous: of the previous champion's lists, float64 [E]; NaN where it made none, None: nowhere.
        """
        at = cluster_of(user_key, self.n_clusters)
        self.lead[SERVED] += np.bincount(at, served, self.n_clusters)
        self.lead[OTHER] += np.bincount(at, popularity, self.n_clusters)
        self.lead_visits += np.bincount(at, minlength=self.n_clusters)
        if not self.watching:
            return
        self.n_watched += len(user_key)
        if previous is not None:
            use = np.isfinite(previous)
            self.paired[SERVED] += np.bincount(at[use], served[use], self.n_clusters)
            self.paired[OTHER] += np.bincount(at[use], previous[use], self.n_clusters)
            self.paired_visits += np.bincount(at[use], minlength=self.n_clusters)

    def look(self) -> dict[str, Any]:
        """What is known now: `verdict` is `idle`, `watch`, `roll_back` or `passed` (the watch is over).

        Returns:
            JSON-able: `verdict`, `reasons`, `version`, `previous`, `against` (previous, popularity or None),
            `recall_difference` and `interval` (at all looks) to the previous champion, `n_visits`, `n_users`, `margin`.
        """
        if not self.watching:
            return {"verdict": "idle", "reasons": []}
        if int(np.count_nonzero(self.paired_visits)) >= self.rules.min_users:
            return self._judge("previous", *self._against_previous())
        if min(np.count_nonzero(self.lead_visits), np.count_nonzero(self.usual_visits)) >= self.rules.min_users:
            return self._judge("popularity", *self._against_popularity())
        n_users = int(np.count_nonzero(self.lead_visits))
        reason = f"not measurable: {self.n_watched} organic visits of {n_users} users"
        return self._record("passed" if self._over() else "watch", [reason])

    def end(self) -> None:
        """The watch is over without a complaint; what was served in it is usual from now on."""
        self.version = self.previous = ""
        self.n_watched = 0

    def forget_users(self, user_key: Ints) -> None:
        """Take the clusters of some users out, whole: single visits are not kept."""
        at = np.unique(cluster_of(user_key, self.n_clusters))
        for name in self.columns:
            getattr(self, name)[..., at] = 0.0

    def _against_previous(self) -> tuple[Sample, float, Sample]:
        """The plain difference, the previous champion's recall, and the difference with the margin granted."""
        visits = self.paired_visits
        level = float(self.paired[OTHER].sum() / visits.sum())
        granted = self.paired[SERVED] - (1.0 - self.rules.margin) * self.paired[OTHER]
        return Sample.of(self.paired[SERVED] - self.paired[OTHER], visits), level, Sample.of(granted, visits)

    def _against_popularity(self) -> tuple[Sample, float, Sample]:
        """The same by the lead over popularity, now less then; the error of what was usual is an error at all looks."""
        now = Sample.of(self.lead[SERVED] - self.lead[OTHER], self.lead_visits)
        then = Sample.of(self.usual[SERVED] - self.usual[OTHER], self.usual_visits)
        level = float(self.usual[SERVED].sum() / self.usual_visits.sum())
        variance = now.variance + then.variance * (now.n / then.n) ** 2
        plain = Sample(now.n, min(now.n_clusters, then.n_clusters), now.mean - then.mean, variance)
        return plain, level, plain._replace(mean=plain.mean + self.rules.margin * level)

    def _judge(self, against: str, plain: Sample, level: float, granted: Sample) -> dict[str, Any]:
        figures = {
            "against": against,
            "recall_difference": round(plain.mean, 6),
            "interval": [round(bound, 6) for bound in bounds(plain, self.rules.alpha)],
            "previous_recall": round(level, 6),
            "n_users": plain.n_clusters,
        }
        how = "" if against == "previous" else ", by the lead over popularity"
        if p_at_least(granted) <= self.rules.alpha:
            reason = f"worse than {self.previous} by more than {self.rules.margin:.0%}{how}: "
            return self._record("roll_back", [f"{reason}{plain.mean:+.4f} of {level:.4f}"], **figures)
        reason = f"not shown worse than {self.previous}{how}: {plain.mean:+.4f} of {level:.4f}"
        return self._record("passed" if self._over() else "watch", [reason], **figures)

    def _over(self) -> bool:
        return self.n_watched >= self.rules.n_visits

    def _record(self, verdict: str, reasons: list[str], **figures: Any) -> dict[str, Any]:
        empty = {"against": None, "recall_difference": None, "interval": None, "n_users": 0}
        return {
            "verdict": verdict,
            "reasons": reasons,
            "version": self.version,
            "previous": self.previous,
            "n_visits": self.n_watched,
            "margin": self.rules.margin,
            **(empty | figures),
        }

    def _clear(self) -> None:
        self.paired, self.lead = np.zeros_like(self.paired), np.zeros_like(self.lead)
        self.paired_visits, self.lead_visits = np.zeros_like(self.paired_visits), np.zeros_like(self.lead_visits)
        self.n_watched = 0
