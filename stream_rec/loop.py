"""The one loop: cut a tick, fold it, commit its effects with the ledger entry. Live, replay and backfill run this code.

Effects happen in this order and nowhere else: outputs and entry in one transaction, then weights, then a checkpoint.
Knows no transport; what it may touch comes in as ports.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from stream_rec import garbage
from stream_rec.effects import Effects
from stream_rec.errors import JobFailed
from stream_rec.events import Record, Topic
from stream_rec.fold import Beginning, Fold, Identity
from stream_rec.past import Past
from stream_rec.pipeline import Pipeline
from stream_rec.ports import Ports, TopicPartition
from stream_rec.stream.ledger import encode
from stream_rec.stream.tick import Tick, ranges_of

FORMAT = 1
MAX_EMPTY_TICKS = 10_000
LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Live:
    """What a long-running worker does beyond a bounded replay.

    It reads the catalogue to its end before the first event, claims the ledger when it takes over, calls an events
    partition idle after `idle_ms` of silence, and thins training while more than `lagging_records` wait, and in a tick
    after one that took `lagging_ms` (0: never), since what came meanwhile has waited for it.
    """

    idle_ms: int = 60_000
    lagging_records: int = 50_000
    lagging_ms: int = 0


class Loop:
    """Folds ticks until told to stop.

    Args:
        make_pipeline: builds the pipeline in its initial state.
        ports: where records come from and effects go.
        identity: what the ledger records of this run.
        max_records: records a tick closes at; also the most that is buffered of a partition.
        live: how a long-running worker differs from a bounded replay; None for a replay.
        beginning: where a pipeline without a ledger begins.
    """

    def __init__(
        self,
        make_pipeline: Callable[[], Pipeline],
        ports: Ports,
        identity: Identity,
        *,
        max_records: int = 1024,
        live: Live | None = None,
        beginning: Beginning | None = None,
    ) -> None:
        self._beginning = beginning = beginning or Beginning()
        self._past = Past(ports, lambda: Fold(make_pipeline, identity, beginning), live=live is not None)
        self.fold = Fold(make_pipeline, identity, beginning)
        self.fold.past = self._past.state
        self._ports = ports
        self._identity = identity
        self._max_records = max_records
        self._live = live
        self._heard_at_ms: dict[TopicPartition, int] = {}
        self._buffers: dict[TopicPartition, list[Record]] = {}
        self._durable: list[str] = []
        self._store_again = False
        self.on_commit: Callable[[Tick, Effects], None] | None = None
        """Called after each commit with the tick and its effects (progress, the simulated shop)."""
        self.before_fold: Callable[[], None] = lambda: None
        """Called before the state changes: whoever still reads it finishes first."""
        self.attempted = b""
        """The entry that was last given to the publisher."""
        self.current: Tick | None = None
        """The tick between its cut and its commit; the state is then that of no committed tick."""
        self.took_s = 0.0
        """Seconds that the last tick took from its cut to its commit."""

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline with its state."""
        return self.fold.pipeline

    @property
    def build_digest(self) -> str:
        """Stands for what computes here."""
        return self._identity.build_digest

    # ---- start and recovery

    def recover(self, *, stopped: Callable[[], bool] = lambda: False) -> bool:
        """Bring the state to the end of the ledger, muted; an empty ledger gets its genesis entry.

        Most of the way is gone before this learner fences any other, so that two that start at once cannot keep
        each other from ever getting there.

        Returns:
            False when `stopped` said so, which is asked between entries; nothing was fenced or written then.

        Raises:
            LedgerMismatch: a muted tick differs from its entry, or the chain is broken.
            InputGone: records that an entry names can no longer be read.
            Fenced: another learner took over meanwhile.
        """
        first = self.fold.restore(self._ports.checkpoints, self._ports.publisher)
        if not self._redo_from(first, stopped):
            return False
        self._ports.publisher.take_over()
        self._redo_from(self.pipeline.positions.ledger_offset + 1)
        if self.pipeline.positions.number < 0:
            if not self._beginning.follows:
                self._begin()
        elif self._live:
            self._claim()
        self._go_on()
        return True

    def _redo_from(self, offset: int, stopped: Callable[[], bool] = lambda: False) -> bool:
        for at, raw in self._ports.publisher.read_ledger(offset):
            if stopped():
                return False
            self.fold.redo(at, raw, self._ports.source)
        return True

    def _begin(self) -> None:
        if self._beginning.init is not None:
            self.fold.begin_from_init()
        source = self._ports.source
        start = dict.fromkeys(source.partitions(), 0) | dict(self._beginning.start())
        body: dict[str, Any] = {**self._identity.genesis, "start": [[t, p, o] for (t, p), o in sorted(start.items())]}
        if ids := source.topic_ids():
            body["topic_ids"] = dict(sorted(ids.items()))
        self.fold.adopt_own()
        self.fold.begin(body)
        self.commit("genesis", body, Effects(outputs=()))
        self.checkpoint()

    def _claim(self) -> None:
        changed = self.fold.adopt_own()
        body = {"session": self._identity.session, "semantic": self._identity.semantic if changed else None}
        self.commit("claim", {name: value for name, value in body.items() if value}, Effects(outputs=()))

    def _go_on(self) -> None:
        positions, source = self.pipeline.positions, self._ports.source
        known = positions.partitions()
        source.same_topics(positions.topic_ids, known)
        self._buffers = {} if self._beginning.follows else {p: [] for p in known}
        source.seek({p: positions.next_of(p) for p in self._buffers})
        self._store_pending()
        garbage.settle()

    def _store_pending(self) -> None:
        self._store_again = False
        for version, tensors in self.pipeline.pending_weights().items():
            self._ports.weights.put(version, tensors)

    # ---- going on

    def gather(self) -> tuple[int, int]:
        """Read ahead: how many records wait to be folded, and how many more a tick has room for."""
        self._fill()
        n = sum(len(buffer) for buffer in self._buffers.values())
        return n, max(0, self._max_records - n)

    def step(self, *, drain: bool = False, cut_at_ms: int | None = None, even_empty: bool = False) -> bool:
        """Cut, fold and commit one tick; False when there was nothing to take and nothing due.

        Args:
            drain: cut a last, possibly empty tick that closes the run.
            cut_at_ms: the worker's clock; None takes the records' own time (a backfill).
            even_empty: cut it in any case: a sign of life.
        """
        self._fill()
        records = self.pipeline.positions.order(self._buffers)[: self._max_records]
        facts = self._facts(records, drain, cut_at_ms)
        if not records and not drain and not even_empty and not self._due(facts):
            return False
        self.current, began_s = facts, time.perf_counter()
        self.before_fold()
        effects = self.fold.fold(facts, records)
        self._take(records)
        body = {
            "tick": facts.to_json(),
            "effects_digest": effects.digest(),
            "outputs": effects.sizes(),
            "counts": dict(effects.counts),
            "reasons": {outcome: dict(table) for outcome, table in effects.reasons.items()},
        }
        self.commit("tick", body, effects)
        self.took_s = time.perf_counter() - began_s
        self.after_commit(facts, effects)
        return True

    def after_commit(self, tick: Tick, effects: Effects) -> None:
        """What comes behind a tick's commit: weights, the checkpoint of a cut, whoever looks on."""
        for version, tensors in effects.weights.items():
            self._ports.weights.put(version, tensors)
        if effects.weights:
            self.checkpoint(pin=True)
        elif tick.restore is not None:
            self.checkpoint()
        if self.on_commit:
            self.on_commit(tick, effects)

    def run_to_end(
        self, after_step: Callable[[], None] | None = None, *, stopped: Callable[[], bool] = lambda: False
    ) -> bool:
        """Fold until every partition is exhausted and nothing is due, then cut the draining tick.

        Returns:
            False when `stopped` said so, which is asked between ticks; the run can go on from there.
        """
        for _ in range(MAX_EMPTY_TICKS):
            while not stopped() and self.step():
                if after_step:
                    after_step()
            if stopped():
                return False
            if all(self._ports.source.exhausted(p) for p in self._buffers):
                self.step(drain=True)
                return True
        raise JobFailed("the input neither ends nor goes on")

    def checkpoint(self, *, pin: bool = False, patient: bool = False) -> bool:
        """Copy the state of the last committed tick and hand it to the store.

        Interrupted inside a tick there is no such state and nothing is saved. A store that cannot write is reported
        and does not stop the loop: the ledger is the truth and older checkpoints are whole.

        Args:
            pin: this is the cut of a version: keep it, and let go of those that nobody returns to. Passed over while
                two others are on their way: copies that wait for a slow disk would fill the memory.
            patient: pass it over while any other is: it can be made later, and a second copy at a time takes memory
                whose first touch costs several times as much as the copy.

        Returns:
            False when it was passed over.
        """
        store = self._ports.checkpoints
        if self._store_again and self.current is None:
            self._store_pending()
        if self.current is not None or ((pin or patient) and store.n_unwritten() > (0 if patient else 1)):
            return False
        positions = self.pipeline.positions
        manifest = {
            "format": FORMAT,
            "tick": positions.number,
            "chain": positions.chain,
            "ledger_offset": positions.ledger_offset,
            "cut_at_ms": positions.record_time_ms(),
            "event_at_ms": self.pipeline.newest_event_ms,
            "settings": self.fold.settings_digest,
            "semantic": self.fold.semantic,
            "build": self._identity.build_digest,
        }
        name = f"{positions.number:010d}-{positions.chain[:16]}"
        try:
            if pin:
                self._past.keep(name, self.pipeline.kept_ticks())
            store.save(name, manifest, self.pipeline.snapshot())
        except JobFailed as error:
            LOG.warning("a checkpoint could not be written: %s", error)
        return True

    @property
    def finished(self) -> bool:
        """Whether the last committed tick drained the input."""
        return self.pipeline.positions.finished

    # ---- parts of a step

    def _fill(self) -> None:
        """Top up the buffers; on a live topic the catalogue is read to its end before the first event."""
        partitions, source = list(self._buffers), self._ports.source
        if self._live and not self._events_begun():
            early = [p for p in partitions if p[0] != Topic.EVENTS]
            filled = [self._fill_one(p) for p in early]
            if any(filled) or any(source.behind(p) for p in early):
                return
        for partition in partitions:
            self._fill_one(partition)

    def _fill_one(self, partition: TopicPartition) -> bool:
        buffer = self._buffers[partition]
        wanted = self._max_records - len(buffer)
        if wanted > 0:
            buffer.extend(self._ports.source.poll(partition, wanted))
        return bool(buffer)

    def _events_begun(self) -> bool:
        high = self.pipeline.positions.high_by_name
        return any(f"{t}/{p}" in high for t, p in self._buffers if t == Topic.EVENTS)

    def _facts(self, records: Sequence[Record], drain: bool, cut_at_ms: int | None) -> Tick:
        positions, source = self.pipeline.positions, self._ports.source
        self._durable += self.stored()
        own_time = max([positions.record_time_ms(), *(r.timestamp_ms for r in records)])
        wild = tuple(
            (r.partition, r.offset)
            for r in records
            if r.topic == Topic.EVENTS and source.in_future((r.topic, r.partition), r.offset)
        )
        first = {p: positions.next_of(p) for p in self._buffers}
        appeared = self._appeared()
        return Tick(
            number=positions.number + 1,
            ranges=ranges_of(records, first),
            cut_at_ms=own_time if cut_at_ms is None else cut_at_ms,
            idle=self._idle(cut_at_ms),
            in_future=wild,
            lagging=self._lagging(),
            drain=drain,
            weights_durable=tuple(self._durable),
            appeared=appeared,
            restore=self._past.answer(self.fold),
        )

    def _lagging(self) -> bool:
        live = self._live
        if live is None:
            return False
        return self._ports.source.lag() > live.lagging_records or 0 < live.lagging_ms <= 1000 * self.took_s

    def stored(self) -> Sequence[str]:
        """Versions that became durable. A disk that is full must not stop a live worker: it tries again later.

        Raises:
            JobFailed: one could not be written, and this is no live worker.
        """
        try:
            return self._ports.weights.durable()
        except JobFailed as error:
            if self._live is None:
                raise
            LOG.warning("%s; promotions wait", error)
            self._store_again = True
            return ()

    def _appeared(self) -> tuple[TopicPartition, ...]:
        """Input partitions that came into being since the last tick; from the next one on they are read."""
        there = self._ports.source.partitions()
        if self._live is None or len(there) == len(self._buffers):
            return ()
        new = tuple(p for p in there if p not in self._buffers)
        self._buffers |= {p: [] for p in new}
        self._ports.source.seek(dict.fromkeys(new, 0))
        return new

    def _idle(self, now_ms: int | None) -> tuple[int, ...]:
        """Events partitions that are caught up and silent for long; in a backfill none is."""
        if self._live is None or now_ms is None:
            return ()
        silent = []
        for partition, buffer in self._buffers.items():
            if partition[0] == Topic.EVENTS:
                heard = self._heard_at_ms.setdefault(partition, now_ms)
                if buffer:
                    self._heard_at_ms[partition] = now_ms
                elif now_ms - heard >= self._live.idle_ms and not self._ports.source.behind(partition):
                    silent.append(partition[1])
        return tuple(sorted(silent))

    def _due(self, facts: Tick) -> bool:
        return bool(facts.weights_durable or facts.appeared or facts.restore) or self.pipeline.due(facts.cut_at_ms)

    def _take(self, records: Sequence[Record]) -> None:
        for partition, n in Counter((r.topic, r.partition) for r in records).items():
            del self._buffers[partition][:n]
        self._durable = []

    def commit(self, kind: str, body: dict[str, Any], effects: Effects) -> None:
        """Publish effects with their ledger entry, and step over it."""
        positions = self.pipeline.positions
        settings, build = self.fold.settings_digest, self._identity.build_digest
        who = {"settings": settings, "build": build, "learner": self._identity.learner}
        if self.fold.differed:
            # Another build may round otherwise; that it did is part of the truth.
            body = {**body, "differed": self.fold.differed}
            self.fold.differed = []
        self.attempted = encode(positions.number + 1, positions.chain, kind, {**who, **body})
        offset = self._ports.publisher.commit(effects.outputs, self.attempted)
        self.fold.step_over(self.attempted, offset)
        self.current = None
