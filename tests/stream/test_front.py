"""The front as a whole: every record gets lines or a verdict, nothing raises, nobody is named."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_rec.adapters.registry import ADAPTERS
from stream_rec.codec import Event, StrictEvent
from stream_rec.errors import BadRecord
from stream_rec.events import MISSING, Item, Kind, Line, Record, Topic
from stream_rec.stream import quality
from stream_rec.stream.fields import event_of
from stream_rec.stream.front import Front, FrontBatch
from stream_rec.stream.privacy import Pseudonymiser, Sealer

AT_MS = 1_700_000_000_000
NAMES = Pseudonymiser(b"secret")
CLICK = {"event_id": "e1", "event_type": "click", "event_at": AT_MS, "user_id": "u1", "item_id": "a"}


def front(**options: Any) -> Front:
    return Front(NAMES, Sealer(b"secret"), **options)


def record(
    value: bytes | None, offset: int = 0, topic: str = Topic.EVENTS, key: bytes | None = None, headers=()
) -> Record:
    return Record(topic, 3, offset, AT_MS, key, value, headers)


def read(*bodies: Any, **options: Any) -> FrontBatch:
    values = [b if isinstance(b, bytes) or b is None else json.dumps(b).encode() for b in bodies]
    return front(**options).read([record(v, i) for i, v in enumerate(values)])


def line(**fields: Any) -> Line:
    batch = read({**CLICK, **fields})
    assert batch.verdicts == [None]
    assert len(batch.lines) == 1
    return batch.lines[0]


def verdict(**fields: Any) -> tuple[str, str] | None:
    return read({**CLICK, **fields}).verdicts[0]


def words(**fields: Any) -> dict[str, int]:
    return dict(read({**CLICK, **fields}).repairs)


# ---- lines


def test_a_click_becomes_one_line() -> None:
    got = line(decision_id="d-1", position=3, price=2.5, rating=4, session_id="s", order_id="o", query="Mug")
    assert got[:9] == (
        0, Kind.CLICK, AT_MS, NAMES.user_key("u1"), 0, NAMES.session("s").number, NAMES.order("o").number,
        NAMES.event("e1"), "a",
    )  # fmt: skip
    assert got[9:] == (3, 2.5, 1.0, 4.0, "d-1", "Mug")


def test_an_event_in_the_schemas_form_needs_no_repair() -> None:
    assert words(decision_id="d-1", currency="EUR", value=2, items=[{"item_id": "a", "price": 1}]) == {}


def test_every_item_becomes_a_line_in_order_and_the_lines_of_a_record_are_adjacent() -> None:
    many = {**CLICK, "event_type": "purchase", "items": [{"item_id": "a"}, {"item_id": "b", "quantity": 2}]}
    batch = read(many, CLICK, many)
    assert [(each.record, each.item_id, each.quantity) for each in batch.lines] == [
        (0, "a", 1), (0, "b", 2), (1, "a", 1), (2, "a", 1), (2, "b", 2),
    ]  # fmt: skip


def test_a_search_is_a_line_without_an_item() -> None:
    got = read({"event_type": "search", "event_at": AT_MS, "event_id": "e", "query": " red mug "}).lines
    assert [(each.item_id, each.query, each.position) for each in got] == [("", "red mug", MISSING)]


def test_a_search_with_results_has_a_line_for_each() -> None:
    assert len(read({**CLICK, "event_type": "search", "query": "q", "items": [{"item_id": "a"}] * 3}).lines) == 3


@pytest.mark.parametrize(
    ("fields", "stand_in", "user"),
    [
        ({"session_id": "s", "order_id": "o"}, 0, NAMES.user_key("u1")),
        ({"user_id": None, "session_id": "s", "order_id": "o"}, 1, NAMES.session("s").stand_in),
        ({"user_id": " ", "order_id": "o"}, 2, NAMES.order("o").stand_in),
        ({"user_id": None}, 3, None),
    ],
)
def test_who_stands_for_the_user(fields: dict[str, Any], stand_in: int, user: bytes | None) -> None:
    got = line(**fields)
    assert (got.stand_in, got.user) == (stand_in, user)


def test_float_text_names_the_same_user_and_item() -> None:
    assert line(user_id="17850.0", item_id=" 22423")[3:9] == line(user_id=17850, item_id=22423)[3:9]


def test_an_impression_without_positions_takes_its_order() -> None:
    shown = {**CLICK, "event_type": "impression", "items": [{"item_id": i} for i in "abc"]}
    batch = read(shown)
    assert [each.position for each in batch.lines] == [0, 1, 2]
    assert batch.repairs == {"position_from_order": 1}


def test_an_impression_that_says_a_position_is_taken_at_its_word() -> None:
    shown = {**CLICK, "event_type": "impression", "items": [{"item_id": "a", "position": 5}, {"item_id": "b"}]}
    assert [each.position for each in read(shown).lines] == [5, MISSING]


def test_a_missing_event_id_comes_from_the_position() -> None:
    first, second = read({**CLICK, "event_id": None}, {**CLICK, "event_id": " "}).lines
    assert first.event != second.event
    assert words(event_id=None) == {"event_id_derived": 1}
    assert read({**CLICK, "event_id": None}).lines[0].event == first.event


def test_a_query_loses_addresses_and_the_users_own_id() -> None:
    got = line(user_id="customer-77", query="mug for ann@shop.example customer-77")
    assert got.query == "mug for <email> <user>"


@pytest.mark.parametrize(
    ("fields", "repairs"),
    [
        ({"price": "2.5"}, {"numeric_string": 1}),
        ({"user_id": 17850.0}, {"id_number": 1}),
        ({"currency": "eur"}, {"currency_case": 1}),
        ({"currency": "euro"}, {"currency_dropped": 1}),
        ({"currency": 978}, {"currency_dropped": 1}),
        ({"value": "many"}, {"value_dropped": 1}),
        ({"rating": "four"}, {"rating_dropped": 1}),
        ({"rating": 1e9}, {"rating_dropped": 1}),
        ({"position": -1}, {"position_dropped": 1}),
        ({"position": 2.5}, {"position_dropped": 1}),
        ({"position": 2.0}, {"number_form": 1}),
        ({"price": 0}, {"price_dropped": 1}),
        ({"quantity": 0}, {"quantity_dropped": 1}),
        ({"decision_id": [1]}, {"decision_id_dropped": 1}),
        ({"decision_id": "x" * 300}, {"decision_id_dropped": 1}),
        ({"items": {"item_id": "a"}}, {"items_form": 1}),
        ({"items": ["a", 5]}, {"items_form": 2}),
        ({"event_type": "Click"}, {"type_case": 1}),
        ({"event_at": "2023-11-14 22:13:20"}, {"time_naive": 1}),
        ({"event_at": AT_MS / 1000}, {"epoch_s": 1}),
        ({"query": "x" * 600}, {"text_cut": 1}),
        ({"query": "call 020 7946 0958"}, {"query_scrubbed": 1}),
    ],
)
def test_safe_repairs_are_made_and_counted(fields: dict[str, Any], repairs: dict[str, int]) -> None:
    assert verdict(**fields) is None
    assert words(**fields) == repairs


def test_a_repair_of_an_id_seen_before_counts_again() -> None:
    trimmed = {**CLICK, "user_id": " u1 ", "item_id": " a ", "session_id": "7.0"}
    batch = read(trimmed, trimmed, {**CLICK, "session_id": "7"})
    assert batch.repairs == {"id_trimmed": 4, "id_float": 2}
    assert list(batch.repaired) == [0, 1]
    assert batch.n_repaired == 2


# ---- verdicts


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"event_type": None}, "missing_event_type"),
        ({"event_type": ""}, "missing_event_type"),
        ({"event_type": 5}, "bad_event_type"),
        ({"event_at": None}, "missing_event_at"),
        ({"event_at": True}, "bad_event_at"),
        ({"event_at": "soon"}, "bad_event_at"),
        ({"event_at": 5}, "event_at_out_of_range"),
        ({"item_id": None}, "missing_item"),
        ({"items": []}, None),
        ({"items": [{}]}, "missing_item"),
        ({"item_id": ""}, "bad_item_id"),
        ({"item_id": {"a": 1}}, "bad_item_id"),
        ({"item_id": 1.5}, "bad_item_id"),
        ({"item_id": "a\nb"}, "bad_item_id"),
        ({"user_id": ["u"]}, "bad_user_id"),
        ({"user_id": True}, "bad_user_id"),
        ({"session_id": "x" * 300}, "bad_session_id"),
        ({"order_id": {}}, "bad_order_id"),
        ({"event_id": []}, "bad_event_id"),
        ({"event_id": "e\x00"}, "bad_event_id"),
        ({"items": "a,b"}, "bad_items"),
        ({"items": [None]}, "bad_items"),
        ({"items": [{"item_id": "a"}] * 1001}, "too_many_items"),
        ({"items": [{"item_id": "a", "price": "1"}] * 1001}, "too_many_items"),
        ({"price": "cheap"}, "bad_price"),
        ({"price": "NaN"}, "not_finite"),
        ({"quantity": "Infinity"}, "not_finite"),
        ({"query": {"text": "q"}}, "bad_query"),
        ({"event_type": "purchase", "quantity": 0}, "bad_quantity"),
        ({"event_type": "purchase", "quantity": "-5"}, "bad_quantity"),
        ({"event_type": "purchase", "price": 0}, "bad_price"),
        ({"event_type": "purchase", "items": [{"item_id": "a"}, {"item_id": "b", "quantity": -1}]}, "bad_quantity"),
    ],
)
def test_what_has_no_safe_reading_is_dead_lettered_with_a_reason(fields: dict[str, Any], reason: str | None) -> None:
    assert verdict(**fields) == (None if reason is None else ("dead_lettered", reason))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [({"event_type": "page_ping"}, "unknown_type"), ({"event_type": "search", "item_id": None}, "empty_query")],
)
def test_what_is_not_for_us_is_ignored_with_a_reason(fields: dict[str, Any], reason: str) -> None:
    assert verdict(**fields) == ("ignored", reason)


def test_a_record_that_dies_leaves_nothing_behind() -> None:
    bad = {
        **CLICK,
        "items": [{"item_id": "a", "title": "t"}, {"item_id": "b", "price": "x"}],
        "user_id": " u ",
        "extra": 1,
    }
    batch = read(bad)
    assert (batch.lines, batch.carried_items, batch.repaired, batch.unknown_fields) == ([], [], {}, 0)


def test_no_value_and_a_huge_value_have_their_reasons() -> None:
    batch = read(None, b"x" * 2000, b"x" * 10_000_000, max_record_bytes=1999)
    assert [v and v[1] for v in batch.verdicts] == ["no_value", "too_large", "too_large"]


def test_another_topic_is_ignored() -> None:
    assert front().read([record(b"{}", topic="elsewhere")]).verdicts == [("ignored", "unknown_topic")]


def test_unknown_fields_are_counted_and_kept_out() -> None:
    batch = read({**CLICK, "colour": 1}, {**CLICK, "items": [{"item_id": "a", "size": 1, "weight": 2}]})
    assert batch.unknown_fields == 3
    assert batch.verdicts == [None, None]
    assert batch.lines[0][1:] == read(CLICK).lines[0][1:]


def test_codes_that_are_no_products_are_left_out() -> None:
    codes = frozenset({"POST"})
    some = {**CLICK, "event_type": "purchase", "items": [{"item_id": "a"}, {"item_id": "POST", "price": 0}]}
    batch = read(some, {**CLICK, "item_id": "POST"}, not_products=codes)
    assert [each.item_id for each in batch.lines] == ["a"]
    assert batch.verdicts == [None, ("ignored", "not_a_product")]
    assert batch.repairs == {"not_a_product": 1}


# ---- items and commands


def test_item_records_and_tombstones_come_in_order() -> None:
    records = [
        record(b'{"title": "Mug", "price": 2}', 0, Topic.ITEMS, b"a"),
        record(None, 1, Topic.ITEMS, b"a"),
        record(None, 2, Topic.ITEMS, None),
        record(b"[", 3, Topic.ITEMS, b"b"),
    ]
    batch = front().read(records)
    assert batch.items == [(0, Item("a", "Mug", "", "", "", 2.0, True, MISSING)), (1, "a")]
    assert [v and v[1] for v in batch.verdicts] == [None, None, "missing_item", "not_json"]


def test_an_event_may_carry_its_items_text() -> None:
    batch = read({**CLICK, "items": [{"item_id": "a", "title": "Mug", "price": 2, "brand": "B"}, {"item_id": "b"}]})
    assert batch.carried_items == [(0, Item("a", "Mug", "", "", "B", 2.0, True, AT_MS))]


def test_commands_are_read_and_bad_ones_die() -> None:
    good, bad = record(b'{"command": "freeze"}', 0, Topic.CONTROL), record(b'{"command": "x"}', 1, Topic.CONTROL)
    batch = front().read([good, bad])
    assert batch.controls == [(0, "freeze", {})]
    assert batch.verdicts == [None, ("dead_lettered", "bad_command")]


# ---- CloudEvents and adapters

ENVELOPE = {
    "specversion": "1.0",
    "id": "7",
    "source": "/shop",
    "type": "com.shop.click",
    "time": "2023-11-14T22:13:20Z",
}


def test_both_cloud_event_modes_give_the_same_line() -> None:
    data = {"user_id": "u1", "item_id": "a"}
    headers = tuple((f"ce_{name}", value.encode()) for name, value in ENVELOPE.items())
    binary = record(json.dumps(data).encode(), 0, headers=headers)
    structured = record(json.dumps({**ENVELOPE, "data": data}).encode(), 1)
    batch = front().read([binary, structured])
    assert batch.verdicts == [None, None]
    assert batch.lines[0][1:] == batch.lines[1][1:]
    assert batch.lines[0].at_ms == AT_MS
    assert batch.unknown_fields == 0


def test_items_come_in_cloud_events_too() -> None:
    body = {**ENVELOPE, "data": {"title": "Mug"}}
    batch = front().read([record(json.dumps(body).encode(), 0, Topic.ITEMS, b"a")])
    assert batch.items[0][1].title == "Mug"
    assert batch.unknown_fields == 0


def test_an_adapter_may_give_several_events_with_one_id() -> None:
    batch = read({"n": 3}, adapter=lambda obj: [dict(CLICK) for _ in range(obj["n"])])
    assert len({each.event for each in batch.lines}) == 3
    assert {each.record for each in batch.lines} == {0}


def test_an_adapter_that_finds_no_event_means_ignored() -> None:
    assert read({}, adapter=lambda obj: []).verdicts == [("ignored", "no_events")]


def test_events_of_unused_types_beside_used_ones_are_left_out() -> None:
    batch = read({}, adapter=lambda obj: [CLICK, {**CLICK, "event_type": "page_view"}])
    assert len(batch.lines) == 1
    assert batch.repairs == {"part_ignored": 1}


def _raises_key(obj: dict[str, Any]) -> Any:
    return obj["absent"]


def _raises_reason(obj: dict[str, Any]) -> Any:
    raise BadRecord("bad_event_at", "adapt")


@pytest.mark.parametrize(
    ("adapter", "reason"),
    [
        (_raises_key, "adapter_failed"),
        (_raises_reason, "bad_event_at"),
        (lambda obj: 5, "adapter_failed"),
        (lambda obj: [5], "adapter_failed"),
        (lambda obj: {**CLICK, "item_id": "\ud800"}, "adapter_failed"),
        (lambda obj: {**CLICK, "item_id": object()}, "adapter_failed"),
    ],
)
def test_an_adapter_that_fails_costs_one_record(adapter: Any, reason: str) -> None:
    assert read({}, adapter=adapter).verdicts == [("dead_lettered", reason)]


GOLDEN = Path(__file__).parents[1] / "adapters" / "golden"


@pytest.mark.parametrize("name", sorted(ADAPTERS))
def test_no_golden_event_of_an_adapter_is_dead_lettered(name: str) -> None:
    cases = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    batch = read(*(case["in"] for case in cases), adapter=ADAPTERS[name])
    assert {v[0] for v in batch.verdicts if v} <= {"ignored"}
    assert batch.lines
    assert batch.unknown_fields == 0


# ---- laws

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NUMBERS = st.sampled_from(["1", " 2.50 ", "nan", 0, -1, 3, 2.0, 10**400, 1e308, None, True, "x"]) | JSON
IDS = st.sampled_from(["a", " a ", "17850.0", 17850, 17850.0, "", "x" * 300, "a\x00b", None, True]) | JSON
TIMES = st.sampled_from([AT_MS, AT_MS / 1000, "2011-01-04 10:00", "2100-01-01", 0, "nan", None]) | JSON
ABOUT = {"item_id": IDS, "position": NUMBERS, "price": NUMBERS, "quantity": NUMBERS}


def mostly(good: st.SearchStrategy[Any], bad: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Eleven in twelve times `good`."""
    return st.integers(0, 11).flatmap(lambda n: bad if n == 11 else good)


