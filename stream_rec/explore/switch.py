"""Whether slates may be drawn at all: on when the shop's clicks name the decisions that they answer, off until then.

A click on a recommended item that names no decision is no evidence of what a draw led to. So exploration starts in
shadow, and each day of event time decides about the next. A person's word wins over what was measured.
"""

from __future__ import annotations

from stream_rec.component import Component
from stream_rec.events import MISSING

DAY_MS = 86_400_000
FEWEST = 20
"""Clicks on recommended items below which a day decides nothing."""


class Switch(Component):
    """Measures and decides.

    Args:
        wanted: share of a day's clicks on recommended items that must name their decision, in [0, 1].
        is_on: how it starts.

    >>> switch = Switch(0.8)
    >>> for hour in range(25):
    ...     switch.count(hour * 3_600_000, n_named=9, n_clicks=10)
    >>> switch.is_open, switch.share
    (True, 0.9)
    """

    scalars = ("measured", "told", "began_at_ms", "n_named", "n_clicks", "share")
    fixed = ("wanted",)

    def __init__(self, wanted: float = 0.8, *, is_on: bool = False) -> None:
        self.wanted = wanted
        self.measured = is_on
        """What the last day that could decide said."""
        self.told: bool | None = None
        """A person's word; None: there is none."""
        self.began_at_ms = MISSING
        self.n_named, self.n_clicks = 0, 0
        self.share: float | None = None
        """Of the last whole day that had enough clicks."""

    @property
    def is_open(self) -> bool:
        """Whether slates may be drawn."""
        return self.measured if self.told is None else self.told

    def count(self, at_ms: int, *, n_named: int, n_clicks: int) -> None:
        """Take a tick's clicks on recommended items.

        Args:
            at_ms: event time, rising.
            n_named: of them, those that name their decision.
            n_clicks: clicks and views.
        """
        if self.began_at_ms == MISSING:
            self.began_at_ms = at_ms
        if at_ms - self.began_at_ms >= DAY_MS:
            self._decide(at_ms)
        self.n_named += n_named
        self.n_clicks += n_clicks

    def tell(self, is_on: bool) -> None:
        """A person's word."""
        self.told = is_on

    def why_off(self) -> str:
        """In words for people; empty when it is on."""
        if self.is_open:
            return ""
        if self.told is False:
            return "switched off by command; `stream-rec control explore --on` lets it draw"
        if self.share is None:
            return (
                f"no day with {FEWEST} clicks on recommended items has passed ({self.n_clicks} so far today, "
                f"{self.n_named} of them with a decision_id)"
            )
        return (
            f"{self.share:.0%} of the last day's clicks on recommended items carried a decision_id, "
            f"{self.wanted:.0%} are needed; pass the slate's decision_id on with impressions and clicks"
        )

    def _decide(self, at_ms: int) -> None:
        if self.n_clicks >= FEWEST:
            self.share = self.n_named / self.n_clicks
            self.measured = self.share >= self.wanted
        self.began_at_ms, self.n_named, self.n_clicks = at_ms, 0, 0
