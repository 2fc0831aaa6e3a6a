"""The brake: a stream that looks like no day of this shop must not teach.

Watched are shares (actions that join a slate, purchases among looks and purchases, the recall of the served model),
the volume by hour and by day, and the share of the catalogue that changed in a day. Each has its own usual range, from
its own recent past in event time. Shares are compared bin by bin, where a bin holds enough events to say something, so
a night, a weekend or a holiday without events is no event at all. Hours and days without events are not judged.

While it brakes nothing is added to what is usual. It lets go when the figures that were outside have been measured
anew inside, and `release_ms` have passed without another outside. If the shop itself has changed for good, somebody
must say so: `accept`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from stream_rec.component import Component
from stream_rec.events import MISSING
from stream_rec.learn.usual import interval, usual_range

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

SHARES = ("join_rate", "purchase_share", "recall")
ONLY_LOW = ("recall",)
"""More recall than usual is no reason to stop."""
VOLUME, DAY_VOLUME, CHURN = "events_per_hour", "events_per_day", "catalogue_churn_per_day"


class Counts(NamedTuple):
    """What a tick brought, and the catalogue's size after it."""

    events: int = 0
    """Accepted events."""
    joinable: int = 0
    """Actions that could have followed a slate."""
    joined: int = 0
    looks: int = 0
    """Clicks and item views."""
    purchases: int = 0
    visits: int = 0
    """Visits whose recall matured."""
    recall: float = 0.0
    """Sum of their recall, at most `visits`."""
    items_changed: int = 0
    """Items listed, delisted or given another text."""
    n_items: int = 0


class Braking(NamedTuple):
    """Whether nothing may be learned or promoted now, and why."""

    braking: bool
    reasons: tuple[str, ...]
    """Empty when not braking; each names the figure, its usual range and its value."""


@dataclass(frozen=True, slots=True)
class BrakeLimits:
    """Settings of the brake."""

    share_tolerance: float = 2.5
    """Factor of the odds beyond the usual range."""
    volume_tolerance: float = 5.0
    """Times the busiest usual hour."""
    least_flood: int = 1_000
    """Events an hour that are no flood in any shop."""
    least_day: float = 0.05
    """Share of the quietest usual day."""
    churn_tolerance: float = 3.0
    """Times the usual day with most changes."""
    least_churn: float = 0.5
    """Share of the catalogue that may change in any day."""
    warm_up_ms: int = 2 * DAY_MS
    """Nothing is judged before this much event time."""
    min_bins: int = 8
    """No share is judged before so many bins of it."""
    bin_information: float = 64.0
    """A bin is full when trials * share * (1 - share) reaches this."""
    bin_trials: int = 10_000
    """... or at this many trials."""
    release_ms: int = 2 * HOUR_MS
    """Event time inside all ranges before the brake lets go."""


