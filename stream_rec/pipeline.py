"""(state, tick) in, effects out: the whole of what the product computes. No I/O, no sleep, no clock but the tick's.

records -> intake (facts) -> test -> mature -> brake -> absorb -> train -> promote / cut -> slates -> effects
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from stream_rec import lineage
from stream_rec.commands import Commands
from stream_rec.component import Component, Snapshot, restore_all
from stream_rec.effects import Effects
from stream_rec.events import MISSING, Kind, Output, Record, Topic
from stream_rec.learn.batch import Positives, Retractions, TickBatch, Visits
from stream_rec.learn.brake import Braking, Counts
from stream_rec.learn.learner import Learner
from stream_rec.learn.replayed import ReplayPlan, drawn
from stream_rec.learn.scoring import Catalogue
from stream_rec.learn.training import Wanted
from stream_rec.query_slates import SearchStage
from stream_rec.releases import Releases
from stream_rec.rollback import State
from stream_rec.slates import SlateStage
from stream_rec.stream.accounting import OUTCOMES
from stream_rec.stream.intake import LOOKS, ORGANIC, SESSION, Intake, Taken
from stream_rec.stream.positions import Positions
from stream_rec.stream.tick import Tick
from stream_rec.stream.users import Users, stable
from stream_rec.stream.watermark import BEFORE_TIME

Array = np.ndarray[Any, np.dtype[Any]]
UNHURRIED = 1 << 20
"""Before the first event nobody waits."""
JOINABLE = (*LOOKS, Kind.ADD_TO_CART, Kind.PURCHASE)
"""What people do with an item that a slate may have shown."""


class Report(Component):
    """What the next metrics line still has to say: counts since the last one."""

    scalars = ("counts", "begun", "last_at_ms")

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.begun = False
        """Whether an event has been accepted: before that there is no event time to speak of."""
        self.last_at_ms = MISSING


@dataclass(frozen=True, slots=True)
class Quotas:
    """Sizes of a tick's work."""

    n_slots: int = 20
    """Width of a slate."""
    report_every_ms: int = 3_600_000
    """Event time between two metrics lines."""
    train_steps: int = 8
    """Micro-batches a tick at most."""
    embed_texts: int = 64
    """Item texts embedded a tick at most, once events have come."""
    replay: ReplayPlan = field(default_factory=ReplayPlan)
    """Earlier examples that the tower learns from once more, a tick."""


