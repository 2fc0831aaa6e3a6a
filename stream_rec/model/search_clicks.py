"""Clicks on what searches showed, as one probability: the joint logit of a query and an item, learned test-then-train.

logit = w . z + c, z the features less their running mean, over their running spread; logistic loss over shown items,
Adam (Kingma & Ba 2015). A logit means the same for every query, so answers to different queries can be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stream_rec.component import Component
from stream_rec.model import lexical

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

NAMES = ("tower", "frozen", *lexical.NAMES)
"""Features of a query and an item: cosine of their texts under the adapter, the same under the base, lexical match."""
START = 0.3
"""Of every weight: all features speak for a match, so that the first answers already rank."""
FAR = 6.0
"""Spreads from its mean at which a feature is cut."""
BETAS = (0.9, 0.999)
EPSILON = 1e-8


class Line(NamedTuple):
    """A logit as a function of one feature."""

    slope: float
    rest: Floats
    """What everything else adds, [n]."""


class ClickModel(Component):
    """See the module docstring.

    Columns, float64: `weight` [features + 1], the last the constant; Adam's `mean` and `square`; `centre` and `spread2`
    [features], running mean and variance of what was shown.

    Args:
        names: features, in the order of the columns of what is scored.
        rate: step size. 0.02 serves micro-batches of 25 to 400 shown items; at 0.05 the small ones are too noisy.

    >>> model = ClickModel(["match"])
    >>> x = np.array([[0.0], [1.0]], np.float32)
    >>> for _ in range(300):
    ...     _ = model.learn(x, np.array([False, True]))
    >>> (model.probability(x) > 0.5).tolist()
    [False, True]
    """

    half = "learned"
    columns = ("weight", "mean", "square", "centre", "spread2")
    scalars = ("n_steps", "n_seen")
    fixed = ("names", "rate")

    def __init__(self, names: Sequence[str] = NAMES, rate: float = 0.02) -> None:
        self.names, self.rate = tuple(names), rate
        n = len(self.names)
        self.weight = np.append(np.full(n, START), 0.0)
        self.mean, self.square = np.zeros(n + 1), np.zeros(n + 1)
        self.centre, self.spread2 = np.zeros(n), np.ones(n)
        self.n_steps = self.n_seen = 0

    def logits(self, x: Floats) -> Floats:
        """Logits float32 [n] of features [n, features]. Pure; a row's bits do not depend on the others."""
        return np.asarray(self._logits(self._standard(x)), np.float32)

    def probability(self, x: Floats) -> Floats:
        """Of a click when shown, float32 [n] in (0, 1). Pure."""
        return np.asarray(1 / (1 + np.exp(-self.logits(x).astype(np.float64))), np.float32)

    def line(self, x: Floats, name: str) -> Line:
        """The logits as a function of one feature, for whoever learns that feature: slope * feature + rest. Pure."""
        i = self.names.index(name)
        slope = float(self.weight[i] / np.sqrt(self.spread2[i]))
        others = self._standard(x)
        others[:, i] = 0
        return Line(slope, np.asarray(self._logits(others) - slope * self.centre[i], np.float32))

    def learn(self, x: Floats, clicked: Mask) -> float:
        """One step on items that were shown and seen; returns their mean loss before it. Nothing shown, no step.

        Args:
            x: features, [n, features]; rows that are no numbers are left out.
            clicked: [n].
        """
        whole = np.isfinite(x).all(axis=1)
        x, clicked = x[whole], clicked[whole]
        if not len(x):
            return 0.0
        logit = self._logits(self._standard(x))
        loss = float(np.mean(np.logaddexp(0, np.where(clicked, -logit, logit))))
        self._see(x.astype(np.float64))
        z = self._standard(x)
        error = 1 / (1 + np.exp(-self._logits(z))) - clicked
        self._step(np.append(np.einsum("n,nf->f", error, z), error.sum()) / len(x))
        return loss

    def _standard(self, x: Floats) -> Doubles:
        return np.clip((x.astype(np.float64) - self.centre) / np.sqrt(self.spread2), -FAR, FAR)

    def _logits(self, z: Doubles) -> Doubles:
        out = np.full(len(z), self.weight[-1])
        for i in range(len(self.names)):
            out += self.weight[i] * z[:, i]
        return out

    def _see(self, x: Doubles) -> None:
        """Running mean and variance, merged block by block (Chan et al. 1979)."""
        n, held = len(x), self.n_seen
        share, gap = n / (held + n), x.mean(axis=0) - self.centre
        before = self.spread2 + share * gap * gap if held else np.zeros_like(gap)
        self.spread2 = np.maximum((1 - share) * before + share * x.var(axis=0), 1e-12)
        self.centre = self.centre + share * gap
        self.n_seen = held + n

    def _step(self, gradient: Doubles) -> None:
        self.n_steps += 1
        self.mean += (1 - BETAS[0]) * (gradient - self.mean)
        self.square += (1 - BETAS[1]) * (gradient * gradient - self.square)
        mean, square = self.mean / (1 - BETAS[0] ** self.n_steps), self.square / (1 - BETAS[1] ** self.n_steps)
        self.weight -= self.rate * mean / (np.sqrt(square) + EPSILON)
