"""Law 11: state stays within its configured bounds on an endless stream of ever new people, items and decisions."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from stream_rec.component import Component
from stream_rec.effects import Effects
from stream_rec.events import Record, Topic
from stream_rec.stream import event_lines
from stream_rec.stream.tick import Tick
from tests.laws.walk import sizes
from tests.laws.world import SMALL, Chunk, World, rng_of, settings_of, slates_of

START_MS = 1_767_600_000_000
TURN_MS = 20 * 60_000
N_TURNS, WARM = 120, 60


class Endless:
    """Records of a shop in which nobody and nothing comes twice, but for what a slate made somebody do."""

    def __init__(self, seed: int) -> None:
        self._rng, self._n, self._slates = rng_of(seed), 0, list[dict[str, Any]]()

    def receive(self, _tick: Tick, effects: Effects) -> None:
        self._slates = slates_of(effects.outputs)[-8:] or self._slates

    def turn(self, now_ms: int) -> Chunk:
        out = []
        for i in range(56):
            self._n += 1
            n, user = self._n, f"user-{self._n // 3}"
            at_ms = now_ms - TURN_MS + i * 20_000
            said: dict[str, Any] = {
                "event_id": f"e{n}",
                "event_at": at_ms,
                "user_id": user,
                "session_id": f"s{n}",
            }
            match i % 7:
                case 0:
                    said |= {
                        "event_type": "purchase",
                        "order_id": f"o{n}",
                        "items": [{"item_id": f"i{n}"}, {"item_id": f"i{n - 7}"}],
                    }
                case 1:
                    said |= {"event_type": "refund", "order_id": f"o{n - 1}", "item_id": f"i{n - 1}"}
                case 2:
                    del said["user_id"]
                    said |= {"event_type": "view_item", "items": [{"item_id": f"i{n - 70}", "title": f"Title {n}"}]}
                case 3 | 4 if self._slates:
                    slate = self._slates[int(self._rng.integers(len(self._slates)))]
                    shown = [{"item_id": slot["item_id"]} for slot in slate["slots"]]
                    said |= {"decision_id": slate["decision_id"], "event_type": "impression", "items": shown}
                    if i % 7 == 4:
                        said |= {"event_type": "click", "items": shown[:1]}
                case 5:
                    said |= {"event_type": "search", "query": f"word {n}", f"field_{n}": n}
                case _:
                    said |= {"event_type": "click", "item_id": f"i{n - 3}", "decision_id": f"unknown-{n}"}
            if said.get("items") == []:
                continue
            value = b"broken %d" % n if i == 6 else json.dumps(said).encode()
            out.append(Record(Topic.EVENTS, i % 2, 0, at_ms, f"k{n}".encode(), value))
        item = f"i{self._n}"
        out.append(Record(Topic.ITEMS, 0, 0, now_ms, item.encode(), json.dumps({"title": f"T{self._n}"}).encode()))
        out.append(Record(Topic.ITEMS, 0, 0, now_ms, f"i{self._n - 90}".encode(), None))
        return Chunk(now_ms, tuple(out))


@lru_cache
def run() -> tuple[World, list[dict[str, int]], list[dict[str, int]]]:
    """The world after the endless stream's first days; bytes of each component and sizes of all containers, by turn."""
    world, stream = World(), Endless(1)
    world.on_commit = stream.receive
    n_bytes, lengths = [], []
    for turn in range(1, N_TURNS + 1):
        world.arrive(stream.turn(START_MS + turn * TURN_MS))
        world.catch_up()
        if turn % 5 == 0:
            n_bytes.append({name: c.n_bytes() for name, c in world.pipeline.components().items()})
            lengths.append(sizes(world.pipeline))
    return world, n_bytes, lengths


def test_the_stream_goes_far_beyond_every_capacity() -> None:
    world, s = run()[0], settings_of(*SMALL)
    facts = world.pipeline.facts
    assert facts.users.n_touches > 20 * s.users.capacity
    assert facts.dedupe.n_admitted > 10 * s.dedupe.capacity
    assert facts.histories.next_serial > 10 * s.histories.capacity
    counts = facts.joiner.counts()
    assert counts["published"] > 10 * s.attribution.max_decisions
    assert counts["exposed"] > 10 * s.attribution.max_exposures
    assert facts.searches.queries.n_born > 10 * s.search.capacity
    assert facts.searches.searchers.last_serial > 10 * s.search.max_searchers
    assert world.pipeline.learner.pending.n_evicted > s.learn.max_pending_visits
    assert world.pipeline.learner.versions.progress.n_promotions >= 5


def test_no_component_takes_more_memory_after_the_warm_up() -> None:
    n_bytes = run()[1]
    for name, at_first in n_bytes[0].items():
        assert {b[name] for b in n_bytes} == {at_first}, name


def test_no_container_anywhere_grows_after_the_warm_up() -> None:
    """Dicts, lists and sets too: each one's largest size in the second half was reached in the first, or is capped."""
    world, _, lengths = run()
    half = WARM // 5
    grown = {}
    lexicon = world.pipeline.components()["lexicon"]
    capped = {"lexicon._index": lexicon.word.size}  # type: ignore[attr-defined]  # words of the titles of now
    for path in sorted({p for sizes_ in lengths[half:] for p in sizes_}):
        early, late = (max(sizes_.get(path, 0) for sizes_ in part) for part in (lengths[:half], lengths[half:]))
        cap = next((most for name, most in capped.items() if name in path), early + 12)
        if late > cap:
            grown[path] = (early, late)
    assert grown == {}


@pytest.mark.parametrize(
    ("name", "column", "setting"),
    [
        ("users", "born", "users.capacity"),
        ("histories", "item", "histories.capacity"),
        ("items", "price", "items.capacity"),
        ("dedupe", "ring", "dedupe.capacity"),
        ("reservoir", "live", "reservoir.capacity"),
        ("pending_visits", "visit", "learn.max_pending_visits"),
        ("queries", "born", "search.capacity"),
        ("query_items", "item", "search.capacity"),
        ("searchers", "user", "search.max_searchers"),
    ],
)
def test_a_table_has_the_rows_its_setting_says(name: str, column: str, setting: str) -> None:
    section, _, key = setting.partition(".")
    part: Component = run()[0].pipeline.components()[name]
    assert len(getattr(part, column)) == getattr(getattr(settings_of(*SMALL), section), key)


def test_contents_stay_within_their_capacities() -> None:
    world, s = run()[0], settings_of(*SMALL)
    facts, learner = world.pipeline.facts, world.pipeline.learner
    assert facts.users.n_users <= s.users.capacity
    assert facts.items.n <= s.items.capacity
    assert len(facts.items.ids) == facts.items.n
    assert len(facts.window.rows()) <= s.window.capacity
    assert len(facts.reservoir.rows()) <= s.reservoir.capacity
    assert len(facts.joiner.decisions._row_of) <= s.attribution.max_decisions
    assert len(facts.joiner.exposures._row_of) <= s.attribution.max_exposures
    assert len(learner.pending.place_of) <= s.learn.max_pending_visits
    assert all(np.isfinite(learner.versions.learner.value).ravel())


def test_the_caches_of_ids_are_emptied_when_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_lines, "MAX_CACHED", 64)
    world, stream = World(), Endless(2)
    world.on_commit = stream.receive
    for turn in range(1, 8):
        world.arrive(stream.turn(START_MS + turn * TURN_MS))
        world.catch_up()
        lines = world.pipeline._intake._front._events
        assert max(len(c) for c in (lines._users, lines._sessions, lines._orders, lines._items)) <= 64
