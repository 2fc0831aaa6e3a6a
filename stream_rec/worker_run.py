"""`stream-rec worker`: the long-running learner on Kafka, and what it does when something fails.

There is one way back from every failure: let go of everything, ask the ledger whether somebody else has taken over,
and recover from it. Nothing is repaired in place.
"""

from __future__ import annotations

import logging
import secrets
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stream_rec import assemble, assemble_kafka, assemble_registry, config, garbage, health, summary
from stream_rec.assemble_kafka import Opened
from stream_rec.clock import Clock, SystemClock
from stream_rec.effects import Effects
from stream_rec.errors import JobFailed, SettingsError, StreamRecError, Unreachable, Unsettled
from stream_rec.fold import Beginning, Identity, Loaded
from stream_rec.health import Health
from stream_rec.loop import Live, Loop
from stream_rec.ports import TopicPartition
from stream_rec.standby import await_turn, refuse_rival
from stream_rec.stopping import Stopping
from stream_rec.stream.tick import Tick
from stream_rec.worker import Worker

LOG = logging.getLogger(__name__)
TRIES = 3
"""Failures of one tick that end the worker."""
FENCED_MS = 3_000
"""How long a rival that has fenced us may take to put its claim into the ledger."""
BACK_OFF_MS = (100, 5_000)
"""First and longest wait before another try."""
TELL_EVERY_S = 10.0


@dataclass(frozen=True, slots=True)
class Start:
    """What the command line says of a first start, and of a rival."""

    where: str | int | None = None
    """`earliest`, `latest` or a time in ms; None: the ledger must be there already."""
    init_from: Path | None = None
    take_over: bool = False


def run_worker(settings: config.Settings, start: Start, *, clock: Clock | None = None) -> dict[str, Any]:
    """Run until a signal says to stop; then drain, save and return the summary.

    Raises:
        SettingsError: the settings, the topics or the folder are not right, or it is not said where to begin.
        Fenced: another learner owns the pipeline.
        InputRefused: most of an input topic is unusable.
        JobFailed: the worker cannot go on.
        Unreachable: no broker could be reached at the very start.
    """
    config.privacy_key(settings)
    refuse_foreign(settings.run_dir)
    release = assemble_kafka.hold_run(settings, start.init_from)
    told = Health()
    server = assemble_kafka.health_server(told, settings.health.host, settings.health.port)
    try:
        with Stopping() as stopping:
            stopping.gently()
            supervisor = Supervisor(settings, start, told, stopped=stopping, clock=clock or SystemClock())
            with closing(supervisor.registry):
                return supervisor.run()
    finally:
        server.close()
        release()


def refuse_foreign(folder: Path) -> None:
    """Take a folder that is missing, empty or a worker's.

    Raises:
        SettingsError: something else is there.
    """
    known = {
        "checkpoints",
        "weights",
        "figures",
        "metrics.jsonl",
        "summary.json",
        ".lock",
        assemble.CACHE,
        *assemble.REGISTERED,
    }
    if folder.exists() and not folder.is_dir():
        raise SettingsError(f"{folder} is a file, and a worker needs a folder; set run.dir")
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if any(name not in known and not name.startswith(assemble.REGISTRY) for name in names):
        raise SettingsError(f"{folder} holds other files than a worker's, such as another run's; set run.dir")


