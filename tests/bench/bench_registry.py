"""What logging a version costs the loop: the call after the commit, and the wait before the next fold.

    python -m tests.bench.bench_registry [--items 3600] [--versions 20] [--pause-ms 70]

The statistics of a catalogue with exact pairs are copied while the loop waits for records, as long as a live worker's
tick does (`--pause-ms`); MLflow itself is not part of it: it runs in the outbox's thread, here with a sink that refuses
everything, so that every version stays in the folder. Without a pause (a replay at full speed) the copy is waited for.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from stream_rec.io.registry_outbox import News, Outbox
from stream_rec.learn import frozen
from stream_rec.learn.learner import Learner, LearnSettings
from stream_rec.stream.items import ItemTable
from stream_rec.stream.queries import Queries

LIMIT_MS = 5.0
N_VISITS = 20_000
PER_VISIT = 8


class Refusing:
    """MLflow that is down."""

    def begin(self, *_):
        raise ConnectionError("down")

    points = news = begin

    def drop(self):
        """Nothing goes on."""

    end = drop


def learner_of(n_items: int) -> Learner:
    """A learner that has seen visits over a Zipf-like catalogue."""
    rng = np.random.default_rng(0)
    learner = Learner(LearnSettings(item_capacity=n_items, recent_capacity=1_000))
    share = 1.0 / np.arange(1, n_items + 1)
    item = rng.choice(n_items, (N_VISITS, PER_VISIT), p=share / share.sum()).astype(np.int32)
    first, second = np.triu_indices(PER_VISIT, 1)
    learner.counts.add(item.ravel())
    for pairs in (learner.together, learner.after, learner.near):
        pairs.add(item[:, first].ravel(), item[:, second].ravel(), n_items)
    return learner


def main() -> None:
    """Print both parts of the cost beside the limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=3_600)
    parser.add_argument("--versions", type=int, default=20)
    parser.add_argument("--pause-ms", type=float, default=70.0)
    given = parser.parse_args()
    learner, items, queries = learner_of(given.items), ItemTable(given.items), Queries()
    for row in range(given.items):
        items.row(f"SKU{row}", 0)
        queries.ask(f"query {row}", 0)
    row = np.arange(given.items, dtype=np.int32)
    learner.query_items.add(row, queries.born[row], row)
    spare = frozen.Spare()
    told, waited = [], []
    with tempfile.TemporaryDirectory() as folder:
        box = Outbox(Path(folder), Refusing())
        box.prepare(lambda: spare.warm(learner))
        for n in range(given.versions):
            box.prepare(lambda: None).result()  # versions are further apart than it takes to make one small
            news = News(n, n, n, [{"version": f"v{n}", "event": "promote", "sha256": "00"}])
            began_s = time.perf_counter()
            box.news(
                news,
                lambda: frozen.copied(learner, items, queries, spare),
                lambda columns: frozen.compacted(columns, 32 << 20),
            )
            told.append(1_000 * (time.perf_counter() - began_s))
            time.sleep(given.pause_ms / 1_000)
            began_s = time.perf_counter()
            box.settle()
            waited.append(1_000 * (time.perf_counter() - began_s))
        box.close(0.0)
        sizes = [path.stat().st_size for path in Path(folder).rglob("statistics.safetensors")]
    cost = np.array(told) + np.array(waited)
    print(f"{given.items} items, {given.versions} versions, {given.pause_ms:g} ms between ticks")
    for name, part in (("call", told), ("wait", waited)):
        print(f"{name} {np.median(part):.2f} ms, at most {max(part):.2f}")
    print(f"{len(sizes)} with statistics, {np.mean(sizes or [0]) / 1e6:.1f} MB each")
    verdict = "within" if np.median(cost) <= LIMIT_MS else "ABOVE"
    print(f"a version costs the loop {np.median(cost):.2f} ms, at most {cost.max():.2f}: {verdict} {LIMIT_MS:g} ms")


if __name__ == "__main__":
    main()
