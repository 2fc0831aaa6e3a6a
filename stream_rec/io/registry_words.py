"""How MLflow says what a version's notice says: tags, params, and a dataset with its offsets. Pure."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

from stream_rec.io.registry_outbox import News

VERSION = "stream_rec.version"
FLOOR = "stream_rec.gc_tick"
"""Tag of a registered model: the tick up to which versions that are missing went on purpose."""
"""Tag of the registered model: of versions up to this tick those that are missing went on purpose."""
SERVES = ("initial", "promote")
MAX_TAG = 5_000
"""MLflow cuts tags at 8,000 characters without a word."""

Notice = Mapping[str, Any]
Ranges = Mapping[str, Mapping[str, tuple[int | None, int]]]
"""Topic to partition to (first, next offset)."""


def is_version(notice: Notice) -> bool:
    """Whether a record of `versions` tells of a version that has weights."""
    return "sha256" in notice and "version" in notice


def tags_of(notice: Notice, parent: Notice | None, topics: Mapping[str, str]) -> dict[str, str]:
    """Lineage of a version as tags.

    Args:
        notice: of the version.
        parent: notice of the version before it, where its own begins.
        topics: our topics to what they are called outside.
    """
    line = notice.get("lineage", {})
    counts, joins = line.get("counts", {}), line.get("joins", {})
    verdict = notice.get("verdict") or {}
    tags = {
        VERSION: notice["version"],
        "event": notice.get("event"),
        "tick": notice.get("tick"),
        "parent_version": notice.get("parent"),
        "weights.sha256": notice.get("sha256"),
        "kafka.ranges": json.dumps(ranges_of(notice, parent, topics)),
        "event_time.start_ms": parent.get("event_at") if parent else None,
        "event_time.end_ms": notice.get("event_at"),
        "watermark_ms": line.get("watermark"),
        "events_seen": counts.get("consumed"),
        "examples_seen": line.get("n_examples"),
        "join_rate": share(joins.get("exact", 0), sum(joins.get(w, 0) for w in ("exact", "implied", "weak"))),
        "label_maturity.click": share(joins.get("matured", 0), joins.get("exposed", 0)),
        "label_maturity.purchase": share(joins.get("closed", 0), joins.get("exposed", 0)),
        "gate.verdict": verdict.get("verdict"),
        "gate.reasons": "; ".join(verdict.get("reasons", ())) or None,
        **{f"quality.{name}": value for name, value in quality_of(counts).items()},
    }
    return {name: str(value)[:MAX_TAG] for name, value in tags.items() if value is not None}


def quality_of(counts: Mapping[str, int]) -> dict[str, float | None]:
    """Shares of the records consumed so far: valid, in time, told once.

    >>> quality_of({"consumed": 200, "dead_lettered": 1, "late": 0, "duplicate": 3})
    {'validity': 0.995, 'timeliness': 1.0, 'uniqueness': 0.985}
    """
    n = counts.get("consumed", 0)
    faults = {"validity": "dead_lettered", "timeliness": "late", "uniqueness": "duplicate"}
    return {name: share(n - counts.get(fault, 0), n) for name, fault in faults.items()}


def share(part: int, whole: int) -> float | None:
    """Part of a whole, six digits; None of nothing."""
    return round(part / whole, 6) if whole else None


def ranges_of(
    notice: Notice, parent: Notice | None, topics: Mapping[str, str]
) -> dict[str, dict[str, tuple[int | None, int]]]:
    """Topic to partition to (first, next offset) that the version has read beyond its parent.

    >>> child, parent = {"lineage": {"next": {"events/0": 9}}}, {"lineage": {"next": {"events/0": 4}}}
    >>> ranges_of(child, parent, {"events": "shop-events"})
    {'shop-events': {'0': (4, 9)}}
    """
    before = (parent or {}).get("lineage", {}).get("next", {})
    out: dict[str, dict[str, tuple[int | None, int]]] = {}
    for name, end in notice.get("lineage", {}).get("next", {}).items():
        topic, _, partition = name.rpartition("/")
        first = before.get(name) if parent is not None else 0
        out.setdefault(topics.get(topic, topic), {})[partition] = (first, end)
    return out


def dataset_of(notice: Notice, ranges: Mapping[str, Any], source_type: str) -> dict[str, str]:
    """Name, digest, source and profile of what a version has read; what MLflow would refuse is cut short."""
    source = json.dumps(ranges)
    if len(source) > 60_000:
        source = json.dumps({topic: {"partitions": len(held)} for topic, held in ranges.items()})
    counts = notice.get("lineage", {}).get("counts", {})
    return {
        "name": f"{source_type}:{'+'.join(ranges)}"[:500],
        "digest": hashlib.sha256(json.dumps([notice["version"], ranges]).encode()).hexdigest()[:32],
        "source_type": source_type,
        "source": source,
        "profile": json.dumps({"records": counts.get("consumed"), "items": notice.get("lineage", {}).get("n_items")}),
    }


def metrics_of(notice: Notice) -> dict[str, float]:
    """What the gate found, as metrics of the version."""
    verdict = notice.get("verdict") or {}
    out: dict[str, Any] = {"eval/gate_recall_difference": verdict.get("recall_difference")}
    out |= dict(zip(("eval/gate_interval_low", "eval/gate_interval_high"), verdict.get("interval") or (), strict=False))
    out["eval/gate_visits"] = verdict.get("n_visits")
    for name, cell in (verdict.get("slices") or {}).items():
        out[f"eval/gate_{name}_recall_difference"] = cell.get("recall_difference")
    out |= {f"data/{name}": value for name, value in quality_of(notice.get("lineage", {}).get("counts", {})).items()}
    return {name: float(value) for name, value in out.items() if isinstance(value, int | float)}


def aliases_after(news: News) -> tuple[str, str | None] | None:
    """(champion, version to roll back to) as the last pointer among a tick's records says; None: it says nothing new.

    After a call back nothing is left to return to.
    """
    pointers = [n for n in news.notices if n.get("event") == "champion"]
    if not pointers:
        return None
    champion = pointers[-1]["version"]
    told = [n for n in news.notices if is_version(n) and n["version"] == champion]
    parent = told[-1].get("parent") if told and told[-1].get("event") == "promote" else None
    return champion, parent


def estimates_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Version to metric to value, of rows of `evaluate`: of each estimate value, interval and effective sample size.

    An estimate without a verdict has its effective sample size only.

    >>> row = {"group": "v1", "policy": "greedy", "unit": "slot", "estimator": "ips", "value": 0.5, "low": 0.4}
    >>> estimates_of([row | {"high": None, "ess": 9.0, "verdict": True}])["v1"]
    {'explore/greedy_slot_ips': 0.5, 'explore/greedy_slot_ips_low': 0.4, 'explore/greedy_slot_ips_ess': 9.0}
    """
    out: dict[str, dict[str, float]] = {}
    for row in rows:
        key = f"explore/{row['policy']}_{row['unit']}_{row['estimator']}".replace(":", "_")
        told = {f"{key}_ess": row.get("ess")}
        if row["verdict"]:
            told = {key: row["value"], f"{key}_low": row["low"], f"{key}_high": row["high"]} | told
        held = out.setdefault(str(row["group"]), {})
        held |= {name: float(value) for name, value in told.items() if value is not None}
    return out


def floor_of(worker: str) -> str:
    """FLOOR of one run, where several log to the same registered model.

    >>> floor_of("shop/one/runs/a")
    'stream_rec.gc_tick.a057c92d'
    """
    return f"{FLOOR}.{zlib.crc32(worker.encode()):08x}"
