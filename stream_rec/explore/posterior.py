"""What is believed about the utility of a candidate: one Bayesian linear head for all, and a residual for each item.

The head keeps the decayed second moments of its features as they came (one Gram block a micro-batch, float64) and
solves by Cholesky after each. Features are standardised at the solve, exactly, by the mean and variance that lie in
those very moments: nothing learned on another scale is ever mixed in. The prior is added at the solve too, so it does
not fade with forgetting (decaying it would drive the precision singular), and the precision stays positive definite.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stream_rec.component import Component
from stream_rec.explore.forgetting import HalfLives

Doubles = NDArray[np.float64]
DAY_MS = 86_400_000

CLIPPED_AT = 1e4
"""Spreads of the first micro-batch: one wild value must not drown the others in rounding."""
AT_ONCE = 1_024
"""Numbers that are standardised in one row."""
CONSTANT = 1e-12
"""A feature whose variance is below this share of its mean square tells nothing and is left out."""
PRIOR_NOISE = 0.05
"""Variance of a reward around its prediction before there is evidence."""


@dataclass(frozen=True, slots=True)
class HeadRules:
    """Settings of the head. Weights count observations."""

    n_features: int
    n_items: int = 200_000
    """Capacity of the table of residuals."""
    prior: float = 1.0
    """Precision of every standardised weight before there is evidence, in observations."""
    item_prior: float = 20.0
    """Observations of an item that weigh as much as the belief that it is like its features say."""


class Belief(NamedTuple):
    """Of n candidates, float64 [n] each; `mean` is in [0, 1]."""

    mean: Doubles
    spread: Doubles
    """Standard deviation of the expected utility."""


class Posterior(Component):
    """Learns from shown candidates and their rewards; see the head of the module.

    Args:
        rules: sizes and priors.
        lives: the clock of forgetting, a component of its own.

    >>> head = Posterior(HeadRules(n_features=1, n_items=4), HalfLives(DAY_MS, DAY_MS, 0))
    >>> x = np.tile([[0.0], [1.0]], (500, 1))
    >>> head.observe(x, np.zeros(1_000, int), x[:, 0] * 0.2 + 0.1, np.zeros(1_000, int))
    0
    >>> head.predict([[0.0], [1.0]], [1, 1]).mean.round(2).tolist()
    [0.1, 0.3]
    """

    half = "learned"
    columns = ("centre", "scale", "gram", "moment", "prior_mean", "item_sum", "item_weight", "item_age")
    scalars = ("now_ms", "n_observed", "square")
    derived = ("_shift", "_stretch", "_root", "_weights", "_noise")
    fixed = ("rules", "_lives")

    def __init__(self, rules: HeadRules, lives: HalfLives) -> None:
        d = rules.n_features
        self.rules, self._lives = rules, lives
        self.centre, self.scale = np.zeros(d), np.ones(d)
        """Of the first micro-batch; numerical only, they do not change what is learned."""
        self.gram, self.moment = np.zeros((d + 1, d + 1)), np.zeros(d + 1)
        """Decayed sums of z z' and of z * reward, z = (1, (x - centre) / scale)."""
        self.prior_mean = np.zeros(d + 1)
        """Of the standardised weights."""
        self.item_sum, self.item_weight, self.item_age = (np.zeros(rules.n_items) for _ in range(3))
        """Decayed sum of what rewards were above the head's prediction, their weight, and the half-lives until then."""
        self.now_ms, self.n_observed, self.square = 0, 0, 0.0
        self.rebuild()

    # ---- learning

    def observe(self, x: ArrayLike, items: ArrayLike, reward: ArrayLike, at_ms: ArrayLike) -> int:
        """Learn from candidates that were shown; returns how many were left out because a number was not finite.

        Args:
            x: float [n, d], features.
            items: int [n], rows of the items.
            reward: float [n], as far as it is known now; what comes later goes to `late`.
            at_ms: int [n], event time of the exposure, in any order.
        """
        shown = _sound(x, items, reward, at_ms)
        if not len(shown.x):
            return shown.n_left_out
        if self.n_observed == 0:
            self._settle_scale(shown.x)
        predicted = self._head(self._standardised(shown.x))
        self._advance(int(shown.at_ms.max()))
        weight = self._weight(shown.at_ms)
        z = self._with_one(shown.x)
        weighted = z * weight[:, None]
        self.gram += weighted.T @ z
        self.moment += weighted.T @ shown.reward
        self.square += float(weight @ (shown.reward * shown.reward))
        self._to_items(shown.items, weight * (shown.reward - predicted), weight)
        self.n_observed += len(shown.x)
        self.rebuild()
        return shown.n_left_out

    def late(self, x: ArrayLike, items: ArrayLike, reward: ArrayLike, at_ms: ArrayLike) -> int:
        """Rewards of exposures that were observed with reward 0: the head becomes what it would be had they been there.

        Exact, because the exposure is in the Gram already: only 0.5**age * z * reward is added to the moment. Arguments
        and result as `observe`; `at_ms` is the time of the exposure.
        """
        shown = _sound(x, items, reward, at_ms)
        if len(shown.x):
            weighted = self._weight(shown.at_ms) * shown.reward
            self.moment += self._with_one(shown.x).T @ weighted
            self.square += float(weighted @ shown.reward)
            self._to_items(shown.items, weighted, np.zeros(len(weighted)))
            self.rebuild()
        return shown.n_left_out

    def alarm(self, now_ms: int) -> None:
        """Drift was seen: forget faster for a while."""
        self._advance(now_ms)
        self._lives.alarm(self.now_ms)

    def begin_anew(self, keep: float) -> None:
        """The features have a new meaning: forget moments and residuals, keep a share of the weights as prior."""
        self.prior_mean = keep * self._weights
        for column in (self.gram, self.moment, self.item_sum, self.item_weight, self.item_age):
            column[:] = 0.0
        self.n_observed, self.square = 0, 0.0
        self.centre[:], self.scale[:] = 0.0, 1.0
        self.rebuild()

    def forget_items(self, items: ArrayLike) -> None:
        """Rows that other items take over."""
        for column in (self.item_sum, self.item_weight, self.item_age):
            column[np.asarray(items, np.intp)] = 0.0

    # ---- asking

    def predict(self, x: ArrayLike, items: ArrayLike, offset: ArrayLike = 0.0) -> Belief:
        """Mean and spread of the utility of candidates. Changes nothing.

        Args:
            x: float [n, d], features.
            items: int [n], rows of the items.
            offset: float [n], what was taken off the rewards before they were observed.
        """
        z = self._standardised(np.asarray(x, np.float64))
        residual, weight = self._residual(np.asarray(items, np.intp))
        half = z @ self._root.T
        variance = np.einsum("nd,nd->n", half, half) + 1.0 / (self.rules.item_prior + weight)
        return Belief(np.clip(np.asarray(offset) + self._head(z) + residual, 0.0, 1.0), np.sqrt(self._noise * variance))

    def rebuild(self) -> None:
        """Standardise the moments and solve."""
        d, prior = self.rules.n_features, self.rules.prior
        n = float(self.gram[0, 0])
        mean = self.gram[0, 1:] / max(n, 1e-300)
        second = np.diag(self.gram)[1:] / max(n, 1e-300)
        variance = second - mean * mean
        told = variance > CONSTANT * (second + CONSTANT)
        stretch = np.where(told, 1.0 / np.sqrt(np.where(told, variance, 1.0)), 0.0)
        to = np.eye(d + 1)
        to[1:, 0] = -mean * stretch
        to[np.arange(1, d + 1), np.arange(1, d + 1)] = stretch
        gram, moment = to @ self.gram @ to.T, to @ self.moment
        precision = (gram + gram.T) / 2 + prior * np.eye(d + 1)
        self._root = np.linalg.inv(np.linalg.cholesky(precision))
        weights = self._root.T @ (self._root @ (moment + prior * self.prior_mean))
        missed = max(self.square - 2 * float(weights @ moment) + float(weights @ gram @ weights), 0.0)
        self._noise = (missed + prior * PRIOR_NOISE) / (n + prior)
        self._weights = weights
        self._shift, self._stretch = self.centre + self.scale * mean, stretch / self.scale

    # ---- inside

    def _settle_scale(self, x: Doubles) -> None:
        self.centre = x.mean(0)
        spread = x.std(0)
        self.scale = np.where(spread > 0, spread, np.maximum(np.abs(self.centre), 1.0))

    def _with_one(self, x: Doubles) -> Doubles:
        z = np.ones((len(x), x.shape[1] + 1))
        z[:, 1:] = np.clip((x - self.centre) / self.scale, -CLIPPED_AT, CLIPPED_AT)
        return z

    def _standardised(self, x: Doubles) -> Doubles:
        far, (n, d) = CLIPPED_AT * self.scale, x.shape
        low, high = self.centre - far, self.centre + far
        z, told = np.ones((n, d + 1)), np.empty((n, d))
        # numpy works row by row, and rows are short: several of them are put side by side.
        beside = max(1, AT_ONCE // d) if n * d > 4 * AT_ONCE else 1
        whole = n - n % beside
        for begin, end, times in ((0, whole, beside), (whole, n, 1)):
            if begin < end:
                wide, out = x[begin:end].reshape(-1, times * d), told[begin:end].reshape(-1, times * d)
                np.maximum(wide, _repeated(low, times), out=out)
                np.minimum(out, _repeated(high, times), out=out)
                out -= _repeated(self._shift, times)
        np.multiply(told, self._stretch, out=z[:, 1:])
        return z

    def _head(self, z: Doubles) -> Doubles:
        return np.asarray(z @ self._weights)

    def _advance(self, now_ms: int) -> None:
        if now_ms > self.now_ms:
            if self.n_observed:
                fade = 0.5 ** float(self._lives.until(now_ms) - self._lives.until(self.now_ms))
                self.gram *= fade
                self.moment *= fade
                self.square *= fade
            self.now_ms = now_ms

    def _weight(self, at_ms: NDArray[np.int64]) -> Doubles:
        age = self._lives.until(self.now_ms) - self._lives.until(np.minimum(at_ms, self.now_ms))
        return np.asarray(0.5**age)

    def _to_items(self, items: NDArray[np.intp], above: Doubles, weight: Doubles) -> None:
        rows = np.unique(items)
        now = float(self._lives.until(self.now_ms))
        fade = 0.5 ** (now - self.item_age[rows])
        self.item_sum[rows] *= fade
        self.item_weight[rows] *= fade
        self.item_age[rows] = now
        np.add.at(self.item_sum, items, above)
        np.add.at(self.item_weight, items, weight)

    def _residual(self, items: NDArray[np.intp]) -> tuple[Doubles, Doubles]:
        fade = 0.5 ** (float(self._lives.until(self.now_ms)) - self.item_age[items])
        weight = self.item_weight[items] * fade
        return self.item_sum[items] * fade / (self.rules.item_prior + weight), weight


def _repeated(column: Doubles, times: int) -> Doubles:
    return column if times == 1 else np.tile(column, times)


class _Shown(NamedTuple):
    x: Doubles
    items: NDArray[np.intp]
    reward: Doubles
    at_ms: NDArray[np.int64]
    n_left_out: int


def _sound(x: ArrayLike, items: ArrayLike, reward: ArrayLike, at_ms: ArrayLike) -> _Shown:
    """The rows whose numbers are finite."""
    told, paid = np.asarray(x, np.float64), np.asarray(reward, np.float64)
    rows = np.isfinite(told).all(1) & np.isfinite(paid)
    return _Shown(
        told[rows],
        np.asarray(items, np.intp)[rows],
        paid[rows],
        np.asarray(at_ms, np.int64)[rows],
        int((~rows).sum()),
    )