ID_TEXT = st.text("ab1-", min_size=1, max_size=4)
PRICES = st.floats(0.01, 1e6) | st.integers(1, 9)
CLEAN_ABOUT = {"position": st.integers(0, 99), "price": PRICES, "quantity": PRICES}
CLEAN_ITEM = st.fixed_dictionaries({"item_id": ID_TEXT}, optional={**CLEAN_ABOUT, "title": st.text("xyz", max_size=5)})
CLEAN_FIELDS = {
    **CLEAN_ABOUT,
    "items": st.lists(CLEAN_ITEM, min_size=1, max_size=3),
    **dict.fromkeys(["event_id", "user_id", "session_id", "order_id", "query", "decision_id"], ID_TEXT),
    "currency": st.just("EUR"),
    "value": PRICES,
    "rating": st.floats(1, 5),
}
CLEAN_TYPES = st.sampled_from([kind.name.lower() for kind in Kind])
CLEAN_EVENTS = st.fixed_dictionaries(
    {"event_type": CLEAN_TYPES, "event_at": st.just(AT_MS), "item_id": ID_TEXT, "query": ID_TEXT},
    optional={k: v for k, v in CLEAN_FIELDS.items() if k != "query"},
)
BAD_ITEMS = st.lists(st.fixed_dictionaries({}, optional={**ABOUT, "title": JSON, "x": JSON}), max_size=3) | JSON
BAD_FIELDS = {
    **dict.fromkeys(["position", "price", "quantity"], NUMBERS),
    "items": BAD_ITEMS,
    **dict.fromkeys(["event_id", "user_id", "session_id", "order_id", "query", "decision_id", "currency"], IDS),
    "value": NUMBERS,
    "rating": NUMBERS,
}
EVENTS = st.fixed_dictionaries(
    {
        "event_type": mostly(CLEAN_TYPES, IDS),
        "event_at": mostly(st.just(AT_MS), TIMES),
        "item_id": mostly(ID_TEXT, IDS),
    },
    optional={
        **{name: mostly(CLEAN_FIELDS[name], bad) for name, bad in BAD_FIELDS.items()},
        "surprise": mostly(st.just(1), JSON),
    },
)
ENVELOPES = st.fixed_dictionaries(
    {"specversion": st.just("1.0")}, optional={"data": EVENTS | JSON, "time": TIMES, "id": IDS}
)
VALUES = st.one_of(EVENTS, EVENTS, EVENTS, CLEAN_EVENTS, ENVELOPES, JSON).map(lambda v: json.dumps(v).encode())
BYTES = mostly(VALUES, st.binary(max_size=80))
TOPICS = st.sampled_from([Topic.EVENTS, Topic.EVENTS, Topic.ITEMS, Topic.CONTROL])


