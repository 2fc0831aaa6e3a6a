"""A replay of stored topics beside the replay of a file with the same events: events a second of both, and the ratio.

Run: `python -m tests.bench.bench_kafka_replay [--events 200000] [--rounds 3] [--items 2000]`

Both are the whole command `stream-rec replay`, under the same settings, in turns on one machine; every replay of the
topic is a pipeline of its own in a new run folder. 100 events a second of seeded traffic (`traffic.py`), a topic of two
partitions. Targets: within 20 % of the file's rate, and at least 10 x real time.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stream_rec.assemble_kafka import Sending
from stream_rec.events import Topic
from tests.bench.kafka_ground import N_PARTITIONS, Ground, environment, load_average, say
from tests.bench.traffic import TICK, Batch, Traffic

SEED = 1
EVENTS_PER_S = 100
SHARE, TIMES_REAL = 0.8, 10
HOUR_MS = 3_600_000


class Done(NamedTuple):
    """A finished command."""

    summary: dict[str, Any]
    wall_s: float
    cpu_s: float


def run(command: list[str]) -> Done:
    """Run a replay to its end."""
    before, began_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    wall_s, after = time.monotonic() - began_s, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"the replay failed: {done.stderr[-2000:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Done(json.loads(done.stdout.splitlines()[-1]), wall_s, cpu)


def sendings(first: Batch, batches: list[Batch]) -> Iterator[Sending]:
    """Catalogue and events as they lie in the topics."""
    for r in first.records:
        yield Sending(Topic.ITEMS, r.key, r.value, 0, (), r.timestamp_ms)
    for batch in batches:
        for r in batch.records:
            yield Sending(Topic.EVENTS, (r.value or b"").split(b'"', 16)[15], r.value, r.partition, (), r.timestamp_ms)


def files(folder: Path, first: Batch, batches: list[Batch]) -> tuple[Path, Path]:
    """The same records a line each."""
    events, items = folder / "events.jsonl", folder / "items.jsonl"
    items.write_bytes(
        b"".join(b'{"item_id":"' + (r.key or b"") + b'",' + (r.value or b"")[1:] + b"\n" for r in first.records)
    )
    events.write_bytes(b"".join((r.value or b"") + b"\n" for batch in batches for r in batch.records))
    return events, items


def report(name: str, runs: list[Done]) -> float:
    """A line of a way; returns its median rate."""
    per_s = [each.summary["events_per_s"] for each in runs]
    middle, cpu = float(np.median(per_s)), float(np.median([each.summary["cpu_s"] for each in runs]))
    last = runs[-1]
    say(
        f"{name:6s} {middle:8,.0f} events/s ({', '.join(f'{each:,.0f}' for each in per_s)})  "
        f"{last.summary['consumed'] / cpu:8,.0f} a CPU second  {middle / EVENTS_PER_S:4.0f} x real time  "
        f"whole command {np.median([each.wall_s for each in runs]):.1f} s wall, "
        f"{np.median([each.cpu_s for each in runs]):.1f} s CPU; {last.summary['n_ticks']} ticks, "
        f"{last.summary['consumed']:,} records, {last.summary['accepted']:,} accepted"
    )
    return middle


def main() -> None:
    """Run both in turns."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--items", type=int, default=2_000)
    options = parser.parse_args()
    step_ms, n_ticks = 1_000 // EVENTS_PER_S, options.events // TICK
    start_ms = time.time_ns() // 1_000_000 - n_ticks * TICK * step_ms - HOUR_MS
    traffic = Traffic(
        SEED, n_users=options.events // 20, n_items=options.items, n_partitions=N_PARTITIONS, step_ms=step_ms,
        start_ms=start_ms,
    )  # fmt: skip
    first, batches = traffic.catalogue(), [traffic.tick() for _ in range(n_ticks)]
    stored, filed = list[Done](), list[Done]()
    with Ground() as ground:
        ground.put(sendings(first, batches))
        events, items = files(ground.folder, first, batches)
        since = str(start_ms - 2 * HOUR_MS)
        for n in range(options.rounds):
            out = ground.folder / f"file-{n}"
            filed.append(run(ground.command("replay", events, "--items", items, "--out", out, "--json")))
            out, name = ground.folder / f"topic-{n}", f"replay.name=replay{n}"
            stored.append(run(ground.command("replay", "--since", since, "--out", out, "--json", sets=(name,))))
    say(f"seed {SEED}, {options.items:,} items, {load_average()}")
    file_per_s, topic_per_s = report("file", filed), report("topic", stored)
    verdict = "reached" if topic_per_s >= SHARE * file_per_s else "MISSED"
    say(f"topic / file = {topic_per_s / file_per_s:.2f}; target {SHARE}: {verdict}")
    say(f"target {TIMES_REAL} x: {'reached' if topic_per_s >= TIMES_REAL * EVENTS_PER_S else 'MISSED'}")


if __name__ == "__main__":
    main()
