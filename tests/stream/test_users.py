import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_rec.component import digest
from stream_rec.events import MISSING
from stream_rec.stream.users import Users


def key_of(n):
    """Keys that share their first word in pairs, so that the second one has to be compared."""
    return (n // 2).to_bytes(8, "little") + n.to_bytes(8, "big")


TICK = st.lists(st.one_of(st.none(), st.integers(0, 25)), max_size=8)
TICKS = st.lists(TICK, max_size=12)


def take(users, tick, at_ms=1_000):
    """Rows of a tick in which user `n` is a session when `n` is odd."""
    keys = [None if n is None else key_of(n) for n in tick]
    return users.rows(keys, np.full(len(tick), at_ms, np.int64), [0 if n is None else n % 2 for n in tick])


class Oracle:
    """Least recently seen users make room: the 1 % rule is one row at these capacities, so exactly the shortage."""

    def __init__(self, capacity):
        self.capacity, self.seen = capacity, {}

    def take(self, tick):
        known = [n for n in tick if n in self.seen]
        for n in known:
            self.seen[n] = self.seen.pop(n)
        new = list(dict.fromkeys(n for n in tick if n is not None and n not in self.seen))
        gone = list(self.seen)[: max(0, len(self.seen) + len(new) - self.capacity)]
        for n in gone:
            del self.seen[n]
        for n in tick:
            if n is not None:
                self.seen.pop(n, None)
                self.seen[n] = True
        return gone


@settings(derandomize=True, deadline=None, max_examples=120)
@given(st.integers(8, 20), TICKS)
def test_the_users_in_the_table_are_the_ones_seen_last(capacity, ticks):
    users, oracle = Users(capacity), Oracle(capacity)
    for tick in ticks:
        rows_before = {n: users.find(key_of(n)) for n in oracle.seen}
        rows = take(users, tick)
        gone = oracle.take(tick)
        assert users.take_evicted() == sorted(rows_before[n] for n in gone)
        assert [n for n in range(26) if users.find(key_of(n)) != MISSING] == sorted(oracle.seen)
        assert rows.tolist() == [MISSING if n is None else users.find(key_of(n)) for n in tick]
        assert users.n_users == len(oracle.seen) == len(users.known_rows())


@settings(derandomize=True, deadline=None, max_examples=70)
@given(st.integers(8, 20), TICKS, TICKS, st.lists(st.integers(0, 25), unique=True, max_size=8))
def test_restored_users_go_on_like_ones_that_never_stopped(capacity, before, after, forgotten):
    users, fresh = Users(capacity), Users(capacity)
    for tick in before:
        take(users, tick)
    for n in forgotten:
        if (row := users.find(key_of(n))) != MISSING:
            users.forget(row)
    fresh.restore(users.snapshot())
    assert digest(fresh.snapshot()) == digest(users.snapshot())
    for tick in after:
        assert take(fresh, tick).tolist() == take(users, tick).tolist()
        assert fresh.next_known(3).tolist() == users.next_known(3).tolist()
    assert digest(fresh.snapshot()) == digest(users.snapshot())


@settings(derandomize=True, deadline=None, max_examples=70)
@given(st.integers(8, 20), TICKS, st.integers(1, 9))
def test_a_round_of_slates_reaches_every_known_user_once(capacity, ticks, n):
    users = Users(capacity)
    for tick in ticks:
        take(users, tick)
    known = users.known_rows().tolist()
    turns = [row for _ in range(-(-len(known) // n)) for row in users.next_known(n).tolist()]
    assert set(turns) == set(known)
    assert len(turns) < len(known) + n
    assert len(turns[: len(known)]) == len(set(turns[: len(known)]))


@settings(derandomize=True, deadline=None, max_examples=70)
@given(st.integers(8, 20), TICKS)
def test_rows_outside_the_table_are_blank(capacity, ticks):
    users = Users(capacity)
    for tick in ticks:
        take(users, tick)
    free = np.setdiff1d(np.arange(capacity), users.known_rows())
    assert not any(getattr(users, name)[free].any() for name in users.columns)


def test_a_row_in_use_again_has_a_later_birth_and_nothing_of_its_former_user():
    users = Users(8)
    row = users.row(key_of(1), 5_000, 0)
    users.visit(row, 7, 5_000, 3)
    users.last_row[row] = 3
    born = int(users.born[row])
    users.forget(row)
    assert users.row(key_of(2), 1_000, 0) == row
    assert users.born[row] > born
    assert (users.last_row[row], users.visit_serial[row], users.seen_at_ms[row]) == (MISSING, MISSING, 1_000)
    assert users.find(key_of(1)) == MISSING


def test_free_rows_are_taken_lowest_first():
    users = Users(8)
    take(users, range(6))
    for row in (4, 1, 3):
        users.forget(row)
    assert take(users, [20, 21, 22, 23]).tolist() == [1, 3, 4, 6]


def test_users_that_differ_only_in_the_second_half_of_the_key_get_rows_of_their_own():
    users = Users(8)
    assert take(users, [0, 1, 0]).tolist() == [0, 1, 0]


def test_orders_get_no_slate_of_their_own():
    users = Users(8)
    users.rows([key_of(n) for n in range(4)], np.zeros(4, np.int64), [0, 1, 2, 0])
    assert users.next_known(10).tolist() == [0, 1, 3]


def test_the_last_sight_of_a_user_is_the_latest_event_time_not_the_latest_arrival():
    users = Users(8)
    rows = users.rows([key_of(1)] * 3, np.array([10, 30, 20]), [0] * 3)
    assert users.seen_at_ms[rows[0]] == 30


@settings(derandomize=True, deadline=None, max_examples=70)
@given(st.integers(8, 20), TICKS, TICKS, st.lists(st.integers(0, 25), unique=True, max_size=8))
def test_forgetting_many_equals_forgetting_one_by_one(capacity, before, after, forgotten):
    one, many = Users(capacity), Users(capacity)
    for users in (one, many):
        for tick in before:
            take(users, tick)
        users.take_evicted()
    rows = sorted(row for n in forgotten if (row := one.find(key_of(n))) != MISSING)
    for row in rows:
        one.forget(row)
    many.forget_many(rows[::-1])
    assert digest(many.snapshot()) == digest(one.snapshot())
    assert [take(many, tick).tolist() for tick in after] == [take(one, tick).tolist() for tick in after]


def test_a_forgotten_user_is_reported_once():
    users = Users(8)
    row = users.row(key_of(1), 0, 0)
    users.forget(row)
    users.forget(row)
    assert users.take_evicted() == [row]
    assert users.take_evicted() == []


def test_a_full_table_frees_one_row_in_a_hundred_at_once():
    users = Users(1_000)
    users.rows([key_of(n) for n in range(1_000)], np.zeros(1_000, np.int64), [0] * 1_000)
    users.row(key_of(5_000), 0, 0)
    assert users.take_evicted() == list(range(10))
    assert users.n_users == 991


def test_a_tick_with_more_users_than_rows_is_refused():
    with pytest.raises(ValueError, match=r"users\.capacity"):
        take(Users(3), [1, 2, 3, 4])


def test_no_events_change_nothing():
    users = Users(8)
    before = digest(users.snapshot())
    assert len(take(users, [])) == len(users.link(np.empty(0, np.int32), np.empty(0, np.bool_), 5)) == 0
    assert len(users.visits(np.empty(0, np.int32), [], np.empty(0, np.int64), np.empty(0, np.int64)).serial) == 0
    assert digest(users.snapshot()) == before
