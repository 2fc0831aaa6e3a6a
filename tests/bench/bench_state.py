"""State under 10 million events of 1 million users: memory, cost an event, then a checkpoint of it and its restore.

Run at the top of the tree: `python -m tests.bench.bench_state [n_events]` (default 10,000,000: 7 to 12 minutes)

Prints CPU microseconds an event and resident memory by million, the ratio of the last million to the second, and the
times of a checkpoint: the copy on the loop (into fresh memory, then into memory that an earlier checkpoint has left
behind), digest and write off the loop, restore into a new process state. `bench-out/state.png` shows memory and cost
over events. Warm-up ends when the bounded tables are full: 2 million digests, 1 million users, 4 million history rows.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import matplotlib as mpl
import msgspec
import numpy as np
import psutil

from stream_rec import component, garbage
from stream_rec.codec import StrictEvent
from stream_rec.component import Component
from stream_rec.io.checkpoint import FolderCheckpoints
from stream_rec.stream.intake import Facts
from tests.bench.bench_stream import Run, cpu_us, facts_of
from tests.bench.traffic import TICK, Traffic

N_EVENTS = 10_000_000
WARMING_S = 3
"""Between a restore and the first checkpoint after it (30 in a worker) a thread touches the memory it will need."""
PICTURE = Path("bench-out/state.png")


class Course:
    """Memory and cost over the run, a point every `stride` ticks."""

    def __init__(self, stride: int) -> None:
        self.stride = stride
        self.at: list[int] = []
        self.rss_mb: list[float] = []
        self.us: list[float] = []
        self.ticks_us: list[float] = []
        self.bare_us: list[float] = []
        self._process = psutil.Process()

    def add(self, n_events: int, tick_us: float, bare_us: float) -> None:
        """Note one tick's microseconds of CPU an event, and those of a bare decode: how fast the machine is now."""
        self.ticks_us.append(tick_us)
        self.bare_us.append(bare_us)
        if len(self.ticks_us) % self.stride == 0:
            self.at.append(n_events)
            self.rss_mb.append(self._process.memory_info().rss / 1e6)
            self.us.append(float(np.median(self.ticks_us[-self.stride :])))

    def million(self, nth: int, size: int) -> tuple[float, float, float]:
        """Microseconds an event in the ticks of the nth `size` events, from 0: median, mean, median bare decode."""
        part = slice(nth * size // TICK, (nth + 1) * size // TICK)
        us, bare = self.ticks_us[part], self.bare_us[part]
        return float(np.median(us)), float(np.mean(us)), float(np.median(bare))


def components(facts: Facts) -> dict[str, Component]:
    """Every table by name."""
    return {name: getattr(facts, name) for name in Facts.__dataclass_fields__}


def run(n_events: int) -> tuple[Facts, Course]:
    """Fold the events."""
    traffic, course = Traffic(1, n_users=1_000_000), Course(max(1, n_events // TICK // 100))
    fold, decode = Run(traffic), msgspec.json.Decoder(StrictEvent).decode
    garbage.settle()
    for n in range(TICK, n_events + 1, TICK):
        batch = traffic.tick()
        bare_us = cpu_us(lambda b=batch: [decode(r.value) for r in b.records])[0]
        course.add(n, fold.step(batch) / len(batch.records), bare_us / len(batch.records))
    return fold.intake.facts, course


def draw(course: Course) -> None:
    """The picture of memory and cost."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (upper, lower) = plt.subplots(2, 1, sharex=True, figsize=(9, 6), layout="constrained")
    millions = np.array(course.at) / 1e6
    upper.plot(millions, course.rss_mb)
    upper.set(ylabel="resident memory, MB", ylim=(0, None), title="State over simulated events")
    lower.plot(millions, course.us)
    lower.set(xlabel="million events", ylabel="CPU microseconds an event", ylim=(0, None))
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, dpi=120)


def timed(work: Any) -> tuple[float, Any]:
    """Seconds that `work` took, and its result."""
    began = time.perf_counter()
    out = work()
    return time.perf_counter() - began, out


def checkpoint(facts: Facts) -> dict[str, tuple[float, float]]:
    """Row of the table to (seconds, target in seconds)."""
    table, rows = components(facts), {}
    n_bytes = sum(part.n_bytes() for part in table.values())
    sys.stdout.write(f"state {n_bytes / 1e6:.0f} MB in {len(table)} components\n")

    def snapshots() -> dict[str, component.Snapshot]:
        return {name: part.snapshot() for name, part in table.items()}

    with tempfile.TemporaryDirectory() as folder:
        store = FolderCheckpoints(Path(folder))
        for n, row in enumerate(("copy, fresh memory", "copy, memory left behind", "copy, once more")):
            rows[row], taken = timed(snapshots)
            began = time.perf_counter()
            store.save(f"{n}-a", {"cut_at_ms": 0}, taken)
            del taken
            handed_over = time.perf_counter() - began
            store.flush()
            rows["written off the loop"], rows["handed over"] = time.perf_counter() - began, handed_over
        rows["loaded, every byte checked"], (_, loaded) = timed(lambda: store.load("2-a"))
        before = {name: component.digest(part.snapshot()) for name, part in table.items()}
        fresh = components(facts_of())
        rows["put back"], _ = timed(lambda: component.restore_all(fresh, loaded))
        time.sleep(WARMING_S)
        rows["first copy after a restore"], _ = timed(lambda: {name: part.snapshot() for name, part in fresh.items()})
        store.close()
    assert {name: component.digest(part.snapshot()) for name, part in fresh.items()} == before
    targets = {"copy, memory left behind": 0.2, "first copy after a restore": 0.2, "written off the loop": 2.0}
    return {name: (seconds, targets.get(name, 0.0)) for name, seconds in rows.items()}


def main(n_events: int) -> None:
    """Print the tables."""
    say = sys.stdout.write
    wall_s, (facts, course) = timed(lambda: run(n_events))
    size = min(1_000_000, n_events // 10)
    n_parts = n_events // size
    for nth in range(n_parts):
        middle, mean, bare = course.million(nth, size)
        rss = course.rss_mb[min(len(course.rss_mb) - 1, (nth + 1) * size // TICK // course.stride)]
        say(f"{(nth + 1) * size / 1e6:6.1f} M events  {middle:6.2f} us median  {mean:6.2f} us mean")
        say(f"  x{middle / bare:5.2f} of the bare decode  {rss:7.0f} MB\n")
    (second, _, bare), (last, _, last_bare) = course.million(1, size), course.million(n_parts - 1, size)
    paced = last / last_bare * bare / second
    say(f"last part / second part: {last / second:.3f} by CPU time; {wall_s:.0f} s in all\n")
    say(f"in bare decodes of the same ticks, so that the machine's own pace drops out: {paced:.3f}")
    say(f" (at most 1.1: {'reached' if paced <= 1.1 else 'MISSED'})\n")
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    say(f"peak {peak_mb:.0f} MB; users {facts.users.n_users}, history rows {facts.histories.used()}\n")
    draw(course)
    rows = checkpoint(facts)
    for name, (seconds, target) in rows.items():
        word = "" if not target else f"  at most {target} s: {'reached' if seconds <= target else 'MISSED'}"
        say(f"{name:28s} {seconds:7.3f} s{word}\n")
    both = rows["loaded, every byte checked"][0] + rows["put back"][0]
    say(f"{'restore':28s} {both:7.3f} s  at most 3.0 s: {'reached' if both <= 3 else 'MISSED'}\n{PICTURE}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else N_EVENTS)
