"""Recall@20 at the next visit on online-retail: the linear ranker against every simple list of the same run.

    STREAM_REC_DATA=../shared/data python -m tests.bench.bench_next_visit [--one-in N] [--valid-days D]

Imports the whole file, replays it through the loop (seed 0) and prints, for known and new customers, every model
scored at the visit's first event, as a ratio to the strongest simple list, and the slate that was really in force.
`--valid-days 30` keeps slates in force for a month: the file has about one tick a day, so that the round-robin needs
longer than the default week to come back to a customer. Takes about two minutes.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from stream_rec import assemble, config, replay

LISTS = ("popular_7d", "popular_decayed", "cooccurrence", "repeat", "own_then_popular_7d")
DAY_MS = 86_400_000
FILE = "online-retail/online_retail_2010-12_2011-08.csv.gz"


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one-in", type=int, default=1, help="score one visit in so many")
    parser.add_argument("--valid-days", type=int, default=7)
    chosen = parser.parse_args()
    data = Path(os.environ.get("STREAM_REC_DATA", "../shared/data")) / FILE
    with tempfile.TemporaryDirectory() as folder:
        events, items = Path(folder) / "events.jsonl", Path(folder) / "items.jsonl"
        print(assemble.import_dataset("online-retail", [data], events, items_out=items, column_map={}))
        sets = {
            "run.dir": f"{folder}/run",
            "privacy.key": "bench",
            "learn.sample_one_in": chosen.one_in,
            "slate.valid_ms": chosen.valid_days * DAY_MS,
        }
        settings = config.load(None, [f"{name}={value}" for name, value in sets.items()], {})
        summary = replay.run_replay(settings, events=events, items=items)
    table = summary["metrics"]["whole"]["next_visit"]
    for part in ("known", "new", "anonymous"):
        best = max(LISTS, key=lambda name: table[name][part]["recall@20"])
        bar = table[best][part]["recall@20"]
        print(f"\n{part} customers, {table['ranker'][part]['n']} visits; strongest list: {best} {bar:.4f}")
        for model in ("ranker", "served", *LISTS):
            recall = table[model][part]["recall@20"]
            print(f"  {model:22s} {recall:.4f}  {recall / bar:.3f} x")
    print(f"\n{summary['consumed']:,} records, {summary['events_per_s']:,.0f}/s, {summary['cpu_s']:.0f} s of CPU")


if __name__ == "__main__":
    main()
