"""Drift of prequential figures: has the loss, or the reward, changed since the last alarm?

Two detectors watch each figure. ADWIN (Bifet, Gavalda, SDM 2007) compares the two parts of a window at every cut and
sees any lasting change; Page-Hinkley (Page, Biometrika 41, 1954) sums what is beyond a tolerance and sees a jump
sooner. Both are river's. Figures are put on their own scale, so that one setting fits a loss in nats and a recall.

A detector's state is the values it has been told since it began: told again, it is the same again. It begins anew
after an alarm, and with the newer half of its values when they are `capacity`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from stream_rec.component import Component

Doubles = npt.NDArray[np.float64]

DETECTORS = ("adwin", "page_hinkley")
SCALED_BY = 500
"""Values that give a detector its scale, and before which it says nothing."""
CLIPPED_AT = 4.0
"""Standard deviations."""
ADWIN_DELTA = 0.0005
PH_TOLERANCE, PH_THRESHOLD = 0.2, 60.0
"""Standard deviations: shifts below the tolerance are not summed; the sum that is an alarm. A stationary figure
reaches it with a chance of about exp(-2 * tolerance * threshold) = 4e-11 at each value."""


class Drift(Component):
    """Watches figures by name.

    Args:
        figures: their names, e.g. `loss` and `reward`.
        capacity: values a detector is told before it forgets the older half; at least 4 * SCALED_BY.

    Raises:
        ValueError: the capacity is too small.

    >>> drift = Drift(("loss",))
    >>> rng = np.random.Generator(np.random.PCG64(0))
    >>> drift.update("loss", rng.normal(5.0, 1.0, 1_000)), drift.update("loss", rng.normal(7.0, 1.0, 50))
    ([], ['loss: page_hinkley'])
    """

    half = "learned"
    columns = ("told", "n_told", "n_alarms")
    derived = ("_watching",)
    fixed = ("figures", "capacity")

    def __init__(self, figures: Sequence[str] = ("loss", "reward"), capacity: int = 4_096) -> None:
        if capacity < 4 * SCALED_BY:
            raise ValueError(f"capacity must be at least {4 * SCALED_BY}")
        self.figures, self.capacity = tuple(figures), capacity
        self.told = np.zeros((len(self.figures), len(DETECTORS), capacity), np.float64)
        self.n_told = np.zeros((len(self.figures), len(DETECTORS)), np.int64)
        self.n_alarms = np.zeros((len(self.figures), len(DETECTORS)), np.int64)
        """Since the run began."""
        self._watching: dict[tuple[int, int], _Detector] = {}
        self.rebuild()

    def rebuild(self) -> None:
        """Tell every detector again what it was told."""
        for place in np.ndindex(self.n_told.shape):
            self._begin((place[0], place[1]))

    def update(self, figure: str, values: Sequence[float] | Doubles) -> list[str]:
        """Tell values in order; returns the alarms as `FIGURE: DETECTOR`. Values that are not finite are left out.

        Args:
            figure: one of `figures`.
            values: float64 [n].
        """
        f, out = self.figures.index(figure), []
        finite = np.asarray(values, np.float64)
        for value in finite[np.isfinite(finite)].tolist():
            for d, name in enumerate(DETECTORS):
                if self._tell((f, d), value):
                    out.append(f"{figure}: {name}")
        return out

    def _tell(self, place: tuple[int, int], value: float) -> bool:
        n = int(self.n_told[place])
        if n == self.capacity:
            n = self.capacity // 2
            row = self.told[place]
            row[:n], row[n:] = row[-n:].copy(), 0.0
            self.n_told[place] = n
            self._begin(place)
        self.told[place][n] = value
        self.n_told[place] = n + 1
        if not self._watching[place].update(value):
            return False
        self.n_alarms[place] += 1
        self.n_told[place] = 0
        self.told[place] = 0.0
        self._begin(place)
        return True

    def _begin(self, place: tuple[int, int]) -> None:
        detector = self._watching[place] = _Detector(DETECTORS[place[1]])
        for value in self.told[place][: int(self.n_told[place])].tolist():
            detector.update(value)


class _Detector:
    """One detector on its own scale: a function of the values it was told."""

    def __init__(self, name: str) -> None:
        # River brings scikit-learn along, seconds that only a pipeline has to pay and not every list.
        from river.drift import ADWIN, PageHinkley

        self._is_adwin = name == "adwin"
        self._detector: Any = (
            ADWIN(delta=ADWIN_DELTA)  # type: ignore[no-untyped-call]
            if self._is_adwin
            # Forgetting would end the pull back to zero that keeps a stationary figure below the threshold.
            else PageHinkley(min_instances=SCALED_BY, delta=PH_TOLERANCE, threshold=PH_THRESHOLD, alpha=1.0)
        )
        self._first, self._n_first = np.zeros(SCALED_BY, np.float64), 0
        self._mean, self._deviation = 0.0, 1.0

    def update(self, value: float) -> bool:
        """Whether this value is an alarm."""
        if self._n_first < SCALED_BY:
            self._first[self._n_first] = value
            self._n_first += 1
            if self._n_first == SCALED_BY:
                self._mean = float(np.mean(self._first))
                self._deviation = max(float(np.std(self._first)), 1e-9 * max(1.0, abs(self._mean)))
                for first in self._first.tolist():
                    self._say(first)
            return False
        return self._say(value)

    def _say(self, value: float) -> bool:
        z = min(max((value - self._mean) / self._deviation, -CLIPPED_AT), CLIPPED_AT)
        # ADWIN's bound is for values in [0, 1].
        self._detector.update(0.5 + z / (2.0 * CLIPPED_AT) if self._is_adwin else z)
        return bool(self._detector.drift_detected)
