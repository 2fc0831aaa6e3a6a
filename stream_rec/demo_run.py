"""`stream-rec demo`: the main job, embedded. A simulated shop feeds the loop, sees its slates and chooses from them.

The shop writes to the in-memory transport; the loop reads it, learns and writes a run folder; the shop's next visits
see the slates that were published. Time is the shop's: nothing waits and nothing depends on the machine's clock.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from stream_rec import assemble, assemble_evaluate, assemble_registry, config, report, summary
from stream_rec.clock import ManualClock
from stream_rec.demo import DemoView
from stream_rec.effects import Effects
from stream_rec.events import Topic
from stream_rec.fold import Identity
from stream_rec.loop import Live, Loop
from stream_rec.simulate import Shop, ShopPlan
from stream_rec.simulate_taste import HOUR_MS
from stream_rec.stopping import Stopping
from stream_rec.stream.privacy import Pseudonymiser
from stream_rec.stream.tick import Tick
from stream_rec.worker import Worker

PLAN = ShopPlan(days=16.0, outage_day=9.4)
SLICE_MS = HOUR_MS // 2
"""Simulated time between two looks at the transport."""
LOOK_BACK_MS = 24 * HOUR_MS
"""Simulated time that the live line looks back over: one interval alone jumps about."""
CHECKPOINT_MS = 7 * 24 * HOUR_MS
"""Simulated time between two checkpoints: `checkpoint.every_ms` counts time that the demo does not wait for."""
INTERRUPTED = "interrupted; what was written stays to be looked at, the same command starts the demo anew"
TAIL_MS = 48 * HOUR_MS
"""How long after the last visit delayed purchases are waited for."""


class Shopfront:
    """Holds the newest slate of every key, as the shop's own cache of the slates topic would."""

    def __init__(self, key: bytes) -> None:
        self._pseudonymiser = Pseudonymiser(key)
        self._slates: dict[bytes, bytes] = {}
        self._now_ms = 0

    def at(self, now_ms: int) -> None:
        """Say what time it is in the shop."""
        self._now_ms = now_ms

    def receive(self, effects: Effects) -> None:
        """Take what a tick published."""
        for topic, key, value in effects.outputs:
            if topic == Topic.SLATES and value is not None:
                self._slates[key] = value
            elif topic == Topic.SLATES:
                self._slates.pop(key, None)

    def slate(self, user_id: str | None) -> Mapping[str, Any] | None:
        """The slate to show: the user's own while it is valid, else the one for everybody."""
        own = self._pseudonymiser.user_key(user_id).hex().encode() if user_id else b"*"
        for key in (own, b"*"):
            if value := self._slates.get(key):
                slate = msgspec.json.decode(value, type=dict[str, Any])
                if slate["valid_until"] > self._now_ms:
                    return slate
        return None


class Figures:
    """The live line: click rate and recall over the last day of the published metrics, and the speed."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self.n_done = 0
        self._version: str | None = None
        self._lines: deque[dict[str, Any]] = deque()

    def receive(self, effects: Effects) -> None:
        """Take what a tick counted and published."""
        self.n_done += effects.counts.get("consumed", 0)
        for topic, _, value in effects.outputs:
            if topic == Topic.METRICS and value is not None:
                line = msgspec.json.decode(value, type=dict[str, Any])
                self._version = line["version"].partition("-")[0]
                self._lines.append(line)
                while self._lines[0]["event_at"] <= line["event_at"] - LOOK_BACK_MS:
                    self._lines.popleft()

    def stats(self, lag: int) -> dict[str, Any]:
        """What the view shows."""
        speed = self.n_done / max(time.monotonic() - self._began, 1e-9)
        served = [line["metrics"].get("next_visit", {}).get("served", {}).get("all") or {} for line in self._lines]
        return {
            "events_per_s": speed,
            "click_rate": _mean((line["impressions"], line["clicks"]) for line in self._lines),
            "recall": _mean((cell.get("n") or 0, (cell.get("n") or 0) * cell.get("recall@20", 0.0)) for cell in served),
            "version": self._version,
            "lag": lag,
        }


def _mean(parts: Iterable[tuple[float, float]]) -> float | None:
    """Sum of the second by sum of the first; None when that is 0."""
    pairs = list(parts)
    n = sum(pair[0] for pair in pairs)
    return sum(pair[1] for pair in pairs) / n if n else None


def run_demo(
    settings: config.Settings, console: Console, *, shop: Shop | None = None, events_out: Path | None = None
) -> dict[str, Any]:
    """Run the simulated shop to its end, write the run folder, print the table and the paths.

    Args:
        settings: checked settings with a privacy key; `run.dir` is written anew.
        console: where the person looks.
        shop: another shop than the default one of the seed.
        events_out: where everything goes that people did, one event a line.

    Returns:
        The summary.

    Raises:
        SettingsError: the folder holds a run that is not a demo's.
        KeyboardInterrupt: SIGINT or SIGTERM; what is in progress is finished first, but not for a second signal.
    """
    shop = shop or Shop(settings.run.seed, PLAN)
    assemble.clear_run(settings.run_dir, mode="demo")
    broker = assemble.memory_broker(shop.plan.n_partitions)
    ports = assemble.memory_ports(settings, broker)
    front, figures = Shopfront(config.privacy_key(settings)), Figures()

    def committed(tick: Tick, effects: Effects) -> None:
        del tick
        front.receive(effects)
        figures.receive(effects)

    genesis = {"mode": "demo", "pipeline": settings.pipeline.name, "semantic": config.semantic(settings)}
    identity = Identity(
        config.semantic_digest(settings)[:16], assemble.build_digest(settings), settings.worker.instance, genesis
    )
    registry, words = assemble_registry.Logging(settings, "memory"), ""
    try:
        loop = Loop(
            lambda: assemble.pipeline_of(settings),
            ports,
            identity,
            max_records=settings.tick.max_records,
            live=Live(settings.watermark.idle_ms, settings.tick.lagging_records),
        )
        loop.on_commit = committed
        clock = ManualClock(shop.start_ms)
        worker = Worker(loop, clock, max_wait_ms=settings.tick.max_wait_ms, checkpoint_every_ms=CHECKPOINT_MS)
        worker.start()
        registry.attach(loop)
        effort = summary.Effort.begin(loop.pipeline)
        broker.extend(shop.catalogue())
        worker.catch_up()
        with Stopping() as stopping, DemoView(console) as view, assemble_evaluate.keeping(events_out) as keep:
            stopping.gently()
            for now_ms in range(shop.start_ms + SLICE_MS, shop.end_ms + TAIL_MS, SLICE_MS):
                front.at(now_ms)
                arrived = shop.step(now_ms, front.slate)
                broker.extend(arrived)
                keep(arrived)
                clock.set(now_ms)
                worker.catch_up()
                if stopping():
                    raise KeyboardInterrupt
                view.update(now_ms - shop.start_ms, shop.end_ms - shop.start_ms, figures.stats(ports.source.lag()))
                if shop.done:
                    break
            worker.stop()
        result = summary.write(loop.pipeline, settings, effort.end(loop.pipeline))
        words = registry.close()
    except KeyboardInterrupt:
        raise KeyboardInterrupt(INTERRUPTED) from None
    finally:
        assemble.close(ports)
        registry.close(limit_ms=0)
    for path in report.report(settings.run_dir, console):
        console.print(path, markup=False, highlight=False, soft_wrap=True)
    if words:
        console.print(words, markup=False, highlight=False, soft_wrap=True)
    return result
