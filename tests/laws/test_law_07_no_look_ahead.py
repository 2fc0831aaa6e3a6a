"""Law 7: scoring is pure; no metric, candidate or negative sees a record or label before it could have arrived.

Within a tick this is shown of tables with room: a full item table may forget an item for one that a later record names.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_rec.events import MISSING, Record, Topic
from stream_rec.learn.prequential import MODELS
from stream_rec.learn.scoring import Catalogue
from stream_rec.pipeline import Pipeline
from stream_rec.stream.tick import Tick
from tests.laws.world import (
    LAW,
    MINUTE_MS,
    OUTPUT_TOPICS,
    ROOMY,
    World,
    at_rest,
    digests,
    pipeline_of,
    shop_stream,
)  # fmt: skip

Ticks = list[tuple[Tick, list[Record]]]


@lru_cache
def ticks() -> Ticks:
    return World(ROOMY).play(shop_stream(ROOMY)).ticks()


@lru_cache
def state_before(number: int) -> dict[str, Any]:
    pipeline = pipeline_of(ROOMY)
    for tick, records in ticks()[:number]:
        pipeline.fold(tick, records)
    return at_rest(pipeline.snapshot())


def pipeline_before(number: int) -> Pipeline:
    pipeline = pipeline_of(ROOMY)
    pipeline.restore(state_before(number))
    return pipeline


# ---- purity


@settings(LAW, max_examples=6)
@given(number=st.integers(3, 30), n_users=st.integers(1, 90))
def test_ranking_twice_gives_the_same_and_changes_nothing(number: int, n_users: int) -> None:
    pipeline = pipeline_before(min(number, len(ticks()) - 1))
    facts, learner = pipeline.facts, pipeline.learner
    rows, items = facts.users.known_rows()[:n_users], facts.items
    catalogue = Catalogue(items.n, items.servable(), items.born[: items.n])
    before, now_ms = digests(pipeline), ticks()[min(number, len(ticks()) - 1)][0].cut_at_ms

    def rank(rows: Any) -> list[Any]:
        pointer, visit = facts.users.last_row[rows], facts.users.visit_serial[rows]
        return list(learner.rank(pointer, visit, facts.histories, now_ms=now_ms, catalogue=catalogue))

    first, star = rank(rows), learner.star(facts.histories, now_ms=now_ms, catalogue=catalogue)
    again = rank(rows)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(
        np.array_equal(a, b)
        for a, b in zip(star, learner.star(facts.histories, now_ms=now_ms, catalogue=catalogue), strict=True)
    )
    # Nor does it matter with whom a user is ranked.
    one = rank(rows[-1:])
    assert np.array_equal(one[0][0], first[0][-1])
    assert np.array_equal(one[1][0].round(4), first[1][-1].round(4))
    assert digests(pipeline) == before


# ---- what comes after a tick


@settings(LAW, max_examples=4)
@given(cut=st.integers(3, 12), how=st.sampled_from(["removed", "changed"]))
def test_what_arrives_after_a_tick_changes_no_effect_up_to_it(cut: int, how: str) -> None:
    """The very loop, which buffers ahead of the tick it cuts."""

    def run(after: Callable[[Record], Record | None]) -> World:
        world = World(recovered=False)
        records = [r for chunk in shop_stream() for r in chunk.records]
        upto = {(r.topic, r.partition): r.next for tick, _ in whole_ticks[:cut] for r in tick.ranges}
        offsets: dict[tuple[str, int], int] = {}
        for record in records:
            at = record.topic, record.partition
            offset = offsets[at] = offsets.get(at, -1) + 1
            kept = record if offset < upto.get(at, 0) else after(record)
            if kept is not None:
                world.broker.extend([kept])
        world.start()
        return backfilled(world)

    whole = World()
    whole.broker.extend(r for chunk in shop_stream() for r in chunk.records)
    backfilled(whole)
    whole_ticks = whole.ticks()
    other = run((lambda _: None) if how == "removed" else _bent)
    n = sum(e["outputs"].get(Topic.SLATES, [0])[0] for e in whole.entries()[1 : cut + 1])
    assert n > 10
    digest = [(e["n"], e["tick"], e["effects_digest"]) for e in whole.entries()[1 : cut + 1]]
    assert [(e["n"], e["tick"], e["effects_digest"]) for e in other.entries()[1 : cut + 1]] == digest
    if how == "changed":
        assert other.entries()[cut + 1 :] != whole.entries()[cut + 1 :]
    for topic in OUTPUT_TOPICS[:3]:
        count = sum(e["outputs"].get(topic, [0])[0] for e in whole.entries()[1 : cut + 1])
        assert other.broker.outputs(topic)[:count] == whole.broker.outputs(topic)[:count]


def backfilled(world: World) -> World:
    """Everything is there already; the only clock is the records' own time."""
    while world.loop.step():
        pass
    return world


