"""The heads: P(click | impression) and P(purchase | impression) of a shown slot, from what it was scored with.

A head is logistic in a few features, each less a fixed centre and over a fixed spread: an affine map that the weights
absorb, where a running one would change what a version's weights mean. It learns by an online Newton step with
forgetting: curvature H = g H + (1 - g) I + sum of c x x', weights -= H^-1 sum of w (q - y) x (Fisher scoring, a step a
micro-batch, as in Murphy 2012, 8.3; g halves the past every HALF_LIFE examples). c = w q (1 - q) + w' (q - y) is how
fast the pull w (q - y) of an example changes with its logit; w' is not zero where weights are made from the estimate
itself, and left out it would make the head learn ever more slowly than the mean of what it saw. No step size: the
constant follows the rate of what was shown, so probabilities are calibrated on the whole from the first batches on.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stream_rec.component import Component
from stream_rec.stream.decisions import N_SCORED

Doubles = npt.NDArray[np.float64]
Halves = npt.NDArray[np.float16]
Ints = npt.NDArray[np.int64]

HEADS = ("click", "purchase")
CLICK, PURCHASE = 0, 1
SCORED = ("log_share", "logit", "popular_7d", "own_visits")
"""Kept of each slot when it is published: log of the item's share in a softmax of the joint logits over what could be
shown; the joint logit; log(1 + times taken in 7 days); log(1 + 10 x own visits with it)."""
assert len(SCORED) == N_SCORED
NAMES = (*SCORED, "position", "first", "constant")
"""`position`: log(1 + position), so that its weight is the slope of a power law of examination; `first`: top slot."""
_CENTRE = np.array([-6.0, 0.0, 2.0, 0.0, 1.5, 0.0, 0.0])
_SPREAD = np.array([3.0, 5.0, 2.0, 2.0, 1.0, 1.0, 1.0])
_START = {"click": {"log_share": 0.5, "position": -0.5, "constant": -3.0}, "purchase": {"constant": -6.0}}
_START["purchase"] |= {"log_share": 0.5, "position": -0.5}
HALF_LIFE = 50_000
"""Examples after which what was learned counts half."""
MAX_STEP = 1.0
"""Largest change of a logit in one step."""
TINY = 1e-12


class Example(NamedTuple):
    """Examples of a head, as columns [n]."""

    x: Doubles
    """[n, NAMES], as of `design`."""
    label: npt.NDArray[np.bool_]
    weight: Doubles
    offset: Doubles
    """Added to the logit in training: minus the log of the share of negatives kept."""
    slope: Doubles
    """How the weight changes with the logit."""


def plain(x: Doubles, label: npt.NDArray[np.bool_], offset: Doubles | None = None) -> Example:
    """Examples that all weigh one."""
    nothing = np.zeros(len(x))
    return Example(x, label, np.ones(len(x)), nothing if offset is None else offset, nothing)


def initial() -> Doubles:
    """Weights before any learning, float64 [HEADS, NAMES]: few click, fewer buy, less so further down."""
    return np.array([[_START[head].get(name, 0.0) for name in NAMES] for head in HEADS])


def design(scored: Halves, position: npt.NDArray[np.integer]) -> Doubles:
    """Features of shown slots.

    Args:
        scored: as of SCORED, all finite, [n, N_SCORED].
        position: 0-based, [n].

    Returns:
        Float64 [n, NAMES].

    >>> design(np.zeros((1, N_SCORED), np.float16), np.array([0])).tolist()
    [[2.0, 0.0, -1.0, 0.0, -1.5, 1.0, 1.0]]
    """
    own = np.stack([np.log1p(position), position == 0, np.ones(len(position))], axis=1)
    return np.asarray((np.concatenate([scored.astype(np.float64), own], axis=1) - _CENTRE) / _SPREAD)


def logits(x: Doubles, value: Doubles) -> Doubles:
    """Logits [n] of one head with weights [NAMES]. Pure; a row's bits do not depend on the others."""
    out = np.zeros(len(x))
    for i in range(len(NAMES)):
        out += value[i] * x[:, i]
    return out


