"""CPU microseconds per event of items, joins, window and reservoir, in ticks of 1,024 events over full tables.

Run at the top of the tree: PYTHONPATH=. python tests/bench/bench_joins_and_windows.py [n_ticks]
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

from stream_rec.events import Kind
from stream_rec.stream.attribution import Joiner
from stream_rec.stream.examples import EXAMPLE_COLUMNS
from stream_rec.stream.exposures import ShownLists
from stream_rec.stream.items import ItemTable
from stream_rec.stream.sampling import Reservoir
from stream_rec.stream.window import SlidingWindow

TICK, TICK_MS = 1_024, 5_000
N_USERS, N_ITEMS, N_SLOTS = 100_000, 20_000, 20
N_SHOWN, N_NAMED, N_REFUNDS = 200, 150, 20


class Stopwatch:
    """CPU time by stage."""

    def __init__(self) -> None:
        self.spent: dict[str, list[float]] = defaultdict(list)

    def run(self, stage: str, work: Callable[..., Any], *args: Any, **named: Any) -> Any:
        began = time.process_time()
        out = work(*args, **named)
        self.spent[stage].append(time.process_time() - began)
        return out

    def report(self, n_last: int) -> None:
        for stage, seconds in self.spent.items():
            last = seconds[-n_last:]
            print(f"{stage:24} {sum(last) / n_last / TICK * 1e6:7.2f} us an event, worst tick {max(last) * 1e3:5.1f}ms")


def main(n_ticks: int) -> None:
    rng, watch = np.random.default_rng(1), Stopwatch()
    table, joiner, window, reservoir = ItemTable(), Joiner(), SlidingWindow(), Reservoir(seed=1)
    names = [f"item-{k}" for k in range(N_ITEMS)]
    newest: dict[int, str] = {}
    for tick in range(n_ticks):
        now_ms = tick * TICK_MS
        users = rng.integers(0, N_USERS, TICK)
        items = watch.run("items.rows", table.rows, [names[k] for k in rng.integers(0, N_ITEMS, TICK)], tick)
        if newest:
            seen = rng.choice(list(newest)[-5000:], N_SHOWN).tolist()
            decisions = [newest[u] for u in seen]
            lists = rng.integers(0, N_ITEMS, N_SHOWN * N_SLOTS)
            shown = ShownLists.of([N_SLOTS] * N_SHOWN, lists, np.tile(np.arange(N_SLOTS), N_SHOWN))
            watch.run(f"{N_SHOWN} impressions", joiner.impressions, decisions, seen, [now_ms] * N_SHOWN, shown=shown)
            users[-N_SHOWN:], items[-N_SHOWN:] = seen, lists.reshape(N_SHOWN, N_SLOTS)[:, 3]
            named = [""] * (TICK - N_SHOWN) + decisions[:N_NAMED] + [""] * (N_SHOWN - N_NAMED)
            acts = (np.full(TICK, Kind.VIEW_ITEM), users, items)
            watch.run("feedback_many", joiner.feedback_many, *acts, decisions=named, at_ms=np.full(TICK, now_ms))
        watch.run("mature", joiner.mature, now_ms - 60_000)
        rows = {name: rng.integers(0, 2, TICK).astype(dtype) for name, dtype in EXAMPLE_COLUMNS}
        rows |= {"item": items, "event": rng.integers(0, 2**62, TICK), "order": rng.integers(0, 2**62, TICK)}
        rows["at_ms"] = now_ms + rng.integers(0, TICK_MS * 20, TICK)
        watch.run("window.add", window.add, rows)
        watch.run("window.evict", window.evict, now_ms)
        watch.run("reservoir.add", reservoir.add, rows)
        watch.run(f"{N_REFUNDS} refunds", window.retract, rows["order"][:N_REFUNDS], items[:N_REFUNDS])
        touched = np.unique(users[-300:])
        slates = rng.integers(0, N_ITEMS, (len(touched), N_SLOTS)).astype(np.int32)
        fresh = [f"{tick}|{u}" for u in touched.tolist()]
        borns = [1] * len(touched)
        watch.run("300 slates", joiner.publish_many, touched.tolist(), borns, fresh, at_ms=now_ms, items=slates)
        newest |= dict(zip(touched.tolist(), fresh, strict=True))
    watch.report(n_ticks // 2)
    watch.run("window.rows", setattr, window, "_rows", None)
    began = time.process_time()
    n = len(window)
    print(f"window.rows over {window.n_rows} rows for {n}: {(time.process_time() - began) * 1e3:.2f} ms")
    print(joiner.counts())


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500)
