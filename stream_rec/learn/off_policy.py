"""What another policy would have earned, from a log of what one policy did with known propensities.

Single slots: `replay` (rejection sampling; Li et al., WSDM 2011), `ips` (Horvitz & Thompson 1952), `snips`
(Swaminathan & Joachims, NeurIPS 2015), `dr` (Dudik et al., ICML 2011), `switch_dr` (Wang et al., ICML 2017). Slates,
the reward of a slate being the sum of its slots': `full`, `iips` (Li et al., KDD 2018: each slot's own weight), `rips`
(McInerney et al., KDD 2020: the weights of the slot and those before it); all self-normalised.

`iips` varies least and assumes most: that what happens in a slot does not depend on the others. Given probabilities
that are conditional on the slots before, as slates log them, it also takes the logged prefixes for the target's. So
`rips`, which assumes neither, stands beside it as a check.

Every estimate comes with its effective sample size, largest weight, what was clipped or refused, and a bootstrap
interval that resamples users. Below a floor of ESS / N there is no verdict, and the reason is said.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stream_rec.stream.sampling import hash01

Doubles = NDArray[np.float64]
Bools = NDArray[np.bool_]

SMALLEST_PROPENSITY = 1e-6
"""Below it a logged propensity is refused: no estimate can rest on such a weight."""
FEWEST_USERS = 10
"""Below it an interval that resamples users says nothing."""
UNBALANCED, SURELY = 0.1, 5.0
"""Weights must average one. Further off than this, and by so many standard errors, the log lacks what is wanted."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How estimates are made."""

    clip: float = 100.0
    """Largest importance weight."""
    switch: float = 10.0
    """Weight above which `switch_dr` trusts the reward model alone."""
    ess_floor: float = 0.01
    """Effective sample size as a share of the rows below which there is no verdict."""
    refused_ceiling: float = 0.1
    """Share of refused rows above which there is no verdict: what is left is no fair sample."""
    n_bootstrap: int = 400
    confidence: float = 0.95
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Estimate:
    """Value of a policy: reward a slot, or a slate."""

    name: str
    value: float
    low: float
    high: float
    n: int
    """Rows that were used."""
    ess: float
    """Effective sample size, (sum w)**2 / sum w**2, before clipping; of slates the smallest of any slot."""
    largest_weight: float
    """Before clipping."""
    n_clipped: int
    refused: dict[str, int]
    """Reason to rows that were left out."""
    no_verdict: str | None
    """Why the value should not be believed; None when it may be."""


class Log(NamedTuple):
    """Explorable slots of a log, one a row; deterministic slots and weak joins do not belong in it."""

    reward: ArrayLike
    """float [n]."""
    logged: ArrayLike
    """float [n], propensity of the shown item under the logged policy."""
    target: ArrayLike
    """float [n], its probability under the target policy; NaN where the target does not know the item."""
    user: ArrayLike
    """int [n]; intervals resample users."""
    modelled: ArrayLike | None = None
    """float [n], what a reward model expects of the shown item; for `dr` and `switch_dr`."""
    modelled_target: ArrayLike | None = None
    """float [n], what it expects under the target policy: the sum over all candidates."""


class SlateLog(NamedTuple):
    """Slates of a log, one a row. A slot that was deterministic holds 1 in `logged`."""

    reward: ArrayLike
    """float [n, k]."""
    logged: ArrayLike
    """float [n, k], propensity of each slot given the slots before."""
    target: ArrayLike
    """float [n, k]; for `iips` and `rips` given the logged slots before."""
    user: ArrayLike
    """int [n]."""


def evaluate(log: Log, rules: Rules | None = None) -> dict[str, Estimate]:
    """Estimates by name; `dr` and `switch_dr` where the log has what a reward model expects.

    >>> log = Log(reward=[1, 0, 1, 0], logged=[0.5] * 4, target=[1, 0, 1, 0], user=[0, 1, 2, 3])
    >>> {name: told.value for name, told in evaluate(log).items()}
    {'replay': 1.0, 'ips': 1.0, 'snips': 1.0}
    """
    rules = rules or Rules()
    used = _usable(log.reward, log.logged, log.target, log.user)
    reward, weight, each = used.reward, used.weight, np.ones_like(used.weight)
    clipped = np.minimum(weight, rules.clip)
    chance = clipped / max(float(clipped.max(initial=0.0)), 1e-300)
    accepted = (hash01(rules.seed, used.rows)[:, None] < chance).astype(np.float64)
    sums = {
        "replay": (accepted * reward, accepted),
        "ips": (clipped * reward, each),
        "snips": (clipped * reward, clipped),
    }
    if log.modelled is not None and log.modelled_target is not None:
        model, whole = (np.asarray(c, np.float64)[used.rows, None] for c in (log.modelled, log.modelled_target))
        sums["dr"] = (whole + clipped * (reward - model), each)
        kept = np.where(weight <= rules.switch, weight, 0.0)
        sums["switch_dr"] = (whole + kept * (reward - model), each)
    return {name: _estimate(name, used, rules, *told) for name, told in sums.items()}


