"""A poisoned hour: purchases vanish for half of it, then every action names another item. What it leaves behind.

    python -m tests.bench.bench_poisoned [--days 5] [--visits-per-day 6000] [--seed 0] [--set section.key=value ...]

Writes the stream of the simulated shop to a file twice, once as it is and once with an hour on the last day but one
spoilt, replays both, and prints side by side: versions promoted before, in and after the hour, hours under the brake,
and recall@20 at the next visit from six hours after the hour on, for the model that serves (`ranker`), the one that
learns, the slate in force and the last seven days' popularity. Ends with exit status 1 when a version was promoted in
the hour or the serving model is not within 2 % of the clean run's. Ranks on statistics alone unless --set says an
encoder. Takes about five minutes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stream_rec import assemble, config, replay
from stream_rec.events import Record, Topic
from stream_rec.simulate import Shop, ShopPlan

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
MODELS = ("ranker", "learner", "served", "popular_7d")
RECOVERS_MS = 6 * HOUR_MS
TOLERANCE = 0.02
SETS = (
    "privacy.key=the key of a bench",
    "model.encoder=none",
    "learn.sample_one_in=1",
    "slate.refresh_users_per_tick=16",
    "learn.light_cut_examples=2000",
)


@dataclass(frozen=True)
class Outcome:
    """What a replay came to."""

    promoted: tuple[int, int, int]
    """Versions promoted before, in and after the hour."""
    called_back: int
    braked_hours: int
    """Metrics lines, one an hour, at which the brake was on."""
    reasons: tuple[str, ...]
    recall: dict[str, float]
    """By model, after recovery."""
    n_visits: int


def spoilt(records: Sequence[Record], from_ms: int, seed: int) -> Iterator[Record]:
    """The records; of an hour from `from_ms` on the first half loses its purchases, the rest has its items shuffled."""
    middle_ms, end_ms = from_ms + HOUR_MS // 2, from_ms + HOUR_MS
    shuffled = [r for r in records if r.topic == Topic.EVENTS and middle_ms <= r.timestamp_ms < end_ms]
    bodies = {id(r): body for r in shuffled if (body := _object(r)) is not None and "item_id" in body}
    items = [body["item_id"] for body in bodies.values()]
    order = np.random.default_rng(seed).permutation(len(items)).tolist()
    other = dict(zip(bodies, (items[place] for place in order), strict=True))
    for record in records:
        if record.topic == Topic.EVENTS and from_ms <= record.timestamp_ms < middle_ms:
            body = _object(record)
            if body is not None and body.get("event_type") == "purchase":
                continue
        if id(record) in other:
            body = {**bodies[id(record)], "item_id": other[id(record)]}
            record = record._replace(value=json.dumps(body).encode())
        yield record


def _object(record: Record) -> dict[str, Any] | None:
    try:
        body = json.loads(record.value or b"")
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def replayed(records: Sequence[Record], sets: Sequence[str], folder: Path, *, from_ms: int) -> Outcome:
    """Replay a stream from files and read what became of it."""
    folder.mkdir()
    for topic in (Topic.EVENTS, Topic.ITEMS):
        values = [r.value for r in records if r.topic == topic and r.value is not None]
        (folder / f"{topic}.jsonl").write_bytes(b"".join(v.replace(b"\n", b" ") + b"\n" for v in values))
    out = folder / "run"
    settings = config.load(None, [*SETS, *sets, f"run.dir={out}"], {})
    replay.run_replay(settings, events=folder / "events.jsonl", items=folder / "items.jsonl")
    run = assemble.open_run(out)
    called_back = sum(n.get("event") == "rollback" for n in run.records(Topic.VERSIONS))
    at = [n["event_at"] for n in run.records(Topic.VERSIONS) if n.get("event") == "promote"]
    lines = list(run.records(Topic.METRICS))
    later = [line["metrics"]["next_visit"] for line in lines if line["event_at"] > from_ms + HOUR_MS + RECOVERS_MS]
    return Outcome(
        (
            sum(a < from_ms for a in at),
            sum(from_ms <= a < from_ms + HOUR_MS for a in at),
            sum(a >= from_ms + HOUR_MS for a in at),
        ),
        called_back,
        sum(bool(line["brake"]) for line in lines),
        tuple(sorted({reason.partition(":")[0] for line in lines for reason in line["brake"]})),
        {model: _mean([line.get(model, {}) for line in later]) for model in MODELS},
        sum(part["n"] for line in later for name, part in line.get("ranker", {}).items() if name == "all"),
    )


def _mean(lines: Sequence[dict[str, Any]]) -> float:
    parts = [line["all"] for line in lines if "all" in line]
    n = sum(part["n"] for part in parts)
    return float(sum(part["recall@20"] * part["n"] for part in parts) / max(n, 1))


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=float, default=5.0)
    parser.add_argument("--visits-per-day", type=float, default=6_000.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", dest="sets", action="append", default=[], metavar="section.key=value")
    chosen = parser.parse_args()
    plan = ShopPlan(
        days=chosen.days, n_users=4_000, n_items=1_000, visits_per_day=chosen.visits_per_day, outage_day=chosen.days + 9
    )
    shop = Shop(chosen.seed, plan)
    records = shop.catalogue() + shop.step(shop.end_ms, lambda _user: None)
    from_ms = plan.start_ms + (int(chosen.days) - 2) * DAY_MS + 14 * HOUR_MS
    sets = [f"run.seed={chosen.seed}", *chosen.sets]
    with tempfile.TemporaryDirectory() as folder:
        clean = replayed(records, sets, Path(folder) / "clean", from_ms=from_ms)
        bad = list(spoilt(records, from_ms, chosen.seed))
        poisoned = replayed(bad, sets, Path(folder) / "poisoned", from_ms=from_ms)
    print(f"{len(records):,} records, seed {chosen.seed}, {clean.n_visits:,} visits scored after recovery\n")
    print("| | clean | poisoned | ratio |\n|---|---|---|---|")
    for when, place in (("before", 0), ("in", 1), ("after", 2)):
        print(f"| versions promoted {when} the hour | {clean.promoted[place]} | {poisoned.promoted[place]} | |")
    print(f"| versions called back | {clean.called_back} | {poisoned.called_back} | |")
    print(f"| hours under the brake | {clean.braked_hours} | {poisoned.braked_hours} | |")
    print(f"| why | {', '.join(clean.reasons)} | {', '.join(poisoned.reasons)} | |")
    for model in MODELS:
        a, b = clean.recall[model], poisoned.recall[model]
        print(f"| recall@20 of {model} | {a:.4f} | {b:.4f} | {b / max(a, 1e-9):.4f} |")
    held = poisoned.promoted[1] == 0
    close = poisoned.recall["ranker"] >= (1 - TOLERANCE) * clean.recall["ranker"]
    told = "" if clean.promoted[1] else " (the clean run promoted nothing in it either, so this says little)"
    print(f"\nnothing promoted in the hour: {held}{told}; within {TOLERANCE:.0%} of the clean run: {close}")
    sys.exit(0 if held and close else 1)


if __name__ == "__main__":
    main()
