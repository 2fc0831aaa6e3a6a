"""From an event to its slate under read_committed, the commit included, while large checkpoints are written.

Run: `python -m tests.bench.bench_kafka_latency [--rate 300] [--minutes 5] [--state-events 4000000] [--items 2000]`

A worker under its default settings (light models) begins from the state of many seeded events (`kafka_state.py`; give
`--state DIR` to keep it for the next run), a shop sends events of known and new users at a steady rate, a reader under
read_committed notes when each slate is there: three processes beside the broker, on one machine and clock. An event's
latency is the time from its hand-over to the producer to the moment at which the reader holds its user's slate of the
tick that took it; ticks and events are matched by the ledger afterwards. Impressions name slates that this shop made
up. Target: p99 at most 250 ms at 300 events/s; the limit beside it is what the tick itself waits (tick.max_wait_ms).
With `--minutes 30` the lines a minute tell whether resident memory is flat.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from stream_rec.stream.privacy import Pseudonymiser
from tests.bench import kafka_state
from tests.bench.kafka_feed import Feed, Watch, handed_at_ns
from tests.bench.kafka_ground import (
    KEY,
    N_PARTITIONS,
    Ground,
    Ticked,
    WorkerProcess,
    cpu_s,
    ledger,
    load_average,
    resident_mb,
    say,
    stored,
)

SEED = 1
TARGET_MS = 250
WARM_UP_S = 15.0
STALL_MS = 200
Slates = dict[tuple[bytes, int], int]


class Span(NamedTuple):
    """What was seen of the measured minutes from outside."""

    began_ns: int
    ended_ns: int
    cpu: dict[str, float]
    """Process to its share of one core."""
    checkpoints: set[str]
    resident: list[float]


def arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Add what all benches on a large state take, and read the command line."""
    parser.add_argument("--state-events", type=int, default=4_000_000, help="events behind the state; 0 for none")
    parser.add_argument("--items", type=int, default=2_000)
    parser.add_argument("--state", type=Path, help="folder in which states are kept for the next run")
    parser.add_argument("--set", dest="sets", action="append", default=[], metavar="section.key=value")
    return parser.parse_args()


def begin(ground: Ground, options: argparse.Namespace) -> WorkerProcess:
    """A worker on the large state, committing ticks."""
    folder = options.state or ground.folder / "state"
    n_events = max(options.state_events, 10 * kafka_state.TICK)
    run = kafka_state.make(folder, ground.settings(), seed=SEED, n_events=n_events, n_items=options.items)
    worker = ground.worker("--start", "latest", "--init-from", str(run))
    worker.wait_ready()
    say(f"the worker runs on a state of {kafka_state.size_mb(run):.0f} MB; {load_average()}")
    return worker


def feed(ground: Ground, options: argparse.Namespace, rate: float) -> Feed:
    """The shop, at a rate."""
    n_users = kafka_state.n_users_of(options.state_events)
    return Feed(
        ground.broker.bootstrap, rate, seed=SEED + 1, n_users=n_users, n_items=options.items,
        n_partitions=N_PARTITIONS,
    )  # fmt: skip


def broker_pid(ground: Ground) -> int:
    """Of the broker's process."""
    return int((ground.broker.folder / "pid").read_text())


def measure(ground: Ground, pids: dict[str, int], seconds: float) -> Span:
    """Look on, with a line a minute."""
    folder = ground.folder / "run" / "checkpoints"
    before = {name: cpu_s(pid) for name, pid in pids.items()}
    seen = {path.name for path in folder.iterdir()} if folder.exists() else set()
    began_ns, names, resident = time.time_ns(), set[str](), list[float]()
    began_s = time.monotonic()
    while (passed_s := time.monotonic() - began_s) < seconds:
        time.sleep(min(1.0, seconds - passed_s))
        # A folder is renamed into place when it is whole; until then its name ends otherwise.
        names |= {path.name for path in folder.iterdir() if path.name.count("-") == 1 and "." not in path.name}
        if passed_s >= 60 * len(resident):
            resident.append(resident_mb(pids["worker"]))
            say(f"  minute {len(resident) - 1}: worker {resident[-1]:.0f} MB resident, {load_average()}")
    took_s = time.monotonic() - began_s
    cpu = {name: (cpu_s(pid) - before[name]) / took_s for name, pid in pids.items()}
    return Span(began_ns, time.time_ns(), cpu, names - seen, resident)


