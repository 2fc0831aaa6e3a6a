"""One tick's records folded into the facts: verdicts, users, visits, histories, joins, window. Knows no model.

Every record ends with one verdict (law 4). Accepted lines then go through column by column; each keeps the history
pointer from before it, so that every example sees exactly what had happened before.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stream_rec.events import MISSING, Kind, Line, Output, Record
from stream_rec.stream import judging
from stream_rec.stream.accounting import PLAIN, Accounting
from stream_rec.stream.attribution import Joiner
from stream_rec.stream.dedupe import Dedupe
from stream_rec.stream.exposures import ShownLists
from stream_rec.stream.front import Front, FrontBatch
from stream_rec.stream.histories import Histories, NewRows
from stream_rec.stream.items import ItemTable
from stream_rec.stream.joins import NONE, WEAKLY, Matured
from stream_rec.stream.judging import Events, Rules, Verdict
from stream_rec.stream.sampling import Reservoir
from stream_rec.stream.searches import Searches
from stream_rec.stream.tick import Tick
from stream_rec.stream.users import Users
from stream_rec.stream.watermark import Watermarks
from stream_rec.stream.window import SlidingWindow

ORGANIC, SLATE = 0, 1
LOOKS = (Kind.CLICK, Kind.VIEW_ITEM)
SESSION = 1
"""Stand-ins up to this one have a slate of their own."""

Array = np.ndarray[Any, np.dtype[Any]]
ACCEPTED: Verdict = ("accepted", PLAIN)
OLDER_ITEM: Verdict = ("accepted", "older_item_update")


@dataclass(frozen=True, slots=True)
class Facts:
    """What the intake folds into. Window and reservoir belong to the learned half; the rest is never rolled back."""

    accounting: Accounting
    dedupe: Dedupe
    watermarks: Watermarks
    users: Users
    histories: Histories
    items: ItemTable
    joiner: Joiner
    window: SlidingWindow
    reservoir: Reservoir
    searches: Searches = field(default_factory=Searches)


@dataclass(slots=True)
class Lines:
    """Columns over a tick's accepted lines, [n] each, in processing order."""

    source: Sequence[Line]
    kind: Array
    at_ms: Array
    stand_in: Array
    user: Array
    item: Array
    order: Array
    event: Array
    """Digest of the event id."""
    before: Array
    """The user's history pointer before the line."""
    visit: Array
    visit_before: Array
    """The user's history pointer before the first event of the line's visit."""
    opens: Array
    """bool: the line is the first of its visit."""
    positive: Array
    """bool: the line makes a history row and an example."""
    serial: Array
    """Its history row; MISSING where not positive or without a user."""


@dataclass(slots=True)
class Taken:
    """What one tick brought."""

    lines: Lines
    source: Array
    """int8 [n] over lines: 0 organic, 1 slate."""
    position: Array
    """int16 [n]: place in the slate that led to the line; MISSING when organic."""
    served: list[Array | None]
    """Item rows of the slate in force when each visit of `lines.opens` began."""
    retracted: list[tuple[int, ...]]
    """(item row, buyer's row, at_ms of the purchase, its visit, the buyer's history pointer as of the refund, its
    history row) of purchases taken back; a buyer who is gone has MISSING and a pointer to the purchase itself."""
    unservable: list[int]
    """Item rows that were delisted or went out of stock."""
    evicted_items: list[int]
    shown: Matured
    """Impressions whose waits have closed."""
    named: tuple[int, int]
    """Clicks and views of recommended items: how many name their decision, and how many there are."""
    dead_letters: list[Output]
    verdicts: Counter[Verdict]
    controls: list[tuple[str, dict[str, Any]]]


