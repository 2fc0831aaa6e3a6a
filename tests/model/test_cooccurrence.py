"""Pair counts: exact when dense, the strongest when sparse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_rec.component import digest
from stream_rec.model.cooccurrence import Cooccurrence

N = 8
PAIRS = st.lists(st.tuples(st.integers(0, N - 1), st.integers(0, N - 1)), max_size=60)


def add(together: Cooccurrence, pairs: list[tuple[int, int]], sign: int = 1) -> None:
    a, b = (np.array([p[side] for p in pairs], np.int32) for side in (0, 1))
    together.add(a, b, N, sign=sign)


def partners_of(together: Cooccurrence, item: int) -> list[float]:
    one = np.array([item], np.int32), np.ones(1, np.float32), np.zeros(1, np.int64)
    return list(together.sums(*one, n_users=1, n_items=N)[0].tolist())


def brute(pairs: list[tuple[int, int]], item: int) -> list[float]:
    return [float(sum(((a, b) == (item, j)) + ((b, a) == (item, j)) for a, b in pairs)) for j in range(N)]


@settings(derandomize=True, deadline=None)
@given(PAIRS, st.sampled_from([N, 2]))
def test_counts_equal_a_count_by_hand_dense_and_sparse(pairs: list[tuple[int, int]], exact_items: int) -> None:
    together = Cooccurrence(exact_items, n_neighbours=N)
    for pair in pairs:
        add(together, [pair])
    assert together.exact == (exact_items >= N or not pairs)
    for item in range(N):
        assert partners_of(together, item) == brute(pairs, item)


def test_the_conversion_keeps_what_was_counted() -> None:
    together = Cooccurrence(exact_items=N, n_neighbours=N)
    add(together, [(0, 1), (0, 1), (2, 0)])
    before = partners_of(together, 0)
    together.add(np.zeros(0, np.int32), np.zeros(0, np.int32), N + 1)
    assert not together.exact
    assert partners_of(together, 0) == before
    assert together.partners(np.array([0], np.int32), 1).tolist() == [1]


def test_a_newcomer_takes_the_place_of_the_weakest_partner() -> None:
    together = Cooccurrence(exact_items=1, n_neighbours=2)
    add(together, [(0, 1)] * 3 + [(0, 2)])
    add(together, [(0, 3)] * 2)
    assert partners_of(together, 0) == [0, 3, 0, 2, 0, 0, 0, 0]


def test_a_directed_pair_counts_one_way_by_its_weight() -> None:
    after = Cooccurrence(directed=True)
    after.add(np.array([0], np.int32), np.array([1], np.int32), N, weight=np.array([0.5], np.float32))
    assert partners_of(after, 0)[1] == 0.5
    assert partners_of(after, 1) == [0.0] * N


@pytest.mark.parametrize("exact_items", [N, 1])
def test_taking_back_undoes_counting_and_stops_at_zero(exact_items: int) -> None:
    together = Cooccurrence(exact_items)
    add(together, [(0, 1), (1, 2)])
    add(together, [(0, 1), (0, 1)], sign=-1)
    assert partners_of(together, 1) == [0, 0, 1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("exact_items", [N, 1])
def test_a_reused_row_has_no_partners(exact_items: int) -> None:
    together = Cooccurrence(exact_items)
    add(together, [(0, 1), (1, 2)])
    together.forget_items(np.array([1], np.int32))
    assert [partners_of(together, i) for i in (0, 1, 2)] == [[0.0] * N] * 3


@pytest.mark.parametrize("exact_items", [N, 1])
def test_a_restored_count_goes_on_as_if_never_stopped(exact_items: int) -> None:
    one, two = Cooccurrence(exact_items, 2), Cooccurrence(exact_items, 2)
    add(one, [(0, 1), (1, 2), (0, 3)])
    two.restore(one.snapshot())
    for part in (one, two):
        add(part, [(0, 4), (5, 6)])
    assert digest(one.snapshot()) == digest(two.snapshot())
