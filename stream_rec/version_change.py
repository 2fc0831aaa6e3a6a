"""What changed from one version to another: their notices side by side, and their weights by parameter group. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from stream_rec.version_page import points_of

Tensors = Mapping[str, np.ndarray]
DIGESTS = ("settings", "build")
GATE = ("verdict", "reasons", "recall_difference", "interval", "n_visits")
SEGMENTS = 2
"""Of a tensor's dotted name, that make its group."""


def group_of(name: str) -> str:
    """The parameter group of a tensor.

    >>> group_of("adapter.layers.5.query.down"), group_of("tower.maps"), group_of("ranker")
    ('adapter.layers', 'tower.maps', 'ranker')
    """
    return ".".join(name.split(".")[:SEGMENTS])


def weights_changed(before: Tensors, after: Tensors) -> list[dict[str, Any]]:
    """By parameter group how far the weights moved, the one that moved furthest first.

    Args:
        before: tensors of one version by name, any shapes.
        after: those of the other.

    Returns:
        Rows of `group`, `n` (weights), `norm` (Euclidean, of `before`), `change` (norm of the difference) and
        `relative` (change / norm; None where there was nothing but zeros). A tensor that only one of them has, or that
        has another shape in the other, counts as zeros there, and `note` says so.

    >>> zeros, ones = np.zeros(4, np.float32), np.ones(4, np.float32)
    >>> [(row["group"], row["relative"]) for row in weights_changed({"a": ones, "b": ones}, {"a": ones, "b": 2 * ones})]
    [('b', 1.0), ('a', 0.0)]
    """
    groups: dict[str, dict[str, Any]] = {}
    for name in sorted({*before, *after}):
        old, new, note = _pair(before.get(name), after.get(name))
        row = groups.setdefault(group_of(name), {"n": 0, "norm": 0.0, "change": 0.0, "note": ""})
        row["n"] += max(old.size, new.size)
        row["norm"] += float(np.sum(old * old))
        row["change"] += _squared(old, new)
        row["note"] = row["note"] or note
    return sorted((_row(group, row) for group, row in groups.items() if row["n"]), key=_rank)


def _pair(old: np.ndarray | None, new: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, str]:
    nothing = np.zeros(0)
    a, b = (nothing if one is None else one.astype(np.float64).ravel() for one in (old, new))
    if old is None or new is None:
        return a, b, "only in the second" if old is None else "only in the first"
    return a, b, "" if old.shape == new.shape else f"shape {list(old.shape)} to {list(new.shape)}"


def _squared(old: np.ndarray, new: np.ndarray) -> float:
    if old.shape == new.shape:
        return float(np.sum((new - old) ** 2))
    return float(np.sum(old * old) + np.sum(new * new))


def _row(group: str, row: Mapping[str, Any]) -> dict[str, Any]:
    norm, change = float(np.sqrt(row["norm"])), float(np.sqrt(row["change"]))
    relative = change / norm if norm else (0.0 if not change else None)
    note = {"note": row["note"]} if row["note"] else {}
    return {"group": group, "n": row["n"], "norm": norm, "change": change, "relative": relative, **note}


def _rank(row: Mapping[str, Any]) -> tuple[float, str]:
    return (-np.inf if row["relative"] is None else -row["relative"], row["group"])


def told_changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was told of two versions, side by side.

    Args:
        before: a version as `versions show` describes it.
        after: the other.

    Returns:
        Rows of `what`, `before`, `after`, and `change` where both are numbers.
    """
    lines = [one.get("lineage", {}) for one in (before, after)]
    next_of = [line.get("next", {}) for line in lines]
    verdicts = [_verdict(one) for one in (before, after)]
    rows: list[tuple[Any, ...]] = [
        (what, before.get(what), after.get(what)) for what in ("event", "event_at", "tick", "parent", *DIGESTS)
    ]
    rows += [(f"offset of {name}", *(n.get(name) for n in next_of)) for name in sorted({*next_of[0], *next_of[1]})]
    rows += [("records", *(line.get("counts", {}).get("consumed") for line in lines))]
    rows += [(what, *(line.get(f"n_{what}") for line in lines)) for what in ("examples", "items")]
    rows += [(f"gate: {what}", *(verdict.get(what) for verdict in verdicts)) for what in GATE]
    measured = [dict(points_of(one.get("measured") or {})) for one in (before, after)]
    names = sorted(name for name in {*measured[0], *measured[1]} if name.startswith("eval/") and "_served_" in name)
    rows += [(name, *(points.get(name) for points in measured)) for name in names]
    return [_side(*row) for row in rows if row[1] is not None or row[2] is not None]


def _verdict(told: Mapping[str, Any]) -> Mapping[str, Any]:
    verdict = told.get("verdict")
    return verdict if isinstance(verdict, Mapping) else {"verdict": verdict}


def _side(what: str, before: Any, after: Any) -> dict[str, Any]:
    row = {"what": what, "before": before, "after": after}
    both = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (before, after))
    return row | {"change": round(after - before, 6)} if both else row
