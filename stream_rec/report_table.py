"""The tables of a report: first tenth against last tenth, against the simple lists, by slice, and the accounting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from stream_rec.report_run import COUNTS, LABELS, LEARNED, RECALL, SERVED, Run

TASKS = {"next_visit": "the next visit", "next_item": "the next item"}
AGAINST = "popular_7d"
EXPLAINED = (
    "Popular: most taken in the last 7 days; vs: times that, in the last tenth. Best list: the strongest simple list; "
    "vs list: the ranker against it. Every model is scored before it learns from the example."
)
SLICES = {
    "all": "all",
    "known": "known users",
    "new": "new users",
    "anonymous": "anonymous",
    "new_items": "new items",
    "head": "head items",
    "tail": "tail items",
}
Metrics = Mapping[str, Any]


def print_tables(run: Run, console: Console) -> None:
    """Print everything a person wants to know first."""
    if run.summary.get("unfinished"):
        console.print(f"unfinished: {run.summary['consumed']:,} records so far", style="bold", highlight=False)
    metrics = run.summary.get("metrics", {})
    for task, name in TASKS.items():
        if models := [m for m in run.models(task) if _n(metrics, "whole", task, m) > 0]:
            console.print(_models_table(metrics, task, models, title=f"Recall@20 at {name}, all visitors"))
    for task, name in TASKS.items():
        if any(_n(metrics, "whole", task, m) > 0 for m in LEARNED):
            console.print(_slices_table(run, task, title=f"Recall@20 at {name} by slice, last tenth"))
            break
    if heads := run.summary.get("heads", {}).get("metrics", {}).get("whole"):
        console.print(_heads_table(heads))
    console.print(EXPLAINED, style="dim", highlight=False)
    for line in _sentences(run.summary):
        console.print(line, highlight=False)


def headline(summary: Mapping[str, Any]) -> str:
    """The table in one line: the best learned recall of the first and last tenth, and the popular list's.

    >>> cell = {"all": {"n": 9, "recall@20": 0.25}}
    >>> headline({"metrics": {"last_tenth": {"next_visit": {"ranker": cell, "popular_7d": cell}}}})
    'recall@20 at the next visit, last tenth: ranker 0.250 (first tenth -), popular, last 7 days 0.250'
    """
    metrics = summary.get("metrics", {})
    for task, name in TASKS.items():
        for model in LEARNED:
            if (last := _value(metrics, "last_tenth", task, model)) is not None:
                first = _share(_value(metrics, "first_tenth", task, model))
                popular = f"{LABELS[AGAINST]} {_share(_value(metrics, 'last_tenth', task, AGAINST))}"
                best = f"{LABELS[model]} {_share(last)} (first tenth {first})"
                return f"recall@20 at {name}, last tenth: {best}, {popular}"
    return ""


def _models_table(metrics: Metrics, task: str, models: list[str], *, title: str) -> Table:
    """A row a model: what learns first, then the simple lists from best to worst."""
    table = _table(title, "model", "first tenth", "last tenth", "change", "whole run", "vs popular")
    base = _value(metrics, "last_tenth", task, AGAINST)
    order = sorted(models, key=lambda m: (m not in LEARNED, -(_value(metrics, "last_tenth", task, m) or 0.0)))
    for model in sorted(order, key=lambda m: m != SERVED):
        first, last, whole = (_value(metrics, part, task, model) for part in ("first_tenth", "last_tenth", "whole"))
        cells = (_share(first), _share(last), _change(first, last), _share(whole), _ratio(last, base))
        table.add_row(LABELS.get(model, model), *cells, style="bold" if model == SERVED else "")
    return table


def _slices_table(run: Run, task: str, *, title: str) -> Table:
    """A row a slice: the served slates and the ranker against the strongest simple list of that slice."""
    metrics, part = run.summary["metrics"], "last_tenth"
    table = _table(title, "slice", "n", "served", "ranker", "popular", "best list", "vs list")
    simple = [m for m in run.models(task) if m not in LEARNED]
    for name, label in SLICES.items():
        n = max((_n(metrics, part, task, m, name) for m in run.models(task)), default=0)
        if not n:
            continue
        lists = [(value, m) for m in simple if (value := _value(metrics, part, task, m, name)) is not None]
        best, model = max(lists, default=(None, ""))
        ranker = _value(metrics, part, task, "ranker", name)
        table.add_row(
            label,
            f"{n:,.0f}",
            _share(_value(metrics, part, task, SERVED, name)),
            _share(ranker),
            _share(_value(metrics, part, task, AGAINST, name)),
            f"{LABELS.get(model, model)} {_share(best)}",
            _ratio(ranker, best),
        )
    return table


def _heads_table(heads: Metrics) -> Table:
    """A row a head: what was predicted for shown slots before anything was learned of them."""
    table = _table(
        "Probabilities of shown slots, whole run", "event", "slots", "rate", "ECE", "ECE, learner", "AUC", "log loss",
        "of the plain rate's",
    )  # fmt: skip
    for head, models in heads.items():
        served, learner, rate = (models.get(name, {}) for name in ("champion", "learner", "rate"))
        table.add_row(
            head,
            f"{served.get('n', 0):,}",
            *(_small(cells.get(name)) for cells, name in ((served, "rate"), (served, "ece"), (learner, "ece"))),
            _share(served.get("auc")),
            _small(served.get("log_loss")),
            _ratio(served.get("log_loss"), rate.get("log_loss")),
        )
    return table


def _small(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _sentences(summary: Mapping[str, Any]) -> list[str]:
    out = []
    clicks = summary.get("click_rate") or {}
    first, last = clicks.get("first_tenth"), clicks.get("last_tenth")
    if first is not None and last is not None:
        change = _change(first, last)
        out.append(
            f"Click rate (shown slates with a click): first tenth {first:.1%}, last tenth {last:.1%} ({change})."
        )
    if "consumed" in summary:
        parts = " + ".join(f"{summary.get(name, 0):,} {name.replace('_', ' ')}" for name in COUNTS)
        repaired = f" ({summary['repaired']:,} of them repaired)" if summary.get("repaired") else ""
        out.append(f"Records: {summary['consumed']:,} consumed = {parts}{repaired}.")
    if "n_versions" in summary:
        champion = f"; {summary['champion']} serves" if summary.get("champion") else ""
        out.append(f"Versions: {summary['n_versions']:,}{champion}.")
    if summary.get("events_per_s"):
        out.append(f"Speed: {summary['events_per_s']:,.0f} events/s, {summary.get('cpu_s', 0):,.1f} s of CPU.")
    return out


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _cell(metrics: Metrics, part: str, task: str, model: str, slice_name: str) -> Mapping[str, Any]:
    cell: Mapping[str, Any] = metrics.get(part, {}).get(task, {}).get(model, {}).get(slice_name) or {}
    return cell


def _n(metrics: Metrics, part: str, task: str, model: str, slice_name: str = "all") -> float:
    return float(_cell(metrics, part, task, model, slice_name).get("n") or 0)


def _value(metrics: Metrics, part: str, task: str, model: str, slice_name: str = "all") -> float | None:
    cell = _cell(metrics, part, task, model, slice_name)
    return float(cell[RECALL]) if cell.get("n") and cell.get(RECALL) is not None else None


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _change(first: float | None, last: float | None) -> str:
    """The change from `first` to `last` in per cent of `first`.

    >>> _change(0.2, 0.25), _change(None, 0.1), _change(0.0, 0.1)
    ('+25 %', '-', '-')
    """
    return f"{last / first - 1:+.0%}".replace("%", " %") if first and last is not None else "-"


def _ratio(value: float | None, base: float | None) -> str:
    return f"{value / base:.2f}x" if base and value is not None else "-"
