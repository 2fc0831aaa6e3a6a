"""The fold of the ledger: a state, how it is brought back, and how an entry is folded again without effects (muted).

The ledger is the truth and a checkpoint a cache of its fold, so a checkpoint counts only where the ledger holds the
very entry it was made after. Settings are part of a tick's meaning: muted ticks run under those of their own time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stream_rec.component import Component, Snapshot
from stream_rec.effects import Effects
from stream_rec.errors import CheckpointRefused, InputGone, JobFailed, LedgerMismatch, SettingsError
from stream_rec.events import Record
from stream_rec.pipeline import Pipeline
from stream_rec.ports import CheckpointStore, EventSource, Publisher, TopicPartition
from stream_rec.rollback import State, digest_of, learned_names
from stream_rec.stream.ledger import chain_of, decode
from stream_rec.stream.positions import Positions
from stream_rec.stream.tick import Restore, Tick
from stream_rec.stream.tick import digest_of as digest_of_records

LOG = logging.getLogger(__name__)

Loaded = tuple[Mapping[str, Any], Mapping[str, Snapshot]]
"""Manifest and components of a checkpoint."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who runs: what a ledger entry says of settings, build and learner, and what genesis says of the input."""

    settings_digest: str
    build_digest: str
    learner: str
    genesis: dict[str, Any]
    """Its `semantic` are the settings that `settings_digest` stands for."""
    session: str = ""
    """Tells this start of a worker from every other, in its claim; empty in a replay, whose bytes are promised."""

    @property
    def semantic(self) -> dict[str, Any]:
        """The semantic settings of this run."""
        return dict(self.genesis.get("semantic", {}))


@dataclass(frozen=True, slots=True)
class Beginning:
    """How a pipeline without a ledger begins.

    `start` gives the first offset of each input partition, 0 where it names none; `init` is the state of another run
    that this one continues; `make_under` builds a pipeline under settings that a ledger kept; with `follows` the
    genesis comes from another ledger.
    """

    start: Callable[[], Mapping[TopicPartition, int]] = field(default=dict)
    init: Callable[[], Loaded] | None = None
    make_under: Callable[[Mapping[str, Any]], Pipeline] | None = None
    follows: bool = False


