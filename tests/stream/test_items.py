"""Claims about the item table."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_rec.component import digest
from stream_rec.events import MISSING, Item
from stream_rec.stream.items import MAX_TEXT, NEVER_BORN, ItemTable


def item(
    item_id: str,
    title: str = "a title",
    *,
    in_stock: bool = True,
    price: float = math.nan,
    updated_at_ms: int = MISSING,
) -> Item:
    return Item(item_id, title, "", "home", "", price, in_stock, updated_at_ms)


def test_item_named_by_an_event_alone_is_servable_and_not_named() -> None:
    table = ItemTable(4)
    row = table.row("cup", serial=7)
    assert table.servable().tolist() == [True]
    assert (bool(table.named[row]), int(table.born[row]), int(table.n_events[row])) == (False, 7, 1)


def test_empty_id_has_no_row() -> None:
    table = ItemTable(4)
    assert table.row("", 0) == MISSING
    assert table.rows(["", "cup", ""], 0).tolist() == [MISSING, 0, MISSING]


def test_item_without_an_id_is_refused() -> None:
    with pytest.raises(ValueError, match="needs an id"):
        ItemTable(4).upsert(item(""), 0)


def test_tombstoned_item_is_not_servable_until_named_again() -> None:
    table = ItemTable(4)
    table.upsert(item("cup"), 0)
    table.tombstone("cup", 0)
    table.tombstone("jug", 0)
    assert table.servable().tolist() == [False, False]
    table.row("cup", 1)
    assert table.servable().tolist() == [False, False]
    assert not table.upsert(item("cup"), 2).lost
    assert table.servable().tolist() == [True, False]


def test_only_losing_stock_or_listing_is_reported_as_lost() -> None:
    table = ItemTable(4)
    said = [table.upsert(item("cup", in_stock=stock), 0).lost for stock in (False, True, True, False, False)]
    assert said == [False, False, False, True, False]


def test_older_update_changes_nothing_and_an_equally_old_one_counts() -> None:
    table = ItemTable(4)
    table.upsert(item("cup", "new", updated_at_ms=100), 0)
    assert table.upsert(item("cup", "old", updated_at_ms=99, in_stock=False), 0).older
    assert (table.titles, table.servable().tolist()) == (["new"], [True])
    assert not table.upsert(item("cup", "same time", updated_at_ms=100), 0).older
    assert table.titles == ["same time"]


def test_update_without_a_time_counts_and_keeps_the_known_time() -> None:
    table = ItemTable(4)
    table.upsert(item("cup", "timed", updated_at_ms=100), 0)
    table.upsert(item("cup", "untimed"), 0)
    assert (table.titles, int(table.updated_at_ms[0])) == (["untimed"], 100)


def test_text_carried_by_an_event_fills_in_but_never_speaks_against_the_catalogue() -> None:
    table = ItemTable(4)
    table.upsert(item("cup", "carried", price=2.0), 0, from_event=True)
    table.upsert(item("cup", "", price=math.nan), 0, from_event=True)
    assert (table.titles, table.record(0)["price"]) == (["carried"], 2.0)
    table.upsert(item("cup", "catalogue"), 0)
    table.upsert(item("cup", "carried"), 0, from_event=True)
    assert table.record(0) == {"item_id": "cup", "title": "catalogue", "category": "home"}


def test_long_texts_are_cut() -> None:
    table = ItemTable(4)
    table.upsert(item("cup", "x" * 5000), 0)
    assert len(table.titles[0]) == MAX_TEXT


def test_full_table_gives_up_delisted_items_first_then_the_longest_untouched() -> None:
    table = ItemTable(3)
    table.rows(["a", "b", "c"], 0)
    table.tombstone("c", 0)
    table.row("d", 5)
    assert (table.find("c"), table.take_evicted()) == (MISSING, [2])
    table.row("a", 6)
    table.row("e", 7)
    assert (table.find("b"), table.take_evicted(), table.take_evicted()) == (MISSING, [1], [])
    assert table.born.tolist() == [0, 7, 5]


def test_row_between_two_items_is_younger_than_all_history() -> None:
    table = ItemTable(200)
    table.rows([f"i{k}" for k in range(200)], 3)
    table.row("new", 9)
    assert table.take_evicted() == [0, 1]
    assert table.born[[0, 1]].tolist() == [9, NEVER_BORN]
    assert not table.servable()[1]


IDS = st.sampled_from(["", "a", "b", "c", "d", "e", "f", "g"])
CALL = st.one_of(
    st.tuples(st.just("rows"), st.lists(IDS, max_size=6)),
    st.tuples(st.just("upsert"), IDS.filter(bool), st.booleans(), st.integers(-1, 5)),
    st.tuples(st.just("carried"), IDS.filter(bool)),
    st.tuples(st.just("tombstone"), IDS.filter(bool)),
)


def call(table: ItemTable, calls: list[tuple], *, singly: bool = False, start: int = 0) -> list[object]:
    said: list[object] = []
    for serial, (word, *rest) in enumerate(calls, start):
        if word == "rows":
            said.append([table.row(i, serial) for i in rest[0]] if singly else table.rows(rest[0], serial).tolist())
        elif word == "tombstone":
            said.append(table.tombstone(rest[0], serial))
        else:
            stock, at_ms = (rest[1], rest[2]) if word == "upsert" else (True, MISSING)
            one = item(rest[0], f"t{serial}", in_stock=stock, updated_at_ms=at_ms)
            said.append(tuple(table.upsert(one, serial, from_event=word == "carried")))
        said.append((table.servable().tolist(), table.take_evicted()))
    return said


class Oracle:
    """The same rules over a dict: id to [row, last touch, listed, in stock, named, updated_at, born, n_events]."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.items, self.touches = capacity, {}, 0

    def touch(self, item_id: str, serial: int) -> list:
        if item_id not in self.items:
            if len(self.items) == self.capacity:
                victim = min(self.items, key=lambda i: (self.items[i][2], self.items[i][1]))
                del self.items[victim]
            row = min(set(range(self.capacity)) - {e[0] for e in self.items.values()})
            self.items[item_id] = [row, 0, True, True, False, MISSING, serial, 0]
        self.touches += 1
        self.items[item_id][1] = self.touches
        return self.items[item_id]

    def apply(self, calls: list[tuple]) -> None:
        for serial, (word, *rest) in enumerate(calls):
            if word == "rows":
                for i in rest[0]:
                    if i:
                        self.touch(i, serial)[7] += 1
                continue
            entry = self.touch(rest[0], serial)
            if word == "tombstone":
                entry[2], entry[4] = False, True
            elif word == "upsert" and (rest[2] == MISSING or rest[2] >= entry[5]):
                entry[2:6] = [True, rest[1], True, max(rest[2], entry[5])]


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.lists(CALL, max_size=40), st.integers(1, 8))
def test_table_equals_a_dict_with_the_same_rules(calls: list[tuple], capacity: int) -> None:
    table, oracle = ItemTable(capacity), Oracle(capacity)
    call(table, calls)
    oracle.apply(calls)
    columns = (
        table.used_at,
        table.listed,
        table.in_stock,
        table.named,
        table.updated_at_ms,
        table.born,
        table.n_events,
    )
    held = {i: [row, *(c[row].item() for c in columns)] for row, i in enumerate(table.ids) if i}
    assert held == oracle.items


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.lists(CALL, max_size=40), st.integers(1, 8))
def test_rows_of_a_tick_at_once_equal_one_line_after_another(calls: list[tuple], capacity: int) -> None:
    at_once, singly = ItemTable(capacity), ItemTable(capacity)
    assert call(at_once, calls) == call(singly, calls, singly=True)
    assert digest(at_once.snapshot()) == digest(singly.snapshot())


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.lists(CALL, max_size=40), st.integers(0, 40), st.integers(1, 8))
def test_restored_table_goes_on_as_if_never_stopped(calls: list[tuple], cut: int, capacity: int) -> None:
    table, twin = ItemTable(capacity), ItemTable(capacity)
    call(table, calls[:cut])
    call(twin, calls[cut:])
    twin.restore(table.snapshot())
    assert digest(twin.snapshot()) == digest(table.snapshot())
    assert call(twin, calls[cut:], start=cut) == call(table, calls[cut:], start=cut)
    assert digest(twin.snapshot()) == digest(table.snapshot())


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.lists(CALL, max_size=60), st.integers(1, 5))
def test_table_stays_within_its_capacity(calls: list[tuple], capacity: int) -> None:
    table = ItemTable(capacity)
    call(table, calls)
    assert table.n_held <= table.n <= capacity
    assert all(len(getattr(table, name)) <= capacity for name in table.columns)
