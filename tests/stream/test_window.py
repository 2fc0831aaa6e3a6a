"""Claims about the sliding window."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_rec.component import digest
from stream_rec.stream.examples import EXAMPLE_COLUMNS
from stream_rec.stream.window import SlidingWindow

Row = tuple[int, int, int]
"""(at_ms, event, item)"""


def batch(rows: list[Row], **columns: list[int]) -> dict[str, np.ndarray]:
    out = {name: np.zeros(len(rows), dtype) for name, dtype in EXAMPLE_COLUMNS}
    if rows:
        out["at_ms"], out["event"], out["item"] = (
            np.array(c, out[n].dtype) for c, n in zip(zip(*rows, strict=True), ("at_ms", "event", "item"), strict=True)
        )
    out["order"], out["user_born"] = out["event"] // 2, out["event"].astype(np.int64)
    return out | {name: np.array(values, out[name].dtype) for name, values in columns.items()}


def content(window: SlidingWindow) -> list[Row]:
    rows = window.rows()
    return sorted(
        zip(window.at_ms[rows].tolist(), window.event[rows].tolist(), window.item[rows].tolist(), strict=True)
    )


def small(capacity: int, *, spare: int, length_ms: int = 50) -> SlidingWindow:
    """A window whose columns are only `spare` rows longer than its capacity, so that it packs often."""
    window = SlidingWindow(capacity, length_ms=length_ms)
    window.capacity = capacity + spare
    return window


def test_every_column_comes_back_as_it_was_added() -> None:
    window = SlidingWindow(10)
    given_ = {name: np.array([k + 1], dtype) for k, (name, dtype) in enumerate(EXAMPLE_COLUMNS)}
    window.add(given_)
    assert {name: column.tolist() for name, column in window.view(window.rows()).items()} == {
        name: column.tolist() for name, column in given_.items()
    }


def test_example_exactly_as_old_as_the_window_is_long_stays() -> None:
    window = SlidingWindow(10, length_ms=50)
    window.add(batch([(9, 1, 1), (10, 2, 1)]))
    window.evict(60)
    assert content(window) == [(10, 2, 1)]
    assert window.add(batch([(9, 3, 1), (10, 4, 1)])) == 1


def test_watermark_never_moves_back() -> None:
    window = SlidingWindow(10, length_ms=50)
    window.evict(100)
    window.evict(60)
    assert window.add(batch([(20, 1, 1)])) == 0


def test_example_older_than_one_dropped_by_count_is_not_let_in() -> None:
    window = small(2, spare=1)
    window.add(batch([(10, 1, 1), (20, 1, 1), (30, 1, 1), (40, 1, 1)]))
    window.retract_event([40], [9])
    assert content(window) == [(30, 1, 1), (40, 1, 1)]
    assert window.add(batch([(5, 1, 1)])) == 0


def test_refund_takes_the_newest_event_of_the_order_and_item_with_all_its_examples() -> None:
    window = SlidingWindow(10)
    window.add(batch([(1, 4, 7), (2, 5, 7), (2, 5, 7), (3, 6, 7), (3, 5, 8)]))
    assert window.retract([2, 2, 0], [7, 9, 7]) == 1
    assert content(window) == [(1, 4, 7), (3, 5, 8), (3, 6, 7)]
    assert window.retract([2, 2], [7, 7]) == 1
    assert content(window) == [(3, 5, 8), (3, 6, 7)]


def test_examples_without_an_order_are_retracted_by_event_only() -> None:
    window = SlidingWindow(10)
    window.add(batch([(1, 1, 7)]))
    assert window.retract([0], [7]) == 0
    assert window.retract_event([1, 1], [7, 8]) == 1
    assert content(window) == []


def test_forgotten_users_and_items_leave_no_example() -> None:
    window = SlidingWindow(10)
    window.add(batch([(1, 1, 7), (1, 2, 8), (1, 3, 9)], user_born=[1, 2, 2]))
    assert (window.forget_users([1]), window.forget_items([9, -1])) == (1, 1)
    assert content(window) == [(1, 2, 8)]


def test_a_forgotten_user_leaves_nothing_in_the_window() -> None:
    """Neither what counted, nor what had been taken back, nor what was too old already."""
    window = SlidingWindow(10, length_ms=50)
    full = {name: [5] * 4 for name, _ in EXAMPLE_COLUMNS if name not in ("at_ms", "event", "item")}
    window.add(batch([(10, 6, 7), (100, 1, 7), (100, 2, 8), (100, 3, 9)], **full | {"user_born": [5, 5, 4, 5]}))
    window.retract_event([3], [9])
    window.evict(100)
    assert window.forget_users([5]) == 2
    left = {name: getattr(window, name)[: window.n_rows] for name in window.columns}
    assert {name: column.astype(bool).tolist() for name, column in left.items()} == {
        name: [False, False, True, False] for name in left
    }


def test_forgetting_a_user_spares_who_had_the_row_before() -> None:
    window = SlidingWindow(10)
    window.add(batch([(1, 1, 7), (1, 2, 8)], user=[3, 3], user_born=[1, 2]))
    window.forget_users([2])
    assert content(window) == [(1, 1, 7)]


ROW = st.tuples(st.integers(0, 100), st.integers(0, 5), st.integers(0, 2))
STEP = st.one_of(
    st.tuples(st.just("add"), st.lists(ROW, max_size=12)),
    st.tuples(st.just("evict"), st.integers(0, 120)),
    st.tuples(st.just("read")),
)
RETRACTION = st.one_of(
    st.tuples(st.just("retract"), st.integers(0, 3), st.integers(0, 2)),
    st.tuples(st.just("event"), st.integers(0, 5), st.integers(0, 2)),
)


def perform(window: SlidingWindow, steps: list[tuple]) -> list[object]:
    said: list[object] = []
    for word, *rest in steps:
        if word == "add":
            window.add(batch(rest[0]))
        elif word == "evict":
            window.evict(rest[0])
        elif word == "retract":
            said.append(window.retract([rest[0]], [rest[1]]))
        elif word == "event":
            said.append(window.retract_event([rest[0]], [rest[1]]))
        else:
            said.append(content(window))
    return said


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.lists(STEP, max_size=25), st.integers(1, 12), st.integers(1, 5))
def test_window_is_the_newest_of_what_was_added_and_is_young_enough(
    steps: list[tuple], capacity: int, spare: int
) -> None:
    window = small(capacity, spare=spare)
    perform(window, steps)
    added = [row for word, *rest in steps if word == "add" for row in rest[0]]
    watermark = max((rest[0] for word, *rest in steps if word == "evict"), default=-(2**40))
    # A row may be refused by the watermark of its day and so is too old at the end as well: the last word decides.
    young = sorted(row for row in added if row[0] >= watermark - window.length_ms)
    assert content(window) == young[-capacity:]
    assert len(window) <= capacity


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.lists(ROW, max_size=60), st.integers(1, 12), st.randoms(use_true_random=False))
def test_arrival_order_within_the_bound_does_not_change_the_window(rows: list[Row], capacity: int, rng) -> None:
    bound_ms = 20
    rows = sorted(rows)
    delayed = sorted((row[0] + rng.randint(0, bound_ms), rng.random(), row) for row in rows)

    def windowed(arrivals: list[Row], chunk: int) -> list[Row]:
        window, newest = small(capacity, spare=3), -(2**40)
        for start in range(0, len(arrivals), chunk):
            part = arrivals[start : start + chunk]
            window.add(batch(part))
            newest = max(newest, *(row[0] for row in part))
            window.evict(newest - bound_ms)
        return content(window)

    assert windowed([row for *_, row in delayed], 3) == windowed(rows, 7)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.lists(st.one_of(STEP, RETRACTION), max_size=30), st.integers(0, 30), st.integers(1, 12), st.integers(1, 5))
def test_restored_window_goes_on_as_if_never_stopped(steps: list[tuple], cut: int, capacity: int, spare: int) -> None:
    window, twin = small(capacity, spare=spare), small(capacity, spare=spare)
    perform(window, steps[:cut])
    perform(twin, steps[cut:])
    twin.restore(window.snapshot())
    assert digest(twin.snapshot()) == digest(window.snapshot())
    assert perform(twin, [*steps[cut:], ("read",)]) == perform(window, [*steps[cut:], ("read",)])
    assert digest(twin.snapshot()) == digest(window.snapshot())


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.lists(STEP, max_size=30), st.lists(STEP, max_size=30), st.integers(1, 12), st.integers(1, 5))
def test_a_window_goes_on_after_a_forget_as_it_does_after_taking_all_of_the_user_back(
    before: list[tuple], after: list[tuple], capacity: int, spare: int
) -> None:
    """Users are told by the event here; a restored window goes on the same."""
    window, other, twin = small(capacity, spare=spare), small(capacity, spare=spare), small(capacity, spare=spare)
    for each in (window, other):
        perform(each, before)
    window.forget_users([1, 3])
    other.retract_event(np.repeat([1, 3], 3), np.tile([0, 1, 2], 2))
    twin.restore(window.snapshot())
    assert perform(window, [*after, ("read",)]) == perform(other, [*after, ("read",)])
    perform(twin, [*after, ("read",)])
    assert digest(twin.snapshot()) == digest(window.snapshot())


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.lists(ROW, max_size=25, unique_by=lambda r: (r[1], r[2])), st.lists(RETRACTION, max_size=6))
def test_retraction_equals_never_having_added_what_it_found(rows: list[Row], retractions: list[tuple]) -> None:
    window, kept = SlidingWindow(100, length_ms=10**6), sorted(rows)
    window.add(batch(rows))
    for word, number, item in retractions:
        hits = [
            r
            for r in kept
            if r[2] == item
            and ((word == "event" and r[1] == number) or (word == "retract" and number and r[1] // 2 == number))
        ]
        lost = hits if word == "event" else hits[-1:]
        assert perform(window, [(word, number, item)]) == [len(lost)]
        kept = [r for r in kept if r not in lost]
    assert content(window) == kept
