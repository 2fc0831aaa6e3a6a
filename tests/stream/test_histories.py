import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_rec.component import digest
from stream_rec.events import MISSING, Kind
from stream_rec.stream.histories import Histories, HistoryRow, NewRows

EVENT = st.tuples(st.integers(0, 3), st.integers(0, 4), st.sampled_from([Kind.CLICK, Kind.PURCHASE]), st.integers(0, 2))
"""User, item, kind, order."""
EVENTS = st.lists(EVENT, max_size=40)


class Oracle:
    """Every row ever, in a list; a history is found by scanning it."""

    def __init__(self, capacity):
        self.capacity, self.rows, self.last = capacity, [], {}

    def append(self, user, item, kind, order):
        serial = len(self.rows)
        self.rows.append({"user": user, "item": item, "kind": int(kind), "order": order, "live": True})
        self.last[user] = serial

    def chain(self, start):
        first = max(0, len(self.rows) - self.capacity)
        if not first <= start < len(self.rows):
            return []
        return [s for s in range(start, first - 1, -1) if self.rows[s]["user"] == self.rows[start]["user"]]

    def gather(self, start, limit, born):
        def shown(serial):
            row = self.rows[serial]
            return row["item"] if row["live"] and serial >= born[row["item"]] else MISSING

        return [shown(s) for s in self.chain(start)[:limit]]

    def retract(self, start, item, order, born):
        first = max(born, len(self.rows) - self.capacity)

        def bought(serials):
            wanted = {"item": item, "kind": int(Kind.PURCHASE), "live": True}
            return [s for s in serials if s >= first and wanted.items() <= self.rows[s].items()]

        same = [s for s in bought(range(len(self.rows))[::-1]) if order and self.rows[s]["order"] == order]
        found = (same or bought(self.chain(start)) or [MISSING])[0]
        if found != MISSING:
            self.rows[found]["live"] = False
        return found


def fold(histories, oracle, events):
    """Append events one by one to both."""
    for user, item, kind, order in events:
        at_ms = 10 * histories.next_serial
        prev = oracle.last.get(user, MISSING)
        histories.append(HistoryRow(item, at_ms, kind, visit=user, order=order, prev=prev, user=user))
        oracle.append(user, item, kind, order)


@settings(derandomize=True, deadline=None, max_examples=70)
@given(
    st.integers(1, 30),
    EVENTS,
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 2)), max_size=6),
    EVENTS,
    st.integers(0, 12),
    st.lists(st.integers(0, 50), min_size=5, max_size=5),
)
def test_histories_equal_a_scan_over_every_row(capacity, before, refunds, after, limit, born):
    histories, oracle = Histories(capacity), Oracle(capacity)
    fold(histories, oracle, before)
    for user, item, order in refunds:
        start = oracle.last.get(user, MISSING)
        assert histories.retract(start, item, order) == oracle.retract(start, item, order, 0)
    fold(histories, oracle, after)
    starts = np.arange(-1, len(oracle.rows) + 1)
    gathered = histories.gather(starts, limit, np.array(born))
    expected = [oracle.gather(s, limit, born) for s in starts.tolist()]
    width = max(len(e) for e in expected)
    assert gathered.item.tolist() == [e + [MISSING] * (width - len(e)) for e in expected]


@settings(derandomize=True, deadline=None, max_examples=70)
@given(st.integers(1, 30), EVENTS, EVENTS, EVENTS)
def test_restored_histories_go_on_like_ones_that_never_stopped(capacity, before, between, after):
    histories, oracle, fresh = Histories(capacity), Oracle(capacity), Histories(capacity)
    fold(histories, oracle, before)
    fresh.restore(histories.snapshot())
    twin = Oracle(capacity)
    fold(Histories(capacity), twin, before)
    fold(histories, oracle, between + after)
    fold(fresh, twin, between + after)
    assert digest(fresh.snapshot()) == digest(histories.snapshot())


@settings(derandomize=True, deadline=None, max_examples=70)
@given(st.integers(40, 60), EVENTS, EVENTS)
def test_appending_many_equals_appending_one_by_one(capacity, before, batch):
    one, many, oracle = Histories(capacity), Histories(capacity), Oracle(capacity)
    fold(one, oracle, before)
    many.restore(one.snapshot())
    first = one.next_serial
    fold(one, oracle, batch)
    rows = [one.row(s) for s in range(first, first + len(batch))]
    columns = {name: np.array([getattr(r, name) for r in rows], np.int64) for name in HistoryRow._fields}
    serials = many.append_many(NewRows(**{name: columns[name] for name in NewRows._fields}))
    assert serials.tolist() == list(range(first, first + len(batch)))
    assert digest(many.snapshot()) == digest(one.snapshot())


