"""The one loop: cut a tick, fold it, commit its effects with the ledger entry. Live, replay and backfill run this code.

Effects happen in this order and nowhere else: outputs and entry in one transaction, then weights, then a checkpoint.
Knows no transport; what it may touch comes in as ports.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stream_rec.component import Snapshot
from stream_rec.effects import Effects
from stream_rec.errors import CheckpointRefused, JobFailed, LedgerMismatch
from stream_rec.events import Record, Topic
from stream_rec.pipeline import Pipeline
from stream_rec.ports import CheckpointStore, EventSource, Publisher, TopicPartition, WeightStore
from stream_rec.stream.ledger import chain_of, decode, encode
from stream_rec.stream.tick import Tick, digest_of, ranges_of

FORMAT = 1
MAX_EMPTY_TICKS = 10_000
CUTS_KEPT = 2
"""Checkpoints kept of version cuts: the newest and its parent."""
LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything outside that the loop may touch."""

    source: EventSource
    publisher: Publisher
    checkpoints: CheckpointStore
    weights: WeightStore


@dataclass(frozen=True, slots=True)
class Identity:
    """Who runs: what a ledger entry says of settings, build and learner, and what genesis says of the input."""

    settings_digest: str
    build_digest: str
    learner: str
    genesis: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Live:
    """What a long-running worker does beyond a bounded replay.

    It reads the catalogue to its end before the first event, claims the ledger when it takes over, calls an events
    partition idle after `idle_ms` of silence, and thins training while more than `lagging_records` wait.
    """

    idle_ms: int = 60_000
    lagging_records: int = 50_000


