"""Law 4: consumed = accepted + duplicate + late + dead_lettered + ignored, in every tick and in total."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from stream_rec.events import Record, Topic
from stream_rec.stream.accounting import OUTCOMES
from tests.laws.world import HOUR_MS, World, shop_stream

NOW_MS = 1_767_600_000_000
WORDS = ("click", "purchase", "impression", "search", "refund", "review", "Add-To-Cart", "page_ping", "", "view_item")

scalar: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**20), 10**20), st.floats(), st.text(max_size=12), st.sampled_from(WORDS)
)
anything = st.recursive(
    scalar, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=6), x, max_size=3), max_leaves=6
)
time_ms = st.one_of(
    st.integers(NOW_MS - 2 * HOUR_MS, NOW_MS),
    st.sampled_from(
        [0, -1, NOW_MS + 10 * HOUR_MS, 4_200_000_000_000, 1_500_000_000, "2026-01-05T09:00:00Z", "soon", None]
    ),
)
item = st.one_of(st.sampled_from(["a", "b", "c", "", " d ", 7, 8.0, None]), anything)
event = st.fixed_dictionaries(
    {"event_type": st.one_of(st.sampled_from(WORDS), anything), "event_at": time_ms},
    optional={
        "event_id": st.one_of(st.sampled_from(["e1", "e2", "e3"]), anything),
        "user_id": st.one_of(st.sampled_from(["u1", "u2"]), anything),
        "session_id": anything,
        "order_id": st.one_of(st.sampled_from(["o1", "o2"]), anything),
        "item_id": item,
        "items": st.one_of(
            st.lists(
                st.fixed_dictionaries({"item_id": item}, optional={"quantity": scalar, "title": anything}), max_size=3
            ),
            anything,
        ),
        "decision_id": anything,
        "rating": scalar,
        "query": anything,
    },
)


def as_bytes(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


body = st.one_of(
    event.map(as_bytes),
    event.map(as_bytes),
    st.tuples(event.map(as_bytes), st.integers(0, 200)).map(lambda cut: cut[0][: cut[1]]),
    anything.map(as_bytes),
    st.binary(max_size=40),
    st.none(),
)
record = st.builds(
    lambda topic, partition, key, value, headers: Record(
        topic, partition if topic == Topic.EVENTS else 0, 0, NOW_MS, key, value, tuple(headers)
    ),
    st.sampled_from([Topic.EVENTS] * 6 + [Topic.ITEMS, Topic.ITEMS, Topic.CONTROL]),
    st.integers(0, 1),
    st.one_of(st.none(), st.sampled_from([b"a", b"b", b""]), st.binary(max_size=6)),
    body,
    st.lists(
        st.tuples(st.sampled_from(["ce_specversion", "ce_type", "ce_id", "x"]), st.binary(max_size=6)), max_size=3
    ),
)


def holds(world: World) -> None:
    """The law, tick by tick, in total, by reason, and against the records and dead letters there are."""
    total: Counter[str] = Counter()
    for entry in world.entries()[1:]:
        counts = entry["counts"]
        assert counts["consumed"] == sum(counts[outcome] for outcome in OUTCOMES)
        assert counts["consumed"] == sum(r[4] for r in entry["tick"]["ranges"]), "every record of a range is counted"
        assert counts["dead_lettered"] == entry["outputs"].get(Topic.DEAD_LETTERS, [0])[0]
        total.update(counts)
    table = world.pipeline.facts.accounting.table()
    assert {name: table[name] for name in ("consumed", *OUTCOMES)} == {n: total[n] for n in ("consumed", *OUTCOMES)}
    assert total["consumed"] == sum(len(records) for records in world.broker.inputs.values())
    reasons = world.pipeline.facts.accounting.reasons
    for outcome in OUTCOMES:
        assert sum(reasons[outcome].values()) == total[outcome], f"every {outcome} record has one reason"
    assert world.pipeline.facts.accounting.totals["repaired"] <= total["accepted"]


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.lists(record, min_size=1, max_size=60))
def test_every_record_ends_as_exactly_one_of_five_words_whatever_it_holds(records: list[Record]) -> None:
    world = World()
    world.clock.set(NOW_MS)
    world.broker.extend(records)
    world.catch_up()
    holds(world)


def test_the_shop_s_stream_is_accounted_for_and_has_every_outcome() -> None:
    world = World().play(shop_stream())
    holds(world)
    assert all(world.pipeline.facts.accounting.totals[outcome] for outcome in OUTCOMES)
