"""Training examples of one tick: features as of before the tick, targets of the tick, in micro-batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stream_rec.learn.batch import Positives
from stream_rec.learn.examples import ORDER_STAND_IN, Takes, lowest_hash, weight_of
from stream_rec.model import ranker
from stream_rec.model.features import Inputs

Rows = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

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

    def __len__(self) -> int:
        return len(self.pointer)


def wanted_visits(positives: Positives, takes: Takes, *, limit: int, seed: int, exponent: float) -> Wanted:
    """One example a visit that took something in this tick; orders without a user or session teach no ranker."""
    use = np.flatnonzero(takes.fresh & (positives.stand_in < ORDER_STAND_IN) & (positives.visit >= 0))
    visits, first, example = np.unique(positives.visit[use], return_index=True, return_inverse=True)
    kept = lowest_hash(visits, limit, seed + SEED_VISIT)
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
    )


def wanted_next(positives: Positives, takes: Takes, *, limit: int, seed: int, exponent: float) -> Wanted:
    """One example a first take that had something of its visit before it."""
    use = np.flatnonzero(takes.fresh & takes.inside & (positives.stand_in < ORDER_STAND_IN))
    use = use[lowest_hash(positives.event[use], limit, seed + SEED_NEXT)]
    return Wanted(
        ranker.CONTINUE,
        positives.before[use],
        positives.visit[use],
        positives.at_ms[use],
        use,
        np.arange(len(use)),
        positives.item[use],
        weight_of(positives, exponent)[use],
    )


@dataclass(frozen=True, slots=True)
class Examples:
    """A micro-batch, ready to train on."""

    task: int
    inputs: Inputs
    user: Ints
    column: Ints
    share: Floats
    weight: Floats
    """Weight of each user's loss, [B]."""


def examples(wanted: Wanted, x: Inputs, universe: Rows, *, low: int, high: int) -> Examples:
    """The examples `low` to `high` with their features `x`; targets outside the universe are left out."""
    column = np.minimum(np.searchsorted(universe, wanted.item), max(len(universe) - 1, 0))
    mine = (wanted.example >= low) & (wanted.example < high) & (universe[column] == wanted.item)
    user, column, weight = wanted.example[mine] - low, column[mine], wanted.weight[mine].astype(np.float64)
    total, n = np.bincount(user, weight, high - low), np.bincount(user, minlength=high - low)
    share = (weight / np.maximum(total, 1e-9)[user]).astype(np.float32)
    mean = total / np.maximum(n, 1)
    return Examples(wanted.task, x, user, column, share, mean.astype(np.float32))


def train(learner: ranker.Learner, batches: Iterator[Examples]) -> int:
    """One Adam step for each micro-batch and kind of user in it; returns the micro-batches used."""
    n_steps = 0
    for batch in batches:
        weights = learner.value[batch.task]
        gradient, _ = ranker.gradients(batch.inputs, weights, batch.user, batch.column, share=batch.share)
        has = batch.weight > 0
        for kind in range(len(ranker.KINDS)):
            rows = np.flatnonzero(has & (batch.inputs.known == bool(kind)))
            if len(rows):
                learner.step(batch.task, kind, batch.weight[rows].astype(np.float64) @ gradient[rows] / len(rows))
        n_steps += 1
    return n_steps
