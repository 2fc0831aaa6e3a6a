"""Probability metrics of the heads, predicted before learning and counted when the label is final.

Clicks are counted after the click wait, purchases when their own wait has closed, so all at equal label age. Kept as
histograms over the logit: log loss is exact, the calibration error (ECE) is over bins of half a unit of log odds, the
AUC counts pairs inside a bin of a quarter as ties.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stream_rec.component import Component
from stream_rec.model.heads import HEADS, sigmoid

Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

MODELS = ("champion", "learner", "rate")
"""What serves, what learns, and the plain rate of what was shown so far."""
LEARNER = MODELS.index("learner")
LOWEST, WIDTH, N_FINE = -12.0, 0.25, 64
PER_BIN = 2
"""Bins of the histogram that make one of the calibration error."""
N, PREDICTED, POSITIVE = range(3)
LOSS = N_FINE
"""Behind the bins: the row whose first entry is the summed log loss."""
SHAPE = (len(HEADS), len(MODELS), N_FINE + 1, 3)
N_PARTS = 64
FIRST_PART = 1_024


class Calibration(NamedTuple):
    """What the predictions of one head were worth."""

    n: int
    rate: float
    """Share of positives."""
    log_loss: float
    """Nats."""
    ece: float
    chance: float
    """ECE that perfectly calibrated predictions would have, expected of so many examples."""
    auc: float | None
    """None without both labels."""

    @property
    def n_positive(self) -> int:
        """Positives."""
        return round(self.n * self.rate)


class HeadMetrics(Component):
    """Sums since the last report, since the last cut, and over the run in at most N_PARTS parts (merged pairwise)."""

    half = "learned"
    columns = ("interval", "since_cut", "parts", "part_size", "seen")
    scalars = ("n_parts", "full_size")

    def __init__(self) -> None:
        self.interval, self.since_cut = np.zeros(SHAPE), np.zeros(SHAPE)
        self.parts, self.part_size = np.zeros((N_PARTS, *SHAPE)), np.zeros(N_PARTS, np.int64)
        self.n_parts, self.full_size = 1, FIRST_PART
        self.seen = np.tile([[1.0, 50.0]], (len(HEADS), 1))
        """Positives and examples of each head so far, with a little of both to begin with."""

    def add(self, head: int, logit: Doubles, label: Mask) -> None:
        """Count examples whose label is final.

        Args:
            head: place in HEADS.
            logit: predictions of the champion and the learner, [n, 2].
            label: [n].
        """
        if not len(label):
            return
        positive, n = self.seen[head]
        plain = np.full((len(label), 1), np.log(positive / (n - positive)))
        every = np.concatenate([logit, plain], axis=1)
        out = np.zeros(SHAPE[1:])
        for model in range(len(MODELS)):
            own = every[:, model]
            p = sigmoid(own)
            place = np.clip((own - LOWEST) / WIDTH, 0, N_FINE - 1).astype(np.int64)
            out[model, :N_FINE, N] = np.bincount(place, minlength=N_FINE)
            out[model, :N_FINE, PREDICTED] = np.bincount(place, p, N_FINE)
            out[model, :N_FINE, POSITIVE] = np.bincount(place, label, N_FINE)
            out[model, LOSS, 0] = np.logaddexp(0.0, np.where(label, -own, own)).sum()
        self.seen[head] += float(label.sum()), float(len(label))
        for sums in (self.interval, self.since_cut, self.parts[self.n_parts - 1]):
            sums[head] += out
        self.part_size[self.n_parts - 1] += len(label)
        if self.part_size[self.n_parts - 1] >= self.full_size:
            self._next_part()

    def restart(self) -> None:
        """A challenger was cut: what is known about the next one begins here."""
        self.since_cut[:] = 0.0

    def of_challenger(self) -> dict[str, Calibration]:
        """What the learner's predictions since the last cut were worth, by head that was measured."""
        found = {head: calibration(self.since_cut[h, LEARNER]) for h, head in enumerate(HEADS)}
        return {head: figures for head, figures in found.items() if figures is not None}

    def take_interval(self) -> dict[str, Any]:
        """The metrics since the last call, as {head: {model: {n, rate, log_loss, ece, auc, bins}}}; see `bins`."""
        out = as_table(self.interval)
        for head, models in out.items():
            for model, told in models.items():
                told["bins"] = bins(self.interval[HEADS.index(head), MODELS.index(model)])
        self.interval = np.zeros(SHAPE)
        return out

    def summary(self) -> dict[str, Any]:
        """`first_tenth`, `last_tenth` (by examples, whole parts) and `whole`, each as of `take_interval`."""
        sizes = self.part_size[: self.n_parts]
        done, tenth = np.cumsum(sizes), sizes.sum() / 10.0
        first = int(np.searchsorted(done, tenth)) + 1
        last = min(int(np.searchsorted(done, sizes.sum() - tenth, side="right")), self.n_parts - 1)
        used = self.parts[: self.n_parts]
        parts = {"first_tenth": used[:first], "last_tenth": used[last:], "whole": used}
        return {name: as_table(sums.sum(axis=0)) for name, sums in parts.items()}

    def _next_part(self) -> None:
        if self.n_parts == N_PARTS:
            half = N_PARTS // 2
            for column in (self.parts, self.part_size):
                column[:half] = column[0::2] + column[1::2]
                column[half:] = 0
            self.n_parts, self.full_size = half, 2 * self.full_size
        self.n_parts += 1


