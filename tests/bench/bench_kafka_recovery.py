"""After kill -9: seconds from the start of the new process to its first committed tick, and what they are spent on.

Run: `python -m tests.bench.bench_kafka_recovery [--ticks 1000] [--rounds 3] [--rate 300] [--state DIR]`

Worker, state and shop as in `bench_kafka_latency`, but no checkpoint after the first, so that at the kill at least
`--ticks` ticks lie behind the newest one; the shop goes on sending. The parts come from the worker's own log: from
exec to the first line (interpreter, imports, connecting), the state, the muted ticks, the take-over, the claim; what is
left is its first tick. Beside it stands the bare reading of the same checkpoint in this process. Target: at most 2 s
beside the muted ticks and the loading of the state.
"""

from __future__ import annotations

import argparse
import re
import time
from datetime import datetime
from typing import NamedTuple

import numpy as np

from stream_rec.io.checkpoint import FolderCheckpoints
from tests.bench import bench_kafka_latency as latency
from tests.bench.kafka_ground import Ground, Ticked, WorkerProcess, ledger, load_average, say

TARGET_S = 2.0
NO_MORE = ("checkpoint.every_ms=86400000", "learn.light_cut_examples=100000000")
PARTS = re.compile(
    r"recovered to tick (\d+) in ([\d.]+) s: ([\d.]+) s for the state, ([\d.]+) s for (\d+) entries folded again, "
    r"([\d.]+) s for the take-over, ([\d.]+) s for the claim"
)


class Recovery(NamedTuple):
    """Seconds of one start, in order."""

    imports: float
    connecting: float
    standing_by: float
    """From the connection to the beginning of the recovery: whose turn it is."""
    state: float
    muted: float
    take_over: float
    claim: float
    first_tick: float
    n_muted: int

    @property
    def total(self) -> float:
        """From exec to the first committed tick."""
        return sum(self[:-1])

    @property
    def beside(self) -> float:
        """What the target is about."""
        return self.total - self.state - self.muted


def logged(worker: WorkerProcess, text: str) -> tuple[float, str]:
    """(seconds since the epoch, line) of the first line with a text."""
    line = next(each for each in worker.log.read_text().splitlines() if text in each)
    return datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f").timestamp(), line


def parts_of(worker: WorkerProcess, ticks: list[Ticked]) -> Recovery:
    """What a start was spent on."""
    connected_s, line = logged(worker, "connected in")
    connecting = float(line.split("connected in ")[1].split(" s")[0])
    recovered_s, line = logged(worker, "recovered to tick")
    found = PARTS.search(line)
    assert found is not None
    number, whole, state, muted, n_muted, take_over, claim = map(float, found.groups())
    first_s = next(t.written_at_ms for t in ticks if t.kind == "tick" and t.number > number) / 1000
    return Recovery(
        imports=connected_s - connecting - worker.started_at_s,
        connecting=connecting,
        standing_by=recovered_s - whole - connected_s,
        state=state,
        muted=muted,
        take_over=take_over,
        claim=claim,
        first_tick=first_s - recovered_s,
        n_muted=int(n_muted),
    )


def await_ticks(worker: WorkerProcess, n: int) -> None:
    """Return when so many more are committed."""
    goal = worker.status().get("tick", 0) + n
    while worker.status().get("tick", 0) < goal:
        if not worker.alive():
            raise SystemExit(f"the worker ended: {worker.log.read_text()[-2000:]}")
        time.sleep(0.2)


def bare_load_s(ground: Ground) -> float:
    """Seconds to read the newest checkpoint of the run folder, checked, and nothing else."""
    store = FolderCheckpoints(ground.folder / "run" / "checkpoints")
    began_s = time.monotonic()
    store.load(store.names()[0])
    return time.monotonic() - began_s


def main() -> None:
    """Kill and start again, some times; each start mutes the ticks of all starts before it, too."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--ticks", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=300)
    options = latency.arguments(parser)
    found = list[Recovery]()
    with Ground(*NO_MORE, *options.sets) as ground:
        worker = latency.begin(ground, options)
        shop = latency.feed(ground, options, options.rate)
        for n in range(options.rounds):
            await_ticks(worker, options.ticks if n == 0 else 20)
            worker.kill()
            worker = ground.worker()
            worker.wait_ready()
            await_ticks(worker, 3)
            found.append(parts_of(worker, ledger(ground)))
            each = found[-1]
            say(f"  {each.total:.2f} s to the first tick, {each.beside:.2f} s beside state and muted ticks: {each}")
        bare_s = bare_load_s(ground)
        shop.stop()
    middle = Recovery(*(float(np.median(column)) for column in zip(*found, strict=True)))
    say(f"seed {latency.SEED}, {options.rate:.0f} events/s, {options.items:,} items, {load_average()}")
    for name in Recovery._fields[:-1]:
        say(f"  {name:12s} {getattr(middle, name):6.2f} s")
    say(
        f"{middle.n_muted:.0f} entries folded again, {middle.n_muted / middle.muted:.0f} a second; state / bare "
        f"reading of the checkpoint = {middle.state / bare_s:.2f} ({bare_s:.2f} s)"
    )
    verdict = "reached" if middle.beside <= TARGET_S else "MISSED"
    say(f"beside the state and the muted ticks {middle.beside:.2f} s; target {TARGET_S} s: {verdict}")


if __name__ == "__main__":
    main()
