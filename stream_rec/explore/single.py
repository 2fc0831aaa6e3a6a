"""One slate alone: what `slate` does for many, on arrays of one dimension fewer.

Of a single slate the calls into numpy cost more than what they compute, so there are as few of them as can be. Picks
are those of the batch; `tests/explore/test_single.py` holds the two against each other. The greedy slate, against which
the loss is counted, goes on from where the draw first leaves it.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_rec.events import MISSING
from stream_rec.explore.chances import coded_one
from stream_rec.explore.diversity import DEPENDENT, Cosines
from stream_rec.explore.policy import TRIAL_SHARE, Known, Slot, policy_of

if TYPE_CHECKING:
    from stream_rec.explore.slate import DrawRules

Doubles = NDArray[np.float64]
Bools = NDArray[np.bool_]
BARRED = -2.0
"""Added to a value: less than any that may be drawn."""


class Gains:
    """`Diversity` of one slate: the same gains, arrays [M].

    >>> vectors = np.array([[[1.0, 0.0], [1.0, 0.0], [0.6, 0.8]]])
    >>> dpp = Gains(np.array([0.5, 0.4, 0.2]), Cosines(vectors, 2), "dpp", strength=1.0, n_slots=2)
    >>> dpp.take(0)
    >>> dpp.value().round(3).tolist()
    [0.0, 0.0, 0.128]
    """

    def __init__(self, u: Doubles, cosines: Cosines | None, kind: str, *, strength: float, n_slots: int) -> None:
        self._u, self._strength, self._n_taken = u, strength, 0
        self._rows = None if cosines is None or kind == "none" or strength == 0.0 else cosines.rows_of_one()
        self._is_dpp = kind == "dpp"
        if self._is_dpp:
            self._left, self._factor = np.ones(len(u)), np.zeros((n_slots, len(u)))
        else:
            self._nearest, self._top = np.zeros(len(u)), u.max(initial=0.0)

    def value(self) -> Doubles:
        """Utility plus gain, at least zero, float64 [M]."""
        if self._n_taken == 0:
            return self._u
        if self._is_dpp:
            return self._u * self._left
        return np.asarray(np.maximum(self._u - self._strength * self._top * self._nearest, 0.0))

    def take(self, pick: int) -> None:
        """Append a candidate."""
        if self._rows is None:
            return
        row = self._rows(pick)
        if self._is_dpp:
            self._lengthen(self._strength * row, pick)
        else:
            np.maximum(self._nearest, row, out=self._nearest)
        self._n_taken += 1

    def fork(self) -> Gains:
        """The same so far; what is taken from now on is its own."""
        out = copy.copy(self)
        if self._is_dpp:
            out._left, out._factor = self._left.copy(), self._factor.copy()
        else:
            out._nearest = self._nearest.copy()
        return out

    def _lengthen(self, row: Doubles, pick: int) -> None:
        row[pick] = 1.0
        if self._n_taken:
            before = self._factor[: self._n_taken]
            row -= before[:, pick] @ before
        left = float(self._left[pick])
        row *= 1.0 / math.sqrt(left) if left > DEPENDENT else 0.0
        self._factor[self._n_taken] = row
        self._left -= row * row
        np.maximum(self._left, 0.0, out=self._left)


class Chance(NamedTuple):
    """What decides the slots of a slate that is drawn."""

    draws: list[float]
    """Of each slot, in [0, 1)."""
    trial: Bools | None = None
    """bool [M], candidates on trial."""
    noise: Doubles | None = None
    """float64 [1, R, M], for policies with worlds."""


class Filling:
    """A slate on its way from the first slot to the last. Lists hold what `Slates` says of its slots, in their order.

    Args:
        gains: of its candidates, nothing taken yet.
        barred: float64 [M], 0 for what may be drawn in a slot without a pin, else BARRED.
        pins: the candidate of each slot, MISSING for none.
        rules: settings.
        chance: None: the slate is greedy.
    """

    def __init__(
        self, gains: Gains, barred: Doubles, pins: list[int], rules: DrawRules, chance: Chance | None = None
    ) -> None:
        self._gains, self._barred, self._pins, self._rules, self._chance = gains, barred, pins, rules, chance
        self._policy = policy_of(rules.policy)
        self.column: list[int] = []
        self.propensity = [1.0] * rules.n_slots
        self.known = [int(Known.DETERMINISTIC)] * rules.n_slots
        self.explored = [False] * rules.n_slots
        self.value: list[float] = []
        self.best: list[float] = []
        self.expected_loss = [0.0] * rules.n_slots
        self.code = [1.0] * rules.n_slots
        self._passed = MISSING
        """The greedy candidate of the slot before, if it was passed over."""
        self.greedy: Filling | None = None
        """The greedy slate, from the slot on in which another candidate was drawn; None: there was none."""

    def fill(self) -> None:
        """The slots that are still to be filled."""
        for k in range(len(self.column), self._rules.n_slots):
            self._step(k)
        if self.greedy is not None:
            self.greedy.fill()

    def _step(self, k: int) -> None:
        value, pin = self._gains.value(), self._pins[k]
        masked = value + self._barred
        if pin == MISSING:
            pick = first = int(masked.argmax())
            best, filled = max(float(masked[first]), 0.0), masked[first] >= 0
        else:
            pick = first = pin
            best, filled = max(float(value[pin]), 0.0), True
        shown = best
        may = k >= self._rules.first_explorable and sum(self.explored) < self._rules.max_explored
        if filled and pin == MISSING and self._chance is not None and may:
            pick = self._draw(k, self._chance, masked, first)
            shown = float(value[pick])
            self.explored[k] = shown < best
            if pick != first and self.greedy is None:
                self.greedy = self._from_here(first, best)
        if self._chance is not None:
            self.code[k] = coded_one(self.code[k], passed=pick != first, moved=pick == first == self._passed)
            self._passed = MISSING if pick == first else first
        self._put(pick if filled else MISSING, shown, best, pick)

    def _put(self, column: int, value: float, best: float, taken: int) -> None:
        self.column.append(column)
        self.value.append(value)
        self.best.append(best)
        self._barred[taken] = BARRED
        if len(self.column) < self._rules.n_slots:
            self._gains.take(taken)

    def _draw(self, k: int, chance: Chance, masked: Doubles, first: int) -> int:
        best, p = max(float(masked[first]), 0.0), self._probabilities(chance, masked, first)
        reached = p.cumsum()
        # A draw is below one, so it is below the total: the first sum above it belongs to a positive probability.
        drawn = int(reached.searchsorted(chance.draws[k] * reached[-1], "right"))
        self.propensity[k], self.known[k] = float(p[drawn]), int(self._policy.known)
        self.code[k] = float(p[first])
        self.expected_loss[k] = max(best - float((p * masked).sum()), 0.0)
        return drawn

    def _probabilities(self, chance: Chance, masked: Doubles, first: int) -> Doubles:
        """Of each candidate; items on trial have their share of the budget, as in a batch."""
        free, budget = self._barred == 0, self._rules.budget
        waiting = free & chance.trial if chance.trial is not None else np.zeros(0, np.bool_)
        n_waiting = np.count_nonzero(waiting)
        share = TRIAL_SHARE * budget if n_waiting else 0.0
        rest = (budget - share) / (1.0 - share)
        if self._policy.alone is not None:
            p = self._policy.alone(masked, first, free, rest)
        else:
            worlds = None if chance.noise is None else masked + chance.noise
            p = self._policy.probabilities(Slot(masked[None], free[None], np.full(1, rest), worlds))[0]
        return (1.0 - share) * p + share * (waiting / n_waiting) if n_waiting else p

    def _from_here(self, first: int, best: float) -> Filling:
        """The greedy slate up to and with this slot."""
        out = Filling(self._gains.fork(), self._barred.copy(), self._pins, self._rules)
        out.column, out.value, out.best = list(self.column), list(self.value), list(self.best)
        out._put(first, best, best, first)
        return out

    def worth(self, utility: Doubles) -> Any:
        """Utility of the slate, of the candidates' [M]."""
        return utility[[k for k in self.column if k != MISSING]].sum()