class Supervisor:
    """Opens sessions on the pipeline until one ends by itself.

    Args:
        settings: checked settings with a privacy key.
        start: what the command line said.
        told: where it is said how the worker is.
        stopped: whether a signal came.
        clock: of the ticks.
    """

    def __init__(
        self, settings: config.Settings, start: Start, told: Health, *, stopped: Callable[[], bool], clock: Clock
    ) -> None:
        self._settings, self._start, self._told = settings, start, told
        self._stopped, self._clock = stopped, clock
        self._session = secrets.token_hex(8)
        self._ledger_offset: int | None = None
        """Behind it no claim but our own may stand; None before we claimed."""
        self._failures: Counter[tuple[str, int, int] | None] = Counter()
        """Failures by where the failed tick began to read; a claim between them gives it another number."""
        self.registry = assemble_registry.of_worker(settings)
        self._connected = self._fenced = False
        self._back_off_ms = BACK_OFF_MS[0]

    def run(self) -> dict[str, Any]:
        """Live until stopped; returns the summary."""
        while not self._stopped():
            if self._connected:
                # The state that was dropped, and sockets that kafka-python leaves behind at each refused connection.
                garbage.let_go()
            began_s = time.monotonic()
            try:
                opened = assemble_kafka.open_worker(self._settings)
            except Unreachable as error:
                if not self._connected:
                    raise
                self._wait(error)
                continue
            self._connected = True
            LOG.info("connected in %.2f s", time.monotonic() - began_s)
            session = _Session(self._settings, opened, self._told, self._identity(), self._beginning(opened))
            try:
                result = self._live(session)
                if result is not None:
                    return result
            except (Unsettled, Unreachable) as error:
                self._failed(session, error, counts=isinstance(error, Unsettled) and error.counts)
            except StreamRecError:
                raise
            except Exception as error:
                # The message of a stray exception may quote a record, so only its place is told.
                place = "".join(traceback.format_tb(error.__traceback__))
                LOG.error("tick %s failed with %s at\n%s", session.number, type(error).__name__, place)
                self._failed(session, error, counts=True)
            finally:
                opened.close()
                del session, opened
        return {}

    def _live(self, session: _Session) -> dict[str, Any] | None:
        publisher, told = session.opened.publisher, self._told
        if self._ledger_offset is None:
            assemble_kafka.warn_of_unkeyed(self._settings, session.opened)
        self._look_for_rivals(session)
        told.says(health.STANDING_BY)
        if not self._start.take_over:
            await_turn(
                publisher.newest,
                self._settings.worker.instance,
                silence_ms=self._settings.worker.silence_ms,
                clock=self._clock,
                stopped=self._stopped,
            )
        self._must_begin(session)
        told.says(health.RECOVERING)
        if self._stopped() or not session.recover(self._stopped):
            return {}
        garbage.keep()
        self.registry.attach(session.loop)
        self._ledger_offset, self._fenced = session.ledger_offset, False
        told.says(health.RUNNING)
        return session.turn_until(self._stopped, self._settled)

    def _settled(self) -> None:
        """A tick was committed: all is well again, but for input that is still to come."""
        del self._failures[None]
        self._back_off_ms = BACK_OFF_MS[0]

    def _look_for_rivals(self, session: _Session) -> None:
        """Stop if another learner has claimed the ledger since we did; one that fenced us may be about to."""
        if self._ledger_offset is None:
            return
        until_ms = self._clock.now_ms() + (FENCED_MS if self._fenced else 0)
        while True:
            refuse_rival(session.opened.publisher.read_ledger(self._ledger_offset + 1), self._session)
            if self._clock.now_ms() >= until_ms or self._stopped():
                return
            self._clock.wait(100)

    def _must_begin(self, session: _Session) -> None:
        start = self._start
        if start.where is None and start.init_from is None and session.opened.publisher.newest() is None:
            raise SettingsError(
                f"pipeline {self._settings.pipeline.name} has no ledger in topic {self._settings.topics.ledger} yet; "
                "say where to begin with --start earliest|latest|TIME, or --init-from the folder of a replay"
            )

    def _failed(self, session: _Session, error: Exception, *, counts: bool) -> None:
        """Take note of a failure, and wait before the next try.

        Raises:
            JobFailed: the same tick failed too often.
        """
        self._told.n_rebuilds += 1
        if session.claimed:
            self._ledger_offset = session.ledger_offset
        self._fenced = isinstance(error, Unsettled) and error.fenced
        if counts:
            begins = session.begins()
            self._failures.update(begins)
            if max(self._failures[at] for at in begins) >= TRIES:
                raise JobFailed(
                    f"tick {session.number} failed {TRIES} times, the last time with: {_words(error)}; it reads "
                    f"{session.ranges()}"
                ) from error
        self._wait(error)

    def _wait(self, error: Exception) -> None:
        what = _words(error)
        self._told.says(health.WAITING, what)
        LOG.warning("%s; trying again", what)
        until_ms = self._clock.now_ms() + self._back_off_ms
        while self._clock.now_ms() < until_ms and not self._stopped():
            self._clock.wait(50)
            self._told.alive()
        self._back_off_ms = min(2 * self._back_off_ms, BACK_OFF_MS[1])

    def _identity(self) -> Identity:
        s = self._settings
        genesis = {
            "mode": "worker",
            "pipeline": s.pipeline.name,
            "semantic": config.semantic(s),
            "build_of": assemble.build_of(s),
        }
        return Identity(
            config.semantic_digest(s)[:16], assemble.build_digest(s), s.worker.instance, genesis, session=self._session
        )

    def _beginning(self, opened: Opened) -> Beginning:
        settings, start, folder = self._settings, self._start, self._start.init_from

        def offsets() -> Mapping[TopicPartition, int]:
            if start.where is not None or folder is None:
                return assemble_kafka.start_offsets(settings, start.where or "earliest")
            positions = assemble_kafka.newest_checkpoint(folder)[1]["positions"][""]
            if dict(positions["topic_ids"]) != dict(opened.source.topic_ids()):
                raise SettingsError(f"{folder} was replayed from other input than these topics; say --start as well")
            names = ((name.rpartition("/"), at) for name, at in positions["next_by_name"].items())
            return {(topic, int(number)): at for (topic, _, number), at in names}

        def init() -> Loaded:
            assert folder is not None
            return assemble_kafka.newest_checkpoint(folder)

        return Beginning(
            start=offsets,
            init=None if folder is None else init,
            make_under=lambda kept: assemble_kafka.pipeline_under(settings, kept),
        )


