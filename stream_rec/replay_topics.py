"""Replay stored topics: a bounded backfill by time, or the very ticks of a live ledger, as a pipeline of its own.

It has its own ledger, transactional id and output topics, so it neither disturbs a live worker nor is disturbed, and it
goes on after a kill exactly as a worker does. A backfill cuts its own ticks by records alone; one that follows a
ledger gives the versions, slates and bytes of the live run.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from stream_rec import assemble, assemble_kafka, assemble_registry, assemble_stored, config, summary
from stream_rec.assemble_stored import OpenedReplay, Stretch
from stream_rec.clock import SystemClock
from stream_rec.errors import JobFailed, SettingsError
from stream_rec.fold import Beginning, Identity
from stream_rec.follow import follow
from stream_rec.loop import Loop
from stream_rec.ports import Ports
from stream_rec.progress import Progress
from stream_rec.replay import INTERRUPTED, same_run
from stream_rec.stopping import Stopping
from stream_rec.worker_run import refuse_foreign


@dataclass(frozen=True, slots=True)
class Asked:
    """What of the topics is to be replayed, and where to."""

    since_ms: int | None = None
    """First record time taken."""
    until_ms: int | None = None
    """First record time no longer taken; None: up to the present end."""
    partitions: tuple[int, ...] = ()
    """Partitions of events; all when empty."""
    from_ledger: bool = False
    output_topic: str | None = None
    """Topic of the slates; a shadow topic of the replay's own when None."""
    speed: float = 0.0
    """Times real time; 0: as fast as it goes."""


def own_settings(settings: config.Settings) -> config.Settings:
    """The settings under which a replay of stored topics runs: its name, its folder."""
    name = f"{settings.pipeline.name}-{settings.replay.name}"
    return config.renamed(settings, name)


def run_replay(settings: config.Settings, asked: Asked) -> dict[str, Any]:
    """Replay what was asked for; returns the summary, also written to the run folder.

    Args:
        settings: those of the live pipeline, with a privacy key.
        asked: the range and the output.

    Raises:
        SettingsError: nothing is in the range, or a replay of this name has other settings or another range.
        KeyboardInterrupt: a signal came; the same command goes on.
        JobFailed: the replay cannot go on.
    """
    own = own_settings(settings)
    refuse_foreign(own.run_dir)
    release = assemble_kafka.hold_run(own)
    try:
        opened = assemble_stored.open_replay(settings, own, output_topic=asked.output_topic)
        try:
            return _Replay(settings, own, asked, opened).run()
        finally:
            opened.close()
    finally:
        release()


