"""A small town recorded by the real loop, in which somebody is forgotten: what the claims about `forget` look at.

Twenty people, and one who looks at things nobody else touches, acts on slates with and without an impression, takes a
purchase back, and is forgotten in a tick that holds more records of the same user. Some ticks later that user comes
back.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from stream_rec.effects import Effects
from stream_rec.events import Record, Topic
from stream_rec.pipeline import Pipeline
from stream_rec.stream.privacy import Pseudonymiser
from stream_rec.stream.tick import Tick, ranges_of
from tests.laws.world import COMMON, KEY, MINUTE_MS, ROOM, SMALL, Chunk, World, pipeline_of, rng_of, slates_of

START_MS = 1_767_600_000_000
STEP_MS = 10 * MINUTE_MS
N_STEPS, FORGET, BACK = 30, 24, 27
WIDE = (
    *COMMON,
    *ROOM,
    "window.capacity=5000",
    "learn.light_cut_examples=1000000",
    "slate.refresh_users_per_tick=1",
    "explore.policy=greedy",
)
"""Nothing evicts, nothing is promoted, lost items are made good slowly, and who is alike is shown the same."""
TIGHT = SMALL
"""Everything evicts."""

SHE = "somebody to forget"
HER_KEY = Pseudonymiser(KEY.encode()).user_key(SHE)
HERS = tuple(f"hers-{n}" for n in range(6))
"""Items that nobody else touches and that are sold out, so that no list shows them."""
ODD_MS = 7
"""Her events are at times of their own."""


# ---- the town


class Town:
    """Makes the records of a step, seeing the slates that were published."""

    def __init__(self) -> None:
        self._rng, self._n = rng_of(7), 0
        self.slates: dict[str, list[dict[str, Any]]] = {}

    def receive(self, _tick: Tick, effects: Effects) -> None:
        for slate in slates_of(effects.outputs):
            if slate:
                self.slates.setdefault(slate["user_key"], []).append(slate)

    def step(self, step: int) -> Chunk:
        now_ms = START_MS + step * STEP_MS
        records = [*self._catalogue(step, now_ms), *self._people(now_ms)]
        for nth, said in enumerate(self._hers(step)):
            records.append(self._record(now_ms - 50_000 + 10 * nth + ODD_MS, SHE, **said))
        if step == FORGET:
            records.append(forget_record(HER_KEY.hex(), now_ms - 20_000))
        return Chunk(now_ms, tuple(sorted(records, key=lambda r: r.timestamp_ms)))

    def _record(self, at_ms: int, user: str, **said: Any) -> Record:
        self._n += 1
        body = {"event_id": f"e{self._n}", "event_at": at_ms, "user_id": user, **said}
        return Record(Topic.EVENTS, self._n % 2, 0, at_ms, user.encode(), json.dumps(body).encode())

    def _catalogue(self, step: int, now_ms: int) -> Iterator[Record]:
        at_ms = now_ms - 2 * MINUTE_MS
        if step == 0:
            for item in (*(f"i{n}" for n in range(25)), *HERS):
                body = {"title": item, "in_stock": item not in HERS}
                yield Record(Topic.ITEMS, 0, 0, at_ms, item.encode(), json.dumps(body).encode())
        if step == FORGET - 1:
            for slot in self.slates[HER_KEY.hex()][-1]["slots"][:3]:
                yield Record(Topic.ITEMS, 0, 0, at_ms, slot["item_id"].encode(), None)

    def _people(self, now_ms: int) -> Iterator[Record]:
        for nth in range(24):
            at_ms, item = now_ms - MINUTE_MS + 1_000 * nth, f"i{int(self._rng.random() ** 2 * 25)}"
            user = f"p{int(self._rng.integers(20))}" if nth < 20 else f"passing-{self._n}"
            said: dict[str, Any] = {"event_type": "view_item", "item_id": item}
            if nth % 4 == 1:
                said = {"event_type": "purchase", "items": [{"item_id": item}], "order_id": f"o{self._n}"}
            if nth % 4 == 2 and (own := self.slates.get(Pseudonymiser(KEY.encode()).user_key(user).hex())):
                shown = [{"item_id": slot["item_id"]} for slot in own[-1]["slots"]]
                said = {"event_type": "impression", "items": shown, "decision_id": own[-1]["decision_id"]}
            yield self._record(at_ms, user, **said)

    def _hers(self, step: int) -> Iterator[dict[str, Any]]:
        """What she does: three visits, a comeback after the second, and once more when she has been forgotten."""
        own = self.slates.get(HER_KEY.hex(), [])
        match step:
            case 3:
                yield {"event_type": "view_item", "item_id": HERS[0], "session_id": "hers"}
                yield {"event_type": "purchase", "item_id": HERS[1], "session_id": "hers", "order_id": "hers"}
            case 12:
                yield {"event_type": "purchase", "item_id": HERS[2], "order_id": "taken back"}
                yield {"event_type": "refund", "item_id": HERS[2], "order_id": "taken back"}
            case 22:
                named = {"decision_id": own[-1]["decision_id"]}
                yield {"event_type": "view_item", "item_id": HERS[4], "session_id": "last"}
                yield {"event_type": "impression", **named, "items": [{"item_id": item} for item in HERS[3:5]]}
                yield {"event_type": "click", **named, "item_id": HERS[3]}
                yield early_click(self.slates["*"][-1])
            case 23:
                yield {"event_type": "click", "decision_id": own[-2]["decision_id"], "item_id": HERS[3]}
                yield early_click(own[-1])
            case 24:
                yield {"event_type": "purchase", "item_id": HERS[5], "order_id": "last"}
                yield {"event_type": "view_item", "item_id": HERS[0]}
            case 27:
                yield {"event_type": "view_item", "item_id": "i3"}


def early_click(slate: dict[str, Any]) -> dict[str, Any]:
    """Its impression is lost or still to come."""
    return {"event_type": "click", "decision_id": slate["decision_id"], "item_id": slate["slots"][0]["item_id"]}


def forget_record(key: str, at_ms: int) -> Record:
    return Record(Topic.CONTROL, 0, 0, at_ms, None, json.dumps({"command": "forget", "user_key": key}).encode())


@dataclass(eq=False)
class Told:
    """A recorded run: the loop that made it, its ticks, and which of them forgets."""

    sets: tuple[str, ...]
    world: World
    ticks: list[tuple[Tick, list[Record]]]
    at: int
    stars: list[dict[str, Any]]

    def until(self, n: int) -> Pipeline:
        """A pipeline that has folded the first `n` ticks."""
        pipeline = pipeline_of(self.sets)
        pipeline.begin(dict.fromkeys(self.world.broker.inputs, 0))
        for tick, records in self.ticks[:n]:
            pipeline.fold(tick, records)
        return pipeline

    def before(self) -> Pipeline:
        """The state before she is forgotten, while slates of lost items are still owed.

        The ticks without records that made them good in the recorded run are left out.
        """
        last = max(i for i, (_, records) in enumerate(self.ticks[: self.at]) if records)
        return self.until(last + 1)

    def both(self) -> tuple[Pipeline, Pipeline]:
        """States after the tick that forgets: as it was, and as if it did not say so."""
        (tick, records), forgotten, spared = self.ticks[self.at], self.before(), self.before()
        forgotten.fold(tick, records)
        spared.fold(tick, [record for record in records if record.topic != Topic.CONTROL])
        return forgotten, spared


@lru_cache
def told(sets: tuple[str, ...]) -> Told:
    world, town = World(sets), Town()
    world.on_commit = town.receive
    for step in range(N_STEPS):
        world.arrive(town.step(step))
        world.catch_up()
    ticks = world.ticks()
    (at,) = [i for i, (_, records) in enumerate(ticks) if any(r.topic == Topic.CONTROL for r in records)]
    return Told(sets, world, ticks, at, town.slates["*"])


def say(pipeline: Pipeline, now_ms: int, *said: dict[str, Any] | Record) -> Effects:
    """Fold one more tick of hand-made records."""
    records = []
    for each in said:
        if not isinstance(each, Record):
            body = {"event_at": now_ms, "event_id": json.dumps(each) + str(now_ms), **each}
            each = Record(Topic.EVENTS, 0, 0, now_ms, None, json.dumps(body).encode())
        taken = sum(r.topic == each.topic for r in records)
        records.append(each._replace(offset=pipeline.positions.next_of((each.topic, 0)) + taken))
    first = {(r.topic, 0): pipeline.positions.next_of((r.topic, 0)) for r in records}
    pipeline.positions.number += 1
    return pipeline.fold(Tick(pipeline.positions.number, ranges_of(records, first), now_ms), records)


def slate_of(effects: Effects, user: str) -> dict[str, Any] | None:
    key = Pseudonymiser(KEY.encode()).user_key(user).hex()
    return next((slate for slate in slates_of(effects.outputs) if slate.get("user_key") == key), None)


def view(user: str, item: str = "i3") -> dict[str, Any]:
    return {"event_type": "view_item", "user_id": user, "item_id": item}
