"""Top lists against sorting by hand."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_rec.model import lists


@settings(derandomize=True, deadline=None)
@given(st.lists(st.integers(0, 1_000_000), unique=True, min_size=1, max_size=30), st.integers(1, 8), st.data())
def test_top_is_a_sort_of_what_is_allowed(scores: list[int], k: int, data: st.DataObject) -> None:
    allowed = data.draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores)))
    universe = np.arange(len(scores), dtype=np.int32) * 3
    items, found = lists.top(np.array([scores], np.float32), k, universe, np.array(allowed))
    expected = sorted((i for i in range(len(scores)) if allowed[i]), key=lambda i: -scores[i])[:k]
    assert items[0].tolist() == [3 * i for i in expected] + [-1] * (k - len(expected))
    assert found[0, : len(expected)].tolist() == [float(scores[i]) for i in expected]


def test_equal_scores_come_in_item_order() -> None:
    items, _ = lists.top(np.zeros((1, 4), np.float32), 4, np.arange(4, dtype=np.int32))
    assert items[0].tolist() == [0, 1, 2, 3]


def test_what_nobody_takes_is_in_no_popular_list() -> None:
    assert lists.most(np.array([0.0, 2.0, 1.0]), 3, np.arange(3, dtype=np.int32)).tolist() == [1, 2, -1]


def test_a_list_is_filled_without_repeating_its_own_items() -> None:
    own = np.array([[3, 1, -1, -1], [-1, -1, -1, -1]], np.int32)
    popular = np.array([1, 2, 3, 4, -1], np.int32)
    assert lists.fill(own, popular).tolist() == [[3, 1, 2, 4], [1, 2, 3, 4]]
