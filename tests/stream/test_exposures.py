"""Claims about the tables under the joiner: exposures linked by user, and actions that came too early."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from stream_rec.component import digest
from stream_rec.events import MISSING
from stream_rec.stream.decisions import Decisions
from stream_rec.stream.early import EarlyFeedback
from stream_rec.stream.exposures import Exposures

STEP = st.one_of(
    st.tuples(st.just("open"), st.integers(0, 2), st.integers(1, 4), st.integers(0, 20)),
    st.tuples(st.just("close"), st.integers(0, 20)),
    st.tuples(st.just("mature"), st.integers(0, 20)),
    st.tuples(st.just("forget"), st.integers(0, 2)),
)


def chain(exposures: Exposures, user: int) -> list[int]:
    """Arrival numbers of a user's exposures, newest first."""
    row, out = exposures.newest(user), []
    while row != MISSING:
        assert len(out) < exposures.capacity, "the chain runs in a circle"
        out.append(int(exposures.serial[row]))
        row = int(exposures.older[row]) - 1
    return out


def perform(exposures: Exposures, steps: list[tuple]) -> list[object]:
    said: list[object] = []
    for word, *rest in steps:
        if word == "open":
            user, key, at_ms = rest
            evicted = exposures.make_room(1)
            said.append(None if evicted is None else evicted.at_ms.tolist())
            exposures.show(exposures.open(key, key, user, at_ms=at_ms), [key, 9], [0, 1])
        elif word == "forget":
            said.append(exposures.forget_users(rest).at_ms.tolist())
        else:
            said.append([column.tolist() for column in getattr(exposures, word)(rest[0])])
    return said


