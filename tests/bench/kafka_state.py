"""A run folder with a large state for `worker --init-from`: seeded traffic folded without slates, kept for later."""

from __future__ import annotations

import time
from pathlib import Path

from stream_rec import assemble, config, garbage
from stream_rec.events import Topic
from stream_rec.io.checkpoint import FolderCheckpoints
from stream_rec.loop import FORMAT
from stream_rec.stream.tick import Tick
from tests.bench.kafka_ground import N_PARTITIONS, say
from tests.bench.traffic import Traffic

TICK = 8_192
OPEN_VISITS = 65_536
LOOKS_BACK_MS = 20 * 86_400_000


def n_users_of(n_events: int) -> int:
    """Users among whom so many events are spread: two thirds of them are seen."""
    return max(1_000, n_events // 7)


def make(folder: Path, settings: config.Settings, *, seed: int, n_events: int, n_items: int) -> Path:
    """The run folder `folder/EVENTS-ITEMS-SEED-SETTINGS`; made unless it is there.

    The events spread over the twenty days before now. The learner learns from them; slates are not made, since nobody
    reads them, and the catalogue is folded first, as a worker does.
    """
    digest = config.semantic_digest(settings)[:16]
    out = folder / f"{n_events}-{n_items}-{seed}-{digest}"
    if (out / "checkpoints").is_dir():
        return out
    settings = settings.model_copy(update={"run": settings.run.model_copy(update={"dir": out})})
    began_s, n_ticks = time.monotonic(), n_events // TICK
    step_ms = max(1, LOOKS_BACK_MS // max(1, n_events))
    pipeline = assemble.pipeline_of(settings)
    pipeline._slates.publish = lambda *_, **__: []  # type: ignore[method-assign]
    traffic = Traffic(
        seed,
        n_users=n_users_of(n_events),
        n_items=n_items,
        n_partitions=N_PARTITIONS,
        n_open=OPEN_VISITS,
        step_ms=step_ms,
        start_ms=time.time_ns() // 1_000_000 - n_ticks * TICK * step_ms,
    )
    names = [(Topic.ITEMS, 0), *((Topic.EVENTS, n) for n in range(N_PARTITIONS))]
    pipeline.begin(dict.fromkeys(names, 0))
    garbage.settle()
    first = traffic.catalogue()
    for at in range(0, len(first.records), TICK):
        pipeline.fold(Tick(at // TICK, (), first.tick.cut_at_ms), first.records[at : at + TICK])
    for n in range(n_ticks):
        batch = traffic.tick(TICK)
        pipeline.fold(Tick(1_000_000 + n, (), batch.tick.cut_at_ms), batch.records)
    # The bench sends a day's events in minutes: with what was usual forgotten, it goes on learning.
    pipeline.learner.oversight.brake.accept()
    manifest = {
        "format": FORMAT,
        "tick": 0,
        "chain": pipeline.positions.chain,
        "ledger_offset": 0,
        "cut_at_ms": pipeline.positions.record_time_ms(),
        "settings": digest,
        "semantic": config.semantic(settings),
        "build": assemble.build_digest(settings),
    }
    store = FolderCheckpoints(out / "checkpoints")
    store.save("0000000000-0000000000000000", manifest, pipeline.snapshot())
    store.flush()
    store.close()
    facts = pipeline.facts
    say(
        f"state: {n_events:,} events of {facts.users.n_users:,} users, {facts.histories.used():,} history rows, "
        f"{n_items:,} items, {size_mb(out):.0f} MB as a checkpoint, made in {time.monotonic() - began_s:.0f} s"
    )
    return out


def size_mb(run: Path) -> float:
    """Bytes of all checkpoints of a run folder, MB of 10^6 bytes."""
    return sum(path.stat().st_size for path in (run / "checkpoints").rglob("*") if path.is_file()) / 1e6
