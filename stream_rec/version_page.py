"""What a person sees of a version in MLflow: metrics in groups, a note, tables. Made from what a run has said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

COUNTS = ("consumed", "accepted", "duplicate", "late", "dead_lettered", "ignored")
MODELS = ("served", "ranker", "learner", "linear", "popular_7d", "own_then_popular_7d", "item_knn")
"""Of each task; the rest is in `metrics.jsonl`."""
MEASURES = {"recall@20": "recall_at_20", "ndcg@20": "ndcg_at_20"}
N_SLOTS = 20
PREDICTED = ("ece", "log_loss", "auc")
"""How good the served probabilities were."""
FEWEST = 100
"""Shown slots below which that is chance."""
N_RANGES = 12
"""Partitions in a note."""
JOINED = {
    "impressions": "explore/impressions",
    "clicks": "explore/clicks",
    "click_rate": "explore/click_rate",
    "join_rate": "data/join_rate",
}

EXPLORED = ("slots", "explored", "loss", "expected_loss", "slate_loss", "observed", "items_tried")


def points_of(line: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """(metric, value) of a line of `metrics.jsonl`, at most about eighty.

    >>> dict(points_of({"consumed": 4, "accepted": 3, "click_rate": 0.5, "join_rate": None}))
    {'stream/consumed': 4.0, 'stream/accepted': 3.0, 'data/accepted_share': 0.75, 'explore/click_rate': 0.5}
    """
    for name in COUNTS:
        if name in line:
            yield f"stream/{name}", float(line[name])
    n = line.get("consumed") or 0
    for name in ("accepted", "dead_lettered", "late", "duplicate"):
        if n and name in line:
            yield f"data/{name}_share", line[name] / n
    for name, metric in JOINED.items():
        if (value := line.get(name)) is not None:
            yield metric, float(value)
    told = line.get("explore", {})
    yield from ((f"explore/{name}", float(told[name])) for name in EXPLORED if name in told)
    yield from _evaluated(line.get("metrics", {}))
    yield from _predicted(line.get("heads", {}))
    for model in MODELS[:3]:
        for name, value in (line.get("reach", {}).get(model) or {}).items():
            yield f"explore/{model}_{name}", float(value)
    gate = line.get("gate") or {}
    if isinstance(gate.get("recall_difference"), float):
        yield "train/challenger_recall_difference", gate["recall_difference"]
    for name, n_alarms in (line.get("drift") or {}).items():
        yield f"train/drift_{name}", float(n_alarms)
    if "brake" in line:
        yield "train/brake", float(bool(line["brake"]))


def _predicted(heads: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for head, models in heads.items():
        told = models.get("champion", {})
        if told.get("n", 0) < FEWEST:
            continue
        yield from ((f"eval/{head}_{name}", float(told[name])) for name in PREDICTED if told.get(name) is not None)


def _evaluated(metrics: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for task, models in metrics.items():
        for model in MODELS:
            slices = models.get(model, {})
            wanted = slices if model == MODELS[0] else {"all": slices.get("all")}
            for part, cell in wanted.items():
                for measure, said in MEASURES.items():
                    if cell and cell.get("n") and cell.get(measure) is not None:
                        where = "" if part == "all" else f"_{part}"
                        yield f"eval/{task}_{model}{where}_{said}", float(cell[measure])


def note_of(notice: Mapping[str, Any], ranges: Mapping[str, Mapping[str, tuple[int | None, int]]]) -> str:
    """What a version is, as a table in Markdown: why it serves, and from what it was made.

    Args:
        notice: of the version.
        ranges: topic to partition to (first, next offset) that it has read beyond its parent.
    """
    line, verdict = notice.get("lineage", {}), notice.get("verdict") or {}
    counts = line.get("counts", {})
    rows = [
        ("version", f"`{notice['version']}` ({notice.get('event')})"),
        ("parent", f"`{notice['parent']}`" if notice.get("parent") else "none"),
        ("verdict", "; ".join(verdict.get("reasons", ())) or "none was asked for"),
        ("recall against the champion", _signed(verdict)),
        ("records seen", f"{counts.get('consumed', 0):,}"),
        ("of them dead letters, late, repeated", " / ".join(
            f"{counts.get(name, 0):,}" for name in ("dead_lettered", "late", "duplicate"))),
        ("examples seen", f"{line.get('n_examples', 0):,}"),
        ("items known", f"{line.get('n_items', 0):,}"),
    ]  # fmt: skip
    read = [
        (f"read of `{topic}/{partition}`", f"{'?' if first is None else f'{first:,}'} to {end:,}")
        for topic, held in ranges.items()
        for partition, (first, end) in held.items()
    ]
    rows += read[:N_RANGES]
    if len(read) > N_RANGES:
        rows.append(("read of others", f"{len(read) - N_RANGES} partitions; see the tag `kafka.ranges`"))
    return "| | |\n|---|---|\n" + "".join(f"| {name} | {value} |\n" for name, value in rows)


def _signed(verdict: Mapping[str, Any]) -> str:
    difference, interval = verdict.get("recall_difference"), verdict.get("interval")
    if difference is None or not interval:
        return "not measured"
    return f"{difference:+.4f} ({interval[0]:+.4f} to {interval[1]:+.4f}, {verdict.get('n_visits', 0):,} visits)"


def slices_of(notice: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The gate's table as columns: all rivals, then the slices."""
    verdict = notice.get("verdict") or {}
    rows = [("rival", *pair) for pair in (verdict.get("rivals") or {}).items()]
    rows += [("slice", *pair) for pair in (verdict.get("slices") or {}).items()]
    out: dict[str, list[Any]] = {"kind": [kind for kind, _, _ in rows], "name": [name for _, name, _ in rows]}
    for column in ("judged", "recall_difference", "rival_recall", "n_visits", "n_users"):
        out[column] = [cell.get(column) for _, _, cell in rows]
    for place, column in enumerate(("interval_low", "interval_high")):
        out[column] = [(cell.get("interval") or (None, None))[place] for _, _, cell in rows]
    return out if rows else {}


def slots_of(slates: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Sample slates as columns, a row a slot; they name nobody."""
    out: dict[str, list[Any]] = {name: [] for name in ("slate", "cause", "position", "item_id", "score", "reasons")}
    for nth, slate in enumerate(slates):
        for slot in slate["slots"][:N_SLOTS]:
            out["slate"].append(nth)
            out["cause"].append(slate["cause"])
            out["position"].append(slot["position"])
            out["item_id"].append(slot["item_id"])
            out["score"].append(slot["score"])
            out["reasons"].append(", ".join(slot["reasons"]))
    return out