class Intake:
    """Folds ticks of records into `Facts`, through `front` and by `rules`."""

    def __init__(self, front: Front, facts: Facts, rules: Rules) -> None:
        self._front = front
        self.facts = facts
        self._rules = rules

    def read(self, tick: Tick, records: Sequence[Record]) -> Taken:
        """Fold one tick.

        Raises:
            InputRefused: an input topic is mostly unusable.
        """
        batch = self._front.read(records)
        facts = self.facts
        facts.watermarks.set_idle(tick.idle)
        unservable = self._catalogue(batch)
        events = self._judge(tick, records, batch)
        lines = self._locate(events)
        # Before anything is joined: a row that changed hands in this tick must not be taken for its former holder.
        evicted_items = self._clear()
        served = self._served(lines)
        self._impressions(events, lines, batch.verdicts)
        source, position, named = self._join(lines)
        self._append(lines)
        self._fill_window(lines, source, position)
        retracted = self._refunds(lines, batch.verdicts)
        watermark_ms = facts.watermarks.advance()
        facts.window.evict(watermark_ms)
        return Taken(
            shown=facts.joiner.mature(watermark_ms),
            named=named,
            lines=lines,
            source=source,
            position=position,
            served=served,
            retracted=retracted,
            unservable=unservable,
            evicted_items=evicted_items,
            dead_letters=self._seal(records, batch),
            verdicts=self._count(records, batch),
            controls=[(word, arguments) for _, word, arguments in batch.controls],
        )

    def forget_ids(self) -> None:
        """Drop the raw ids that the front remembers for speed."""
        self._front.forget_ids()

    # ---- records

    def _catalogue(self, batch: FrontBatch) -> list[int]:
        """Item records, in order; returns rows that can no longer be shown."""
        items, serial = self.facts.items, self.facts.histories.next_serial
        unservable = []
        for index, entry in batch.items:
            if isinstance(entry, str):
                unservable.append(items.tombstone(entry, serial))
                continue
            row, lost, older = items.upsert(entry, serial)
            if lost:
                unservable.append(row)
            if older:
                batch.verdicts[index] = OLDER_ITEM
        return unservable

    def _judge(self, tick: Tick, records: Sequence[Record], batch: FrontBatch) -> Events:
        """Put the tick-dependent verdicts on event records and return the events that count.

        A record of several events is accepted when one of them is, else it has the verdict of the first.
        """
        verdicts, heads = batch.verdicts, [batch.lines[i] for i in batch.starts]
        facts = self.facts
        judged = judging.judge(
            tick,
            records,
            heads,
            dedupe=facts.dedupe,
            watermarks=facts.watermarks,
            in_future_ms=self._rules.in_future_ms,
        )
        dropped: set[int] = set()
        if any(judged):
            in_play = {line.record for line, verdict in zip(heads, judged, strict=True) if verdict is None}
            for line, verdict in zip(heads, judged, strict=True):
                if verdict is not None:
                    dropped.add(line.record)
                    if line.record not in in_play and verdicts[line.record] is None:
                        verdicts[line.record] = verdict
        events = judging.accepted(batch, heads, judged)
        said = {(line.record, line.item_id) for line in events.lines if line.record in dropped} if dropped else set()
        serial, upsert = facts.histories.next_serial, facts.items.upsert
        for index, item in batch.carried_items:
            if index not in dropped or (index, item.item_id) in said:
                upsert(item, serial, from_event=True)
        return events

    def _seal(self, records: Sequence[Record], batch: FrontBatch) -> list[Output]:
        """Dead letters in record order."""
        return [
            self._front.seal(records[i], verdict[1])
            for i, verdict in enumerate(batch.verdicts)
            if verdict and verdict[0] == "dead_lettered"
        ]

    def _count(self, records: Sequence[Record], batch: FrontBatch) -> Counter[Verdict]:
        """Count every record once; watch each topic's share of dead ones."""
        verdicts = batch.verdicts
        counts = Counter(verdict or ACCEPTED for verdict in verdicts)
        kept = [words for i, words in batch.repaired.items() if (verdicts[i] or ACCEPTED)[0] == "accepted"]
        repairs = Counter(word for words in kept for word in words)
        accounting = self.facts.accounting
        accounting.count(counts, repairs, len(kept))
        accounting.note("unknown_fields", batch.unknown_fields)
        died = ["" if verdict is None or verdict[0] != "dead_lettered" else verdict[1] for verdict in verdicts]
        of_topic: dict[str, list[int]] = {}
        for i, record in enumerate(records):
            of_topic.setdefault(record.topic, []).append(i)
        for topic, at in sorted(of_topic.items()):
            places = [(records[i].partition, records[i].offset) for i in at]
            accounting.watch(topic, places, [died[i] for i in at])
        return counts

    # ---- lines, column by column

    def _locate(self, events: Events) -> Lines:
        """Users, items, visits and history pointers of the lines; what an event's lines share is found once."""
        facts, n = self.facts, len(events.lines)
        columns = list(zip(*events.heads, strict=True)) if events.heads else [()] * len(Line._fields)
        _, kinds, at, keys, stand_ins, sessions, orders, digests, _, _, _, _, ratings, *_ = columns
        its = np.repeat(np.arange(len(events.heads)), events.n_lines)
        serial, at_ms, kind = facts.histories.next_serial, np.array(at, np.int64), np.array(kinds, np.int8)[its]
        item = facts.items.rows([line.item_id for line in events.lines], serial)
        user_of = facts.users.rows(keys, at_ms, stand_ins)
        user = user_of[its]
        positive = self._positive(kind, item, np.array(ratings, np.float64)[its])
        before = facts.users.link(user, positive & (user != MISSING), serial)
        named = [session or order for session, order in zip(sessions, orders, strict=True)]
        visits = facts.users.visits(user_of, named, at_ms, before[events.first])
        opens = np.zeros(n, np.bool_)
        opens[events.first] = visits.opened
        return Lines(
            source=events.lines,
            kind=kind,
            at_ms=at_ms[its],
            stand_in=np.array(stand_ins, np.int8)[its],
            user=user,
            item=item,
            order=np.array(orders, np.int64)[its],
            event=np.array(digests, np.int64)[its],
            before=before,
            visit=visits.serial[its],
            visit_before=visits.before[its],
            opens=opens,
            positive=positive,
            serial=np.full(n, MISSING, np.int64),
        )

    def _positive(self, kind: Array, item: Array, rating: Array) -> Array:
        wanted = np.isin(kind, list(self._rules.positive_kinds)) & (item != MISSING)
        liked: Array = wanted & ((kind != Kind.REVIEW) | (rating >= self._rules.min_rating))
        return liked

    def _served(self, lines: Lines) -> list[Array | None]:
        joiner, at = self.facts.joiner, np.flatnonzero(lines.opens)
        user, served = lines.user[at], []
        for row, born, at_ms in zip(
            user.tolist(), self.facts.users.born[user].tolist(), lines.at_ms[at].tolist(), strict=True
        ):
            own = joiner.in_force(row, born, at_ms)
            served.append(own if own is not None else joiner.in_force(MISSING, MISSING, at_ms))
        return served

    def _join(self, lines: Lines) -> tuple[Array, Array, tuple[int, int]]:
        """Which positives a slate led to, from which place in it, and `Taken.named`."""
        source = np.full(len(lines.kind), ORGANIC, np.int8)
        position = np.full(len(lines.kind), MISSING, np.int16)
        at = np.flatnonzero(lines.kind != Kind.IMPRESSION)
        decisions = [lines.source[i].decision_id for i in at.tolist()]
        joins = self.facts.joiner.feedback_many(
            lines.kind[at], lines.user[at], lines.item[at], decisions=decisions, at_ms=lines.at_ms[at]
        )
        source[at], position[at] = np.where(joins.status == NONE, ORGANIC, SLATE), joins.position
        looks = joins.status[np.isin(lines.kind[at], LOOKS) & (joins.status != NONE)]
        return source, position, (int(np.count_nonzero(looks != WEAKLY)), len(looks))

    def _impressions(self, events: Events, lines: Lines, verdicts: list[Verdict | None]) -> None:
        of = np.flatnonzero(lines.kind[events.first] == Kind.IMPRESSION)
        if not len(of):
            return
        heads, first = [events.heads[k] for k in of.tolist()], events.first[of]
        shown = np.flatnonzero(lines.kind == Kind.IMPRESSION)
        positions = [lines.source[i].position for i in shown.tolist()]
        words = self.facts.joiner.impressions(
            [line.decision_id for line in heads],
            lines.user[first].tolist(),
            [line.at_ms for line in heads],
            shown=ShownLists.of(events.n_lines[of], lines.item[shown], positions),
        )
        for line, word in zip(heads, words, strict=True):
            verdicts[line.record] = ("accepted", f"impression_{word}")

    def _clear(self) -> list[int]:
        """Drop what still points at user and item rows that changed hands; returns the item rows."""
        facts = self.facts
        if users := facts.users.take_evicted():
            facts.joiner.forget_users(users)
        if items := facts.items.take_evicted():
            facts.joiner.forget_items(items)
        return items

    def _append(self, lines: Lines) -> None:
        kept = np.flatnonzero(lines.positive & (lines.user != MISSING))
        if len(kept):
            columns = lines.item, lines.at_ms, lines.kind, lines.visit, lines.order, lines.before, lines.user
            lines.serial[kept] = self.facts.histories.append_many(NewRows(*(column[kept] for column in columns)))

    def _refunds(self, lines: Lines, verdicts: list[Verdict | None]) -> list[tuple[int, ...]]:
        """Take purchases back, each looked for among what was bought before its refund."""
        facts = self.facts
        at = np.flatnonzero((lines.kind == Kind.REFUND) & (lines.item != MISSING))
        if not len(at):
            return []
        serials = facts.histories.retract_many(
            lines.before[at].tolist(),
            lines.item[at].tolist(),
            lines.order[at].tolist(),
            born=facts.items.born[lines.item[at]].tolist(),
            before=(before := self._next_serials(lines)[at].tolist()),
        )
        taken_back, matched = [], defaultdict[int, list[bool]](list)
        for i, serial, limit in zip(at.tolist(), serials, before, strict=True):
            matched[lines.source[i].record].append(serial != MISSING)
            if serial != MISSING:
                taken_back.append(self._take_back(serial, limit))
        for record, each in matched.items():
            if not all(each):
                verdicts[record] = ("accepted", "refund_partly_unmatched" if any(each) else "refund_unmatched")
        return taken_back

    def _next_serials(self, lines: Lines) -> Array:
        """int64 [n]: the serial that the next history row would have got before each line."""
        rows: Array = lines.serial != MISSING
        serials: Array = self.facts.histories.next_serial - np.count_nonzero(rows) + np.cumsum(rows) - rows
        return serials

    def _take_back(self, serial: int, before: int) -> tuple[int, ...]:
        """Undo one purchase for its buyer, in the joiner, the window and the reservoir; see `Taken.retracted`."""
        facts = self.facts
        past = facts.histories.row(serial)
        assert past is not None
        for table in (facts.window, facts.reservoir):
            table.retract_purchase(past.user, past.item, at_ms=past.at_ms)
        pointer = facts.histories.pointer_above(serial, int(facts.users.last_row[past.user]), before)
        if pointer == MISSING:
            return past.item, MISSING, past.at_ms, past.visit, serial, serial
        facts.joiner.retract(past.user, past.item)
        return past.item, past.user, past.at_ms, past.visit, pointer, serial

    def _fill_window(self, lines: Lines, source: Array, position: Array) -> None:
        """Put the tick's positives into window and reservoir, as columns."""
        kept = np.flatnonzero(lines.positive)
        if not len(kept):
            return
        facts, user, item = self.facts, lines.user[kept], lines.item[kept]
        batch = {
            "user": user.astype(np.int64),
            "user_born": np.where(user == MISSING, MISSING, facts.users.born[user]),
            "item": item,
            "item_born": facts.items.born[item],
            "at_ms": lines.at_ms[kept],
            "kind": lines.kind[kept],
            "source": source[kept],
            "position": position[kept],
            "label": np.ones(len(kept), np.int8),
            "weight": np.ones(len(kept), np.float32),
            "event": lines.event[kept],
            "order": lines.order[kept],
            "serial": lines.serial[kept],
        }
        facts.window.add(batch)
        facts.reservoir.add(batch)
