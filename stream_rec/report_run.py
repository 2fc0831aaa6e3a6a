"""What a run folder says about its run: the lines of `metrics.jsonl`, `summary.json`, the promotions.

A folder that is still being written to is read as far as its lines are whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_rec.errors import SettingsError

Floats = NDArray[np.float64]

RECALL = "recall@20"
SERVED = "served"
LABELS = {
    SERVED: "served slates",
    "ranker": "ranker",
    "learner": "learner",
    "popular_7d": "popular, last 7 days",
    "popular_decayed": "popular, decayed",
    "cooccurrence": "bought together",
    "repeat": "bought before",
    "own_then_popular_7d": "own, then popular",
}
"""Names of the models for people; keys are those of `metrics.jsonl` and `summary.json`."""
LEARNED = (SERVED, "ranker", "learner")
"""What learns; all other models are the simple lists it has to beat."""
COUNTS = ("accepted", "duplicate", "late", "dead_lettered", "ignored")
OUTPUTS = (
    "figures/learning.png", "summary.json", "metrics.jsonl", "slates.jsonl", "versions.jsonl", "dead-letters.jsonl",
    "ledger.jsonl", "checkpoints", "weights",
)  # fmt: skip
"""What a run folder may hold, in the order people look at it."""


@dataclass(frozen=True)
class Run:
    """A run folder as read. `lines` are ordered by time; `promoted_at_ms` are event times."""

    lines: list[dict[str, Any]]
    summary: dict[str, Any]
    promoted_at_ms: list[int]

    def times_ms(self) -> Floats:
        """Event time of each metrics line, ms."""
        return np.array([line["event_at"] for line in self.lines], dtype=np.float64)

    def extent_ms(self) -> tuple[float, float]:
        """Event time of the run without its thin ends: 99.8 % of the records lie inside."""
        times_ms, done = self.times_ms(), np.cumsum(self.count("consumed"))
        if len(times_ms) < 3 or done[-1] <= 0:
            return float(times_ms[0]), float(max(times_ms[-1], times_ms[0] + 1))
        first = max(0, int(np.searchsorted(done, 0.001 * done[-1])) - 1)
        last = int(np.searchsorted(done, 0.999 * done[-1]))
        return float(times_ms[first]), float(max(times_ms[last], times_ms[first] + 1))

    def inside(self, begin_ms: float, end_ms: float) -> Run:
        """The run between two event times, both included."""
        lines = [line for line in self.lines if begin_ms <= line["event_at"] <= end_ms]
        return Run(lines, self.summary, [at_ms for at_ms in self.promoted_at_ms if begin_ms <= at_ms <= end_ms])

    def count(self, name: str) -> Floats:
        """A count of each metrics line; 0 where it is not said."""
        return np.array([line.get(name) or 0 for line in self.lines], dtype=np.float64)

    def measure(self, task: str, model: str, *, part: str = "all", name: str = RECALL) -> tuple[Floats, Floats]:
        """(n, value) of a metric of each line; n is 0 where nothing was measured."""
        cells = [line.get("metrics", {}).get(task, {}).get(model, {}).get(part) or {} for line in self.lines]
        n = np.array([cell.get("n") or 0 for cell in cells], dtype=np.float64)
        value = np.array([cell.get(name) or 0.0 for cell in cells], dtype=np.float64)
        return n, value

    def models(self, task: str) -> list[str]:
        """Models measured on a task at all, in the order of LABELS, then any other by name."""
        found = {model for line in self.lines for model in line.get("metrics", {}).get(task, {})}
        for table in self.summary.get("metrics", {}).values():
            found.update(table.get(task, {}))
        return [m for m in LABELS if m in found] + sorted(found - LABELS.keys())


def read_run(run_dir: Path) -> Run:
    """Read a run folder.

    Raises:
        SettingsError: it has no metrics and no summary, so there is nothing to report.
    """
    lines = list(_json_lines(run_dir / "metrics.jsonl"))
    path = run_dir / "summary.json"
    if not lines and not path.is_file() and not (run_dir / "ledger.jsonl").is_file():
        raise SettingsError(f"{run_dir} holds no run; give the folder of a run that has begun")
    lines = sorted((line for line in lines if isinstance(line.get("event_at"), int)), key=lambda line: line["event_at"])
    summary = msgspec.json.decode(path.read_bytes()) if path.is_file() else so_far(lines)
    notices = _json_lines(run_dir / "versions.jsonl")
    promoted = [n["event_at"] for n in notices if "version" in n and isinstance(n.get("event_at"), int)]
    return Run(lines, summary, sorted(set(promoted)) or _version_changes(lines))


def so_far(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """The summary of an unfinished run, by its metrics lines: counts, and means over tenths of the records so far.

    >>> so_far([{"consumed": 9}, {"consumed": 1}])["consumed"]
    10
    """
    total, done = sum(line.get("consumed") or 0 for line in lines), 0
    parts: dict[str, list[dict[str, Any]]] = {"first_tenth": [], "last_tenth": [], "whole": lines}
    for line in lines:
        if done < 0.1 * total:
            parts["first_tenth"].append(line)
        done += line.get("consumed") or 0
        if done > 0.9 * total:
            parts["last_tenth"].append(line)
    counts = {name: sum(line.get(name) or 0 for line in lines) for name in ("consumed", *COUNTS, "repaired")}
    return {"unfinished": True, **counts, "metrics": {name: _means(some) for name, some in parts.items()}}


def _means(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """{task: {model: {slice: {n, recall}}}} over some lines."""
    sums: dict[tuple[str, str, str], list[float]] = {}
    for line in lines:
        for task, models in line.get("metrics", {}).items():
            for model, slices in models.items():
                for name, cell in slices.items():
                    held = sums.setdefault((task, model, name), [0.0, 0.0])
                    held[0] += cell.get("n") or 0
                    held[1] += (cell.get("n") or 0) * (cell.get(RECALL) or 0.0)
    out: dict[str, Any] = {}
    for (task, model, name), (n, total) in sums.items():
        if n:
            out.setdefault(task, {}).setdefault(model, {})[name] = {"n": n, RECALL: total / n}
    return out


def written(run_dir: Path) -> list[Path]:
    """Paths of everything there is in a run folder, in the order people look at it."""
    return [path for name in OUTPUTS if (path := run_dir / name).exists()]


def moving_average(times_ms: Floats, n: Floats, value: Floats, *, window_ms: float, least: float = 0.0) -> Floats:
    """Mean of `value` weighted by `n` over the `window_ms` up to each time; it never looks ahead.

    NaN where the weights of the window are zero or below `least`. Times are ascending.

    >>> moving_average(np.array([0.0, 10, 20]), np.array([1.0, 3, 0]), np.array([0.4, 0.8, 0]), window_ms=15).tolist()
    [0.4, 0.7, 0.8]
    """
    begin = np.searchsorted(times_ms, times_ms - window_ms, side="right")
    weight = np.concatenate([[0.0], np.cumsum(n)])
    total = np.concatenate([[0.0], np.cumsum(n * value)])
    end = np.arange(len(times_ms)) + 1
    weights = weight[end] - weight[begin]
    enough = (weights > 0) & (weights >= least)
    means = np.round((total[end] - total[begin]) / np.where(enough, weights, 1.0), 12)
    return np.where(enough, means, np.nan)


def _version_changes(lines: list[dict[str, Any]]) -> list[int]:
    before = lines[0].get("version") if lines else None
    changes = []
    for line in lines:
        if line.get("version") != before:
            changes.append(line["event_at"])
            before = line.get("version")
    return changes


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Each whole line of a file as an object; what is being written at the end is left out."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        for line in file:
            try:
                value = msgspec.json.decode(line)
            except msgspec.DecodeError:
                continue
            if isinstance(value, dict):
                yield value