def sigmoid(logit: Doubles) -> Doubles:
    """Probabilities of logits; far ones stay within (0, 1).

    >>> sigmoid(np.array([0.0, -1000.0])).round(3).tolist()
    [0.5, 0.0]
    """
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logit, -30.0, 30.0))))


class HeadWeights(Component):
    """One parameter set of the heads."""

    half = "learned"
    columns = ("value",)

    def __init__(self) -> None:
        self.value = initial()
        """float64 [HEADS, NAMES]."""


class HeadLearner(Component):
    """The parameter set that learns, and how sure it is.

    Columns, float64: `value` [HEADS, NAMES]; `curvature` [HEADS, NAMES, NAMES].
    """

    half = "learned"
    columns = ("value", "curvature")

    def __init__(self, value: Doubles | None = None) -> None:
        self.value = initial() if value is None else value
        self.curvature = _unsure(len(self.value))

    def learn(self, head: int, batch: Example) -> None:
        """One step of one head; rows with a feature that is no number are left out."""
        whole = np.isfinite(batch.x).all(axis=1)
        if not whole.any():
            return
        x, label, weight = batch.x[whole], batch.label[whole], batch.weight[whole]
        q = sigmoid(logits(x, self.value[head]) + batch.offset[whole])
        bend = weight * q * (1.0 - q) + batch.slope[whole] * (q - label)
        stays = 0.5 ** (len(x) / HALF_LIFE)
        curvature = stays * self.curvature[head] + (1.0 - stays) * np.eye(len(NAMES))
        curvature += np.einsum("n,nf,ng->fg", np.maximum(bend, TINY), x, x)
        step = np.linalg.solve(curvature, np.einsum("n,nf->f", weight * (q - label), x))
        far = float(np.abs(logits(x, step)).max())
        self.curvature[head] = curvature
        self.value[head] -= step * min(1.0, MAX_STEP / max(far, TINY))

    def reset(self, value: Doubles) -> None:
        """Start again from `value`, unsure of it."""
        self.value = value.copy()
        self.curvature = _unsure(len(value))


class LateLearner(HeadLearner):
    """P(late | purchase, impression): which purchases come after the short wait. Not part of a version."""

    def __init__(self) -> None:
        super().__init__(np.zeros((1, len(NAMES))))


class HeadSets:
    """The parameter sets of the heads: they are cut, promoted and called back with the ranker's."""

    def __init__(self) -> None:
        self.learner = HeadLearner()
        self.challenger, self.champion, self.previous = HeadWeights(), HeadWeights(), HeadWeights()

    def tensors(self, which: str) -> dict[str, Doubles]:
        """What the weight file of the `champion` or the `challenger` holds."""
        weights = self.champion if which == "champion" else self.challenger
        return {f"head.{name}": weights.value[head].copy() for head, name in enumerate(HEADS)}

    def cut(self) -> None:
        """Freeze the learner as the challenger."""
        self.challenger.value = self.learner.value.copy()

    def promote(self) -> None:
        """Let the challenger serve."""
        self.previous.value = self.champion.value.copy()
        self.champion.value = self.challenger.value.copy()

    def restore_previous(self) -> None:
        """Let the champion before this one serve again."""
        self.champion.value = self.previous.value.copy()

    def reset(self) -> None:
        """Let the learner start again from the champion."""
        self.learner.reset(self.champion.value)

    def components(self) -> dict[str, Component]:
        """Everything that is state, by name."""
        return {
            "head_learner": self.learner,
            "head_challenger": self.challenger,
            "head_champion": self.champion,
            "head_previous": self.previous,
        }


def _unsure(n_heads: int) -> Doubles:
    return np.tile(np.eye(len(NAMES)), (n_heads, 1, 1))
