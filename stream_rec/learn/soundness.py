"""Hard checks of a challenger, before any comparison: finite, not collapsed, calibrated.

What fails here is no matter of taste: such a challenger does not serve.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stream_rec.learn.head_metrics import Calibration

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a challenger counts as broken."""

    min_relative_spread: float = 0.1
    """Spread of the text embeddings, as a share of the frozen encoder's."""
    min_spread: float = 1e-4
    """Spread of embeddings where nothing is there to compare with."""
    max_equal_share: float = 0.5
    """Share of users for whom all items may score alike."""
    max_ece: float = 0.1
    """Expected calibration error of predicted probabilities."""
    max_relative_ece: float = 0.5
    """The same as a share of the rate that is predicted, beyond what chance alone explains."""
    min_positives: int = 50
    """Positives below which the calibration of a head is not judged."""


def faults(
    tensors: Mapping[str, npt.NDArray[Any]],
    *,
    embeddings: npt.NDArray[Any] | None = None,
    base: npt.NDArray[Any] | None = None,
    scores: npt.NDArray[Any] | None = None,
    ece: float | None = None,
    limits: Limits | None = None,
) -> list[str]:
    """What is broken about a challenger, in words; empty when nothing is.

    Args:
        tensors: weights by name.
        embeddings: its embeddings of a fixed sample of items, [N, d]; None: it has none.
        base: the frozen encoder's embeddings of the same items, [N, d'].
        scores: its scores of the catalogue for a sample of users, [B, items].
        ece: its calibration error, as of `calibration_error`; None: not measured.
        limits: where broken begins.

    >>> faults({"w": np.array([1.0, np.nan])})
    ['w: 1 of 2 weights are not finite']
    >>> faults({"w": np.ones(2)}, embeddings=np.ones((3, 4)))
    ['collapse: the spread of the embeddings is 0, below 0.0001']
    """
    limits = limits or Limits()
    out = [
        f"{name}: {n} of {tensor.size} weights are not finite"
        for name, tensor in sorted(tensors.items())
        if (n := int(tensor.size - np.isfinite(tensor).sum()))
    ]
    if embeddings is not None:
        out += _embedding_faults(embeddings, base, limits)
    if scores is not None:
        out += _score_faults(scores, limits)
    if ece is not None and not ece <= limits.max_ece:
        out.append(f"calibration: the expected error is {ece:.3g}, above {limits.max_ece:.3g}")
    return out


def miscalibrated(heads: Mapping[str, Calibration], limits: Limits | None = None) -> list[str]:
    """Which heads are off, in words; empty when none is or too little was seen.

    A head that predicts rare events has a small error however wrong it is, so its error is held against its rate too:
    three times the error that chance alone would make is granted.

    >>> off = Calibration(n=9_000, rate=0.02, log_loss=0.1, ece=0.018, chance=0.001, auc=0.7)
    >>> miscalibrated({"click": off})
    ['calibration of click: the expected error is 0.018, above 0.013 for a rate of 0.02']
    """
    limits, out = limits or Limits(), []
    for name, found in heads.items():
        bar = min(limits.max_ece, limits.max_relative_ece * found.rate + 3.0 * found.chance)
        if found.n_positive >= limits.min_positives and not found.ece <= bar:
            says = f"the expected error is {found.ece:.3g}, above {bar:.3g} for a rate of {found.rate:.3g}"
            out.append(f"calibration of {name}: {says}")
    return out


def spread(embeddings: npt.NDArray[Any]) -> float:
    """One minus the mean cosine between two embeddings: 1 = spread over the sphere, 0 = all the same.

    >>> spread(np.eye(4)), spread(np.ones((4, 3)))
    (0.75, 0.0)
    """
    value = embeddings.astype(np.float64)
    length = np.sqrt((value * value).sum(axis=1, keepdims=True))
    centre = (value / np.maximum(length, 1e-12)).mean(axis=0)
    return max(0.0, round(1.0 - float(centre @ centre), 12))


def calibration_error(probability: Doubles, label: Doubles, n_bins: int = 10) -> float:
    """Expected calibration error over bins of equally many examples (Nguyen, O'Connor 2015).

    Args:
        probability: predicted, float64 [n].
        label: 0 or 1, [n].
        n_bins: at most n.

    >>> calibration_error(np.full(10, 0.25), np.zeros(10), 2)
    0.25
    """
    order = np.argsort(probability, kind="stable")
    gaps = [
        abs(float((probability[part] - label[part]).sum()))
        for part in np.array_split(order, max(1, min(n_bins, len(order))))
    ]
    return sum(gaps) / max(len(order), 1)


def _embedding_faults(embeddings: npt.NDArray[Any], base: npt.NDArray[Any] | None, limits: Limits) -> list[str]:
    if not bool(np.isfinite(embeddings).all()):
        return ["embeddings are not finite"]
    least = limits.min_spread if base is None else limits.min_relative_spread * spread(base)
    found = spread(embeddings)
    if len(embeddings) > 1 and found < least:
        return [f"collapse: the spread of the embeddings is {found:.3g}, below {least:.3g}"]
    return []


def _score_faults(scores: npt.NDArray[Any], limits: Limits) -> list[str]:
    if not bool(np.isfinite(scores).all()):
        return ["scores are not finite"]
    if scores.shape[0] == 0 or scores.shape[1] < 2:
        return []
    value = scores.astype(np.float64)
    flat = value.std(axis=1) <= 1e-9 * np.maximum(np.abs(value).max(axis=1), 1.0)
    share = float(flat.mean())
    if share > limits.max_equal_share:
        return [f"collapse: all items score alike for {share:.0%} of users"]
    return []
