"""Search in the loop: what a tick's searches teach, and the slates that answer them.

Who searched gets a slate for the query, keyed by user key and digest of the query; a frequent query also has one for
everybody, keyed by `*` and digest. A reader tries the first, the second, then the slates without a query.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import numpy as np

from stream_rec.component import Component
from stream_rec.events import MISSING, Output, Topic
from stream_rec.learn.query_side import Pairs, QuerySide, Users
from stream_rec.learn.scoring import Catalogue, Ranked
from stream_rec.slates import EVERYBODY, SlateRules, SlateStage, decision_id, slots_of
from stream_rec.stream.decisions import for_all, searching
from stream_rec.stream.intake import Facts, Taken
from stream_rec.stream.queries import digest_of
from stream_rec.stream.searchers import slate_key
from stream_rec.stream.searches import OWN_SLATE, Searched
from stream_rec.stream.tick import Tick
from stream_rec.stream.watermark import BEFORE_TIME

Array = np.ndarray[Any, np.dtype[Any]]
BLOCK = 32
"""Slates ranked at once."""
WHOLE_ITEMS = 20_000
"""Catalogues above this size get fewer slates a tick: each query is matched with every title."""


@dataclass(frozen=True, slots=True)
class SearchRules:
    """Settings of search; times in ms."""

    slates: SlateRules
    slates_per_tick: int = 32
    """For people; as many again for frequent queries."""
    pairs_per_tick: int = 64
    valid_ms: int = 86_400_000


class SearchStage:
    """See the module docstring.

    Args:
        facts: queries, users, items and slates that are out.
        side: learns and ranks.
        slates: says what all slates of a tick say alike.
        rules: settings.
    """

    def __init__(self, facts: Facts, side: QuerySide, slates: SlateStage, rules: SearchRules) -> None:
        self.side, self._facts, self._slates, self._rules = side, facts, slates, rules

    def components(self) -> dict[str, Component]:
        """All its state by name."""
        searches = self._facts.searches
        return {"queries": searches.queries, "searchers": searches.searchers, **self.side.components()}

    def take(self, taken: Taken, *, lagging: bool) -> tuple[Searched, Pairs]:
        """Fold a tick's searches, and clear what is kept of items that are no more."""
        facts, lines = self._facts, taken.lines
        searched = facts.searches.read(lines, facts.users, taken.evicted_items)
        self.side.forget_items(np.array(taken.evicted_items, np.int32))
        own = np.flatnonzero(lines.stand_in[searched.line] <= OWN_SLATE)
        own = own[: -(-min(len(own), self._rules.pairs_per_tick) // (4 if lagging else 1))]
        at = searched.line[own]
        users = Users(lines.before[at], lines.visit[at], lines.at_ms[at], searched.pair[own])
        facts.accounting.note("search_pairs", len(own))
        return searched, Pairs(users, lines.item[at])

    def publish(self, tick: Tick, searched: Searched, watermark_ms: int) -> list[Output]:
        """Slates for queries, of one tick, and tombstones for those that nobody keeps track of any more."""
        self.side.forget_queries(self._facts.searches.queries.take_evicted())
        servable = self._facts.items.servable()
        if watermark_ms == BEFORE_TIME or not servable.any():
            return self._withdrawn()
        frame = self._slates.frame(tick, servable, watermark_ms)
        frame["valid_until"] = tick.cut_at_ms + self._rules.valid_ms
        catalogue = Catalogue(self._facts.items.n, servable, self._facts.items.born[: self._facts.items.n])
        out = []
        for low in range(0, len(own := self._own(searched)), BLOCK):
            out += self._answer(frame, own[low : low + BLOCK], searched, catalogue)
        queries = self._for_all(searched, tick.cut_at_ms)
        for low in range(0, len(queries), BLOCK):
            out += self._answer_all(frame, queries[low : low + BLOCK], catalogue)
        return [*out, *self._withdrawn()]

    def _quota(self) -> int:
        wanted = self._rules.slates_per_tick
        return min(wanted, max(1, wanted * WHOLE_ITEMS // max(WHOLE_ITEMS, self._facts.items.n)))

    def _own(self, searched: Searched) -> Array:
        """Places in `searched` that get a slate."""
        facts = self._facts
        there = (searched.user != MISSING) & (facts.searches.queries.born[searched.query] != 0)
        there &= facts.users.born[searched.user] != 0
        own = np.flatnonzero(there)
        facts.accounting.note("query_slates_beyond_quota", max(0, len(own) - self._quota()))
        return own[: self._quota()]

    def _for_all(self, searched: Searched, now_ms: int) -> Array:
        """Rows of frequent queries whose slate for everybody is due."""
        queries = self._facts.searches.queries
        asked = searched.query[np.sort(np.unique(searched.query, return_index=True)[1])]
        due = now_ms - queries.answered_at_ms[asked] >= self._rules.slates.star_every_ms
        due &= queries.frequent(asked) & (queries.born[asked] != 0)
        return asked[due][: self._quota()]

    def _answer(self, frame: dict[str, Any], own: Array, searched: Searched, catalogue: Catalogue) -> list[Output]:
        """Slates of people, each after the tombstones of those that it takes the place of."""
        users, rows, query = self._facts.users, searched.user[own], searched.query[own]
        is_open = frame["event_at"] - users.visit_last_ms[rows] <= self._rules.slates.visit_gap_ms
        visit = np.where(is_open, users.visit_serial[rows], MISSING)
        ranked = self._rank(users.last_row[rows], visit, query, frame["event_at"], catalogue)
        searches, out = self._facts.searches, []
        for b, (row, asked) in enumerate(zip(rows.tolist(), query.tolist(), strict=True)):
            user_key, born = users.key[row].tobytes().hex(), int(users.born[row])
            if searches.searchers.publish(row, born, digest_of(searches.queries.texts[asked])):
                out += self._withdrawn()
                out.append(self._encode(frame, _Slate(user_key, asked, searching(row), born), _one(ranked, b)))
        return out

    def _answer_all(self, frame: dict[str, Any], query: Array, catalogue: Catalogue) -> list[Output]:
        """Slates of frequent queries for everybody."""
        queries = self._facts.searches.queries
        nobody = np.full(len(query), MISSING, np.int64)
        ranked = self._rank(nobody, nobody, query, frame["event_at"], catalogue)
        queries.answered_at_ms[query] = frame["event_at"]
        return [
            self._encode(frame, _Slate(EVERYBODY, row, for_all(row), int(queries.born[row])), _one(ranked, b))
            for b, row in enumerate(query.tolist())
        ]

    def _rank(self, pointer: Array, visit: Array, query: Array, now_ms: int, catalogue: Catalogue) -> Ranked:
        users = Users(pointer, visit, np.full(len(query), now_ms, np.int64), query)
        return self.side.rank(users, self._facts.histories, catalogue=catalogue, k=self._rules.slates.n_slots)

    def _encode(self, frame: dict[str, Any], slate: _Slate, ranked: Ranked) -> Output:
        """The record of one slate, whose decision is remembered."""
        text, everybody = self._facts.searches.queries.texts[slate.query], slate.user_key == EVERYBODY
        cause = "frequent_query" if everybody else "searched"
        key = slate_key(slate.user_key, digest_of(text))
        decision = decision_id(self._rules.slates.seed, frame["statistics_tick"], key.decode(), cause)
        self._facts.joiner.publish_many(
            [slate.holder], [slate.born], [decision], at_ms=frame["event_at"], items=ranked.items
        )
        said = {"user_key": slate.user_key, "query": text, "decision_id": decision, "cause": cause, **frame}
        (shown,) = slots_of(self._facts.items.ids, ranked)
        return Output(Topic.SLATES, key, msgspec.json.encode({**said, "slots": shown}))

    def _withdrawn(self) -> list[Output]:
        keys = self._facts.searches.searchers.take_withdrawn()
        return [Output(Topic.SLATES, key.encode(), None) for key in keys]


class _Slate(NamedTuple):
    """One slate to be published."""

    user_key: str
    query: int
    holder: int
    """For whom its decision is remembered."""
    born: int


def _one(ranked: Ranked, b: int) -> Ranked:
    some = slice(b, b + 1)
    return Ranked(ranked.items[some], ranked.scores[some], ranked.reasons[some], ranked.scored[some])
