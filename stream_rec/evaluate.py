"""`evaluate`: what another policy would have earned, from a log of what one policy did."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stream_rec import assemble, assemble_evaluate, config
from stream_rec import evaluate_open_bandit as bandit
from stream_rec.errors import InputRefused, SettingsError
from stream_rec.evaluate_shown import ShownLists
from stream_rec.evaluate_slates import DETERMINISTIC, NOT_DRAWN, Shown, shown_slates, target
from stream_rec.learn import off_policy, peeking
from stream_rec.learn.off_policy import Estimate

ON_POLICY = "on_policy"
"""What the logged policy itself earned: every weight is one."""
SLOT, SLATE = "slot", "slate"
UNREADABLE_ROWS = "rows without the columns of the first line"


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be evaluated."""

    log: Path
    policy: str = "logged"
    events: Path | None = None
    against: Path | None = None
    """Open Bandit: a log of the policy in question, whose own value is told beside the estimates."""
    per_version: bool = False
    by_arm: bool = False


@dataclass(slots=True)
class Told:
    """Estimates, a row each, and what did not enter them."""

    rows: list[dict[str, Any]]
    left_out: dict[str, int]
    """Reason to how many."""
    said: dict[str, Any] = field(default_factory=dict)
    """Where it all comes from."""


def evaluate(settings: config.Settings, asked: Asked) -> Told:
    """Read the log and estimate.

    Raises:
        SettingsError: a path or the policy is wrong, or the policy is not one for this kind of log.
        InputRefused: nothing in the log can be used; says why.
    """
    place = assemble_evaluate.place_of(asked.log)
    if place.open_bandit is not None:
        return _of_open_bandit(place.open_bandit, asked)
    assert place.slates is not None
    if asked.against is not None:
        raise SettingsError("--against is for Open Bandit logs; of slates the logged policy stands beside the other")
    return _of_slates(settings, place.slates, asked)


# ---- slates


def _of_slates(settings: config.Settings, path: Path, asked: Asked) -> Told:
    events = asked.events or assemble_evaluate.events_of(path)
    if events is None:
        raise SettingsError(f"the events of {path} are not to be found; name their file with --events")
    counts: Counter[str] = Counter()
    shown = _read(settings, path, events, counts)
    said = {"log": str(path), "events": str(events), "policy": asked.policy, "shown_slates": len(shown)}
    if asked.by_arm:
        if asked.policy != "logged" or asked.per_version:
            raise SettingsError("--by arm compares what the arms earned; leave out --policy and --per-version")
        return Told(_arms(shown, counts), _left(counts), said | {"policy": "arm"})
    other = target(shown, asked.policy)
    rows = list(_estimates(shown, other, asked.policy))
    if not any(row["n"] for row in rows):
        raise InputRefused(f"nothing in {path} can be used: {_why(counts, rows)}")
    if asked.per_version:
        for version in sorted(set(shown.version)):
            of_it = np.array([own == version for own in shown.version], np.bool_)
            rows += _estimates(shown.part(of_it), other[of_it], asked.policy, group=version or "-")
    return Told(rows, _left(counts), said)


def _read(settings: config.Settings, path: Path, events: Path, counts: Counter[str]) -> Shown:
    disorder_ms = settings.watermark.bound_ms + settings.watermark.lateness_ms
    lists = ShownLists(assemble.windows_of(settings), disorder_ms)
    for lines in assemble_evaluate.event_lines(settings, events):
        lists.add(lines)
    exposures = lists.joined()
    counts.update(lists.counts)
    worth = settings.utility
    slates = assemble_evaluate.slate_lines(path)
    return shown_slates(exposures, slates, click=worth.click, purchase=worth.purchase, counts=counts)


def _estimates(
    shown: Shown, other: np.ndarray[Any, Any], policy: str, *, group: str = "all"
) -> Iterator[dict[str, Any]]:
    slots, slates = shown.slots(other), shown.slates(other)
    yield from _with_on_policy(off_policy.evaluate(slots), slots, policy, {"group": group, "unit": SLOT})
    ours = off_policy.evaluate_slates(slates)
    own = off_policy.evaluate_slates(slates._replace(target=slates.logged))["full"]
    head = {"group": group, "unit": SLATE}
    yield row(own, ON_POLICY, "logged", head)
    for name, estimate in ours.items():
        yield row(estimate, name, policy, head)