class Oracle:
    """Exposures in a list: [serial, user, key, at_ms, matured, found by its key]."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.held, self.n = capacity, [], 0

    def perform(self, steps: list[tuple]) -> list[list[int]]:
        """Times of what each `mature` and `close` handed out."""
        out = []
        for word, *rest in steps:
            if word == "open":
                user, key, at_ms = rest
                if len(self.held) == self.capacity:
                    self.held.remove(min(self.held, key=lambda e: e[3]))
                for entry in self.held:
                    entry[5] &= entry[2] != key
                self.n += 1
                self.held.append([self.n, user, key, at_ms, False, True])
            elif word == "forget":
                self.held = [e for e in self.held if e[1] != rest[0]]
            elif word == "close":
                out.append(sorted(e[3] for e in self.held if e[3] < rest[0]))
                self.held = [e for e in self.held if e[3] >= rest[0]]
            else:
                ripe = [e for e in self.held if e[3] < rest[0] and not e[4]]
                out.append(sorted(e[3] for e in ripe))
                for entry in ripe:
                    entry[4] = True
        return out


def in_time(steps: list[tuple]) -> list[tuple]:
    """The same steps in a time that goes on: a list is shown up to 20 steps ago, at a time of its own."""
    out = []
    for k, (word, *rest) in enumerate(steps):
        if word == "forget":
            out.append((word, *rest))
        else:
            out.append((word, *rest[:-1], 100 * (k - rest[-1]) + k * (word == "open")))
    return out


STEPS = st.lists(STEP, min_size=8, max_size=50).map(in_time)


@settings(derandomize=True, deadline=None, max_examples=250)
@given(STEPS, st.integers(1, 8))
def test_exposures_equal_a_list_with_the_same_rules(steps: list[tuple], capacity: int) -> None:
    exposures, oracle = Exposures(capacity, 3), Oracle(capacity)
    said = [s[3] for s, (word, *_) in zip(perform(exposures, steps), steps, strict=True) if word in ("close", "mature")]
    assert said == oracle.perform(steps)
    for user in range(3):
        assert chain(exposures, user) == sorted((e[0] for e in oracle.held if e[1] == user), reverse=True)
    for key in range(1, 5):
        row = exposures.find(key)
        found = [e[0] for e in oracle.held if e[2] == key and e[5]]
        assert ([] if row == MISSING else [int(exposures.serial[row])]) == found


@settings(derandomize=True, deadline=None, max_examples=150)
@given(STEPS, st.integers(1, 8))
def test_exposures_restored_at_any_step_find_the_same(steps: list[tuple], capacity: int) -> None:
    exposures, twin = Exposures(capacity, 3), Exposures(capacity, 3)
    for step in steps:
        perform(exposures, [step])
        twin.restore(exposures.snapshot())
        assert digest(twin.snapshot()) == digest(exposures.snapshot())
        assert [twin.find(key) for key in range(1, 5)] == [exposures.find(key) for key in range(1, 5)]
        assert [chain(twin, user) for user in range(3)] == [chain(exposures, user) for user in range(3)]


@settings(derandomize=True, deadline=None, max_examples=150)
@given(STEPS, st.integers(0, 50), st.integers(1, 8))
def test_restored_exposures_go_on_as_if_never_stopped(steps: list[tuple], cut: int, capacity: int) -> None:
    exposures, twin = Exposures(capacity, 3), Exposures(capacity, 3)
    perform(exposures, steps[:cut])
    twin.restore(exposures.snapshot())
    assert perform(twin, steps[cut:]) == perform(exposures, steps[cut:])
    assert digest(twin.snapshot()) == digest(exposures.snapshot())


def test_exposure_shown_exactly_at_the_bound_waits_on() -> None:
    exposures = Exposures(4, 2)
    perform(exposures, [("open", 0, 1, 9), ("open", 1, 2, 10)])
    assert exposures.mature(10).at_ms.tolist() == [9]
    assert exposures.close(10).at_ms.tolist() == [9]


def test_item_shown_twice_keeps_its_first_position() -> None:
    exposures = Exposures(4, 3)
    row = exposures.open(1, 1, 0, at_ms=0)
    assert exposures.show(row, [7, 7, 8], [4, 5, MISSING]) == 0
    assert (exposures.items[row].tolist(), exposures.positions[row].tolist()) == ([7, 8, MISSING], [4, 2, MISSING])


def test_items_beyond_the_slots_are_counted() -> None:
    exposures = Exposures(4, 2)
    row = exposures.open(1, 1, 0, at_ms=0)
    assert (exposures.show(row, [7, 8, 9], [0, 1, 2]), exposures.show(row, [5], [0])) == (1, 1)


EARLY = st.one_of(
    st.tuples(st.just("keep"), st.integers(1, 3), st.integers(0, 3)),
    st.tuples(st.just("take"), st.integers(1, 3), st.just(0)),
    st.tuples(st.just("forget"), st.just(0), st.integers(0, 3)),
)
"""A user acts on the item of the same number."""


def wait(early: EarlyFeedback, steps: list[tuple], *, start: int = 0) -> list[list[tuple[int, int, int]]]:
    out = []
    for k, (word, key, item) in enumerate(steps, start):
        if word == "keep":
            early.keep(key, item, item, kind=2, at_ms=k)
        elif word == "forget":
            early.forget_users([item])
        else:
            out.append(early.take(key))
    return out


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.lists(EARLY, max_size=40), st.integers(0, 40), st.integers(1, 5))
def test_early_actions_wait_in_order_until_taken_overtaken_or_forgotten(
    steps: list[tuple], cut: int, capacity: int
) -> None:
    ring, expected = [], []
    for k, (word, key, item) in enumerate(steps):
        if word == "keep":
            ring = [*ring, (key, item, k)][-capacity:]
        elif word == "forget":
            ring = [(0, 0, 0) if entry[1] == item else entry for entry in ring]
        else:
            expected.append([(item, 2, at) for held, item, at in ring if held == key])
            ring = [(0, 0, 0) if entry[0] == key else entry for entry in ring]
    early, twin = EarlyFeedback(capacity), EarlyFeedback(capacity)
    said = wait(early, steps[:cut])
    twin.restore(early.snapshot())
    assert said + wait(twin, steps[cut:], start=cut) == expected
    wait(early, steps[cut:], start=cut)
    assert digest(early.snapshot()) == digest(twin.snapshot())


def test_a_forgotten_user_leaves_nothing_among_early_actions() -> None:
    early = EarlyFeedback(4)
    for user in (1, 2, 1):
        early.keep(7, user, user + 10, kind=2, at_ms=user)
    early.forget_users([1])
    assert {name: getattr(early, name).tolist() for name in early.columns} == {
        "key": [0, 7, 0, 0], "user": [0, 2, 0, 0], "item": [0, 12, 0, 0], "kind": [0, 2, 0, 0], "at_ms": [0, 2, 0, 0]
    }  # fmt: skip


SLATE = st.tuples(st.integers(-1, 3), st.integers(1, 2), st.integers(0, 30))


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.lists(st.one_of(SLATE, st.integers(-1, 3)), min_size=5, max_size=40), st.integers(3, 8))
def test_decisions_restored_at_any_step_serve_the_same(steps: list[tuple | int], capacity: int) -> None:
    decisions, twin = Decisions(capacity, 2), Decisions(capacity, 2)
    for k, step in enumerate(steps):
        if isinstance(step, int):
            decisions.forget_users([step])
        else:
            decisions.publish(step[0], step[1], step[2], at_ms=k, items=[k])
        twin.restore(decisions.snapshot())
        asked = [(user, born, at) for user in range(-1, 4) for born in (1, 2) for at in (k, k + 1)]
        assert [twin.in_force(*a, 99) for a in asked] == [decisions.in_force(*a, 99) for a in asked]
        assert [twin.find(d) for d in range(31)] == [decisions.find(d) for d in range(31)]


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.lists(SLATE, max_size=40, unique_by=lambda s: s[2]))
def test_slate_in_force_is_the_newer_of_the_users_last_two_before(slates: list[tuple]) -> None:
    decisions = Decisions(64, 2)
    published: dict[int, list[tuple[int, int]]] = {}
    for k, (user, born, decision) in enumerate(slates):
        decisions.publish(user, born, decision, at_ms=k, items=[k])
        last = [entry for entry in published.get(user, []) if entry[0] == born]
        published[user] = [*last, (born, k)][-2:]
    for user in range(-1, 4):
        for at_ms in range(len(slates) + 1):
            before = [k for born, k in published.get(user, []) if born == 1 and k < at_ms]
            row = decisions.in_force(user, 1, at_ms, 99)
            assert ([] if row == MISSING else [int(decisions.items[row, 0])]) == before[-1:]


LISTS = st.lists(st.tuples(st.integers(-1, 3), st.lists(st.integers(0, 30), max_size=3, unique=True)), max_size=12)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(LISTS, st.lists(st.integers(-1, 40), max_size=16))
def test_item_is_found_and_taken_out_wherever_a_slate_names_it(slates: list[tuple], items: list[int]) -> None:
    decisions, held = Decisions(16, 3), {}
    for k, (user, listed) in enumerate(slates):
        decisions.publish(user, 1, k + 1, at_ms=k, items=listed)
        held[user] = [*held.get(user, []), (k + 1, listed)][-2:]
    newest = {user: lists[-1][1] for user, lists in held.items() if user >= 0}
    assert decisions.holding(items).tolist() == sorted(u for u, listed in newest.items() if set(listed) & set(items))
    decisions.forget_items(items)
    for _, lists in sorted(held.items()):
        for decision, listed in lists:
            left = [MISSING if item in items else item for item in listed]
            assert decisions.items[decisions.find(decision)].tolist() == (left + [MISSING] * 3)[:3]
    twin = Decisions(16, 3)
    twin.restore(decisions.snapshot())
    assert digest(twin.snapshot()) == digest(decisions.snapshot())