class Fold:
    """A pipeline with its state, as of the last ledger entry that was folded.

    Args:
        make_pipeline: builds the pipeline of this run's own settings, in its initial state.
        identity: whose settings and build these are.
        beginning: where a ledger begins, and how pipelines of other settings are built.
    """

    def __init__(
        self,
        make_pipeline: Callable[[], Pipeline],
        identity: Identity,
        beginning: Beginning | None = None,
    ) -> None:
        begins = beginning or Beginning()
        self._make_own, self._make_under, self._init = make_pipeline, begins.make_under, begins.init
        self._identity = identity
        self.pipeline = make_pipeline()
        self.settings_digest = identity.settings_digest
        """Settings that the state was folded under."""
        self.semantic = identity.semantic
        self.past: Callable[[Restore], State] | None = None
        """Gives the states that rollbacks go back to."""
        self.differed: list[int] = []
        """Ticks that gave other effects under this build than under the one that committed them."""

    @property
    def positions(self) -> Positions:
        """Where the fold stands."""
        return self.pipeline.positions

    # ---- bringing a state back

    def restore(self, checkpoints: CheckpointStore, ledger: Publisher, *, newest: int | None = None) -> int:
        """Load the newest checkpoint that the ledger vouches for; returns the ledger offset to go on from.

        Args:
            checkpoints: where they are.
            ledger: what they are the fold of.
            newest: tick after which none is taken; None: any is.
        """
        for name in checkpoints.names():
            try:
                if newest is not None and int(str(checkpoints.manifest(name)["tick"])) > newest:
                    continue
                manifest, components = checkpoints.load(name)
            except CheckpointRefused as error:
                LOG.warning("%s", error)
                continue
            if vouched(manifest, ledger) and self.take_over(name, manifest, components):
                return self.positions.ledger_offset + 1
        return 0

    def take_over(self, name: str, manifest: Mapping[str, Any], components: Mapping[str, Snapshot]) -> bool:
        """Restore a state; one that does not fit this build's tables is left for an older one or the ledger itself."""
        self._make(str(manifest["settings"]), manifest.get("semantic", self._identity.semantic))
        try:
            self.pipeline.restore(components)
        except (KeyError, ValueError, TypeError):
            LOG.warning("checkpoint %s was written by a build with other tables; it is passed over", name)
            self._make(self._identity.settings_digest, self._identity.semantic)
            return False
        return True

    def begin_from_init(self) -> None:
        """Take the state of the run that this ledger continues.

        Raises:
            JobFailed: it cannot be had.
        """
        if self._init is None:
            raise JobFailed(
                "this ledger began from the state of a replayed run and no checkpoint of it is left; give --init-from "
                "and that run's folder"
            )
        manifest, components = self._init()
        if not self.take_over(str(manifest["tick"]), manifest, components):
            raise JobFailed("the run to begin from was written by a build with other tables; replay it again")
        self.positions.ledger_offset = -1

    def _make(self, digest: str, semantic: Mapping[str, Any]) -> None:
        if digest == self._identity.settings_digest:
            self.pipeline = self._make_own()
        elif self._make_under is not None:
            self.pipeline = self._make_under(semantic)
        else:
            raise SettingsError("the ledger was written under other settings; bring them back or start a new run")
        self.settings_digest, self.semantic = digest, dict(semantic)

    def adopt_own(self) -> bool:
        """Go on under this run's own settings; says whether they differ from those the state was folded under.

        Raises:
            SettingsError: a setting that sizes a table was changed; names what changed.
        """
        if self.settings_digest == self._identity.settings_digest:
            return False
        self._adopt(self._identity.settings_digest, self._identity.semantic)
        return True

    def _adopt(self, digest: str, semantic: Mapping[str, Any]) -> None:
        state, before, old = self.pipeline.snapshot(), self.pipeline, self.semantic
        self._make(self.settings_digest, old)
        fresh_before = self.pipeline
        self._make(digest, semantic)
        changed = sorted(n for n in {*old, *semantic} if old.get(n) != semantic.get(n))
        if _shapes(fresh_before) != _shapes(self.pipeline):
            self.pipeline = before
            raise SettingsError(
                f"{', '.join(changed)} cannot be changed while a pipeline runs, since a table has that size; bring "
                "the old value back, or start a new pipeline.name with --init-from a replay under the new one"
            )
        self.pipeline.restore(state)
        LOG.info("the settings change here: %s", ", ".join(changed))

    def follow_settings(self, entry: Mapping[str, Any]) -> None:
        """Go over to the settings of an entry, when it says that they change with it.

        Raises:
            SettingsError: this program cannot make a pipeline of them.
        """
        if entry["settings"] == self.settings_digest or "semantic" not in entry:
            return
        if entry["kind"] == "genesis" and self.positions.number < 0:
            self._make(entry["settings"], entry["semantic"])
        else:
            self._adopt(entry["settings"], entry["semantic"])

    # ---- folding again

    def redo(self, offset: int, raw: bytes, source: EventSource) -> None:
        """Fold one committed entry, muted, and prove that it gives what it gave.

        Raises:
            LedgerMismatch: it does not, or the chain is broken.
            InputGone: records that the entry names can no longer be read.
        """
        entry = decode(raw, offset)
        if entry["n"] > 0 and self.positions.number < 0:
            self._enter_late(entry)
        if entry["n"] != self.positions.number + 1 or entry["prev"] != self.positions.chain:
            raise LedgerMismatch(f"the ledger's chain is broken at tick {entry['n']}, offset {offset}")
        self.follow_settings(entry)
        if entry["kind"] == "genesis":
            self.begin(entry)
        elif entry["kind"] == "tick":
            tick = Tick.from_json(entry["n"], entry["tick"])
            same_build = entry["build"] == self._identity.build_digest
            self.prove(entry, self.fold(tick, reread(tick, source, self.positions), same_build=same_build))
        self.step_over(raw, offset)

    def fold(self, tick: Tick, records: Sequence[Record], *, same_build: bool = True) -> Effects:
        """Fold one tick, with the state that it goes back to where it does.

        Raises:
            LedgerMismatch: that state is not the one which the tick names, although the build is the same.
        """
        if tick.restore is None:
            return self.pipeline.fold(tick, records)
        then = None
        if not tick.restore.refused:
            assert self.past is not None, "a tick that goes back needs the states of the past"
            then = self.past(tick.restore)
            found = digest_of(then, learned_names(self.pipeline.components()))
            if same_build and found != tick.restore.digest:
                raise LedgerMismatch(
                    f"tick {tick.number} goes back to the state of tick {tick.restore.tick}, which is another one now "
                    "under the same build: this is a bug; keep the run folder and report it"
                )
        return self.pipeline.fold(tick, records, then)

    def begin(self, genesis: Mapping[str, Any]) -> None:
        """Take what a genesis entry says of the input."""
        start = {(t, p): o for t, p, o in genesis["start"]}
        self.pipeline.begin(start, genesis.get("topic_ids"))

    def prove(self, entry: Mapping[str, Any], effects: Effects) -> None:
        """Compare effects with what the entry of their tick recorded.

        Raises:
            LedgerMismatch: they differ although the build is the same.
        """
        if entry["effects_digest"] == effects.digest():
            return
        if entry["build"] != self._identity.build_digest:
            self.differed.append(entry["n"])
            return
        raise LedgerMismatch(
            f"tick {entry['n']} gave other effects than its ledger entry records, under the same build: "
            "this is a bug; keep the run folder and report it"
        )

    def step_over(self, raw: bytes, offset: int) -> None:
        """The entry `raw`, committed at `offset`, is folded."""
        positions = self.positions
        positions.number += 1
        positions.chain = chain_of(raw)
        positions.ledger_offset = offset

    def _enter_late(self, entry: Mapping[str, Any]) -> None:
        if entry["kind"] != "genesis":
            raise InputGone(
                f"the ledger begins at tick {entry['n']}: what was before is gone by its retention, and no checkpoint "
                "is left to go on from; bring a checkpoint back, or start a new pipeline.name"
            )
        self.begin_from_init()