@st.composite
def records(draw: st.DrawFn) -> Record:
    value = draw(st.none() | BYTES)
    if value and draw(st.integers(0, 4)) == 0:
        cut = draw(st.integers(0, len(value)))
        value = value[:cut] + draw(st.binary(max_size=3)) + value[cut + 1 :]
    headers = draw(
        st.sampled_from([(), (("x", b"1"),), (("ce_specversion", b"1.0"), ("ce_type", b"a.click"), ("ce_id", b"\xff"))])
    )
    return Record(
        draw(TOPICS), 0, draw(st.integers(0, 9)), AT_MS, draw(st.none() | st.binary(max_size=8)), value, headers
    )


def _is_sound(each: Line) -> bool:
    return (
        each.kind in set(Kind)
        and quality.MIN_AT_MS <= each.at_ms <= quality.MAX_AT_MS
        and (each.user is None) == (each.stand_in == 3)
        and len(each.item_id) <= quality.MAX_ID
        and MISSING <= each.position < quality.MAX_POSITION
        and (math.isnan(each.price) or 0 < each.price < 1e12)
        and 0 < each.quantity < 1e12
        and not math.isinf(each.rating)
        and all(0 <= n < 2**63 for n in (each.session, each.order, each.event))
    )


@settings(derandomize=True, deadline=None, max_examples=250)
@given(st.lists(records(), max_size=6))
def test_every_record_gets_something_or_a_verdict_and_nothing_raises(batch_of: list[Record]) -> None:
    batch = front().read(batch_of)
    assert len(batch.verdicts) == len(batch_of)
    gives = {each.record for each in batch.lines} | {i for i, *_ in batch.items} | {i for i, *_ in batch.controls}
    for i, said in enumerate(batch.verdicts):
        assert (said is None) == (i in gives)
        if said is not None:
            table = quality.REASONS if said[0] == "dead_lettered" else quality.IGNORED
            assert said[1] in table
            assert said[1] != "unexpected"
    assert all(map(_is_sound, batch.lines))
    order = [each.record for each in batch.lines]
    assert order == sorted(order)
    assert batch.repaired.keys() <= gives
    assert batch.repairs.keys() <= quality.REPAIRS.keys()


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.lists(records(), max_size=6))
def test_what_was_read_before_changes_nothing(batch_of: list[Record]) -> None:
    used = front()
    used.read(batch_of)
    assert repr(used.read(batch_of)) == repr(front().read(batch_of))


