"""A linear listwise ranker: a softmax over the catalogue of w . features, one w a task and kind of user.

The gradient is exact and by hand; Adam (Kingma & Ba 2015) steps the weights.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stream_rec.component import Component
from stream_rec.model.features import N_FEATURES, NAMES, OWN, SHARED, TOGETHER, Inputs

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

TASKS = ("visit", "continue")
VISIT, CONTINUE = 0, 1
KINDS = ("new", "known")

_START = {
    "popular_7d": 0.3,
    "in_visits": 0.1,
    "own_visits": 0.3,
    "in_last_visit": 0.3,
    "with_bought_before": 0.3,
    "after_bought_before": 0.1,
}
_CONTINUE_START = {
    "with_this_visit": 0.3,
    "near_last": 0.3,
    "text_near_last": 0.1,
    "text_near_cold": 0.3,
    "in_this_visit": -1.0,
}


def initial_weights() -> Floats:
    """Weights before any learning, float32 [tasks, kinds, features]: sensible signs, so that v0 already ranks."""
    out = np.zeros((len(TASKS), len(KINDS), N_FEATURES), np.float32)
    for name, value in _START.items():
        out[:, :, NAMES.index(name)] = value
    for name, value in _CONTINUE_START.items():
        out[CONTINUE, :, NAMES.index(name)] = value
    return out


class Weights(Component):
    """One parameter set of the ranker."""

    half = "learned"
    columns = ("value",)

    def __init__(self) -> None:
        self.value = initial_weights()
        """float32 [tasks, kinds, features]."""


class Learner(Component):
    """The parameter set that learns, with Adam's moments.

    Args:
        rate: step size.
    """

    half = "learned"
    columns = ("value", "mean", "square", "n_steps")
    fixed = ("rate",)

    def __init__(self, rate: float = 0.02) -> None:
        self.rate = rate
        self.value = initial_weights()
        self.mean = np.zeros(self.value.shape, np.float64)
        self.square = np.zeros(self.value.shape, np.float64)
        self.n_steps = np.zeros(self.value.shape[:2], np.int64)

    def step(self, task: int, kind: int, gradient: Doubles) -> None:
        """One Adam step of one weight vector; `gradient` is float64 [features]."""
        self.n_steps[task, kind] += 1
        n = int(self.n_steps[task, kind])
        mean, square = self.mean[task, kind], self.square[task, kind]
        mean += 0.1 * (gradient - mean)
        square += 0.001 * (gradient * gradient - square)
        unbiased = mean / (1.0 - 0.9**n), square / (1.0 - 0.999**n)
        self.value[task, kind] -= (self.rate * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)).astype(np.float32)

    def reset(self, value: Floats) -> None:
        """Start again from `value` with fresh moments."""
        self.value = value.copy()
        self.mean[:] = 0.0
        self.square[:] = 0.0
        self.n_steps[:] = 0


def score(x: Inputs, weights: Floats, task: Ints | None = None) -> Floats:
    """Logits, float32 [B, U]. Pure.

    Args:
        x: features.
        weights: one task's [kinds, features]; with `task` all tasks' [tasks, kinds, features].
        task: of each user, [B].
    """
    kind = x.known.astype(np.int64)
    if task is not None:
        kind, weights = task * len(KINDS) + kind, weights.reshape(-1, weights.shape[2])
    shared, own, together = _split(weights)
    out = (shared @ x.shared.T)[kind]
    for place, feature in enumerate(x.together):
        if feature is not None:
            out += feature * together[kind, place][:, None]
    out[x.owner, x.column] += (x.values * own[kind[x.owner]]).sum(axis=1)
    return out


def gradients(x: Inputs, logits: Floats, user: Ints, target: Ints, *, share: Floats) -> tuple[Doubles, Floats]:
    """Gradient of the listwise loss of each user.

    The loss of a user is minus the mean log-softmax of its targets.

    Args:
        x: features.
        logits: `score` of the features, with whatever else is added to it, [B, U]; overwritten.
        user: user of a target, [T].
        target: place of the target in the universe, [T].
        share: weight of a target; a user's sum to one, [T].

    Returns:
        float64 [B, features] gradients and float32 [B] losses.
    """
    logits -= logits.max(axis=1, keepdims=True)
    loss = np.zeros(len(logits), np.float32)
    chosen = logits[user, target]
    np.exp(logits, out=logits)
    total = logits.sum(axis=1, keepdims=True)
    np.subtract.at(loss, user, share * (chosen - np.log(total[user, 0])))
    logits /= total
    np.subtract.at(logits, (user, target), share)
    parts = [logits @ x.shared, np.zeros((len(logits), len(OWN)), np.float32)]
    np.add.at(parts[1], x.owner, x.values * logits[x.owner, x.column][:, None])
    nothing = np.zeros((len(logits), 1), np.float32)
    parts += [nothing if f is None else np.einsum("bu,bu->b", logits, f)[:, None] for f in x.together]
    return np.concatenate(parts, axis=1).astype(np.float64), loss


def _split(weights: Floats) -> tuple[Floats, Floats, Floats]:
    a, b = len(SHARED), len(SHARED) + len(OWN)
    assert weights.shape[1] == b + len(TOGETHER)
    return weights[:, :a], weights[:, a:b], weights[:, b:]