class Pipeline:
    """One deterministic fold.

    Args:
        intake: folds records into facts.
        learner: learns and scores.
        slates: decides what is published.
        search: learns from searches and answers them.
        quotas: how much of everything a tick takes.
    """

    def __init__(
        self, intake: Intake, learner: Learner, slates: SlateStage, search: SearchStage, quotas: Quotas | None = None
    ) -> None:
        self.quotas = quotas or Quotas()
        self._intake, self.learner, self._slates, self._search = intake, learner, slates, search
        self.facts = intake.facts
        self.positions = Positions()
        self._report = Report()
        self._releases = Releases(learner, intake.facts)
        self._commands = Commands(intake, learner, self._releases, slates)

    # ---- state

    def components(self) -> dict[str, Component]:
        """The component table: all state there is, by name."""
        facts = self.facts
        return {
            "positions": self.positions,
            "accounting": facts.accounting,
            "dedupe": facts.dedupe,
            "watermarks": facts.watermarks,
            "users": facts.users,
            "histories": facts.histories,
            "items": facts.items,
            "joiner": facts.joiner,
            "window": facts.window,
            "reservoir": facts.reservoir,
            "refresh": self._slates.refresh,
            "report": self._report,
            "release": self._releases.state,
            **self.learner.components(),
            **self._search.components(),
        }

    def snapshot(self) -> dict[str, Snapshot]:
        """A copy of the whole state."""
        return {name: component.snapshot() for name, component in self.components().items()}

    def restore(self, snapshots: Mapping[str, Snapshot]) -> None:
        """Take a whole state into this freshly built pipeline."""
        restore_all(self.components(), snapshots)

    def pending_weights(self) -> dict[str, dict[str, Array]]:
        """Candidates whose weights must still become durable."""
        return self._releases.pending_weights()

    @property
    def wanted(self) -> Mapping[str, Any] | None:
        """The rollback that waits for a state of the past; see `releases.Release.wanted`."""
        return self._releases.state.wanted

    @property
    def newest_event_ms(self) -> int:
        """Largest event time seen."""
        return int(self.facts.watermarks.newest_ms.max())

    def kept_ticks(self) -> set[int]:
        """Ticks whose state must be kept to return to."""
        return self._releases.kept_ticks()

    def due(self, now_ms: int) -> bool:
        """Whether an empty tick has something to do."""
        return self._slates.due(now_ms)

    # ---- the fold

    def begin(self, start: Mapping[tuple[str, int], int], topic_ids: Mapping[str, str] | None = None) -> None:
        """Take what a genesis entry says: the input partitions, the offsets they start from, who their topics are."""
        self.positions.start(start, topic_ids)
        self.facts.watermarks.follow(number for topic, number in start if topic == Topic.EVENTS)

    def fold(self, tick: Tick, records: Sequence[Record], then: State | None = None) -> Effects:
        """Fold one tick.

        Args:
            tick: the facts from outside.
            records: in processing order.
            then: the state that `tick.restore` names, where it names one.

        Raises:
            InputRefused: an input topic is mostly unusable; the state must be dropped.
        """
        items = self.facts.items
        servable_before = items.servable()
        self.facts.watermarks.follow(number for topic, number in tick.appeared if topic == Topic.EVENTS)
        back = [] if tick.restore is None else self._commands.restored(tick, then, self.components())
        taken = self._intake.read(tick, records)
        batch = self._batch(tick, taken)
        learner = self.learner
        learner.forget_items(np.array(taken.evicted_items, np.int32))
        searched, pairs = self._search.take(taken, lagging=tick.lagging)
        quota = self.quotas.embed_texts if self._report.begun else UNHURRIED
        retold = items.take_retold()
        learner.tell(retold, items.n, items.text, quota=quota, n_records=len(records))
        side = self._search.side
        side.tell(retold, [items.titles[row] for row in retold])
        catalogue = self._catalogue_before(servable_before, taken)
        learner.test(batch, self.facts.histories, catalogue)
        side.test(pairs, self.facts.histories, catalogue, number=tick.number)
        learner.mature(batch.watermark_ms)
        braking = self._look(taken, servable_before, batch.watermark_ms)
        learner.absorb(batch, self.facts.histories, catalogue)
        learner.train(self.quotas.train_steps)
        learner.exploration.learn(taken.shown, braking=braking.braking)
        side.learn(pairs, braking=braking.braking)
        answers, revived = self._commands.obey(tick, taken)
        outputs = [*back, *taken.dead_letters, *answers]
        notices, weights = self._releases.step(tick)
        weights |= revived
        if not self._report.begun and batch.watermark_ms != BEFORE_TIME:
            self._report.begun, self._report.last_at_ms = True, tick.cut_at_ms
            notices, first = self._releases.first(tick)
            weights |= first
        touched = self._touched(taken)
        outputs += notices
        outputs += self._slates.publish(
            tick, touched, taken.unservable, promoted=bool(notices) or then is not None, watermark_ms=batch.watermark_ms
        )
        outputs += self._search.publish(tick, searched, batch.watermark_ms)
        counts, reasons = self._counts(taken)
        outputs += self._metrics(tick, counts, batch.watermark_ms)
        outputs = lineage.traced(outputs, tick, self.positions, self.facts, learner)
        self.positions.advance(tick, records)
        return Effects(outputs=outputs, weights=weights, counts=counts, reasons=reasons, brake=braking.reasons)

    def _look(self, taken: Taken, servable_before: Array, watermark_ms: int) -> Braking:
        """Show the brake what the tick brought; new texts of items that stay on sale are no change of the catalogue."""
        oversight = self.learner.oversight
        if watermark_ms == BEFORE_TIME:
            return oversight.brake.state()
        kind, servable = taken.lines.kind, self.facts.items.servable()
        joinable = np.isin(kind, JOINABLE)
        before = np.zeros(len(servable), np.bool_)
        before[: len(servable_before)] = servable_before
        n_visits, recall = self.learner.matured()
        self.learner.exploration.switch.count(watermark_ms, n_named=taken.named[0], n_clicks=taken.named[1])
        counts = Counts(
            events=len(np.unique([line.event for line in taken.lines.source])),
            joinable=int(joinable.sum()),
            joined=int((joinable & (taken.source != ORGANIC)).sum()),
            looks=int(np.isin(kind, LOOKS).sum()),
            purchases=int((kind == Kind.PURCHASE).sum()),
            visits=n_visits,
            recall=recall,
            items_changed=int((before != servable).sum()),
            n_items=self.facts.items.n,
        )
        braking = oversight.look(watermark_ms, counts)
        self.facts.accounting.note("braked_ticks", int(braking.braking))
        return braking

    def _catalogue_before(self, servable: Array, taken: Taken) -> Catalogue:
        """What a tick's examples are compared with: items known before it, and of these the ones servable (law 7)."""
        items = self.facts.items
        known = np.arange(items.n) < len(servable)
        known[taken.evicted_items] = False
        could = np.zeros(items.n, np.bool_)
        could[: len(servable)] = servable
        return Catalogue(items.n, could & known, items.born[: items.n], known)

    def _batch(self, tick: Tick, taken: Taken) -> TickBatch:
        lines, users = taken.lines, self.facts.users
        at = np.flatnonzero(lines.positive)
        opened = np.flatnonzero(lines.opens)
        served = np.full((len(opened), self.quotas.n_slots), MISSING, np.int32)
        for row, slate in zip(served, taken.served, strict=True):
            if slate is not None:
                row[: len(slate)] = slate
        positives = Positives(
            user=lines.user[at],
            user_key=_stable_key(users, lines.user[at]),
            stand_in=lines.stand_in[at],
            item=lines.item[at],
            at_ms=lines.at_ms[at],
            kind=lines.kind[at],
            serial=lines.serial[at],
            before=lines.before[at],
            visit=lines.visit[at],
            visit_before=lines.visit_before[at],
            source=taken.source[at],
            position=taken.position[at],
            event=np.array([lines.source[i].event for i in at.tolist()], np.int64),
        )
        visits = Visits(
            visit=lines.visit[opened],
            user=lines.user[opened],
            user_key=_stable_key(users, lines.user[opened]),
            stand_in=lines.stand_in[opened],
            start_at_ms=lines.at_ms[opened],
            before=lines.before[opened],
            served=served,
        )
        item, user, at_ms, visit, pointer, serial = np.array(taken.retracted, np.int64).reshape(-1, 6).T
        retractions = Retractions(
            user=user.astype(np.int32),
            item=item.astype(np.int32),
            at_ms=at_ms,
            visit=visit,
            pointer=pointer,
            serial=serial,
        )
        return TickBatch(
            number=tick.number,
            watermark_ms=self.facts.watermarks.global_ms,
            cut_at_ms=tick.cut_at_ms,
            positives=positives,
            visits=visits,
            retractions=retractions,
            replayed=self._replayed(tick, lines.serial),
            shown=taken.shown,
            lagging=tick.lagging,
        )

    def _replayed(self, tick: Tick, serial: Array) -> list[Wanted]:
        """Earlier examples to learn from again; none under lag or the brake, which leave no time or trust for it."""
        if self.learner.tower is None or tick.lagging or self.learner.oversight.braking:
            return []
        own = serial[serial != MISSING]
        before = int(own.min()) if len(own) else self.facts.histories.next_serial
        return drawn(self.facts, self.quotas.replay, tick=tick.number, before=before)

    def _touched(self, taken: Taken) -> Array:
        """Users of the tick that have a slate of their own and were not forgotten in it, each once, by first sight."""
        lines = taken.lines
        own: Array = lines.user[(lines.user != MISSING) & (lines.stand_in <= SESSION)]
        own = own[self.facts.users.born[own] != 0]
        _, first = np.unique(own, return_index=True)
        touched: Array = own[np.sort(first)]
        return touched

    # ---- metrics

    def _counts(self, taken: Taken) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
        """Records of the tick by outcome, and by outcome and reason."""
        counts = dict.fromkeys(("consumed", *OUTCOMES), 0)
        reasons: dict[str, dict[str, int]] = {}
        for (outcome, reason), n in sorted(taken.verdicts.items()):
            counts["consumed"] += n
            counts[outcome] += n
            if reason:
                reasons.setdefault(outcome, {})[reason] = n
        return counts, reasons

    def _metrics(self, tick: Tick, counts: Mapping[str, int], watermark_ms: int) -> list[Output]:
        report = self._report
        for name, n in counts.items():
            report.counts[name] = report.counts.get(name, 0) + n
        if not report.begun and not tick.drain:
            return []
        if not tick.drain and tick.cut_at_ms - report.last_at_ms < self.quotas.report_every_ms:
            return []
        line = {
            "tick": tick.number,
            "event_at": tick.cut_at_ms,
            "watermark": None if watermark_ms == BEFORE_TIME else watermark_ms,
            "version": self.learner.versions.champion_version,
            **report.counts,
            **self.facts.joiner.take_interval(),
            "metrics": self.learner.metrics_interval(),
            "heads": self.learner.impressions.metrics.take_interval(),
            "search": self._search.side.figures.take_interval(),
            "explore": self.learner.exploration.table(braking=self.learner.oversight.braking),
            "reach": self.learner.reach.table(self.facts.items.n),
            "gate": self._releases.take_judged(),
            "brake": list(self.learner.oversight.brake.state().reasons),
            "drift": self._drifted(),
        }
        report.counts, report.last_at_ms = {}, tick.cut_at_ms
        return [Output(Topic.METRICS, b"", msgspec.json.encode(line))]

    def _drifted(self) -> dict[str, int]:
        alarms = self.learner.oversight.take_alarms()
        for word, n in alarms.items():
            self.facts.accounting.note(word, n)
        return alarms


def _stable_key(users: Users, rows: Array) -> Array:
    """63 bits of each user's key, int64; 0 without a user."""
    return np.where(rows == MISSING, np.int64(0), stable(users.key[rows]))
