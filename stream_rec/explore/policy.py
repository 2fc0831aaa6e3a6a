"""Policies: from the values of a slot's candidates to the probability of each, and how that probability is known.

All work on B slots at once, one a row. The knob of each is the budget b: the share of the slot's best value m that it
may lose in expectation. For a policy that `is_bounded`, sum(p * (m - value)) <= b * m is proven for any values:

- `igw`, inverse-gap weighting (Abe & Long, ICML 1999; Foster & Rakhlin, ICML 2020): p = 1 / (K + gamma * gap), the best
  takes the rest. Each gap * p is below 1 / gamma, so gamma = (K - 1) / (b m) keeps the bound. No p is below
  b / ((1 + b) K).
- `epsilon`: a uniform draw with chance b; a uniform draw loses at most m.
- `softmax`: half of b for a temperature of b m / (2 log K), which loses at most temperature * log K (the gap between
  the maximum and its smoothed form), the other half for uniform draws, so that no p underflows.

Candidates that tie for the best share their probability equally. Values are at least zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_rec.errors import SettingsError

Doubles = NDArray[np.float64]
Bools = NDArray[np.bool_]

TRIAL_SHARE = 0.5
"""Share of the budget that is for items on trial, in slots that have some."""


class Known(IntEnum):
    """How the propensity of a slot is known."""

    DETERMINISTIC = 0
    CLOSED_FORM = 1
    ESTIMATED = 2
    """The policy's own probability is estimated by simulation. The slot is drawn from the estimate, so the frequency of
    draws is the stated propensity all the same."""


WORDS = {Known.DETERMINISTIC: "deterministic", Known.CLOSED_FORM: "closed form", Known.ESTIMATED: "estimated"}


@dataclass(frozen=True, slots=True)
class Slot:
    """One slot of each of B slates."""

    value: Doubles
    """float64 [B, M], finite, at least zero where free."""
    free: Bools
    """bool [B, M]: the candidates that may be drawn."""
    budget: Doubles
    """float64 [B], each in (0, 1]."""
    worlds: Doubles | None = None
    """float64 [B, R, M]: the values in R draws from what is believed; for policies with `n_worlds`."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A named rule. `probabilities` gives float64 [B, M]: zero where not free, else the row sums to one."""

    name: str
    known: Known
    is_bounded: bool
    rule: Callable[[Slot], Doubles]
    n_worlds: int = 0
    alone: Callable[[Doubles, int, Bools, float], Doubles] | None = None
    """The rule for one slate, where that is worth having: values [M] (less where not free), the best of them, free [M]
    and budget to probabilities [M]."""

    def probabilities(self, slot: Slot) -> Doubles:
        """Probability of each candidate; rows without a free one are zero."""
        return self.rule(slot)


def one_slot(values: Any, budget: float = 0.02, worlds: Any = None) -> Slot:
    """A single slot whose candidates are all free."""
    value = np.atleast_2d(np.asarray(values, np.float64))
    drawn = None if worlds is None else np.asarray(worlds, np.float64)[None]
    return Slot(value, np.ones(value.shape, np.bool_), np.full(len(value), float(budget)), drawn)


def igw(slot: Slot) -> Doubles:
    """Inverse-gap weighting.

    Three candidates, b = 0.5, m = 0.4: gamma = 2 / 0.2 = 10, so gaps of 0.1 and 0.2 give 1/4 and 1/5.

    >>> igw(one_slot([0.4, 0.3, 0.2], 0.5)).round(6).tolist()
    [[0.55, 0.25, 0.2]]
    >>> igw(one_slot([0.4, 0.4, 0.2], 0.5)).round(6).tolist()
    [[0.4, 0.4, 0.2]]
    >>> igw(one_slot([0.0, 0.0], 0.02)).tolist()
    [[0.5, 0.5]]
    """
    gap, share = _gaps(slot)
    n = np.maximum(slot.free.sum(1, keepdims=True), 1)
    # gamma * gap, with the best value divided out: it may be zero or tiny.
    out = slot.free / (n + (n - 1) / slot.budget[:, None] * share)
    return _rest_to_the_best(out, slot.free & (gap == 0))


def igw_alone(masked: Doubles, first: int, free: Bools, budget: float) -> Doubles:
    """`igw` of one slot of one slate.

    >>> igw_alone(np.array([0.4, 0.3, 0.2, -1.5]), 0, np.array([True, True, True, False]), 0.5).round(6).tolist()
    [0.55, 0.25, 0.2, 0.0]
    """
    m, n = float(masked[first]), np.count_nonzero(free)
    gap = m - masked
    out = free / (n + (n - 1) / budget * (gap / (m if m > 0 else 1.0)))
    n_tied = len(gap) - np.count_nonzero(gap)
    tied = first if n_tied == 1 else np.flatnonzero(gap == 0)
    out[tied] = 0.0
    out[tied] = (1.0 - out.sum()) / n_tied
    return np.asarray(out)