class _Replay:
    """One start of a replay, on open connections."""

    def __init__(self, live: config.Settings, own: config.Settings, asked: Asked, opened: OpenedReplay) -> None:
        self._live, self._own, self._asked, self._opened = live, own, asked, opened
        self._genesis = self._identity_of_run()
        self._pace = Pace(asked.speed)

    def run(self) -> dict[str, Any]:
        asked, opened = self._asked, self._opened
        stretch = self._stretch()
        ports = opened.ports(stretch, until_ms=asked.until_ms)
        identity = Identity(
            config.semantic_digest(self._own)[:16], assemble.build_digest(self._own), "replay", self._genesis
        )
        registry = assemble_registry.of_replayed_topics(self._live, self._own)
        try:
            return self._run(ports, identity, stretch, registry=registry)
        finally:
            if words := registry.close():
                sys.stderr.write(f"{words}\n")

    def _run(
        self, ports: Ports, identity: Identity, stretch: Stretch, *, registry: assemble_registry.Logging
    ) -> dict[str, Any]:
        asked, opened = self._asked, self._opened
        with Stopping() as stopping, Progress("replay") as progress:
            loop = Loop(
                lambda: assemble.pipeline_of(self._own),
                ports,
                identity,
                max_records=self._own.tick.max_records,
                beginning=Beginning(
                    start=lambda: {p: first for p, (first, _) in stretch.offsets.items()},
                    make_under=lambda kept: assemble_kafka.pipeline_under(self._own, kept),
                    follows=asked.from_ledger,
                ),
            )
            loop.on_commit = progress.committed
            loop.recover()
            opened.metrics.cut(loop.pipeline.positions.number)
            if loop.finished and not asked.from_ledger:
                done = summary.read(self._own)
                if done is not None:
                    return done
            registry.attach(loop)
            effort = summary.Effort.begin(loop.pipeline)
            stopping.gently()
            try:
                ended = self._go(loop, ports.source, progress, stopping=stopping)
            finally:
                loop.checkpoint()
            if not ended:
                raise KeyboardInterrupt(INTERRUPTED)
            ports.checkpoints.flush()
            return summary.write(loop.pipeline, self._own, effort.end(loop.pipeline), genesis=self._genesis)

    def _go(self, loop: Loop, source: Any, progress: Progress, *, stopping: Callable[[], bool]) -> bool:
        saved_at = [time.monotonic()]

        def after_step() -> None:
            progress.read(*(self._opened.ledger_progress() if self._asked.from_ledger else source.progress()))
            self._pace.keep(loop.pipeline.positions.record_time_ms(), stopping)
            if (time.monotonic() - saved_at[0]) * 1000 >= self._own.checkpoint.every_ms:
                loop.checkpoint()
                saved_at[0] = time.monotonic()

        if not self._asked.from_ledger:
            return loop.run_to_end(after_step, stopped=stopping)
        asked = self._asked
        entries = self._opened.live_ledger(self._genesis["input"]["ledger_end"])
        done = follow(loop, source, entries, genesis=self._genesis, publish=lambda entry: _inside(asked, entry))
        for entry in done:
            after_step()
            if asked.until_ms is not None and _cut_at_ms(entry) >= asked.until_ms:
                return True
            if stopping():
                return False
        return True

    def _identity_of_run(self) -> dict[str, Any]:
        """What the genesis of this replay says; of one that began before, what it said."""
        fresh = self._fresh_genesis()
        first = next(iter(self._opened.publisher.read_ledger()), None)
        if first is None:
            return fresh
        began = msgspec.json.decode(first[1], type=dict[str, Any])
        fixed = {name: began.get("input", {}).get(name) for name in ("stretch", "ledger_end")}
        wanted = fresh | {"input": fresh["input"] | fixed}
        digest = config.semantic_digest(self._own)[:16]
        if self._asked.from_ledger:
            digest = str(began["settings"])
            wanted["semantic"] = began["semantic"]
        try:
            same_run(first, Identity(digest, "", "", wanted))
        except SettingsError as error:
            raise SettingsError(f"replay {self._own.pipeline.name}: {error}, or another replay.name") from None
        return wanted

    def _fresh_genesis(self) -> dict[str, Any]:
        asked, stretch = (
            self._asked,
            self._opened.find(self._asked.since_ms, self._asked.until_ms, self._asked.partitions),
        )
        given: dict[str, Any] = {k: v for k, v in asdict(asked).items() if k not in ("speed", "output_topic")}
        return {
            "mode": "replay",
            "pipeline": self._own.pipeline.name,
            "semantic": config.semantic(self._own),
            "build_of": assemble.build_of(self._own),
            "input": {
                **given,
                "topics": assemble_kafka.input_names(self._live),
                "items_newer_than_range": "known from the start",
                "stretch": stretch.to_json(),
                "ledger_end": self._opened.live_ledger_end() if asked.from_ledger else None,
            },
        }

    def _stretch(self) -> Stretch:
        if self._asked.from_ledger:
            return Stretch({})
        stretch = Stretch.from_json(self._genesis["input"]["stretch"])
        if not any(end > first for (topic, _), (first, end) in stretch.offsets.items() if topic == "events"):
            raise SettingsError("no event lies between --since and --until in these partitions; give another range")
        return stretch


class Pace:
    """Holds a replay back to a multiple of real time, by record time.

    Args:
        speed: times real time; 0: not at all.
    """

    def __init__(self, speed: float) -> None:
        if speed < 0:
            raise JobFailed("--speed is a multiple of real time, 0 for as fast as it goes")
        self._speed, self._clock = speed, SystemClock()
        self._began: tuple[int, float] | None = None

    def keep(self, at_ms: int, stopped: Callable[[], bool]) -> None:
        """Wait until record time `at_ms` may have been reached."""
        if not self._speed or not at_ms:
            return
        if self._began is None:
            self._began = at_ms, time.monotonic()
        due_s = self._began[1] + (at_ms - self._began[0]) / 1000 / self._speed
        while (left_s := due_s - time.monotonic()) > 0 and not stopped():
            self._clock.wait(min(200, round(left_s * 1000) + 1))


def _cut_at_ms(entry: Mapping[str, Any]) -> int:
    return int(entry["tick"]["cut_at_ms"]) if entry["kind"] == "tick" else 0


def _inside(asked: Asked, entry: Mapping[str, Any]) -> bool:
    at_ms = _cut_at_ms(entry)
    return (asked.since_ms or 0) <= at_ms and (asked.until_ms is None or at_ms < asked.until_ms)