def calibration(sums: Doubles) -> Calibration | None:
    """Figures of one head and model from its histogram [N_FINE + 1, 3]; None when it is empty.

    >>> metrics = HeadMetrics()
    >>> metrics.add(0, np.full((4, 2), -np.log(3)), np.array([True, False, False, False]))
    >>> figures = calibration(metrics.interval[0, 1])
    >>> figures.n, figures.rate, round(figures.ece, 6), round(figures.log_loss, 4), figures.auc
    (4, 0.25, 0.0, 0.5623, 0.5)
    """
    bins = sums[:N_FINE]
    n, _, positive = bins.sum(axis=0)
    if not n:
        return None
    coarse = bins.reshape(-1, PER_BIN, 3).sum(axis=1)
    share = coarse[:, PREDICTED] / np.maximum(coarse[:, N], 1.0)
    # The mean distance of a normal variable from its mean is sqrt(2 / pi) times its deviation.
    chance = float(np.sqrt(2.0 / np.pi * coarse[:, N] * share * (1.0 - share)).sum() / n)
    below = np.cumsum(bins[:, N] - bins[:, POSITIVE]) - 0.5 * (bins[:, N] - bins[:, POSITIVE])
    pairs = positive * (n - positive)
    return Calibration(
        n=int(n),
        rate=float(positive / n),
        log_loss=float(sums[LOSS, 0] / n),
        ece=float(np.abs(coarse[:, PREDICTED] - coarse[:, POSITIVE]).sum() / n),
        chance=chance,
        auc=float(bins[:, POSITIVE] @ below / pairs) if pairs else None,
    )


def bins(sums: Doubles) -> list[list[float]]:
    """The bins of the calibration error that hold something: examples, what was predicted of them in all, positives.

    >>> metrics = HeadMetrics()
    >>> metrics.add(0, np.full((4, 2), -np.log(3)), np.array([True, False, False, False]))
    >>> bins(metrics.interval[0, 1])
    [[4.0, 1.0, 1.0]]
    """
    coarse = sums[:N_FINE].reshape(-1, PER_BIN, 3).sum(axis=1)
    held: list[list[float]] = coarse[coarse[:, N] > 0].round(4).tolist()
    return held


def as_table(sums: Doubles) -> dict[str, Any]:
    """Sums of SHAPE as {head: {model: {n, rate, log_loss, ece, auc}}}; heads without an example are left out."""
    out: dict[str, Any] = {}
    for h, head in enumerate(HEADS):
        for m, model in enumerate(MODELS):
            if (figures := calibration(sums[h, m])) is not None:
                told = {name: round(getattr(figures, name), 6) for name in ("rate", "log_loss", "ece")}
                auc = None if figures.auc is None else round(figures.auc, 6)
                out.setdefault(head, {})[model] = {"n": figures.n, **told, "auc": auc}
    return out