def latencies_ms(ground: Ground, span: Span, ticks: list[Ticked], slates: Slates) -> tuple[list[float], int]:
    """Of every event handed over in the span, and how many of them have no slate."""
    who, found, n_lost = Pseudonymiser(KEY.encode()), list[float](), 0
    keys: dict[bytes, bytes] = {}
    for number in range(N_PARTITIONS):
        taken = [(r[3], t.number) for t in ticks for r in t.ranges if r[:2] == ("events", number)]
        at = 0
        for record in stored(ground, ("events", number)):
            handed_ns = handed_at_ns(record.value)
            while at < len(taken) and taken[at][0] <= record.offset:
                at += 1
            if not span.began_ns <= handed_ns < span.ended_ns:
                continue
            raw = record.key
            if raw not in keys:
                text = raw.decode()
                keys[raw] = who.session(text).stand_in if text.startswith("s-") else who.user_key(text)
            seen_ns = slates.get((keys[raw], taken[at][1])) if at < len(taken) else None
            if seen_ns is None:
                n_lost += 1
            else:
                found.append((seen_ns - handed_ns) / 1e6)
    return found, n_lost


def told_of_versions(ground: Ground, span: Span) -> str:
    """What was told of versions in the span, by kind: promotions, challengers held, guards that were passed."""
    events = Counter[str]()
    for record in stored(ground, ("versions", 0)):
        if record.value and span.began_ns <= record.timestamp * 1_000_000 < span.ended_ns:
            notice = msgspec.json.decode(record.value)
            reasons = (notice.get("verdict") or {}).get("reasons", ())
            events[" ".join((notice.get("event", ""), *reasons[:1]))] += 1
    return ", ".join(f"{n} {event}" for event, n in events.items()) or "none"


def report(ground: Ground, options: argparse.Namespace, span: Span, slates: Slates) -> None:
    """Print the figures."""
    ticks = ledger(ground)
    found, n_lost = latencies_ms(ground, span, ticks, slates)
    inside = [t for t in ticks if span.began_ns <= t.written_at_ms * 1_000_000 < span.ended_ns]
    written = np.array([t.written_at_ms for t in inside])
    work = np.array([t.written_at_ms - t.cut_at_ms for t in inside if t.kind == "tick"])
    gaps = np.diff(written)
    n = len(found)
    p50, p99, p999 = (float(q) for q in np.quantile(found, (0.5, 0.99, 0.999)))
    say(
        f"{options.rate:.0f} events/s for {(span.ended_ns - span.began_ns) / 6e10:.1f} min, {n:,} events, {n_lost} "
        f"without a slate, {len(inside):,} ticks, {len(span.checkpoints)} checkpoints; "
        f"seed {SEED}, {options.items:,} items, {load_average()}"
    )
    say(f"versions: {told_of_versions(ground, span)}")
    say(f"ticks that trained on a quarter: {sum(t.lagging for t in inside) / max(len(inside), 1):.0%}")
    say(f"event to slate: p50 {p50:.0f} ms  p99 {p99:.0f} ms  p99.9 {p999:.0f} ms  max {max(found):.0f} ms")
    say(
        f"a tick from cut to publishing: p50 {np.quantile(work, 0.5):.0f} ms  p99 {np.quantile(work, 0.99):.0f} ms  "
        f"max {work.max()} ms"
    )
    say(f"between two ledger entries: max {gaps.max()} ms, {int((gaps > STALL_MS).sum())} above {STALL_MS} ms")
    say("share of a core: " + "  ".join(f"{name} {share:.2f}" for name, share in span.cpu.items()))
    say("resident MB by minute: " + " ".join(f"{mb:.0f}" for mb in span.resident))
    wait_ms = ground.settings().tick.max_wait_ms
    verdict = "reached" if p99 <= TARGET_MS else "MISSED"
    say(f"p99 / tick.max_wait_ms = {p99 / wait_ms:.1f}; target {TARGET_MS} ms: {verdict}")


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=float, default=300)
    parser.add_argument("--minutes", type=float, default=5)
    options = arguments(parser)
    with Ground(*options.sets) as ground:
        worker = begin(ground, options)
        watch = Watch(ground.access(), N_PARTITIONS, ground.folder / "slates.npz")
        shop = feed(ground, options, options.rate)
        time.sleep(WARM_UP_S)
        pids = {"worker": worker.pid, "broker": broker_pid(ground), "shop": shop.pid, "reader": watch.pid}
        span = measure(ground, pids, options.minutes * 60)
        shop.stop()
        time.sleep(3)
        slates = watch.stop()
        if not worker.alive():
            raise SystemExit(f"the worker ended: {worker.log.read_text()[-2000:]}")
        report(ground, options, span, slates)


if __name__ == "__main__":
    main()
