"""The highest rate of events that a worker holds for five minutes without growing lag.

Run: `python -m tests.bench.bench_kafka_highest_rate [--seconds 300] [--probe 40] [--from 1500] [--state DIR]`

Worker, state and shop as in `bench_kafka_latency`, without a reader. Rates grow by 1.4 until one is not held for the
length of a probe, the gap is halved three times, and the best is held for `--seconds`; where it is not, a tenth less
is tried. Lag is what lag tools see: the ends of the topic minus the offsets that the worker commits for them every
five seconds, looked at when they change. A rate is held when the line through these points rises by less than what
comes in two seconds, and the last one is below what comes in five.
"""

from __future__ import annotations

import argparse
import time
from typing import NamedTuple

import numpy as np
from kafka import KafkaAdminClient

from stream_rec.assemble_kafka import Admin
from tests.bench import bench_kafka_latency as latency
from tests.bench.kafka_ground import N_PARTITIONS, Ground, WorkerProcess, cpu_s, ledger, load_average, say

GROWS_S, LAST_S = 2.0, 5.0
SETTLE_S = 12.0
LOOK_S = 0.25
EVENTS = [("events", n) for n in range(N_PARTITIONS)]


class Held(NamedTuple):
    """How a rate went."""

    rate: float
    seconds: float
    sent_per_s: float
    lag: list[int]
    """As each commit of offsets left it."""
    grows_per_s: float
    worker: float
    broker: float
    """Shares of a core."""

    @property
    def ok(self) -> bool:
        """Whether it was held."""
        return self.grows_per_s * self.seconds < GROWS_S * self.rate and self.lag[-1] < LAST_S * self.rate

    def __str__(self) -> str:
        return (
            f"{self.rate:6.0f} events/s: {'held' if self.ok else 'NOT held'}; sent {self.sent_per_s:.0f}/s, lag "
            f"{self.lag[0]} to {self.lag[-1]} (largest {max(self.lag)}), grows by {self.grows_per_s:+.1f}/s; worker "
            f"{self.worker:.2f} and broker {self.broker:.2f} of a core; {load_average()}"
        )


class Lag:
    """Ends of the topic and offsets committed for lag tools."""

    def __init__(self, ground: Ground) -> None:
        self._admin = Admin(ground.access())
        self._groups = KafkaAdminClient(bootstrap_servers=ground.broker.bootstrap)
        self._group = ground.settings().pipeline.name

    def now(self) -> tuple[int, int]:
        """(sum of committed offsets, lag)."""
        told = self._groups.list_group_offsets([self._group])[self._group]
        committed = {(tp.topic, tp.partition): o.offset for tp, o in told.items()}
        ends = self._admin.ends(EVENTS, committed=True)
        done = sum(committed.get(at, 0) for at in EVENTS)
        return done, sum(ends.values()) - done

    def close(self) -> None:
        """Let go of the connections."""
        self._admin.close()
        self._groups.close()

    def drain(self, patience_s: float = 180.0) -> None:
        """Return when nothing waits."""
        until_s = time.monotonic() + patience_s
        while self.now()[1] and time.monotonic() < until_s:
            time.sleep(1)


def hold(
    ground: Ground, options: argparse.Namespace, worker: WorkerProcess, lag: Lag, *, rate: float, seconds: float
) -> Held:
    """Send at a rate for so many seconds, and let the worker catch up afterwards."""
    shop = latency.feed(ground, options, rate)
    time.sleep(SETTLE_S)
    pids = (worker.pid, latency.broker_pid(ground))
    before, n_before, began_s = [cpu_s(pid) for pid in pids], shop.n_sent, time.monotonic()
    points, last = list[tuple[float, int]](), lag.now()[0]
    while (passed_s := time.monotonic() - began_s) < seconds:
        done, behind = lag.now()
        if done != last:
            points.append((passed_s, behind))
            last = done
        time.sleep(LOOK_S)
    shares = [(cpu_s(pid) - was) / passed_s for pid, was in zip(pids, before, strict=True)]
    sent_per_s = (shop.n_sent - n_before) / passed_s
    shop.stop()
    grows = float(np.polyfit(*zip(*points, strict=True), 1)[0]) if len(points) > 1 else rate
    held = Held(rate, seconds, sent_per_s, [n for _, n in points] or [lag.now()[1]], grows, *shares)
    say(f"  {held}")
    lag.drain()
    return held


def main() -> None:
    """Search, then hold."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--probe", type=float, default=40)
    parser.add_argument("--from", dest="first", type=float, default=1_500)
    options = latency.arguments(parser)
    with Ground(*options.sets) as ground:
        worker, lag = latency.begin(ground, options), Lag(ground)
        low, high = 0.0, options.first
        while hold(ground, options, worker, lag, rate=high, seconds=options.probe).ok:
            low, high = high, 1.4 * high
        for _ in range(3):
            middle = (low + high) / 2
            held = hold(ground, options, worker, lag, rate=middle, seconds=options.probe).ok
            low, high = (middle, high) if held else (low, middle)
        while not (best := hold(ground, options, worker, lag, rate=low, seconds=options.seconds)).ok:
            low *= 0.9
        lag.close()
        if not worker.alive():
            raise SystemExit(f"the worker ended: {worker.log.read_text()[-2000:]}")
        sizes = [t.ranges for t in ledger(ground)[-500:] if t.ranges]
        say(f"highest rate held for {options.seconds:.0f} s: {best.rate:.0f} events/s; {len(sizes)} ticks looked at")


if __name__ == "__main__":
    main()