def greedy(slot: Slot) -> Doubles:
    """All on the best; of equals on the first, for candidates come in the order of the joint score.

    >>> greedy(one_slot([0.1, 0.3, 0.3])).tolist()
    [[0.0, 1.0, 0.0]]
    """
    out = np.zeros(slot.value.shape)
    has = slot.free.any(1)
    out[np.flatnonzero(has), np.where(slot.free, slot.value, -np.inf).argmax(1)[has]] = 1.0
    return out


def epsilon(slot: Slot) -> Doubles:
    """The best, but with chance b any candidate.

    >>> epsilon(one_slot([0.3, 0.2, 0.1, 0.0], 0.2)).round(6).tolist()
    [[0.85, 0.05, 0.05, 0.05]]
    """
    gap, _ = _gaps(slot)
    out = slot.budget[:, None] * uniform(slot)
    return _rest_to_the_best(out, slot.free & (gap == 0))


def softmax(slot: Slot) -> Doubles:
    """Exponential weights of the values.

    K = 2, b = 1, m = 1: temperature 1 / (2 log 2), so a gap of 0.5 weighs 1/2; half of it is uniform.

    >>> softmax(one_slot([1.0, 0.5], 1.0)).round(6).tolist()
    [[0.583333, 0.416667]]
    """
    _, share = _gaps(slot)
    n = slot.free.sum(1, keepdims=True)
    half = slot.budget[:, None] / 2
    weight = np.where(slot.free, np.exp(-share * np.log(np.maximum(n, 1)) / half), 0.0)
    total = weight.sum(1, keepdims=True)
    return (1 - half) * weight / np.where(total > 0, total, 1.0) + half * uniform(slot)


def thompson(slot: Slot) -> Doubles:
    """How often each candidate is the best in the drawn worlds, but with chance b any candidate (Thompson 1933).

    >>> thompson(one_slot([0.3, 0.2], 0.2, [[0.3, 0.1], [0.2, 0.4], [0.5, 0.1], [0.6, 0.0]])).round(6).tolist()
    [[0.7, 0.3]]
    """
    if slot.worlds is None:
        raise ValueError("thompson needs drawn worlds")
    best = np.where(slot.free[:, None, :], slot.worlds, -np.inf).argmax(2)
    n_candidates = slot.value.shape[1]
    place = best + n_candidates * np.arange(len(best))[:, None]
    often = np.bincount(place.ravel(), minlength=slot.value.size).reshape(slot.value.shape) / best.shape[1]
    b = slot.budget[:, None]
    return np.where(slot.free, (1 - b) * often + b * uniform(slot), 0.0)


def uniform(slot: Slot) -> Doubles:
    """Every candidate alike.

    >>> uniform(one_slot([0.9, 0.1])).tolist()
    [[0.5, 0.5]]
    """
    return np.asarray(slot.free / np.maximum(slot.free.sum(1, keepdims=True), 1))


POLICIES = {
    policy.name: policy
    for policy in (
        Policy("igw", Known.CLOSED_FORM, True, igw, alone=igw_alone),
        Policy("greedy", Known.DETERMINISTIC, True, greedy),
        Policy("epsilon", Known.CLOSED_FORM, True, epsilon),
        Policy("softmax", Known.CLOSED_FORM, True, softmax),
        Policy("thompson", Known.ESTIMATED, False, thompson, n_worlds=64),
        Policy("uniform", Known.CLOSED_FORM, False, uniform),
    )
}


def policy_of(name: str) -> Policy:
    """The policy of that name.

    Raises:
        SettingsError: there is none.
    """
    if name not in POLICIES:
        raise SettingsError(f"explore.policy: {name!r} is none of {', '.join(POLICIES)}")
    return POLICIES[name]


def _gaps(slot: Slot) -> tuple[Doubles, Doubles]:
    """Gap to the best value, and gap as a share of it, float64 [B, M]; zero where not free."""
    held = slot.value * slot.free
    m = held.max(1, keepdims=True, initial=0.0)
    gap = (m - held) * slot.free
    return gap, gap / np.where(m > 0, m, 1.0)


def _rest_to_the_best(out: Doubles, tied: Bools) -> Doubles:
    """What the others leave, shared by those that tie for the best."""
    out = out * ~tied
    rest = (1.0 - out.sum(1, keepdims=True)) / np.maximum(tied.sum(1, keepdims=True), 1)
    return np.asarray(out + tied * rest)
