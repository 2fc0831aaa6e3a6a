"""Law 9: arrival order within the out-of-orderness bound changes no window; later is late; a wild time harms nobody."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_rec.events import MISSING, Kind, Record, Topic
from stream_rec.pipeline import Pipeline
from tests.laws.world import COMMON, DAY_MS, LAW, MINUTE_MS, ROOM, Chunk, World, different, rng_of, slates_of

START_MS = 1_767_600_000_000
BOUND_MS, LATENESS_MS = MINUTE_MS, 10 * MINUTE_MS
TYPES = ("view_item", "click", "add_to_cart", "purchase", "impression", "search", "share")
CAPACITY = 60
SETS = (*COMMON, *ROOM, f"window.capacity={CAPACITY}", "window.length_ms=3600000")
"""A window that drops by count and by time, tables with room."""


def events(seed: int, n: int = 260) -> list[tuple[int, int, dict[str, Any]]]:
    """(partition, event time, event): two hours of forty users; some share their millisecond."""
    rng, out = rng_of(seed), []
    at = np.sort(rng.integers(0, 2 * 60 * MINUTE_MS, n)) // 50 * 50 + START_MS
    for i, at_ms in enumerate(at.tolist()):
        user, kind = int(rng.integers(40)), TYPES[int(rng.integers(len(TYPES)))]
        said: dict[str, Any] = {"event_id": f"e{i}", "event_type": kind, "event_at": at_ms, "user_id": f"user-{user}"}
        said |= {"query": "mug"} if kind == "search" else {"item_id": f"item-{int(rng.integers(25))}"}
        out.append((user % 2, at_ms, said))
    return out


def played(said: Sequence[tuple[int, int, dict[str, Any]]], arrives_ms: Sequence[int]) -> World:
    """A world in which the events arrive at these times, in that order, ten minutes a turn of the worker."""
    order = sorted(range(len(said)), key=lambda i: (arrives_ms[i], i))
    chunks: dict[int, list[Record]] = {}
    for i in order:
        partition, _, event = said[i]
        record = Record(Topic.EVENTS, partition, 0, arrives_ms[i], b"key", json.dumps(event).encode())
        chunks.setdefault(arrives_ms[i] // (10 * MINUTE_MS), []).append(record)
    return World(SETS).play(
        Chunk((turn + 1) * 10 * MINUTE_MS, tuple(records)) for turn, records in sorted(chunks.items())
    )


@lru_cache
def in_time(seed: int) -> World:
    """The world in which every event of a seed arrives at its time; to be looked at only."""
    said = events(seed)
    return played(said, [at_ms for _, at_ms, _ in said])


def window(pipeline: Pipeline) -> list[tuple[str, str, int, str]]:
    """The window's content without row numbers."""
    table, users, ids = pipeline.facts.window, pipeline.facts.users, pipeline.facts.items.ids
    out = []
    for row in table.rows().tolist():
        user = int(table.user[row])
        key = "" if user == MISSING else users.key[user].tobytes().hex()
        out.append((key, ids[table.item[row]], int(table.at_ms[row]), Kind(table.kind[row]).name))
    return sorted(out)


def essence(world: World) -> tuple[Any, ...]:
    """What the order of arrival must not change."""
    facts = world.pipeline.facts
    reservoir = sorted(facts.reservoir.event[facts.reservoir.rows()].tolist())
    return window(world.pipeline), facts.watermarks.global_ms, facts.accounting.totals, reservoir, facts.items.n


@settings(LAW, max_examples=12)
@given(seed=st.integers(0, 10**6), spread=st.sampled_from([1, 1_000, BOUND_MS]))
def test_shuffling_arrival_within_the_bound_changes_no_window_watermark_or_count(seed: int, spread: int) -> None:
    said, in_order = events(seed % 3), in_time(seed % 3)
    delays = rng_of(seed).integers(0, spread, len(said), endpoint=True).tolist()
    shuffled = played(said, [at_ms + delay for (_, at_ms, _), delay in zip(said, delays, strict=True)])
    assert essence(shuffled) == essence(in_order)
    assert shuffled.pipeline.facts.accounting.totals["late"] == 0
    assert len(window(in_order.pipeline)) == CAPACITY


