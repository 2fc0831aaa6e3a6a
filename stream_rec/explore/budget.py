"""What exploration has cost, beside what it may: a token bucket in units of utility.

The policies bound the *expected* loss of every slot. The bucket bounds the *realised* one: every served slot pays in
the budget's share of its best value, every explored slot takes out what it lost against it. Empty, slates are safe
(greedy) until it has filled again: at any time loss <= share * value + the bucket's depth + what one batch lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_rec.component import Component

if TYPE_CHECKING:
    from stream_rec.explore.slate import Slates


class LossBudget(Component):
    """Accounts of realised loss.

    Args:
        share: of the value that may be lost, in (0, 1].
        depth_slots: how many average slots' worth of value the bucket holds.
    """

    scalars = ("n_slots", "n_explored", "value", "loss", "expected_loss", "slate_loss", "room")
    fixed = ("share", "depth_slots")

    def __init__(self, share: float, depth_slots: float = 20.0) -> None:
        if not 0.0 < share <= 1.0 or depth_slots <= 0:
            raise ValueError("wanted: 0 < share <= 1 and depth_slots > 0")
        self.share, self.depth_slots = share, depth_slots
        self.n_slots, self.n_explored = 0, 0
        self.value, self.loss = 0.0, 0.0
        """Sums over all served slots: best value given the prefix; what the drawn candidate fell short of it."""
        self.expected_loss = 0.0
        """What the propensities said the loss would be."""
        self.slate_loss = 0.0
        """Utility of the greedy slates less that of the served ones; diversity may make it negative."""
        self.room = 0.0
        """What may still be lost, less the depth; never above zero."""

    def is_spent(self) -> bool:
        """Whether slates must be safe now."""
        return self.room + self._depth() < 0

    def add(self, slates: Slates) -> None:
        """Account served slates."""
        served = slates.column >= 0
        value, loss = float(slates.best[served].sum()), float(slates.loss[served].sum())
        self.n_slots += int(served.sum())
        self.n_explored += int(slates.explored.sum())
        self.value += value
        self.loss += loss
        self.expected_loss += float(slates.expected_loss[served].sum())
        self.slate_loss += float(slates.slate_loss.sum())
        self.room = min(self.room + self.share * value - loss, 0.0)

    def shares(self) -> dict[str, float]:
        """Losses as shares of the value served, and explored slots as a share of the slots."""
        value, n = max(self.value, 1e-300), max(self.n_slots, 1)
        return {
            "loss": self.loss / value,
            "expected_loss": self.expected_loss / value,
            "slate_loss": self.slate_loss / value,
            "explored": self.n_explored / n,
        }

    def _depth(self) -> float:
        return self.depth_slots * self.value / max(self.n_slots, 1)
