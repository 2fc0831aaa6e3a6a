"""Watches what the stream brings: whether anything may be learned from it now, and whether it has changed.

While the brake is on nothing is counted, learned, promoted or taken for evidence; buffering and measuring go on. Drift
alarms are reported; those of the reward make exploration forget faster for a while.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from stream_rec.component import Component
from stream_rec.learn.brake import Brake, BrakeLimits, Braking, Counts
from stream_rec.learn.drift import Drift

Doubles = npt.NDArray[np.float64]

LOSS, REWARD = "loss", "reward"


class Alarms(Component):
    """What the next metrics line still has to say of drift."""

    scalars = ("counts",)

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}


class Oversight:
    """Brake and drift detectors.

    Args:
        limits: of the brake.
    """

    def __init__(self, limits: BrakeLimits | None = None) -> None:
        self.brake, self.drift, self.alarms = Brake(limits), Drift((LOSS, REWARD)), Alarms()

    def components(self) -> dict[str, Component]:
        """Everything that is state, by name."""
        return {"brake": self.brake, "drift": self.drift, "drift_alarms": self.alarms}

    @property
    def braking(self) -> bool:
        """Whether nothing may be learned or promoted now."""
        return self.brake.braking

    def look(self, at_ms: int, counts: Counts) -> Braking:
        """Take what a tick brought.

        Args:
            at_ms: event time as of the tick, rising.
            counts: of the tick.
        """
        return self.brake.update(at_ms, counts)

    def tell(self, figure: str, values: Sequence[float] | Doubles) -> bool:
        """Tell the detectors losses (nats an example) or rewards (recall of what was served a visit), in order.

        Returns whether one of them raised an alarm.
        """
        alarms = self.drift.update(figure, values)
        for alarm in alarms:
            word = "drift_" + alarm.replace(": ", "_")
            self.alarms.counts[word] = self.alarms.counts.get(word, 0) + 1
        return bool(alarms)

    def take_alarms(self) -> dict[str, int]:
        """Alarms since the last call, as {`drift_FIGURE_DETECTOR`: n}."""
        taken, self.alarms.counts = self.alarms.counts, {}
        return taken
