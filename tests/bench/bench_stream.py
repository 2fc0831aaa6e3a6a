"""Bytes to window, everything of stream/ on: microseconds of CPU an event by stage, and events a CPU second.

Run at the top of the tree: `python -m tests.bench.bench_stream [n_ticks]`

Ticks of 1,024 seeded events in 4 partitions (46 % views, 16 % clicks, 11 % impressions of 20 items that name a
published decision, searches, carts, purchases, refunds, 0.8 % repeated, 0.2 % late). Medians over the second half of
the ticks; a bare msgspec decode and a naive version (one pydantic model an event, a joiner of dicts) take turns with
the product every ten ticks, so that a busy machine hits all three; beside the medians stands the quietest tenth.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from stream_rec import garbage
from stream_rec.codec import StrictEvent
from stream_rec.stream.accounting import Accounting
from stream_rec.stream.attribution import Joiner
from stream_rec.stream.dedupe import Dedupe
from stream_rec.stream.front import Front
from stream_rec.stream.histories import Histories
from stream_rec.stream.intake import Facts, Intake
from stream_rec.stream.items import ItemTable
from stream_rec.stream.judging import Rules
from stream_rec.stream.privacy import Pseudonymiser, Sealer
from stream_rec.stream.sampling import Reservoir
from stream_rec.stream.users import Users
from stream_rec.stream.watermark import Watermarks
from stream_rec.stream.window import SlidingWindow
from tests.bench.naive import NaiveShop
from tests.bench.traffic import Batch, Traffic, publish, rows_of

TARGET_PER_S = 50_000
BLOCK = 10
"""Ticks that one of the three takes in a row, with its own tables in the processor's caches, as in life."""
KEY = b"bench"


def facts_of() -> Facts:
    """Every table at its default size."""
    return Facts(
        Accounting(), Dedupe(), Watermarks(), Users(), Histories(), ItemTable(), Joiner(), SlidingWindow(),
        Reservoir(seed=1),
    )  # fmt: skip


