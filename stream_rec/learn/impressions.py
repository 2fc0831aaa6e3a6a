"""Shown slots as examples of the heads: predicted, then trained, each once and under the correction in force.

An impression that names its decision makes each slot that its slate had an example. After the click wait it is
predicted by champion and learner and then trained: with a click or a purchase as a positive, else as a negative. A
positive that comes later is put in again, once; see `stream_rec.learn.delayed`. When the purchase wait has closed the
prediction is held against the final label. What was evicted before a wait closed is not handed out here: the joiner
counts it (`evicted_waiting`, `evicted_open`) and it never stands for a negative. Slots on whose item the user acted
without naming the decision are left out, since nothing can be said of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stream_rec.component import Component
from stream_rec.learn.delayed import Delayed, weights
from stream_rec.learn.head_metrics import HeadMetrics
from stream_rec.model import heads
from stream_rec.model.heads import CLICK, HEADS, PURCHASE, Example, HeadSets, LateLearner
from stream_rec.stream.exposures import BOUGHT, CLICKED, LATE, Exposed, positives, unclear
from stream_rec.stream.joins import Matured
from stream_rec.stream.sampling import hash64, thin

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

BITS = (CLICKED, BOUGHT)
"""Label bit of each of HEADS."""
STEP = 256
"""Examples of one step."""
TOP = 5
"""Positions that are always looked at closely: fewer of their negatives are thinned."""
TOP_SHARE = 2.0
SEED = 13
NUDGE = 1e-3
"""Change of a logit by which the slope of the weights is found."""
POPULAR = heads.SCORED.index("popular_7d")
WAITED, FINAL, SECOND = range(3)
"""Stages at which an example enters: after the short wait, when its label is final, as a positive for a second time."""


@dataclass(frozen=True, slots=True)
class HeadPlan:
    """How the heads learn, and what an impression is worth."""

    delayed: Delayed = Delayed.NAIVE
    kept: float = 0.5
    """Share of the negatives that are trained; of the top positions and of items nobody takes, more."""
    max_steps: int = 16
    """Steps of STEP examples a tick and head; when more come, more negatives are thinned."""
    utility: tuple[float, float] = (0.2, 0.8)
    """Weight of each of HEADS; in all at most 1."""
    capacity: int = 200_000
    """Exposures that may wait, as in the joiner."""
    n_slots: int = 20
    seed: int = 0


class Predictions(Component):
    """Logits of purchases as they were predicted, by exposure row, until the label is final.

    Columns: `serial` int64, of the exposure; `logit` float16 [n_slots, 2], of champion and learner.
    """

    half = "learned"
    columns = ("serial", "logit")
    scalars = ("n_rows",)
    fixed = ("capacity",)

    def __init__(self, capacity: int, n_slots: int) -> None:
        self.capacity, self.n_rows = capacity, 0
        self.serial = np.zeros(capacity, np.int64)
        self.logit = np.zeros((capacity, n_slots, 2), np.float16)

    def used(self) -> int:
        """Rows up to the highest one written."""
        return self.n_rows

    def keep(self, of: Exposed, logit: Doubles) -> None:
        """Keep predictions [M, n_slots, 2]."""
        if len(of.row):
            self.n_rows = max(self.n_rows, int(of.row.max()) + 1)
            self.serial[of.row], self.logit[of.row] = of.serial, logit

    def take(self, of: Exposed) -> tuple[Doubles, Mask]:
        """Predictions [M, n_slots, 2] and which exposures have any [M]; they are gone afterwards."""
        there = self.serial[of.row] == of.serial
        logit = self.logit[of.row].astype(np.float64)
        mine = of.row[there]
        self.serial[mine], self.logit[mine] = 0, 0.0
        return logit, there


class HeadCounts(Component):
    """What became of the examples."""

    half = "learned"
    scalars = ("n",)

    def __init__(self) -> None:
        self.n = dict.fromkeys(("tested", "trained", "thinned", "reinserted", "unscored", "unclear"), 0)


class Entry(NamedTuple):
    """Examples that enter training at one stage, as columns [n]."""

    x: Doubles
    label: Mask
    key: Ints
    """Names the example: a hash of exposure, item, head and stage."""
    stratum: Ints
    """1 for top positions and for items that nobody took in the last seven days, else 0."""


class Impressions:
    """See the module docstring.

    Args:
        sets: the parameter sets of the heads.
        plan: settings.
    """

    def __init__(self, sets: HeadSets, plan: HeadPlan | None = None) -> None:
        self.sets, self.plan = sets, plan or HeadPlan()
        self.late, self.metrics, self.counts = LateLearner(), HeadMetrics(), HeadCounts()
        self.tested = Predictions(self.plan.capacity, self.plan.n_slots)
        self._shown: Matured | None = None
        self._share = 1.0

    def components(self) -> dict[str, Component]:
        """Everything that is state, by name; the parameter sets are with the versions."""
        return {
            "late_learner": self.late,
            "head_metrics": self.metrics,
            "head_counts": self.counts,
            "head_tested": self.tested,
        }

    def worth(self, scored: npt.NDArray[np.float16]) -> Doubles:
        """Expected utility of each slot of slates under the champion, in [0, 1]; 0 where there is no item. Pure.

        Args:
            scored: as of `heads.SCORED`, UNSAID where there is no item, [B, K, N_SCORED].

        Returns:
            Float64 [B, K].
        """
        there = np.isfinite(scored).all(axis=2)
        out = np.zeros(there.shape)
        out[there] = self.expected(scored[there], np.nonzero(there)[1])
        return out

    def expected(self, scored: npt.NDArray[np.float16], position: npt.NDArray[np.integer]) -> Doubles:
        """Expected utility u = sum over the event types of weight x P(type | impression), float64 [n]. Pure.

        Args:
            scored: as of `heads.SCORED`, all finite, [n, N_SCORED].
            position: 0-based, [n].
        """
        each = (w * self.chance(head, scored, position) for head, w in enumerate(self.plan.utility))
        return sum(each, np.zeros(len(scored)))

    def chance(self, head: int, scored: npt.NDArray[np.float16], position: npt.NDArray[np.integer]) -> Doubles:
        """P(event | impression) as one of HEADS has it; arguments and shape as of `expected`. Pure."""
        value = self.sets.champion.value[head]
        return heads.sigmoid(heads.logits(heads.design(scored, position), value))

    # ---- test

    def test(self, shown: Matured | None, share: float = 1.0) -> None:
        """Predict what has waited, before it is learned, and hold predictions against labels that are final.

        Args:
            shown: impressions whose waits have closed; None: there are none.
            share: of the quota of training that this tick may take.
        """
        self._shown, self._share = shown, share
        if shown is None:
            return
        waited, counts = shown.click, self.counts.n
        there = scored_slots(waited)
        counts["unscored"] += int(np.count_nonzero((waited.items >= 0) & ~there))
        x = heads.design(waited.scored[there], waited.positions[there])
        kept = np.zeros((*there.shape, 2))
        for head in (CLICK, PURCHASE):
            values = (self.sets.champion.value[head], self.sets.learner.value[head])
            logit = np.stack([heads.logits(x, value) for value in values], axis=1)
            if head == PURCHASE:
                kept[there] = logit
                continue
            clear = (unclear(waited.labels) & CLICKED == 0)[there]
            counts["unclear"] += int(np.count_nonzero(~clear))
            self.metrics.add(CLICK, logit[clear], (positives(waited.labels) & CLICKED > 0)[there][clear])
        counts["tested"] += len(x)
        self.tested.keep(waited, kept)
        self._close(shown.purchase)

    def _close(self, closed: Exposed) -> None:
        logit, known = self.tested.take(closed)
        use = scored_slots(closed) & known[:, None] & (unclear(closed.labels) & BOUGHT == 0)
        self.metrics.add(PURCHASE, logit[use], (positives(closed.labels) & BOUGHT > 0)[use])

    # ---- train

    def train(self, *, braking: bool = False) -> None:
        """Learn from what has waited, what was late and what is final, each head in steps of at most STEP examples.

        Comes after `test`. While the brake is on nothing is learned.
        """
        shown, self._shown = self._shown, None
        if shown is None or braking:
            return
        limit = max(STEP, int(self.plan.max_steps * STEP * self._share))
        for head in (CLICK, PURCHASE):
            parts = list(self._entries(head, shown))
            entries = Entry(*(np.concatenate(column) for column in zip(*parts, strict=True)))
            kept, offset = self._thin(entries, limit)
            # Positives come in one block: spread over the steps they do not pull back and forth.
            order = kept[np.argsort(hash64(self.plan.seed + SEED, entries.key[kept]), kind="stable")]
            for low in range(0, len(order), STEP):
                some = order[low : low + STEP]
                self._step(head, heads.plain(entries.x[some], entries.label[some], offset[some]))
            self.counts.n["trained"] += len(order)
            self.counts.n["thinned"] += len(entries.x) - len(order)
        self._learn_lateness(shown.purchase)

    def _entries(self, head: int, shown: Matured) -> Iterator[Entry]:
        """What enters the training of a head."""
        how, bit, late = self._how(head), BITS[head], shown.late
        yield self._entry(shown.click, head, WAITED, never=how is Delayed.FAKE_NEGATIVE_WEIGHTED)
        if how is Delayed.FAKE_NEGATIVE_WEIGHTED:
            yield self._entry(shown.click, head, SECOND, only=positives(shown.click.labels) & bit > 0)
        new = positives(late.labels) & ~late.told & bit > 0
        self.counts.n["reinserted"] += int(np.count_nonzero(new & scored_slots(late)))
        yield self._entry(late, head, SECOND, only=new)
        if how is Delayed.REAL_NEGATIVE:
            yield self._entry(shown.purchase, head, FINAL, only=shown.purchase.told & (bit << LATE) == 0)

    def _entry(self, of: Exposed, head: int, stage: int, *, only: Mask | None = None, never: bool = False) -> Entry:
        """Slots that can be learned from, of these `only` some; `never`: all as negatives."""
        bit = BITS[head]
        use = scored_slots(of) & (unclear(of.labels) & bit == 0)
        if only is not None:
            use &= only
        row = np.nonzero(use)[0]
        key = hash64(self.plan.seed, of.serial[row], of.items[use], 3 * head + stage).view(np.int64)
        label = (positives(of.labels) & bit > 0)[use] & (not never)
        scored, position = of.scored[use], of.positions[use]
        stratum = ((position < TOP) | (scored[:, POPULAR] == 0.0)).astype(np.int64)
        return Entry(heads.design(scored, position), label, key, stratum)

    def _thin(self, entries: Entry, limit: int) -> tuple[Ints, Doubles]:
        """Which examples stay, and every example's logit offset; all positives stay."""
        share = np.array([self.plan.kept, min(1.0, TOP_SHARE * self.plan.kept)])
        expected = float(share[entries.stratum[~entries.label]].sum())
        room = max(limit - int(entries.label.sum()), STEP)
        share *= min(1.0, room / max(expected, 1.0))
        thinned = thin(entries.label, entries.stratum, share, entries.key, seed=self.plan.seed + SEED)
        return np.flatnonzero(thinned.kept), thinned.logit_offset

    def _step(self, head: int, batch: Example) -> None:
        logit = heads.logits(batch.x, self.sets.learner.value[head])
        late = heads.sigmoid(heads.logits(batch.x, self.late.value[0]))
        weight, below, above = (
            weights(self._how(head), batch.label, heads.sigmoid(logit + by), late) for by in (0.0, -NUDGE, NUDGE)
        )
        self.sets.learner.learn(head, batch._replace(weight=weight, slope=(above - below) / (2 * NUDGE)))

    def _how(self, head: int) -> Delayed:
        """The correction in force; the wait for clicks is the short wait, so none of them is late."""
        return Delayed.NAIVE if head == CLICK else self.plan.delayed

    def _learn_lateness(self, closed: Exposed) -> None:
        bought = scored_slots(closed) & (closed.told & BOUGHT > 0)
        x = heads.design(closed.scored[bought], closed.positions[bought])
        label = (closed.told & (BOUGHT << LATE) > 0)[bought]
        if len(x):
            self.late.learn(0, heads.plain(x, label))


def scored_slots(of: Exposed) -> Mask:
    """Slots that hold an item which their slate had, [M, n_slots]."""
    return np.asarray((of.items >= 0) & (of.positions >= 0) & np.isfinite(of.scored).all(axis=2))


assert len(BITS) == len(HEADS)
