import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_rec.component import digest
from stream_rec.events import MISSING
from stream_rec.stream.users import Users
from stream_rec.stream.visits import chain

EVENT = st.tuples(st.integers(-1, 3), st.integers(0, 2), st.integers(0, 60), st.booleans())
"""User row or MISSING, session (0 none), event time in minutes, positive."""
TICKS = st.lists(st.lists(EVENT, max_size=12), max_size=6)
MINUTE = 60_000


def some_users():
    users = Users(8)
    users.rows([bytes([n]) * 16 for n in range(4)], np.zeros(4, np.int64), [0] * 4)
    return users


class Oracle:
    def __init__(self):
        self.open, self.last, self.started, self.serial = {}, {}, 0, 0

    def event(self, user, session, minute, positive):
        """(serial, opened, visit's pointer, own pointer) by the words of the definition."""
        pointer = self.last.get(user, MISSING) if user != MISSING else MISSING
        self.serial += positive
        if user == MISSING:
            return MISSING, False, MISSING, MISSING
        if positive:
            self.last[user] = self.serial - 1
        visit = self.open.get(user)
        goes_on = visit is not None and (visit["session"] == session if session else minute - visit["newest"] <= 30)
        if not goes_on:
            visit = self.open[user] = {"n": self.started, "session": session, "newest": minute, "before": pointer}
            self.started += 1
        visit["newest"] = max(visit["newest"], minute)
        return visit["n"], not goes_on, visit["before"], pointer


def arrays(tick):
    rows = np.array([e[0] for e in tick], np.int32)
    at_ms = np.array([e[2] * MINUTE for e in tick], np.int64)
    return rows, [e[1] for e in tick], at_ms, np.array([e[3] for e in tick], np.bool_)


@settings(derandomize=True, deadline=None, max_examples=120)
@given(TICKS)
def test_visits_and_pointers_equal_a_plain_dict_event_by_event(ticks):
    users, oracle, next_serial = some_users(), Oracle(), 0
    for tick in ticks:
        rows, sessions, at_ms, positive = arrays(tick)
        before = users.link(rows, positive, next_serial)
        visits = users.visits(rows, sessions, at_ms, before)
        next_serial += int(positive.sum())
        got = list(zip(*(column.tolist() for column in (*visits, before)), strict=True))
        assert got == [oracle.event(*event) for event in tick]


@settings(derandomize=True, deadline=None, max_examples=70)
@given(st.lists(EVENT, max_size=20), st.integers(0, 20))
def test_the_cut_into_ticks_does_not_matter(events, cut):
    whole, parts = some_users(), some_users()
    for users, ticks in ((whole, [events]), (parts, [events[:cut], events[cut:]])):
        next_serial = 0
        for tick in ticks:
            rows, sessions, at_ms, positive = arrays(tick)
            users.visits(rows, sessions, at_ms, users.link(rows, positive, next_serial))
            next_serial += int(positive.sum())
    assert digest(whole.snapshot()) == digest(parts.snapshot())


@settings(derandomize=True, deadline=None, max_examples=70)
@given(TICKS)
def test_the_visits_of_a_user_are_counted(ticks):
    users, opened = some_users(), np.zeros(8, np.int64)
    for tick in ticks:
        rows, sessions, at_ms, positive = arrays(tick)
        visits = users.visits(rows, sessions, at_ms, users.link(rows, positive, 0))
        np.add.at(opened, rows[visits.opened], 1)
    assert users.n_visits.tolist() == opened.tolist()


def test_a_visit_starts_at_the_time_of_its_first_event():
    users = some_users()
    rows, at_ms = np.array([1, 1, 1], np.int32), np.array([40, 30, 50]) * MINUTE
    users.visits(rows, [5, 5, 6], at_ms, np.array([3, 4, 9]))
    assert (users.visit_start_ms[1], users.visit_before[1], users.visit_key[1]) == (50 * MINUTE, 9, 6)
    users.visits(rows[:1], [6], at_ms[:1], np.array([12]))
    assert (users.visit_start_ms[1], users.visit_before[1], users.visit_last_ms[1]) == (50 * MINUTE, 9, 50 * MINUTE)


def test_a_gap_of_exactly_thirty_minutes_does_not_end_a_visit():
    users = some_users()
    assert [users.visit(0, 0, at, MISSING) for at in (0, 30 * MINUTE, 60 * MINUTE + 1)] == [True, False, True]


def test_a_session_goes_on_over_any_gap():
    users = some_users()
    assert [users.visit(0, 5, at, MISSING) for at in (0, 300 * MINUTE)] == [True, False]


def test_another_session_is_another_visit_at_once():
    users = some_users()
    assert [users.visit(0, session, 0, MISSING) for session in (5, 6)] == [True, True]


def test_an_event_without_session_goes_on_with_the_open_visit():
    users = some_users()
    assert [users.visit(0, session, 0, MISSING) for session in (5, 0, 5)] == [True, False, False]


def test_an_event_out_of_order_does_not_stretch_the_gap():
    users = some_users()
    minutes = (40, 35, 70)
    assert [users.visit(0, 0, minute * MINUTE, MISSING) for minute in minutes] == [True, False, False]


def test_a_positive_event_without_a_user_takes_a_serial_and_chains_to_nobody():
    last_row = np.array([MISSING, 3])
    before = chain(last_row, np.array([MISSING, 1, MISSING, 1]), np.array([True, True, True, True]), 10)
    assert before.tolist() == [MISSING, 3, MISSING, 11]
    assert last_row.tolist() == [MISSING, 13]