@settings(derandomize=True, deadline=None, max_examples=150)
@given(CLEAN_EVENTS)
def test_the_fast_lane_and_the_lenient_one_read_the_same(body: dict[str, Any]) -> None:
    value = json.dumps(body).encode()
    fast = msgspec.json.decode(value, type=StrictEvent)
    said: list[str] = []
    slow, n_unknown = event_of(msgspec.json.decode(value), said)
    assert msgspec.to_builtins(slow) == msgspec.to_builtins(fast)
    assert (said, n_unknown) == ([], 0)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(CLEAN_EVENTS)
def test_a_field_by_field_repair_keeps_what_was_right(body: dict[str, Any]) -> None:
    right = msgspec.convert({**body, "decision_id": None}, Event)
    said: list[str] = []
    repaired, n_unknown = event_of({**body, "decision_id": [1]}, said)
    assert msgspec.to_builtins(repaired) == msgspec.to_builtins(right)
    assert (said, n_unknown) == (["decision_id_dropped"], 0)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(CLEAN_EVENTS)
def test_an_unknown_field_changes_nothing_but_its_count(body: dict[str, Any]) -> None:
    clean, extra = read(body), read({**body, "surprise": {"deep": [1]}})
    assert extra.unknown_fields == (1 if extra.verdicts == [None] else 0)
    assert (repr(clean.lines), clean.verdicts, clean.repaired) == (repr(extra.lines), extra.verdicts, extra.repaired)