def filled(events, capacity=100):
    histories, oracle = Histories(capacity), Oracle(capacity)
    fold(histories, oracle, events)
    return histories


def test_a_pointer_taken_before_an_event_does_not_see_it():
    histories = filled([(0, 1, Kind.CLICK, 0), (0, 2, Kind.CLICK, 0)])
    assert histories.gather(np.array([0]), 10).item.tolist() == [[1]]


def test_every_field_of_a_masked_row_is_missing():
    histories = filled([(0, 1, Kind.PURCHASE, 0)])
    histories.retract(0, 1, 0)
    assert [column.tolist() for column in histories.gather(np.array([0]), 10)] == [[[MISSING]]] * 5


def test_gathered_columns_belong_to_their_rows():
    histories = filled([(0, 1, Kind.CLICK, 0), (0, 2, Kind.PURCHASE, 7)])
    gathered = histories.gather(np.array([1, MISSING]), 10)
    assert gathered.at_ms.tolist() == [[10, 0], [MISSING, MISSING]]
    assert gathered.kind.tolist() == [[Kind.PURCHASE, Kind.CLICK], [MISSING, MISSING]]
    assert gathered.serial.tolist() == [[1, 0], [MISSING, MISSING]]
    assert gathered.visit.tolist() == [[0, 0], [MISSING, MISSING]]


def test_gathered_arrays_have_the_dtypes_of_the_columns():
    gathered = filled([(0, 1, Kind.CLICK, 0)]).gather(np.array([0]), 10)
    assert [c.dtype for c in gathered] == [np.int32, np.int64, np.int8, np.int64, np.int64]


def test_no_pointers_give_an_empty_answer():
    assert filled([]).gather(np.array([], np.int64), 10).item.shape == (0, 0)


def test_a_refund_prefers_the_line_of_its_order_over_a_later_one():
    histories = filled([(0, 1, Kind.PURCHASE, 5), (0, 1, Kind.PURCHASE, 6)])
    assert histories.retract(1, 1, 5) == 0


def test_a_refund_without_an_order_takes_the_latest_purchase():
    histories = filled([(0, 1, Kind.PURCHASE, 5), (0, 1, Kind.PURCHASE, 6)])
    assert [histories.retract(1, 1, 0) for _ in range(3)] == [1, 0, MISSING]


def test_a_refund_does_not_touch_the_purchase_of_an_item_that_had_the_row_before():
    histories = filled([(0, 1, Kind.PURCHASE, 5), (0, 2, Kind.CLICK, 0)])
    assert histories.retract(1, 1, 5, born=1) == MISSING


def test_a_refund_finds_the_line_of_its_order_whoever_bought_it():
    histories = filled([(0, 1, Kind.PURCHASE, 5), (0, 2, Kind.PURCHASE, 5), (1, 1, Kind.PURCHASE, 6)])
    assert histories.retract(MISSING, 1, 5) == 0
    assert histories.row(0).user == 0
    assert histories.retract(2, 2, 5) == 1


def test_a_refund_takes_back_nothing_that_was_bought_after_it():
    histories = filled([(0, 1, Kind.PURCHASE, 5), (0, 1, Kind.PURCHASE, 5), (0, 1, Kind.PURCHASE, 5)])
    back = histories.retract_many([0, 0, 0], [1, 1, 1], [5, 5, 0], born=[0, 0, 0], before=[1, 2, 3])
    assert back == [0, 1, MISSING]


@settings(derandomize=True, deadline=None, max_examples=70)
@given(st.integers(3, 12), EVENTS, EVENTS, st.integers(0, 4), st.integers(1, 2))
def test_a_restored_ring_finds_the_same_purchases_by_their_order(capacity, before, after, item, order):
    histories, oracle, fresh = Histories(capacity), Oracle(capacity), Histories(capacity)
    fold(histories, oracle, before)
    histories.retract(MISSING, item, order)
    fresh.restore(histories.snapshot())
    for user, item_, kind, order_ in after:
        for ring in (histories, fresh):
            ring.append(HistoryRow(item_, 0, kind, visit=0, order=order_, prev=MISSING, user=user))
    found = [[ring.retract(MISSING, item, order) for _ in range(capacity + 1)] for ring in (histories, fresh)]
    assert found[0] == found[1]
    assert found[0] == sorted(found[0], reverse=True)


BLANK = HistoryRow(*[MISSING] * 4, order=0, prev=MISSING, user=MISSING, live=False)


