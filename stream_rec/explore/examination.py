"""How often a position is looked at, from items that chance alone has moved down by one.

Where a slot passes its greedy candidate over and the next one shows it, the same item stands at k + 1 for users for
whom it would have stood at k with a known chance p. The ratio of the clicks that such items get at k + 1 and at k is
that of examination, eta[k + 1] / eta[k] (a swap intervention: Joachims, Swaminathan, Schnabel, WSDM 2017). Both sides
are weighted to the same mix of slates by overlap weights (Li, Morgan, Zaslavsky, JASA 2018): 1 / p times p (1 - p) for
items that stayed, 1 / (1 - p) times the same for those moved, and over the chance of the next slot, cut at CLIP.
Weights of 1 / (1 - p) alone are so large under a small budget that cutting them would change the mix.

Only moves to where the item is greedy again are counted; diversity makes that likelier for some items than for others.
So beside the clicks stands what the click head expected, and the ratio is its own, that of the moved items at k + 1 and
at k, times what the clicks are more or less than expected. It is right if diversity does not matter, whatever the head
knows, and if the head knows the items, whatever diversity does. PRIOR clicks, as expected, count with those observed,
so the head's ratio is where it starts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_rec.component import Component
from stream_rec.explore.chances import MOVED, greedy_chance

Doubles = NDArray[np.float64]

CLIP = 10.0
"""Largest weight for the chance of the next slot; and largest correction, one over it the smallest."""
PRIOR = 20.0
MOST = 50_000.0
"""Weight of a pair of positions from which on its sums are halved: what is old counts ever less."""
STAYED, SHIFTED = 0, 1
WEIGHT, CLICKS, EXPECTED, ABOVE = range(4)


class Examination(Component):
    """Sums of pairs of positions.

    Columns: `sums` float64 [n_slots, 2, 4]: of (k, k + 1), of items that stayed at k and of those that were moved to
    k + 1, the weights, the weighted clicks, those expected, and those expected one position higher.
    """

    columns = ("sums",)
    fixed = ("n_slots",)

    def __init__(self, n_slots: int) -> None:
        self.n_slots = n_slots
        self.sums = np.zeros((n_slots, 2, 4))

    def add(self, code: NDArray[np.float16], positions: Any, clicked: Any, expected: Doubles, above: Doubles) -> None:
        """Count shown lists.

        Args:
            code: of `chances`, [B, n_slots], the slots in the order in which they were shown.
            positions: int [B, n_slots], 0-based; a pair counts where they follow each other.
            clicked: bool [B, n_slots].
            expected: P(click) at that position as the head has it, [B, n_slots]; NaN: not known.
            above: the same had the item stood one position higher.
        """
        drawn = greedy_chance(code)
        place = np.asarray(positions, np.int64)
        pair = (place[:, 1:] == place[:, :-1] + 1) & (place[:, :-1] >= 0) & (place[:, 1:] < self.n_slots)
        known = np.isfinite(expected)
        stayed = pair & (code[:, :-1] > 0) & (drawn[:, :-1] < 1.0) & known[:, :-1]
        told = np.stack([np.ones(place.shape), clicked, expected, above], axis=-1)
        self._count(STAYED, place[:, :-1][stayed], (1.0 - drawn[:, :-1])[stayed], told[:, :-1][stayed])
        moved = pair & (code[:, :-1] < 0) & (code[:, 1:] > MOVED) & known[:, 1:]
        weight = drawn[:, :-1] * np.minimum(1.0 / drawn[:, 1:], CLIP)
        self._count(SHIFTED, place[:, :-1][moved], weight[moved], told[:, 1:][moved])
        self.sums[self.sums[:, SHIFTED, WEIGHT] > MOST] /= 2

    def eta(self) -> list[float]:
        """Examination by position, the first position with a draw = 1, as far down as pairs were seen; before it 1."""
        _, ratio = self._steps()
        seen = np.flatnonzero(self._seen())
        chain = np.cumprod(np.append(1.0, ratio[: seen[-1] + 1])) if len(seen) else np.zeros(0)
        return [round(float(eta), 4) for eta in chain]

    def correction(self) -> Doubles:
        """By what the heads' expectation at each position is to be multiplied, float64 [n_slots], in [1 / CLIP, CLIP].

        1 before there is evidence, and where no pairs were seen the same as above.
        """
        beside, _ = self._steps()
        return np.clip(np.cumprod(np.append(1.0, beside[:-1])), 1.0 / CLIP, CLIP)

    def _steps(self) -> tuple[Doubles, Doubles]:
        """For k, k + 1: the ratio of examination as a share of the heads' own, and the ratio itself; 1 where unseen."""
        _, clicks, expected, above = np.moveaxis(self.sums, 2, 0)
        over = (clicks + PRIOR) / (expected + PRIOR)
        seen = self._seen()
        beside = np.where(seen, over[:, SHIFTED] / over[:, STAYED], 1.0)
        own = np.where(seen, expected[:, SHIFTED], 1.0) / np.where(seen, above[:, SHIFTED], 1.0)
        return beside, beside * own

    def _seen(self) -> NDArray[np.bool_]:
        return np.asarray((self.sums[:, :, (WEIGHT, EXPECTED, ABOVE)] > 0).all(axis=(1, 2)))

    def _count(self, side: int, at: Any, weight: Doubles, told: Doubles) -> None:
        for column in (WEIGHT, CLICKS, EXPECTED, ABOVE):
            self.sums[:, side, column] += np.bincount(at, weight * told[:, column], minlength=self.n_slots)