class _Session:
    """One life of a loop on open connections."""

    def __init__(
        self, settings: config.Settings, opened: Opened, told: Health, identity: Identity, beginning: Beginning
    ) -> None:
        self.opened, self._settings, self._told = opened, settings, told
        self.loop = Loop(
            lambda: assemble.pipeline_of(settings),
            opened.ports,
            identity,
            max_records=settings.tick.max_records,
            live=Live(settings.watermark.idle_ms, settings.tick.lagging_records, settings.tick.lagging_ms),
            beginning=beginning,
        )
        self.loop.on_commit = self._committed
        self._began_s = self._told_s = time.monotonic()
        self._n_told = 0
        self.claimed = False
        """Whether the ledger holds our claim or genesis, so that a later one is a rival's."""

    @property
    def ledger_offset(self) -> int:
        """Offset of the entry that was committed last."""
        return self.loop.pipeline.positions.ledger_offset

    @property
    def number(self) -> int:
        """The tick that comes next, or is in the making."""
        return self.loop.pipeline.positions.number + 1

    def begins(self) -> list[tuple[str, int, int] | None]:
        """Where the tick in the making begins to read: topic, partition, offset; a None when it reads nothing."""
        ranges = () if self.loop.current is None else self.loop.current.ranges
        return [(r.topic, r.partition, r.first) for r in ranges] or [None]

    def ranges(self) -> str:
        """What the tick in the making reads."""
        current = self.loop.current
        if current is None:
            return "nothing"
        return (
            ", ".join(f"{r.topic}/{r.partition} offsets {r.first} to {r.next - 1}" for r in current.ranges) or "nothing"
        )

    def recover(self, stopped: Callable[[], bool]) -> bool:
        """Bring the state to the end of the ledger; False when stopped on the way."""
        began_s, muted_s = time.monotonic(), list[float]()

        def told_and_stopped() -> bool:
            self._told.says(health.RECOVERING, f"tick {self.loop.pipeline.positions.number}")
            muted_s.append(time.monotonic())
            return stopped()

        if not self.loop.recover(stopped=told_and_stopped):
            return False
        self.claimed = True
        number = self.loop.pipeline.positions.number
        self.opened.metrics.cut(number)
        fencing_s, fenced_s = self.opened.publisher.take_over_s
        folding_s, now_s = min([*muted_s[:1], fencing_s]), time.monotonic()
        LOG.info(
            "recovered to tick %d in %.2f s: %.2f s for the state, %.2f s for %d entries folded again, %.2f s for the "
            "take-over, %.2f s for the claim",
            number, now_s - began_s, folding_s - began_s, fencing_s - folding_s, len(muted_s), fenced_s - fencing_s,
            now_s - fenced_s,
        )  # fmt: skip
        return True

    def turn_until(self, stopped: Callable[[], bool], settled: Callable[[], None]) -> dict[str, Any]:
        """Cut ticks until a signal comes, then drain; returns the summary."""
        settings, loop = self._settings, self.loop
        worker = Worker(
            loop,
            SystemClock(),
            max_wait_ms=settings.tick.max_wait_ms,
            checkpoint_every_ms=settings.checkpoint.every_ms,
            sign_every_ms=settings.worker.silence_ms // 3,
            wait=self.opened.source.wait,
        )
        effort = summary.Effort.begin(loop.pipeline)
        while not stopped():
            self._told.alive()
            if worker.turn():
                settled()
            self._tell()
        self._told.says(health.STOPPING)
        worker.stop()
        return self._save(effort)

    def _save(self, effort: summary.Effort) -> dict[str, Any]:
        """Checkpoint and summary of the drained state; a disk that is full costs them and nothing else."""
        try:
            self.opened.ports.checkpoints.flush()
            return summary.write(self.loop.pipeline, self._settings, effort.end(self.loop.pipeline))
        except (JobFailed, OSError) as error:
            LOG.warning("drained, and not saved: %s", error)
            return {}

    def _committed(self, tick: Tick, effects: Effects) -> None:
        pipeline, told = self.loop.pipeline, self._told
        positions = {p: pipeline.positions.next_of(p) for p in pipeline.positions.partitions()}
        self.opened.beat.positions = self.opened.source.beyond(positions)
        told.committed(tick, effects, self.loop.took_s)
        told.version = pipeline.learner.versions.champion_version
        told.lag = self.opened.beat.lag
        told.explore = pipeline.learner.exploration.table(braking=bool(effects.brake))

    def _tell(self) -> None:
        """A line for people now and then."""
        now_s, told = time.monotonic(), self._told
        if now_s - self._told_s < TELL_EVERY_S:
            return
        n = told.records["consumed"]
        LOG.info(
            "tick %d  %.0f records/s  lag %s  %s",
            told.tick, (n - self._n_told) / (now_s - self._told_s), told.lag, told.version,
        )  # fmt: skip
        self._told_s, self._n_told = now_s, n


def _words(error: Exception) -> str:
    """What an error says; the message of a stray one may quote a record, so only its name is told."""
    return str(error) if isinstance(error, StreamRecError) else type(error).__name__
