"""The rules of the gate: what a light challenger and an adapter must show before they may serve.

- *Light* (ranker weights, cut often): promoted at its cut unless it is shown worse than the champion or yesterday's
  champion by more than the margin. The bound holds over all looks, so small shops stay fresh, and since yesterday's
  is one of the rivals, losses too small to be seen cannot add up.
- *Adapter* (a slower round): promoted only when shown better than the champion, judged once at a fixed count of
  visits. The caller must not ask again about the same adapter after an answer that is not `hold`.
- Both: hard checks come first, no slice may be shown much worse, and nothing shown below a pinned baseline serves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stream_rec.learn.comparison import Comparison
from stream_rec.learn.sequences import ALPHA, Sample, bounds, holm, p_at_least

Doubles = npt.NDArray[np.float64]
Record = dict[str, Any]
"""JSON-able: `verdict` (promote, hold, reject), `reasons`, `hard_check`, `kind`, `recall_difference`, `interval`,
`n_visits`, `n_users` (clusters of them), `margin`, `alpha`, `rivals` and `slices`: by name, `judged` (not judged,
worse, not worse) with the figures behind it."""

N_RESAMPLES = 1_000


@dataclass(frozen=True, slots=True)
class Rules:
    """Settings of the gate.

    Attributes:
        champions: rivals that a challenger must not be worse than; the first serves now.
        baselines: rivals that nothing below of which may serve.
        margin: share of the rival's recall.
        slice_margin: the same for a slice, where there is less to see.
        alpha: chance of calling a challenger worse that is not: over all looks, rivals and slices together (light),
            or of calling an adapter better that is not.
        min_users: clusters of users below which nothing is said.
        adapter_visits: at how many visits an adapter is judged.
    """

    champions: tuple[str, ...] = ("champion", "yesterday")
    baselines: tuple[str, ...] = ()
    margin: float = 0.02
    slice_margin: float = 0.05
    alpha: float = ALPHA
    min_users: int = 30
    adapter_visits: int = 2_000


def judge_light(comparison: Comparison, faults: Sequence[str], rules: Rules) -> Record:
    """Whether the light challenger of a cut may serve.

    Args:
        comparison: its recall against all rivals that the rules name, since each rival began.
        faults: what the hard checks found, as of `soundness.faults`.
        rules: settings.

    >>> judge_light(Comparison(("champion", "yesterday")), [], Rules())["reasons"]
    ['not measurable: 0 organic visits of 0 users, 30 users needed']
    """
    opinion = _Opinion("light", comparison, rules)
    if faults:
        return opinion.broken(faults)
    champion = comparison.sample(rules.champions[0])
    if champion.n_clusters < rules.min_users:
        return opinion.record("hold", [_not_measurable(champion, f"{rules.min_users} users needed")])
    judged = opinion.table.judged()
    reasons = opinion.weigh({claim.key: p_at_least(Sample.of(totals, counts)) for claim, totals, counts in judged})
    if reasons:
        return opinion.record("reject", reasons)
    compared = [claim.name for claim, _, _ in judged if claim.kind == "champion"]
    return opinion.record("promote", [f"not shown worse than {name}" for name in compared])


def adapter_due(comparison: Comparison, rules: Rules) -> bool:
    """Whether an adapter has been compared on enough organic visits to be judged."""
    sample = comparison.sample(rules.champions[0])
    return sample.n >= rules.adapter_visits and sample.n_clusters >= rules.min_users


def judge_adapter(comparison: Comparison, faults: Sequence[str], rules: Rules, *, seed: int) -> Record:
    """Whether an adapter may serve; `hold` until `adapter_due`, then an answer that is given once.

    The lower bound is the `alpha / 2` point of the mean difference when clusters of users are resampled.

    Args:
        comparison: the adapter's recall against all rivals that the rules name, since its round ended.
        faults: what the hard checks found.
        rules: settings.
        seed: of the resampling.
    """
    opinion = _Opinion("adapter", comparison, rules)
    if faults:
        return opinion.broken(faults)
    name, half = rules.champions[0], rules.alpha / 2.0
    sample = comparison.sample(name)
    if not adapter_due(comparison, rules):
        return opinion.record("hold", [_not_measurable(sample, f"{rules.adapter_visits} visits needed")])
    weights = resampling(comparison.n_clusters, seed)
    low, high = (float(point) for point in np.quantile(resampled(weights, *comparison.sums(name)), (half, 1.0 - half)))
    opinion.interval = (low, high)
    reasons = opinion.weigh(
        {
            claim.key: float((1 + np.count_nonzero(resampled(weights, totals, counts) >= 0.0)) / (1 + N_RESAMPLES))
            for claim, totals, counts in opinion.table.judged()
        }
    )
    found = f"better than {name}: {sample.mean:+.4f}, at least {low:+.4f}"
    if reasons or not low > 0.0:
        return opinion.record("reject", [*reasons, *([] if low > 0.0 else [f"not shown {found}"])])
    return opinion.record("promote", [f"shown {found}"])


def resampling(n_clusters: int, seed: int) -> Doubles:
    """Weights of a Bayesian bootstrap of whole clusters (Rubin, Ann. Statist. 9, 1981).

    Returns:
        Exponential weights with mean 1, float64 [N_RESAMPLES, n_clusters].
    """
    return np.random.Generator(np.random.PCG64(seed)).standard_exponential((N_RESAMPLES, n_clusters))


def resampled(weights: Doubles, totals: Doubles, counts: Doubles) -> Doubles:
    """The mean over visits in each resampling, float64 [N_RESAMPLES]; there must be a visit."""
    means: Doubles = (weights @ totals) / (weights @ counts)
    return means


class _Claim(NamedTuple):
    """The claim that the challenger is not worse than a rival by more than a margin."""

    kind: str
    """champion, baseline or slice."""
    name: str
    rival: str
    part: str
    """Name of the slice; the first is everything."""
    margin: float

    @property
    def key(self) -> str:
        return f"{self.kind} {self.name}"


class _Table:
    """The claims about one challenger, in the order in which they are told."""

    def __init__(self, comparison: Comparison, rules: Rules) -> None:
        self.comparison, self.rules = comparison, rules
        everything = comparison.slices[0]
        claims = [_Claim("champion", name, name, everything, rules.margin) for name in rules.champions]
        claims += [_Claim("baseline", name, name, everything, 0.0) for name in rules.baselines]
        first = rules.champions[0]
        claims += [_Claim("slice", name, first, name, rules.slice_margin) for name in comparison.slices[1:]]
        self.claims = tuple(claims)

    def judged(self) -> list[tuple[_Claim, Doubles, Doubles]]:
        """Claims with enough users, each with its sums by cluster; a mean below zero speaks against it."""
        sums = [(claim, *self.comparison.sums(claim.rival, claim.part, margin=claim.margin)) for claim in self.claims]
        return [row for row in sums if int(np.count_nonzero(row[2])) >= self.rules.min_users]

    def refusals(self, worse: set[str]) -> list[str]:
        return [self._says(claim) for claim in self.claims if claim.key in worse]

    def _says(self, claim: _Claim) -> str:
        mean = self.comparison.sample(claim.rival, claim.part).mean
        figures = f"{mean:+.4f} of {self.comparison.level(claim.rival, claim.part):.4f}"
        if claim.kind == "baseline":
            return f"below the baseline {claim.name}: {figures}"
        where = f" on {claim.name}" if claim.kind == "slice" else ""
        return f"worse than {claim.rival}{where} by more than {claim.margin:.0%}: {figures}"

    def rows(self, p_values: Mapping[str, float], worse: set[str]) -> dict[str, dict[str, Any]]:
        return {claim.key: self._row(claim, p_values.get(claim.key), claim.key in worse) for claim in self.claims}

    def _row(self, claim: _Claim, p_value: float | None, worse: bool) -> dict[str, Any]:
        """Figures of a claim; `interval` is of the plain difference, at all looks; `p` is of the claim."""
        sample = self.comparison.sample(claim.rival, claim.part)
        row: dict[str, Any] = {"n_visits": sample.n, "n_users": sample.n_clusters, "margin": claim.margin}
        if sample.n:
            level = self.comparison.level(claim.rival, claim.part)
            row |= {"recall_difference": round(sample.mean, 6), "rival_recall": round(level, 6)}
        if sample.n_clusters >= self.rules.min_users:
            row["interval"] = [round(bound, 6) for bound in bounds(sample, self.rules.alpha)]
        if p_value is None:
            return {"judged": "not judged", **row}
        return {"judged": "worse" if worse else "not worse", "p": float(f"{p_value:.4g}"), **row}


class _Opinion:
    """What has been found about a challenger so far, and the record of it."""

    def __init__(self, kind: str, comparison: Comparison, rules: Rules) -> None:
        self.kind, self.rules, self.table = kind, rules, _Table(comparison, rules)
        self.p_values: dict[str, float] = {}
        self.worse: set[str] = set()
        self.interval: tuple[float, float] | None = None

    def weigh(self, p_values: dict[str, float]) -> list[str]:
        """Take the p-values of the judged claims; returns why the challenger is refused."""
        # What is not judged yet keeps its share of alpha: it may be judged at a later look.
        every = dict.fromkeys((claim.key for claim in self.table.claims), 1.0) | p_values
        self.p_values, self.worse = p_values, holm(every, self.rules.alpha)
        return self.table.refusals(self.worse)

    def record(self, verdict: str, reasons: list[str], *, hard_check: bool = True) -> Record:
        rows = self.table.rows(self.p_values, self.worse)
        first = rows[f"champion {self.rules.champions[0]}"]
        interval = first.get("interval")
        if self.interval is not None:
            interval = [round(bound, 6) for bound in self.interval]
        return {
            "verdict": verdict,
            "reasons": reasons,
            "hard_check": hard_check,
            "kind": self.kind,
            "recall_difference": first.get("recall_difference"),
            "interval": interval,
            "n_visits": first["n_visits"],
            "n_users": first["n_users"],
            "margin": self.rules.margin,
            "alpha": self.rules.alpha,
            "rivals": {key.split(" ", 1)[1]: row for key, row in rows.items() if not key.startswith("slice ")},
            "slices": {key.split(" ", 1)[1]: row for key, row in rows.items() if key.startswith("slice ")},
        }

    def broken(self, faults: Sequence[str]) -> Record:
        return self.record("reject", [f"hard check failed: {fault}" for fault in faults], hard_check=False)


def _not_measurable(sample: Sample, needed: str) -> str:
    return f"not measurable: {sample.n} organic visits of {sample.n_clusters} users, {needed}"