def offsets_differ(a: World, b: World) -> bool:
    return [r.value for r in a.broker.inputs[Topic.EVENTS, 0]] != [r.value for r in b.broker.inputs[Topic.EVENTS, 0]]


def test_the_shuffle_really_shuffles() -> None:
    said = events(1)
    delays = rng_of(1).integers(0, BOUND_MS, len(said)).tolist()
    shuffled = played(said, [at_ms + delay for (_, at_ms, _), delay in zip(said, delays, strict=True)])
    assert offsets_differ(in_time(1), shuffled)


@settings(LAW, max_examples=8)
@given(seed=st.integers(0, 10**6), n_late=st.integers(1, 12))
def test_what_comes_later_than_bound_and_lateness_is_late_and_only_that(seed: int, n_late: int) -> None:
    """Judged by the record's own partition: the latest event time seen there, less bound and allowed lateness."""
    said, rng = events(seed % 3), rng_of(seed)
    arrives = [at_ms for _, at_ms, _ in said]
    for i in rng.choice(len(said), n_late, replace=False).tolist():
        arrives[i] += int(rng.integers(5 * MINUTE_MS, 40 * MINUTE_MS))
    late, newest = set(), {0: 0, 1: 0}
    for i in sorted(range(len(said)), key=lambda i: (arrives[i], i)):
        partition, at_ms, event = said[i]
        if at_ms < newest[partition] - BOUND_MS - LATENESS_MS:
            late.add(event["event_id"])
        newest[partition] = max(newest[partition], at_ms)
    world = played(said, arrives)
    assert world.pipeline.facts.accounting.totals["late"] == len(late)
    without = [s for s in said if s[2]["event_id"] not in late]
    assert essence(world)[0] == essence(played(without, [at_ms for _, at_ms, _ in without]))[0]


def with_one_more(at: int, event: dict[str, Any]) -> World:
    """A stream with one more record in it, so that ticks end at the same places whatever it says."""
    said = events(2)
    arrives = [at_ms for _, at_ms, _ in said]
    one = (said[at][0], arrives[at], event)
    return played([*said[:at], one, *said[at:]], [*arrives[:at], arrives[at], *arrives[at:]])


@lru_cache
def with_a_tame_one(at: int) -> World:
    """To be looked at only."""
    at_ms = events(2)[at][1]
    return with_one_more(at, {"event_id": "wild", "event_type": "page_ping", "event_at": at_ms, "user_id": "x"})


@pytest.mark.parametrize("wild_ms", [0, 86_400_000, 4_070_908_800_000, 4_102_444_800_001, 99_999_999_999_999_999])
@pytest.mark.parametrize(
    "at", [pytest.param(3, marks=pytest.mark.slow), 120, pytest.param(255, marks=pytest.mark.slow)]
)
def test_one_wild_timestamp_changes_nothing_for_others(wild_ms: int, at: int) -> None:
    wild = {"event_id": "wild", "event_type": "purchase", "event_at": wild_ms, "user_id": "x", "item_id": "item-3"}
    with_wild, with_tame = with_one_more(at, wild), with_a_tame_one(at)
    assert with_wild.pipeline.facts.accounting.totals["dead_lettered"] == 1
    assert with_tame.pipeline.facts.accounting.totals["ignored"] == 1
    assert slates_of(with_wild.broker.outputs(Topic.SLATES)) == slates_of(with_tame.broker.outputs(Topic.SLATES))
    assert essence(with_wild)[:2] == essence(with_tame)[:2]
    assert set(different(with_wild.pipeline, with_tame.pipeline)) == {"accounting", "positions", "report"}


def test_a_wild_timestamp_of_a_record_s_own_append_time_only_orders_it() -> None:
    """The transport's time is no event time: it moves no watermark."""
    said = events(0)
    arrives = [at_ms for _, at_ms, _ in said]
    wild = [*arrives[:-1], arrives[-1] + 3 * DAY_MS]
    assert essence(played(said, wild))[:3] == essence(in_time(0))[:3]