def _with_on_policy(
    estimates: Mapping[str, Estimate], log: off_policy.Log, policy: str, head: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    yield row(on_policy(log), ON_POLICY, "logged", head)
    for name, estimate in estimates.items():
        yield row(estimate, name, policy, head)


def on_policy(log: off_policy.Log) -> Estimate:
    """What the logged policy earned, with its interval."""
    return off_policy.evaluate(log._replace(target=log.logged, modelled=None, modelled_target=None))["snips"]


def _arms(shown: Shown, counts: Counter[str]) -> list[dict[str, Any]]:
    """What a shown slate of each arm earned over all its slots, and what each has above the first, under peeking."""
    for of_draws in (NOT_DRAWN, DETERMINISTIC):
        counts.pop(of_draws, None)
    arms = sorted({arm for arm in shown.arm if arm})
    if not arms:
        raise InputRefused("no shown slate names an arm; `--by arm` reads the field `arm` of slates")
    reward, names = shown.reward.sum(1), np.array(shown.arm)
    told = {arm: peeking.peeked(reward[names == arm], shown.user[names == arm]) for arm in arms}
    if n_none := int((names == "").sum()):
        counts["shown slates that name no arm"] += n_none
    first = arms[0]
    rows = [_peeked(arm, "mean", peek) for arm, peek in told.items()]
    return rows + [
        _peeked(f"{arm} - {first}", "difference", peeking.difference(told[arm], told[first])) for arm in arms[1:]
    ]


def _peeked(group: str, name: str, peek: peeking.Peeked) -> dict[str, Any]:
    few = peek.n_clusters < peeking.FEWEST_CLUSTERS
    return {
        "group": group,
        "unit": SLATE,
        "estimator": name,
        "policy": "arm",
        "value": peek.mean,
        "low": peek.low,
        "high": peek.high,
        "n": peek.n,
        "users": peek.n_clusters,
        "verdict": not few,
        "reason": f"{peek.n_clusters} users are too few for an interval" if few else None,
    }


# ---- Open Bandit


def _of_open_bandit(path: Path, asked: Asked) -> Told:
    if asked.per_version or asked.by_arm or asked.events is not None:
        raise SettingsError("--per-version, --by and --events are for slates; an Open Bandit log has none of these")
    log = assemble_evaluate.open_bandit(path)
    against, policy = asked.against, asked.policy
    if policy not in ("logged", "uniform"):
        against, policy = Path(policy), Path(policy).name
    other = None if against is None else assemble_evaluate.open_bandit(_open_bandit_at(against))
    if asked.policy == "logged":
        probability = log.propensity
    elif asked.policy == "uniform":
        probability = bandit.uniform(log, other)
    else:
        assert other is not None
        probability = bandit.as_in(log, other)
    model = None if asked.policy == "logged" else bandit.table(log, probability)
    whole = bandit.log_of(log, probability, model)
    rows = list(_with_on_policy(off_policy.evaluate(whole), whole, policy, {"group": "all", "unit": SLOT}))
    if not rows[0]["n"]:
        raise InputRefused(f"nothing in {path} can be used: {_why(Counter(), rows)}")
    if other is not None and against is not None:
        theirs = bandit.log_of(other, other.propensity, None)
        rows.append(row(on_policy(theirs), ON_POLICY, "logged", {"group": against.name, "unit": SLOT}))
    return Told(rows, _left(Counter({UNREADABLE_ROWS: log.n_unreadable})), {"log": str(path), "policy": policy})


def _open_bandit_at(path: Path) -> Path:
    if not path.exists():
        raise SettingsError(f"--policy {path}: for an Open Bandit log it is logged, uniform or the path of another log")
    found = assemble_evaluate.place_of(path).open_bandit
    if found is None:
        raise SettingsError(
            f"{path} holds slates, and the other log must be of the same form: {', '.join(bandit.COLUMNS)}"
        )
    return found


# ---- rows


def row(told: Estimate, name: str, policy: str, head: Mapping[str, str]) -> dict[str, Any]:
    """An estimate as a row: numbers that are not finite become None."""
    return {
        **head,
        "estimator": name,
        "policy": policy,
        "value": _finite(told.value),
        "low": _finite(told.low),
        "high": _finite(told.high),
        "n": told.n,
        "ess": told.ess,
        "ess_share": told.ess / told.n if told.n else 0.0,
        "largest_weight": told.largest_weight,
        "clipped": told.n_clipped,
        "refused": sum(told.refused.values()),
        "refused_reasons": told.refused,
        "verdict": told.no_verdict is None,
        "reason": told.no_verdict,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _left(counts: Counter[str]) -> dict[str, int]:
    return {reason: n for reason, n in sorted(counts.items()) if n}


def _why(counts: Counter[str], rows: list[dict[str, Any]]) -> str:
    """The reasons why nothing is left, in one line."""
    reasons = Counter(_left(counts))
    for reason, n in (rows[0]["refused_reasons"] if rows else {}).items():
        reasons[reason] += n
    return ", ".join(f"{n:,} {reason}" for reason, n in reasons.most_common()) or "no impression names a decision"
