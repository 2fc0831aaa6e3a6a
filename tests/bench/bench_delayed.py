"""What the corrections of late labels are worth: one simulated event file, replayed under each.

The shop that makes the file sees the slates that a replay of it publishes: it is asked for more only when the loop has
folded every whole tick of what there is, so the replay cuts the very same ticks and its decisions are the file's.

    python -m tests.bench.bench_delayed [--days 30] [--seed 0] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from stream_rec import assemble, config
from stream_rec.demo_run import Shopfront
from stream_rec.events import Record, Topic
from stream_rec.fold import Identity
from stream_rec.learn.delayed import Delayed
from stream_rec.loop import Loop
from stream_rec.simulate import Shop, ShopPlan

KEY = "the key of the benches"
MAX_RECORDS = 128
SETS = (
    f"privacy.key={KEY}",
    "model.encoder=none",
    f"tick.max_records={MAX_RECORDS}",
    "learn.sample_one_in=16",
    "registry.enabled=false",
)
SLICE_MS = 600_000


def write_shop(folder: Path, *, days: float, seed: int) -> tuple[Path, Path]:
    """(events, items): the shop's events, and the assortment that it opened with."""
    settings = config.load(None, [*SETS, f"run.dir={folder / 'made'}"], {})
    plan = ShopPlan(
        days=days, n_users=600, n_items=400, visits_per_day=500, organic_share=0.2, arriving_share=0.0,
        dirty_share=0.0, n_partitions=1, outage_day=days + 1,
    )  # fmt: skip
    shop, front = Shop(seed, plan), Shopfront(KEY.encode())
    broker = assemble.memory_broker(1)
    ports = assemble.memory_ports(settings, broker)
    loop = Loop(lambda: assemble.pipeline_of(settings), ports, Identity("s", "b", "bench", {}), max_records=MAX_RECORDS)
    loop.on_commit = lambda _tick, effects: front.receive(effects)
    said: dict[str, list[bytes]] = {Topic.EVENTS: [], Topic.ITEMS: []}

    def say(records: list[Record]) -> None:
        said[records[0].topic] += [record.value for record in records if record.value is not None]
        broker.extend(records)
        while loop.gather()[0] >= MAX_RECORDS:
            loop.step()

    loop.recover()
    opening = shop.catalogue()
    say(opening)
    for now_ms in range(shop.start_ms + SLICE_MS, shop.end_ms + SLICE_MS, SLICE_MS):
        front.at(now_ms - SLICE_MS)
        if new := [record for record in shop.step(now_ms, front.slate) if record.topic == Topic.EVENTS]:
            say(new)
    assemble.close(ports)
    paths = []
    for topic, lines in said.items():
        paths.append(folder / f"{topic}.jsonl")
        paths[-1].write_bytes(b"".join(line + b"\n" for line in lines))
    return paths[0], paths[1]


def replayed(folder: Path, events: Path, items: Path, how: Delayed) -> dict[str, Any]:
    """Summary of `stream-rec replay` under a correction."""
    out = folder / how.value
    command = [sys.executable, "-m", "stream_rec.cli", "replay", str(events), "--items", str(items), "--out", str(out)]
    for setting in (*SETS, f"learn.delayed={how.value}"):
        command += ["--set", setting]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return dict(json.loads((out / "summary.json").read_text()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for file and runs")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as spare:
        folder = given.keep or Path(spare)
        folder.mkdir(parents=True, exist_ok=True)
        events, items = write_shop(folder, days=given.days, seed=given.seed)
        for how in Delayed:
            summary = replayed(folder, events, items, how)
            joins, counts = summary["joins"], summary["heads"]["counts"]
            print(f"{how.value}: {joins['exposed']:,} impressions, {joins['unknown_decision']} unknown, {counts}")
            for part in ("last_tenth", "whole"):
                for head, models in summary["heads"]["metrics"][part].items():
                    print(f"  {part:10} {head:8} {models['learner']}", flush=True)


if __name__ == "__main__":
    main()