def _bent(record: Record) -> Record:
    """The record, about another item and later."""
    if record.topic != Topic.EVENTS or not record.value:
        return record
    return record._replace(value=record.value.replace(b"SKU", b"NEW"), timestamp_ms=record.timestamp_ms)


# ---- what comes later in the same tick


class Watch:
    """Lists made for visits as they open, and for next items, in order; candidates are what the lists hold."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.visits: list[tuple[int, int, list[list[int]]]] = []
        self.next_items: list[list[list[int]]] = []
        pending, learner = pipeline.learner.pending, pipeline.learner
        open_, score_next = pending.open, learner._probe._score_next

        def opened(visits: Any, user_slice: Any, sampled: Any, *, lists: Any) -> None:
            kept = np.flatnonzero(sampled)
            for at, of_visit in zip(kept.tolist(), lists.tolist(), strict=True):
                self.visits.append((int(visits.user_key[at]), int(visits.start_at_ms[at]), of_visit))
            open_(visits, user_slice, sampled, lists=lists)

        def scored(scored: Any, row: Any, lists: Any, known: Any) -> None:
            self.next_items += lists.tolist()
            score_next(scored, row, lists, known)

        pending.open, learner._probe._score_next = opened, scored  # type: ignore[method-assign]


def fold(number: int, records: Sequence[Record]) -> tuple[Pipeline, Watch]:
    """One tick of the run, with these records in place of its own."""
    pipeline = pipeline_before(number)
    watch = Watch(pipeline)
    tick = ticks()[number][0]
    pipeline.fold(tick, records)
    return pipeline, watch


BUSY = list(range(12, 24))


@settings(LAW, max_examples=8)
@given(number=st.sampled_from(BUSY), share=st.floats(0.2, 0.8), how=st.sampled_from(["removed", "changed"]))
def test_a_tick_s_later_events_do_not_change_lists_made_earlier_in_it(number: int, share: float, how: str) -> None:
    records = ticks()[number][1]
    half = int(len(records) * share)
    later = [] if how == "removed" else [_bent(r) for r in records[half:] if r.topic == Topic.EVENTS]
    catalogue = [r for r in records[half:] if r.topic != Topic.EVENTS]
    _, whole = fold(number, records)
    _, cut = fold(number, records[:half] + catalogue + later)
    n = len(fold(number, records[:half] + catalogue)[1].visits)
    assert cut.visits[:n] == whole.visits[:n]
    m = len(fold(number, records[:half] + catalogue)[1].next_items)
    if how == "removed":
        assert cut.next_items[:m] == whole.next_items[:m]


def test_lists_are_really_watched() -> None:
    counts = [(len(fold(i, ticks()[i][1])[1].visits), len(fold(i, ticks()[i][1])[1].next_items)) for i in BUSY[:4]]
    assert min(n for n, _ in counts) >= 2
    assert sum(m for _, m in counts) >= 2


def novel(tick: Tick, event_type: str) -> Record:
    """An event of somebody new about an item that nobody has named."""
    at_ms = tick.cut_at_ms - MINUTE_MS
    said = {"event_id": "novel", "event_type": event_type, "event_at": at_ms, "user_id": "new", "item_id": "NOVEL"}
    return Record(Topic.EVENTS, 0, 9**9, at_ms, b"k", json.dumps(said).encode())


@pytest.mark.parametrize("topic", [Topic.EVENTS, Topic.ITEMS])
@pytest.mark.parametrize("number", BUSY[:3])
def test_an_item_first_named_in_a_tick_is_no_candidate_of_its_examples(number: int, topic: str) -> None:
    tick, records = ticks()[number]
    first = novel(tick, "view_item") if topic == Topic.EVENTS else Record(topic, 0, 9**9, 0, b"NOVEL", b'{"title":"N"}')
    pipeline, watch = fold(number, [*records, first] if topic == Topic.EVENTS else [first, *records])
    row = pipeline.facts.items.find("NOVEL")
    assert row != MISSING
    listed = {i for _, _, lists in watch.visits for of_model in lists for i in of_model}
    listed |= {i for lists in watch.next_items for of_model in lists for i in of_model}
    assert listed
    assert row not in listed


@pytest.mark.parametrize("number", BUSY[:3])
def test_an_item_delisted_in_a_tick_was_a_candidate_of_its_examples_all_the_same(number: int) -> None:
    """Stock, too, is as of before the tick: what a later record of it says was not known yet."""
    _, records = ticks()[number]
    _, whole = fold(number, records)
    row = next(i for i in whole.visits[0][2][MODELS.index("ranker")] if i != MISSING)
    item_id = pipeline_before(number).facts.items.ids[row]
    pipeline, gone = fold(number, [Record(Topic.ITEMS, 0, 9**9, 0, item_id.encode(), None), *records])
    assert not pipeline.facts.items.servable()[row]
    assert gone.visits == whole.visits


def test_an_item_first_named_in_a_tick_is_no_negative_of_its_examples() -> None:
    """What the tick learns from its own examples is the same whether or not an item appears later in it."""
    for number in BUSY[:6]:
        tick, records = ticks()[number]
        with_item, _ = fold(number, [*records, novel(tick, "remove_from_cart")])
        without, _ = fold(number, records)
        assert with_item.facts.items.n == without.facts.items.n + 1
        learned = [p.learner.versions.learner.value for p in (with_item, without)]
        # One more column groups the float32 sums over items differently: a few ulp of weights of order 1.
        np.testing.assert_allclose(learned[0], learned[1], rtol=0, atol=1e-6, err_msg=f"tick {number}")


# ---- the slate that counts


def test_the_served_metric_scores_the_slate_in_force_before_the_visit() -> None:
    """Served lists are read from slates published in earlier ticks, of an earlier event time."""
    world = World()
    published: dict[str, list[tuple[int, list[str]]]] = {}
    opened: list[tuple[int, int, list[str]]] = []
    pipeline = world.pipeline
    watch = Watch(pipeline)

    def committed(tick: Tick, effects: Any) -> None:
        ids = pipeline.facts.items.ids
        for key, at_ms, lists in watch.visits:
            opened.append((key, at_ms, [ids[i] for i in lists[MODELS.index("served")] if i != MISSING]))
        watch.visits.clear()
        for output in effects.outputs:
            if output.topic == Topic.SLATES:
                slate = json.loads(output.value or b"{}")
                if not slate or slate.get("query"):
                    continue
                shown = [slot["item_id"] for slot in slate["slots"]]
                published.setdefault(slate["user_key"], []).append((tick.cut_at_ms, shown))

    n_found = 0

    def check(tick: Tick, effects: Any) -> None:
        nonlocal n_found
        earlier = {key: list(slates) for key, slates in published.items()}
        committed(tick, effects)
        for key, at_ms, served in opened:
            own = [k for k in earlier if k != "*" and _stable(k) == key]
            lists = [shown for k in (*own, "*") for then_ms, shown in earlier.get(k, []) if then_ms < at_ms]
            assert served == [] or any(set(served) <= set(shown) for shown in lists)
            n_found += bool(served)
        opened.clear()

    world.on_commit = check
    world.play(shop_stream())
    assert n_found > 50


def _stable(user_key: str) -> int:
    return int.from_bytes(bytes.fromhex(user_key)[:8], "little") & (2**63 - 1)