class Brake(Component):
    """Watches the stream tick by tick.

    Args:
        limits: settings.
        n_bins: bins of each share that are usual; a week of hours in a large shop.
        n_hours: hours with events that are usual.
        n_days: days with events.
    """

    half = "learned"
    columns = ("hits", "trials", "n_closed", "open_hits", "open_trials", "open_at_ms", "hours", "days", "churn")
    scalars = (
        "first_at_ms", "hour", "day", "hour_events", "day_events", "day_changes", "n_hours", "n_days", "n_items",
        "outside", "last_outside_ms", "braking", "day_is_whole",
    )  # fmt: skip
    fixed = ("limits",)

    def __init__(
        self, limits: BrakeLimits | None = None, *, n_bins: int = 168, n_hours: int = 336, n_days: int = 28
    ) -> None:
        self.limits = limits or BrakeLimits()
        self.hits = np.zeros((len(SHARES), n_bins), np.float64)
        self.trials = np.zeros((len(SHARES), n_bins), np.float64)
        self.n_closed = np.zeros(len(SHARES), np.int64)
        self.open_hits = np.zeros(len(SHARES), np.float64)
        self.open_trials = np.zeros(len(SHARES), np.float64)
        self.open_at_ms = np.full(len(SHARES), MISSING, np.int64)
        self.hours = np.zeros(n_hours, np.int64)
        """Events of the latest usual hours that had any."""
        self.days = np.zeros(n_days, np.int64)
        self.churn = np.zeros(n_days, np.float64)
        """Share of the catalogue changed in each of these days."""
        self.first_at_ms = self.hour = self.day = MISSING
        self.hour_events = self.day_events = self.day_changes = self.n_hours = self.n_days = self.n_items = 0
        self.day_is_whole = False
        """The day when the stream began, or in which the brake was on, is no measure for others."""
        self.outside: dict[str, str] = {}
        """Figures last measured outside, with what to say about them."""
        self.last_outside_ms = MISSING
        self.braking = False

    def update(self, at_ms: int, counts: Counts) -> Braking:
        """Take what a tick brought.

        Args:
            at_ms: event time of the stream after the tick (its watermark); never goes back.
            counts: of the tick.
        """
        if self.first_at_ms == MISSING:
            self.first_at_ms, self.hour, self.day = at_ms, at_ms // HOUR_MS, at_ms // DAY_MS
        self._turn(at_ms)
        self._volume(counts, at_ms)
        of = counts
        told = {
            "join_rate": (of.joined, of.joinable),
            "purchase_share": (of.purchases, of.purchases + of.looks),
            "recall": (of.recall, of.visits),
        }
        for place, name in enumerate(SHARES):
            self._share(place, at_ms, *told[name])
        if self.outside:
            self.braking, self.last_outside_ms = True, at_ms
        elif self.braking and at_ms - self.last_outside_ms >= self.limits.release_ms:
            self.braking = False
        if self.braking:
            self.day_is_whole = False
        return self.state()

    def state(self) -> Braking:
        """What the last update found."""
        if not self.braking:
            return Braking(False, ())
        reasons = tuple(self.outside[name] for name in sorted(self.outside))
        return Braking(True, reasons or ("all figures are usual again; waiting for a healthy stretch",))

    def resume(self, at_ms: int) -> None:
        """Go on at a later time with what was usual: hours, days and bins in progress begin anew, and it lets go.

        Args:
            at_ms: event time to go on from.
        """
        self.hour, self.day = at_ms // HOUR_MS, at_ms // DAY_MS
        self.hour_events = self.day_events = self.day_changes = 0
        self.outside, self.braking, self.day_is_whole = {}, False, False
        for place in range(len(SHARES)):
            self._empty(place)

    def accept(self) -> None:
        """Take the stream as it is for the new usual: what was usual is forgotten, and the warm-up begins again."""
        fresh = Brake(self.limits, n_bins=self.hits.shape[1], n_hours=len(self.hours), n_days=len(self.days))
        for name in (*self.columns, *self.scalars):
            setattr(self, name, getattr(fresh, name))

    def _is_warm(self, at_ms: int) -> bool:
        return at_ms - self.first_at_ms >= self.limits.warm_up_ms

    # ---- shares

    def _share(self, place: int, at_ms: int, hits: float, trials: float) -> None:
        if not trials:
            return
        if self.open_at_ms[place] == MISSING:
            self.open_at_ms[place] = at_ms
        self.open_hits[place] += hits
        self.open_trials[place] += trials
        if at_ms - self.open_at_ms[place] >= HOUR_MS and self._filled(place) >= 1.0:
            outside = self._judge(place, at_ms)
            if not outside and not self.outside:
                at = self.n_closed[place] % self.hits.shape[1]
                self.hits[place, at], self.trials[place, at] = self.open_hits[place], self.open_trials[place]
                self.n_closed[place] += 1
            self._empty(place)
        elif self._filled(place) >= 0.5 and self._judge(place, at_ms, only_alarm=True):
            self._empty(place)

    def _filled(self, place: int) -> float:
        """How full the open bin is; 1 when it says enough."""
        used = min(int(self.n_closed[place]), self.hits.shape[1])
        hits, trials = self.open_hits[place], self.open_trials[place]
        if used:
            # What is usual decides how many are needed, so that a share of zero fills its bin too.
            hits, trials = self.hits[place, :used].sum(), self.trials[place, :used].sum()
        share = (hits + 0.5) / (trials + 1.0)
        n, limits = self.open_trials[place], self.limits
        return float(max(n * share * (1.0 - share) / limits.bin_information, n / limits.bin_trials))

    def _judge(self, place: int, at_ms: int, *, only_alarm: bool = False) -> bool:
        """Whether the open bin is outside; notes it, or, unless told not to, that the figure is inside again."""
        name, used = SHARES[place], min(int(self.n_closed[place]), self.hits.shape[1])
        if used < self.limits.min_bins or not self._is_warm(at_ms):
            return False
        usual = usual_range(self.hits[place, :used], self.trials[place, :used], self.limits.share_tolerance)
        hits, trials = float(self.open_hits[place]), float(self.open_trials[place])
        low, high = interval(hits, trials)
        if high < usual.least or (low > usual.most and name not in ONLY_LOW):
            self.outside[name] = (
                f"{name}: {hits / trials:.4f} of {trials:.0f}, usual {usual.low:.4f} to {usual.high:.4f}, "
                f"allowed {usual.least:.4f} to {usual.most:.4f}"
            )
            return True
        if not only_alarm:
            self.outside.pop(name, None)
        return False

    def _empty(self, place: int) -> None:
        self.open_hits[place] = self.open_trials[place] = 0.0
        self.open_at_ms[place] = MISSING

    # ---- volume and churn

    def _volume(self, counts: Counts, at_ms: int) -> None:
        self.hour_events += counts.events
        self.day_events += counts.events
        self.day_changes += counts.items_changed
        self.n_items = counts.n_items
        if not self._is_warm(at_ms):
            return
        if self.n_hours and self.hour_events > self._most_events():
            self.outside[VOLUME] = (
                f"{VOLUME}: {self.hour_events}, usual 1 to {int(self.hours.max())}, allowed {self._most_events():.0f}"
            )
        if self.n_days and self._churned() > self._most_churn():
            self.outside[CHURN] = (
                f"{CHURN}: {self._churned():.4f} of {self.n_items} items, usual 0 to {float(self.churn.max()):.4f}, "
                f"allowed {self._most_churn():.4f}"
            )

    def _churned(self) -> float:
        return self.day_changes / max(self.n_items, 1)

    def _turn(self, at_ms: int) -> None:
        """Close the hour and the day when event time has left them."""
        if at_ms // HOUR_MS > self.hour:
            if self.hour_events and self.hour_events <= self._most_events():
                self.outside.pop(VOLUME, None)
            if self.hour_events and not self.outside:
                self.hours[self.n_hours % len(self.hours)] = self.hour_events
                self.n_hours += 1
            self.hour, self.hour_events = at_ms // HOUR_MS, 0
        if at_ms // DAY_MS > self.day:
            if self.day_events:
                self._close_day(at_ms)
            self.day, self.day_events, self.day_changes, self.day_is_whole = at_ms // DAY_MS, 0, 0, not self.outside

    def _most_events(self) -> float:
        return max(self.limits.least_flood, self.limits.volume_tolerance * int(self.hours.max()))

    def _most_churn(self) -> float:
        return max(self.limits.least_churn, self.limits.churn_tolerance * float(self.churn.max()))

    def _close_day(self, at_ms: int) -> None:
        used, limits = min(self.n_days, len(self.days)), self.limits
        quietest = int(self.days[:used].min()) if used else 0
        if self._is_warm(at_ms) and used and self.day_events < limits.least_day * quietest:
            self.outside[DAY_VOLUME] = (
                f"{DAY_VOLUME}: {self.day_events}, usual {quietest} to {int(self.days[:used].max())}, "
                f"allowed {limits.least_day * quietest:.0f}"
            )
        else:
            self.outside.pop(DAY_VOLUME, None)
        if self._churned() <= self._most_churn():
            self.outside.pop(CHURN, None)
        if self.day_is_whole and not self.outside:
            at = self.n_days % len(self.days)
            self.days[at], self.churn[at] = self.day_events, self._churned()
            self.n_days += 1