def vouched(manifest: Mapping[str, Any], ledger: Publisher) -> bool:
    """Whether a ledger holds the very entry that a checkpoint of this manifest was made after."""
    offset = int(manifest["ledger_offset"])
    try:
        first = next(iter(ledger.read_ledger(offset)), None)
    except InputGone:
        return False
    return first is not None and first[0] == offset and chain_of(first[1]) == manifest["chain"]


def reread(tick: Tick, source: EventSource, positions: Positions) -> list[Record]:
    """The records of a committed tick in processing order, checked against what it says of them.

    Raises:
        InputGone: some are there no more.
        LedgerMismatch: they are not the ones that were read.
    """
    buffers: dict[TopicPartition, Sequence[Record]] = {}
    for r in tick.ranges:
        records = source.read_range((r.topic, r.partition), r.first, r.n_records)
        where = f"tick {tick.number} read {r.n_records} records of {r.topic}/{r.partition} from offset {r.first} on"
        if len(records) != r.n_records or records[-1].offset + 1 != r.next:
            raise InputGone(
                f"{where}, and they are not all there any more; bring the original input back, restore a newer "
                "checkpoint, or start a new run"
            )
        if digest_of_records(records) != r.digest:
            raise LedgerMismatch(f"the input differs: {where}; bring the original input back or start a new run")
        buffers[r.topic, r.partition] = records
    return positions.order(buffers)


def _shapes(pipeline: Pipeline) -> dict[str, list[tuple[str, tuple[int, ...], str]]]:
    return {name: list(_columns_of(component)) for name, component in pipeline.components().items()}


def _columns_of(component: Component) -> Iterable[tuple[str, tuple[int, ...], str]]:
    for name, value in sorted(vars(component).items()):
        if isinstance(value, np.ndarray):
            yield name, value.shape, value.dtype.str
        elif isinstance(value, Component):
            yield from ((f"{name}.{n}", shape, kind) for n, shape, kind in _columns_of(value))