RAW = "raw-user-4711"
PLANTED = [
    record(
        json.dumps(
            {**CLICK, "user_id": RAW, "session_id": RAW, "order_id": RAW, "event_id": RAW, "query": f"of {RAW}"}
        ).encode()
    ),
    record(json.dumps({**CLICK, "user_id": f" {RAW} "}).encode(), key=RAW.encode()),
    record(json.dumps({**CLICK, "user_id": [RAW]}).encode()),
    record(json.dumps({**CLICK, "event_at": RAW}).encode()),
    record(json.dumps({**CLICK, "event_type": RAW}).encode()),
    record(json.dumps({**CLICK, RAW: RAW}).encode()),
    record(json.dumps({**CLICK, "price": RAW}).encode()),
    record(json.dumps({**CLICK, "currency": RAW, "value": RAW, "rating": RAW, "position": RAW}).encode()),
    record(f'{{"user_id": "{RAW}", '.encode()),
    record(RAW.encode()),
    record(RAW.encode() + b"\xff"),
    record(f'"{RAW}"'.encode(), key=RAW.encode(), headers=(("user", RAW.encode()), (RAW, b"1"))),
    record(json.dumps({"command": RAW, "user_key": RAW}).encode(), topic=Topic.CONTROL),
    record(json.dumps({"title": 1, "updated_at": RAW}).encode(), topic=Topic.ITEMS, key=b"a"),
]


@pytest.mark.parametrize("planted", PLANTED)
def test_a_raw_id_reaches_no_line_no_verdict_and_no_dead_letter(planted: Record, caplog, capfd) -> None:
    reader = front()
    batch = reader.read([planted])
    outputs = [reader.seal(planted, v[1]) for v in batch.verdicts if v]
    sealed = [base64.b64decode(json.loads(out.value or b"")["sealed"]) for out in outputs]
    said = repr(batch) + repr(outputs) + repr(sealed) + caplog.text + "".join(capfd.readouterr())
    assert RAW not in said
    assert "4711" not in said


def test_the_reason_of_a_dead_letter_quotes_nothing_and_its_content_comes_back() -> None:
    sealer = Sealer(b"secret")
    letter = front().seal(PLANTED[9], "not_json")
    assert json.loads(letter.value or b"")["stage"] == "decode"
    assert sealer.unseal(letter.value or b"").record == PLANTED[9]
