"""Which earlier examples are learned from again, and by what."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stream_rec.component import digest
from stream_rec.events import MISSING
from stream_rec.learn.learner import Learner
from stream_rec.learn.replayed import RESERVOIR, WINDOW, ReplayPlan, drawn
from stream_rec.learn.training import Wanted
from stream_rec.model import ranker
from stream_rec.model.two_tower import TowerPlan, TwoTower
from stream_rec.stream.tick import Tick
from tests.learn.shop import CATALOGUE, N_ITEMS, SETTINGS, Shop, stream
from tests.model.hashed import EMBEDDER, TITLES
from tests.test_pipeline import START_MS, Folding, Topic

ALL = ReplayPlan(WINDOW, 4_000)
"""So many draws that every row comes."""


def takes(world: Folding, *said: dict) -> None:
    bodies = [{"event_type": "purchase", "event_at": START_MS, "event_id": str(body), **body} for body in said]
    world.fold(Topic.EVENTS, *bodies)


def drawn_from(world: Folding, plan: ReplayPlan = ALL, *, tick: int = 9, before: int | None = None) -> list[Wanted]:
    facts = world.pipeline.facts
    return drawn(facts, plan, tick=tick, before=facts.histories.next_serial if before is None else before)


def items_of(world: Folding, wanted: list[Wanted]) -> set[str]:
    return {world.pipeline.facts.items.ids[item] for each in wanted for item in each.item.tolist()}


def test_every_row_of_the_window_can_be_drawn_and_none_of_the_tick_itself(tmp_path):
    world = Folding(tmp_path)
    takes(world, {"user_id": "a", "item_id": "one"}, {"user_id": "b", "item_id": "two"})
    now = world.pipeline.facts.histories.next_serial
    takes(world, {"user_id": "a", "item_id": "three"})
    assert items_of(world, drawn_from(world)) == {"one", "two", "three"}
    assert items_of(world, drawn_from(world, before=now)) == {"one", "two"}


def test_a_refund_takes_its_row_out(tmp_path):
    world = Folding(tmp_path)
    takes(world, {"user_id": "a", "item_id": "one", "order_id": "o"}, {"user_id": "b", "item_id": "two"})
    takes(world, {"user_id": "a", "item_id": "one", "order_id": "o", "event_type": "refund"})
    for source in (WINDOW, RESERVOIR):
        assert items_of(world, drawn_from(world, replace(ALL, source=source))) == {"two"}


def test_orders_without_a_user_and_items_whose_row_changed_hands_are_left_out(tmp_path):
    world = Folding(tmp_path)
    takes(
        world, {"order_id": "o", "item_id": "one"}, {"user_id": "b", "item_id": "two"}, {"user_id": "b", "item_id": "3"}
    )
    items = world.pipeline.facts.items
    items.born[items.find("two")] += 100
    assert items_of(world, drawn_from(world)) == {"3"}


def test_an_example_sees_the_history_from_before_it(tmp_path):
    world = Folding(tmp_path)
    her = {"user_id": "she", "session_id": "first"}
    takes(world, {**her, "item_id": "one"}, {**her, "item_id": "two"})
    takes(world, {"user_id": "she", "session_id": "second", "item_id": "three"})
    takes(world, {"user_id": "she", "session_id": "second", "item_id": "four"})
    facts, seen = world.pipeline.facts, {}
    for tick in range(40):
        for wanted in drawn_from(world, tick=tick):
            history = facts.histories.gather(wanted.pointer, 10).item
            for item, row in zip(wanted.item.tolist(), history.tolist(), strict=True):
                past = "+".join(facts.items.ids[each] for each in row if each != MISSING)
                seen.setdefault((wanted.task, facts.items.ids[item]), set()).add(past)
    assert seen == {
        (ranker.VISIT, "one"): {""},
        (ranker.VISIT, "two"): {""},
        (ranker.VISIT, "three"): {"two+one"},
        (ranker.VISIT, "four"): {"two+one"},
        (ranker.CONTINUE, "two"): {"one"},
        (ranker.CONTINUE, "four"): {"three+two+one"},
    }


def test_draws_depend_on_the_tick_and_on_nothing_else(tmp_path):
    world = Folding(tmp_path)
    world.learn(60)
    plan = ReplayPlan(RESERVOIR, 8)
    one, again, other = (drawn_from(world, plan, tick=tick)[0].item.tolist() for tick in (1, 1, 2))
    assert one == again != other
    assert sum(map(len, drawn_from(world, plan))) <= 8


@pytest.mark.parametrize("state", ["lag", "brake", "neither"])
def test_nothing_is_replayed_under_lag_or_the_brake(tmp_path, state):
    world = Folding(tmp_path)
    world.learn(60)
    pipeline = world.pipeline
    pipeline.quotas = replace(pipeline.quotas, replay=ReplayPlan(WINDOW, 8))
    pipeline.learner.tower = TwoTower(EMBEDDER)
    pipeline.learner.oversight.brake.braking = state == "brake"
    tick = Tick(5, (), START_MS, lagging=state == "lag")
    assert bool(pipeline._replayed(tick, np.zeros(0, np.int64))) == (state == "neither")


def test_the_tower_learns_from_replayed_examples_and_the_ranker_does_not() -> None:
    learned = []
    for replays in (False, True):
        shop, one = Shop(), Learner(SETTINGS, TwoTower(EMBEDDER, TowerPlan(min_examples=24)))
        one.tell(list(range(N_ITEMS)), N_ITEMS, TITLES.__getitem__, quota=N_ITEMS)
        for n, ticked in enumerate(stream(1)[:6]):
            batch, row = shop.tick(ticked), np.zeros(1, np.int64)
            if replays and n == 5:
                item, pointer = np.array([3], np.int32), np.array([shop.last[2]])
                weight = np.ones(1, np.float32)
                wanted = Wanted(ranker.VISIT, pointer, row - 1, batch.positives.at_ms[:1], row, row, item, weight, 1)
                batch = replace(batch, replayed=(wanted,))
            one.step(batch, shop.histories, CATALOGUE)
        parts = one.components()
        learned.append(
            {name: digest(parts[name].snapshot()) for name in ("learner", "linear", "tower_learner", "item_counts")}
        )
    without, with_them = learned
    assert [name for name in without if without[name] != with_them[name]] == ["tower_learner"]