class Stopwatch:
    """CPU time by stage, each without what the stages inside it took."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self._inner = [0.0]

    def watch(self, owner: Any, method: str, stage: str) -> None:
        """From now on count calls of a method to `stage`."""
        setattr(owner, method, self.timed(getattr(owner, method), stage))

    def timed(self, work: Callable[..., Any], stage: str) -> Callable[..., Any]:
        """`work`, its CPU time counted to `stage`."""

        def call(*args: Any, **named: Any) -> Any:
            self._inner.append(0.0)
            began = time.process_time()
            try:
                return work(*args, **named)
            finally:
                took = time.process_time() - began
                self.spent[stage] += took - self._inner.pop()
                self._inner[-1] += took

        return call


def instrumented(intake: Intake) -> Stopwatch:
    """Put a stopwatch on every stage of an intake."""
    clock, facts = Stopwatch(), intake.facts
    for owner, methods, stage in (
        (intake._front, ("read",), "front: decode, repair, pseudonyms"),
        (intake, ("_judge",), "verdicts"),
        (facts.dedupe, ("admit_many",), "dedupe"),
        (facts.watermarks, ("judge_many", "advance", "set_idle"), "watermark"),
        (intake, ("_locate",), "columns"),
        (facts.items, ("rows", "upsert"), "items"),
        (facts.users, ("rows", "link", "visits", "take_evicted"), "users, visits"),
        (intake, ("_served", "_impressions", "_join"), "joins, calling"),
        (facts.joiner, ("in_force", "impressions", "feedback_many", "mature", "retract"), "joins"),
        (intake, ("_append",), "histories"),
        (facts.histories, ("append_many", "retract_many"), "histories"),
        (intake, ("_fill_window", "_refunds"), "window, reservoir, refunds"),
        (facts.window, ("add", "evict", "retract_purchase"), "window, reservoir, refunds"),
        (facts.reservoir, ("add", "retract_purchase"), "window, reservoir, refunds"),
        (intake, ("_count",), "accounting"),
        (intake, ("_seal",), "dead letters"),
        (intake, ("read",), "rest"),
    ):
        for method in methods:
            clock.watch(owner, method, stage)
    return clock


def cpu_us(work: Callable[[], Any]) -> tuple[float, Any]:
    """Microseconds of CPU that `work` took, and its result."""
    began = time.process_time()
    out = work()
    return (time.process_time() - began) * 1e6, out


class Run:
    """An intake fed by traffic; told of every slate the shop would have shown."""

    def __init__(self, traffic: Traffic) -> None:
        self.intake = Intake(Front(Pseudonymiser(KEY), Sealer(KEY)), facts_of(), Rules())
        first = traffic.catalogue()
        self.intake.read(first.tick, first.records)
        self._items = np.array([self.intake.facts.items.find(name) for name in traffic.item_ids])

    def step(self, batch: Batch) -> float:
        """Fold one tick; returns its microseconds of CPU, publishing left out."""
        us, taken = cpu_us(lambda: self.intake.read(batch.tick, batch.records))
        publish(self.intake.facts, rows_of(taken, batch), batch.slates, self._items, batch.tick.cut_at_ms)
        return us


def main(n_ticks: int) -> None:
    """Print the table."""
    traffic = Traffic(1)
    run, naive, decode = Run(traffic), NaiveShop(), msgspec.json.Decoder(StrictEvent).decode
    staged = Run(Traffic(1))
    clock = instrumented(staged.intake)
    us: dict[str, list[float]] = defaultdict(list)
    stages: dict[str, list[float]] = defaultdict(list)
    n_bytes = n_events = 0
    garbage.settle()
    n_records = 0
    for _ in range(n_ticks // BLOCK):
        block = [traffic.tick() for _ in range(BLOCK)]
        n_records = len(block[0].records)
        n_events += n_records * BLOCK
        n_bytes += sum(len(r.value or b"") for batch in block for r in batch.records)
        us["stream"] += [run.step(batch) for batch in block]
        us["decode"] += [cpu_us(lambda b=batch: [decode(r.value) for r in b.records])[0] for batch in block]
        us["naive"] += [cpu_us(lambda b=batch: naive.read(b.records))[0] for batch in block]
        for batch in block:
            clock.spent.clear()
            staged.step(batch)
            for stage, seconds in clock.spent.items():
                stages[stage].append(seconds * 1e6)
    report(us, stages, n_bytes / n_events, n_records)
    totals = run.intake.facts.accounting.totals
    sys.stdout.write(f"{totals}\n{run.intake.facts.joiner.counts()}\n")


def report(us: dict[str, list[float]], stages: dict[str, list[float]], n_bytes: float, n: int) -> None:
    """Medians an event, over the second half of the ticks."""

    def middle(values: list[float]) -> float:
        return float(np.median(values[len(values) // 2 :])) / n

    bare, whole = middle(us["decode"]), middle(us["stream"])
    say = sys.stdout.write
    say(f"{n_bytes:.0f} bytes an event, ticks of {n}, {len(us['stream'])} ticks\n")
    for stage, values in sorted(stages.items(), key=lambda each: -middle(each[1])):
        say(f"  {stage:36s} {middle(values):6.2f} us  x{middle(values) / bare:5.2f} of the bare decode\n")
    for name, word in (("stream", "bytes to window"), ("decode", "bare msgspec decode"), ("naive", "pydantic, dicts")):
        value = middle(us[name])
        least = float(np.quantile(us[name][len(us[name]) // 2 :], 0.1)) / n
        say(f"{word:38s} {value:6.2f} us  x{value / bare:5.2f}  {1e6 / value:8.0f} events a CPU second")
        say(f"  (quietest tenth {least:6.2f} us, {1e6 / least:8.0f})\n")
    verdict = "reached" if 1e6 / whole >= TARGET_PER_S else "MISSED"
    say(f"target {TARGET_PER_S} a CPU second: {verdict}; naive / product = {middle(us['naive']) / whole:.2f}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