class Loop:
    """Folds ticks until told to stop.

    Args:
        make_pipeline: builds the pipeline in its initial state.
        ports: where records come from and effects go.
        identity: what the ledger records of this run.
        max_records: records a tick closes at; also the most that is buffered of a partition.
        live: how a long-running worker differs from a bounded replay; None for a replay.
        on_commit: called after each commit with the tick and its effects (progress, the simulated shop).
    """

    def __init__(
        self,
        make_pipeline: Callable[[], Pipeline],
        ports: Ports,
        identity: Identity,
        *,
        max_records: int = 1024,
        live: Live | None = None,
        on_commit: Callable[[Tick, Effects], None] | None = None,
    ) -> None:
        self.pipeline = make_pipeline()
        self._make_pipeline = make_pipeline
        self._ports = ports
        self._identity = identity
        self._max_records = max_records
        self._live = live
        self._heard_at_ms: dict[TopicPartition, int] = {}
        self._on_commit = on_commit
        self._buffers: dict[TopicPartition, list[Record]] = {p: [] for p in ports.source.partitions()}
        self._durable: list[str] = []
        self._differed: list[int] = []
        self.between_ticks = True
        """False from the start of a fold to its commit: the state is then that of no committed tick."""

    # ---- start and recovery

    def recover(self) -> None:
        """Bring the state to the end of the ledger, muted; an empty ledger gets its genesis entry.

        Raises:
            LedgerMismatch: a muted tick differs from its entry, or the chain is broken.
            InputGone: records that an entry names can no longer be read.
        """
        entries = self._ports.publisher.read_ledger()
        if not entries:
            self._begin()
        else:
            done = self._restore(entries)
            for offset, raw in entries[done:]:
                self._redo(offset, raw)
            if self._live:
                self._commit("claim", {}, Effects(outputs=()))
        positions = self.pipeline.positions
        self._ports.source.seek({p: positions.next_of(p) for p in self._buffers})
        for version, tensors in self.pipeline.pending_weights().items():
            self._ports.weights.put(version, tensors)
        settle_memory()

    def _begin(self) -> None:
        start = dict.fromkeys(self._buffers, 0)
        self.pipeline.begin(start)
        body = {**self._identity.genesis, "start": [[t, p, o] for (t, p), o in sorted(start.items())]}
        self._commit("genesis", body, Effects(outputs=()))
        self.checkpoint()

    def _restore(self, entries: Sequence[tuple[int, bytes]]) -> int:
        """Load the newest checkpoint that the ledger vouches for; returns how many entries it covers."""
        by_chain = {chain_of(raw): i for i, (_, raw) in enumerate(entries)}
        for name in self._ports.checkpoints.names():
            try:
                manifest, components = self._ports.checkpoints.load(name)
            except CheckpointRefused:
                continue
            at = by_chain.get(str(manifest["chain"]))
            if at is not None and manifest["ledger_offset"] == entries[at][0] and self._take_over(name, components):
                return at + 1
        return 0

    def _take_over(self, name: str, components: Mapping[str, Snapshot]) -> bool:
        """Restore a state; one that does not fit this build's tables is left for an older one or the ledger itself."""
        try:
            self.pipeline.restore(components)
        except (KeyError, ValueError, TypeError):
            LOG.warning("checkpoint %s was written by a build with other tables; folding the ledger instead", name)
            self.pipeline = self._make_pipeline()
            return False
        return True

    def _redo(self, offset: int, raw: bytes) -> None:
        entry = decode(raw, offset)
        positions = self.pipeline.positions
        if entry["n"] != positions.number + 1 or entry["prev"] != positions.chain:
            raise LedgerMismatch(f"the ledger's chain is broken at tick {entry['n']}, offset {offset}")
        if entry["kind"] == "genesis":
            self.pipeline.begin({(t, p): o for t, p, o in entry["start"]})
        elif entry["kind"] == "tick":
            tick = Tick.from_json(entry["n"], entry["tick"])
            effects = self.pipeline.fold(tick, self._reread(tick))
            self._prove(entry, effects)
        self._step_over(raw, offset)

    def _reread(self, tick: Tick) -> list[Record]:
        buffers: dict[TopicPartition, Sequence[Record]] = {}
        for r in tick.ranges:
            records = self._ports.source.read_range((r.topic, r.partition), r.first, r.n_records)
            if len(records) != r.n_records or records[-1].offset + 1 != r.next or digest_of(records) != r.digest:
                raise LedgerMismatch(
                    f"the input differs from what tick {tick.number} read: {r.topic}/{r.partition}, "
                    f"offsets {r.first} to {r.next - 1}; bring the original input back or start in a new folder"
                )
            buffers[r.topic, r.partition] = records
        return self.pipeline.positions.order(buffers)

    def _prove(self, entry: dict[str, Any], effects: Effects) -> None:
        if entry["effects_digest"] == effects.digest():
            return
        if entry["build"] != self._identity.build_digest:
            self._differed.append(entry["n"])
            return
        raise LedgerMismatch(
            f"tick {entry['n']} gave other effects than its ledger entry records, under the same build: "
            "this is a bug; keep the run folder and report it"
        )

    # ---- going on

    def gather(self) -> tuple[int, bool]:
        """Read ahead: how many records wait to be folded, and whether they fill a tick."""
        self._fill()
        n = sum(len(buffer) for buffer in self._buffers.values())
        return n, n >= self._max_records

    def step(self, *, drain: bool = False, cut_at_ms: int | None = None) -> bool:
        """Cut, fold and commit one tick; False when there was nothing to take and nothing due.

        Args:
            drain: cut a last, possibly empty tick that closes the run.
            cut_at_ms: the worker's clock; None takes the records' own time (a backfill).
        """
        self._fill()
        records = self.pipeline.positions.order(self._buffers)[: self._max_records]
        facts = self._facts(records, drain, cut_at_ms)
        if not records and not drain and not self._due(facts):
            return False
        self.between_ticks = False
        effects = self.pipeline.fold(facts, records)
        self._take(records)
        body = {
            "tick": facts.to_json(),
            "effects_digest": effects.digest(),
            "outputs": effects.sizes(),
            "counts": dict(effects.counts),
            "reasons": {outcome: dict(table) for outcome, table in effects.reasons.items()},
        }
        self._commit("tick", body, effects)
        self.between_ticks = True
        for version, tensors in effects.weights.items():
            self._ports.weights.put(version, tensors)
        if effects.weights:
            self.checkpoint(pin=True)
        if self._on_commit:
            self._on_commit(facts, effects)
        return True

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

    def checkpoint(self, *, pin: bool = False) -> None:
        """Copy the state of the last committed tick and hand it to the store.

        Interrupted inside a tick there is no such state and nothing is saved. A store that cannot write is reported
        and does not stop the loop: the ledger is the truth and older checkpoints are whole.

        Args:
            pin: this is the cut of a version: keep it, and that of the version before. While the store is still
                writing it is passed over: copies that wait for a slow disk would fill the memory.
        """
        if not self.between_ticks:
            return
        positions = self.pipeline.positions
        manifest = {
            "format": FORMAT,
            "tick": positions.number,
            "chain": positions.chain,
            "ledger_offset": positions.ledger_offset,
            "cut_at_ms": positions.record_time_ms(),
            "settings": self._identity.settings_digest,
            "build": self._identity.build_digest,
        }
        name = f"{positions.number:010d}-{positions.chain[:16]}"
        store = self._ports.checkpoints
        if pin and store.busy():
            return
        try:
            if pin:
                store.pin(name)
                for older in store.pinned()[CUTS_KEPT:]:
                    store.unpin(older)
            store.save(name, manifest, self.pipeline.snapshot())
        except JobFailed as error:
            LOG.warning("a checkpoint could not be written: %s", error)

    @property
    def finished(self) -> bool:
        """Whether the last committed tick drained the input."""
        return self.pipeline.positions.finished

    # ---- parts of a step

    def _fill(self) -> None:
        """Top up the buffers; on a live topic the catalogue is read to its end before the first event."""
        partitions = list(self._buffers)
        if self._live and not self._events_begun():
            items = [p for p in partitions if p[0] != Topic.EVENTS]
            filled = [self._fill_one(p) for p in items]
            if any(filled):
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
        self._durable += self._ports.weights.durable()
        own_time = max([positions.record_time_ms(), *(r.timestamp_ms for r in records)])
        wild = tuple(
            (r.partition, r.offset)
            for r in records
            if r.topic == Topic.EVENTS and source.in_future((r.topic, r.partition), r.offset)
        )
        first = {p: positions.next_of(p) for p in self._buffers}
        return Tick(
            number=positions.number + 1,
            ranges=ranges_of(records, first),
            cut_at_ms=own_time if cut_at_ms is None else cut_at_ms,
            idle=self._idle(cut_at_ms),
            in_future=wild,
            lagging=self._live is not None and source.lag() > self._live.lagging_records,
            drain=drain,
            weights_durable=tuple(self._durable),
        )

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
                elif now_ms - heard >= self._live.idle_ms:
                    silent.append(partition[1])
        return tuple(sorted(silent))

    def _due(self, facts: Tick) -> bool:
        return bool(facts.weights_durable) or self.pipeline.due(facts.cut_at_ms)

    def _take(self, records: Sequence[Record]) -> None:
        taken: dict[TopicPartition, int] = {}
        for r in records:
            taken[r.topic, r.partition] = taken.get((r.topic, r.partition), 0) + 1
        for partition, n in taken.items():
            del self._buffers[partition][:n]
        self._durable = []

    def _commit(self, kind: str, body: dict[str, Any], effects: Effects) -> None:
        positions = self.pipeline.positions
        who = {
            "settings": self._identity.settings_digest,
            "build": self._identity.build_digest,
            "learner": self._identity.learner,
        }
        if self._differed:
            # Another build may round otherwise; that it did is part of the truth.
            body = {**body, "differed": self._differed}
            self._differed = []
        raw = encode(positions.number + 1, positions.chain, kind, {**who, **body})
        offset = self._ports.publisher.commit(effects.outputs, raw)
        self._step_over(raw, offset)

    def _step_over(self, raw: bytes, offset: int) -> None:
        positions = self.pipeline.positions
        positions.number += 1
        positions.chain = chain_of(raw)
        positions.ledger_offset = offset


def settle_memory() -> None:
    """Let the garbage collector look for cycles once in several ticks instead of several times a tick.

    A tick makes thousands of short-lived tuples and hardly a cycle: at the default threshold the collector walks
    through them again and again and finds nothing (a seventh of the time from bytes to window).
    """
    gc.set_threshold(50_000, 10, 10)
