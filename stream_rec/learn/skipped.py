"""Stretches of the stream that were never counted, because the brake was on.

The learned statistics hold still while it is on: slates go on with those of the last healthy tick, and no second copy
of them is kept. What comes meanwhile is in histories, window and reservoir as ever; the statistics pass over it for
good, since a stream that looks like no day of the shop must not teach later either. So that a refund of a purchase
from such a stretch takes nothing out that was never put in, the stretches are remembered by the serials of their
history rows.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from stream_rec.component import Component
from stream_rec.learn.batch import Retractions

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

MAX_STRETCHES = 256
"""Beyond it the two oldest become one, with what is between them."""


class Skipped(Component):
    """Which history rows were not counted.

    >>> skipped = Skipped()
    >>> skipped.add(np.array([4, -1, 5])), skipped.add(np.array([9])), skipped.stretches
    (None, None, [[4, 6], [9, 10]])
    >>> skipped.holds(np.array([3, 4, 5, 6, 9])).tolist()
    [False, True, True, False, True]
    """

    half = "learned"
    scalars = ("stretches",)

    def __init__(self) -> None:
        self.stretches: list[list[int]] = []
        """[first serial, serial after the last] of each, rising."""

    def add(self, serial: Ints) -> None:
        """Note a tick's rows, int64 [P]; MISSING for none. Ticks that follow one another make one stretch."""
        rows = serial[serial >= 0]
        if not len(rows):
            return
        first, after = int(rows.min()), int(rows.max()) + 1
        if self.stretches and self.stretches[-1][1] == first:
            self.stretches[-1][1] = after
            return
        self.stretches.append([first, after])
        if len(self.stretches) > MAX_STRETCHES:
            self.stretches[:2] = [[self.stretches[0][0], self.stretches[1][1]]]

    def holds(self, serial: Ints) -> Mask:
        """Whether each row was not counted, [n]."""
        bounds = np.array(self.stretches, np.int64).reshape(-1)
        held: Mask = np.searchsorted(bounds, serial, side="right") % 2 == 1
        return held

    def counted(self, retractions: Retractions) -> Retractions:
        """The retractions of rows that were counted."""
        keep = ~self.holds(retractions.serial)
        if keep.all():
            return retractions
        names = [field.name for field in dataclasses.fields(retractions)]
        return Retractions(**{name: getattr(retractions, name)[keep] for name in names})
