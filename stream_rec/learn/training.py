"""Training examples of one tick: features as of before the tick, targets of the tick, in micro-batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from stream_rec.learn.batch import Positives
from stream_rec.learn.examples import ORDER_STAND_IN, Takes, lowest_hash, weight_of
from stream_rec.model import ranker
from stream_rec.model.features import Inputs, Profiles
from stream_rec.model.micro_batch import Examples, Rivals
from stream_rec.stream.sampling import hash_one

if TYPE_CHECKING:
    from stream_rec.learn.versions import Versions
    from stream_rec.model.two_tower import TwoTower

Rows = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

SEED_VISIT, SEED_NEXT = 11, 12


@dataclass(frozen=True, slots=True)
class Wanted:
    """Examples of a task before their features are read: one a user and moment, with its targets."""

    task: int
    pointer: Ints
    """History as of the example, [E]."""
    visit: Ints
    """Open visit, [E]; for the `visit` task nothing of it is in the history yet."""
    now_ms: Ints
    row: Ints
    """A positive of the example, [E]."""
    example: Ints
    """Example of each target, [T]."""
    item: Rows
    weight: Floats
    """[T]."""
    draw: int
    """Seed of the negatives, where the catalogue is too large to be compared with whole."""

    def __len__(self) -> int:
        return len(self.pointer)


class Quota(NamedTuple):
    """How many examples a tick may have: one in `one_in`, were there never more than `most`."""

    most: int
    one_in: int = 1

    def of(self, n: int) -> int:
        """Of `n` examples so many stay.

        >>> Quota(8).of(10), Quota(8, 4).of(10), Quota(8, 4).of(3)
        (8, 2, 1)
        """
        return -(-min(n, self.most) // self.one_in)


def wanted_visits(
    positives: Positives, takes: Takes, *, quota: Quota, seed: int, exponent: float, tick: int = 0
) -> Wanted:
    """One example a visit that took something in this tick; orders without a user or session teach no ranker."""
    use = np.flatnonzero(takes.fresh & (positives.stand_in < ORDER_STAND_IN) & (positives.visit >= 0))
    visits, first, example = np.unique(positives.visit[use], return_index=True, return_inverse=True)
    kept = lowest_hash(visits, quota.of(len(visits)), seed + SEED_VISIT)
    place = np.full(len(visits), -1, np.int64)
    place[kept] = np.arange(len(kept))
    target = np.flatnonzero(place[example] >= 0)
    rows = use[first[kept]]
    return Wanted(
        ranker.VISIT,
        positives.visit_before[rows],
        positives.visit[rows],
        positives.at_ms[rows],
        rows,
        place[example][target],
        positives.item[use[target]],
        weight_of(positives, exponent)[use[target]],
        hash_one(seed, SEED_VISIT, tick),
    )


def wanted_next(
    positives: Positives, takes: Takes, *, quota: Quota, seed: int, exponent: float, tick: int = 0
) -> Wanted:
    """One example a first take that had something of its visit before it."""
    use = np.flatnonzero(takes.fresh & takes.inside & (positives.stand_in < ORDER_STAND_IN))
    use = use[lowest_hash(positives.event[use], quota.of(len(use)), seed + SEED_NEXT)]
    return Wanted(
        ranker.CONTINUE,
        positives.before[use],
        positives.visit[use],
        positives.at_ms[use],
        use,
        np.arange(len(use)),
        positives.item[use],
        weight_of(positives, exponent)[use],
        hash_one(seed, SEED_NEXT, tick),
    )


def examples(wanted: Wanted, x: Inputs, rivals: Rivals, *, low: int, high: int, rows: Profiles) -> Examples:
    """The examples `low` to `high` with their features `x`; targets outside the universe are left out."""
    universe = rivals.universe
    column = np.minimum(np.searchsorted(universe, wanted.item), max(len(universe) - 1, 0))
    mine = (wanted.example >= low) & (wanted.example < high) & (universe[column] == wanted.item)
    user, column, weight = wanted.example[mine] - low, column[mine], wanted.weight[mine].astype(np.float64)
    total, n = np.bincount(user, weight, high - low), np.bincount(user, minlength=high - low)
    share = (weight / np.maximum(total, 1e-9)[user]).astype(np.float32)
    mean = total / np.maximum(n, 1)
    return Examples(wanted.task, x, rows, rivals, user, column, share, mean.astype(np.float32))


def train(
    versions: Versions,
    batches: Sequence[Examples],
    tower: TwoTower | None,
    popularity: Doubles,
    *,
    replayed: Sequence[Examples] = (),
) -> list[float]:
    """One Adam step of the ranker for each micro-batch and kind of user in it, then the tower from all of them.

    Ranker and tower learn one softmax over the sum of their logits; the tower sees the ranker as it was at each step.

    Args:
        versions: the parameter sets.
        batches: examples.
        tower: the text tower; None: there is none.
        popularity: decayed counts of the item rows.
        replayed: earlier examples; the tower learns from them too, beside a ranker that holds still.

    Returns:
        The mean loss of each micro-batch before it was learned, in nats an example with targets.
    """
    base, losses = [], []
    for batch in batches:
        ranked = batch.rivals.corrected(ranker.score(batch.inputs, versions.learner.value[batch.task]))
        if tower is not None:
            base.append(ranked.copy())
            linear = versions.linear
            if linear is not None:
                _step(linear, batch, batch.rivals.corrected(ranker.score(batch.inputs, linear.value[batch.task])))
            tasks = np.full(batch.rows.n_users, batch.task, np.int64)
            ranked += tower.logits("learner", batch.rows, tasks, batch.rivals.universe)
        losses.append(_step(versions.learner, batch, ranked))
    if tower is not None:
        beside = [b.rivals.corrected(ranker.score(b.inputs, versions.learner.value[b.task])) for b in replayed]
        tower.train(batches, base, popularity, replayed=(replayed, beside))
    return losses


def _step(learner: ranker.Learner, batch: Examples, logits: Floats) -> float:
    gradient, loss = ranker.gradients(batch.inputs, logits, batch.user, batch.column, share=batch.share)
    has = batch.weight > 0
    for kind in range(len(ranker.KINDS)):
        rows = np.flatnonzero(has & (batch.inputs.known == bool(kind)))
        if len(rows):
            learner.step(batch.task, kind, batch.weight[rows].astype(np.float64) @ gradient[rows] / len(rows))
    return float(loss[has].mean()) if has.any() else math.nan