@settings(derandomize=True, deadline=None, max_examples=70)
@given(st.integers(1, 30), EVENTS, st.lists(st.integers(0, 3), unique=True, max_size=3), EVENTS)
def test_forgetting_blanks_the_rows_of_some_users_and_changes_no_other(capacity, before, forgotten, after):
    histories, oracle = Histories(capacity), Oracle(capacity)
    fold(histories, oracle, before)
    rows = {s: histories.row(s) for s in range(histories.first_serial, histories.next_serial)}
    theirs = {s for s, row in rows.items() if row.user in forgotten}
    assert histories.forget([oracle.last.get(user, MISSING) for user in forgotten]) == len(theirs)
    assert {s: histories.row(s) for s in rows} == {s: BLANK if s in theirs else row for s, row in rows.items()}
    for user in forgotten:
        oracle.last.pop(user, None)
    fold(histories, oracle, after)
    starts = np.array([oracle.last.get(user, MISSING) for user in range(4)])
    gathered = histories.gather(starts, 50, np.zeros(5, np.int64))
    mine = [[s for s in oracle.chain(start) if s >= len(before) or s not in theirs] for start in starts.tolist()]
    assert [[s for s in line if s != MISSING] for line in gathered.serial.tolist()] == mine


@settings(derandomize=True, deadline=None, max_examples=70)
@given(st.integers(3, 12), EVENTS, st.integers(0, 3), EVENTS, st.integers(0, 4), st.integers(1, 2))
def test_a_ring_restored_after_a_forget_goes_on_as_if_never_stopped(capacity, before, user, after, item, order):
    histories, oracle, fresh = Histories(capacity), Oracle(capacity), Histories(capacity)
    fold(histories, oracle, before)
    histories.forget([oracle.last.get(user, MISSING)])
    fresh.restore(histories.snapshot())
    found = []
    for ring in (histories, fresh):
        found.append([ring.retract(MISSING, item, order)])
        for who, item_, kind, order_ in after:
            ring.append(HistoryRow(item_, 0, kind, visit=0, order=order_, prev=MISSING, user=who))
            found[-1].append(ring.retract(MISSING, item, order))
    assert found[0] == found[1]
    assert digest(fresh.snapshot()) == digest(histories.snapshot())


def test_a_refund_does_not_find_what_a_forgotten_user_bought():
    histories = filled([(0, 1, Kind.PURCHASE, 5), (1, 1, Kind.PURCHASE, 5)])
    histories.forget([0])
    assert [histories.retract(MISSING, 1, 5) for _ in range(2)] == [1, MISSING]


def test_what_forgotten_users_bought_takes_no_room_in_the_index():
    histories = Histories(20)
    for _ in range(100):
        serial = histories.append(HistoryRow(1, 0, Kind.PURCHASE, visit=0, order=5, prev=MISSING, user=0))
        histories.forget([serial])
    assert histories._bought.n_overflowed == 0


def test_a_forgotten_history_longer_than_a_refund_looks_back_goes_whole():
    histories, oracle = Histories(100, max_steps=3), Oracle(100)
    fold(histories, oracle, [(0, 1, Kind.CLICK, 0)] * 9)
    assert histories.forget([8]) == 9
    assert not histories.live.any()


def test_the_pointer_above_a_row_is_its_user_s_newest_row_before_a_serial():
    histories = filled([(0, 1, Kind.PURCHASE, 5), (1, 2, Kind.CLICK, 0), (0, 3, Kind.CLICK, 0), (0, 4, Kind.CLICK, 0)])
    assert [histories.pointer_above(0, 3, before) for before in (1, 2, 3, 4)] == [0, 0, 2, 3]
    assert histories.pointer_above(0, 1, 4) == MISSING


def test_a_refund_looks_at_a_bounded_number_of_rows():
    histories, oracle = Histories(100, max_steps=3), Oracle(100)
    fold(histories, oracle, [(0, 1, Kind.PURCHASE, 5), *[(0, 2, Kind.CLICK, 0)] * 3])
    assert histories.retract(3, 1, 0) == MISSING
    assert histories.retract(2, 1, 0) == 0


def test_an_overwritten_row_is_gone():
    histories = filled([(0, 1, Kind.CLICK, 0)] * 5, capacity=3)
    assert [histories.row(s) is None for s in (-1, 1, 2, 4, 5)] == [True, True, False, False, True]
    assert histories.gather(np.array([4, 1]), 10).serial.tolist() == [[4, 3, 2], [MISSING] * 3]


def test_a_tick_larger_than_the_ring_is_refused():
    many = np.zeros(4, np.int64)
    with pytest.raises(ValueError, match="capacity"):
        Histories(3).append_many(NewRows(*[many] * 7))