def evaluate_slates(log: SlateLog, rules: Rules | None = None) -> dict[str, Estimate]:
    """Estimates of the reward of a slate: `full`, `iips`, `rips`.

    >>> log = SlateLog(reward=[[1, 0], [0, 1]], logged=[[0.5, 1], [0.5, 1]], target=[[1, 1], [0, 1]], user=[0, 1])
    >>> {name: told.value for name, told in evaluate_slates(log).items()}
    {'full': 1.0, 'iips': 1.5, 'rips': 1.0}
    """
    rules = rules or Rules()
    used = _usable(log.reward, log.logged, log.target, log.user)
    weights = {
        "full": (used.weight.prod(1, keepdims=True), used.reward.sum(1, keepdims=True)),
        "iips": (used.weight, used.reward),
        "rips": (np.cumprod(used.weight, 1), used.reward),
    }
    out = {}
    for name, (weight, reward) in weights.items():
        clipped = np.minimum(weight, rules.clip)
        out[name] = _estimate(name, used._replace(weight=weight), rules, clipped * reward, clipped)
    return out


class _Used(NamedTuple):
    rows: NDArray[np.intp]
    reward: Doubles
    weight: Doubles
    user: NDArray[np.intp]
    refused: dict[str, int]


def _usable(reward: ArrayLike, logged: ArrayLike, target: ArrayLike, user: ArrayLike) -> _Used:
    """The rows that can be used, as columns [n, k], and why the others cannot."""
    r, p, t = (np.asarray(c, np.float64) for c in (reward, logged, target))
    r, p, t = (c[:, None] if c.ndim == 1 else c for c in (r, p, t))
    reasons = {
        "reward is not finite": ~np.isfinite(r),
        "propensity is missing": ~np.isfinite(p),
        "propensity is zero or tiny": p < SMALLEST_PROPENSITY,
        "propensity is above one": p > 1.0 + 1e-9,
        "unknown to the target policy": np.isnan(t),
        "target is no probability": (t < 0.0) | (t > 1.0 + 1e-9),
    }
    left, refused = np.ones(len(r), np.bool_), {}
    for reason, bad in reasons.items():
        hit = left & bad.any(1)
        if hit.any():
            refused[reason] = int(hit.sum())
            left &= ~hit
    rows = np.flatnonzero(left)
    _, own = np.unique(np.asarray(user)[rows], return_inverse=True)
    return _Used(rows, r[rows], t[rows] / p[rows], own.astype(np.intp), refused)


def _estimate(name: str, used: _Used, rules: Rules, gain: Doubles, base: Doubles) -> Estimate:
    """The value is the sum over slots of sum(gain) / sum(base), [n, k] each."""
    weight, n = used.weight, len(used.rows)
    if n == 0:
        return Estimate(name, np.nan, np.nan, np.nan, 0, 0.0, 0.0, 0, used.refused, "no row can be used")
    square = (weight * weight).sum(0)
    ess = float(base.sum()) if name == "replay" else float((weight.sum(0) ** 2 / np.maximum(square, 1e-300)).min())
    low, high = _interval(used.user, gain, base, rules)
    return Estimate(
        name=name,
        value=_ratio(gain.sum(0), base.sum(0)),
        low=low,
        high=high,
        n=n,
        ess=ess,
        largest_weight=float(weight.max()),
        n_clipped=int((weight > rules.clip).sum()),
        refused=used.refused,
        no_verdict=_doubt(used, rules, ess),
    )


def _doubt(used: _Used, rules: Rules, ess: float) -> str | None:
    n, n_refused = len(used.rows), sum(used.refused.values())
    if ess < rules.ess_floor * n:
        return f"effective sample size {ess:.0f} is below {rules.ess_floor:.0%} of {n} rows"
    if n_refused > rules.refused_ceiling * (n + n_refused):
        return f"{n_refused} of {n + n_refused} rows were refused"
    n_users = int(used.user.max()) + 1
    if n_users < FEWEST_USERS:
        return f"{n_users} users are too few for an interval"
    mean = used.weight.mean(0)
    error = used.weight.std(0) / np.sqrt(n)
    if ((np.abs(mean - 1) > UNBALANCED) & (np.abs(mean - 1) > SURELY * error)).any():
        return "weights do not average one: the log lacks what the target policy does, or its propensities are wrong"
    return None


def _interval(user: NDArray[np.intp], gain: Doubles, base: Doubles, rules: Rules) -> tuple[float, float]:
    """Percentile bootstrap over users (Efron 1979), seeded."""
    n_users = int(user.max()) + 1
    columns = np.concatenate((gain, base), 1)
    by_user = np.stack([np.bincount(user, column, n_users) for column in columns.T], 1)
    rng, k = np.random.Generator(np.random.PCG64(rules.seed)), gain.shape[1]
    told = np.empty(rules.n_bootstrap)
    for i in range(rules.n_bootstrap):
        total = np.bincount(rng.integers(0, n_users, n_users), minlength=n_users) @ by_user
        told[i] = _ratio(total[:k], total[k:])
    tail = (1.0 - rules.confidence) / 2
    low, high = np.quantile(told, (tail, 1.0 - tail))
    return float(low), float(high)


def _ratio(gain: NDArray[Any], base: NDArray[Any]) -> float:
    return float(np.where(base > 0, gain / np.where(base > 0, base, 1.0), 0.0).sum())
