"""Profiles from histories, and the features read with them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stream_rec.events import MISSING
from stream_rec.model.cooccurrence import Cooccurrence
from stream_rec.model.features import HALF_LIVES_MS, OWN, SHARED, Statistics, inputs, profiles
from stream_rec.model.popularity import DAY_MS, DecayedPopularity, ItemCounts, RecentPopularity

N = 6


class History(NamedTuple):
    item: np.ndarray
    at_ms: np.ndarray
    visit: np.ndarray


def history(*users: list[tuple[int, int, int]]) -> History:
    """Users as lists of (item, day, visit), newest first."""
    length = max(map(len, users))
    table = np.full((len(users), length, 3), MISSING, np.int64)
    for u, rows in enumerate(users):
        for place, row in enumerate(rows):
            table[u, place] = row
    return History(table[:, :, 0].astype(np.int32), table[:, :, 1] * DAY_MS, table[:, :, 2])


def statistics() -> Statistics:
    return Statistics(
        ItemCounts(N),
        DecayedPopularity(N, HALF_LIVES_MS),
        RecentPopularity(N, 100),
        Cooccurrence(),
        Cooccurrence(directed=True),
        ItemCounts(N),
        Cooccurrence(),
    )


def test_a_profile_counts_visits_not_rows() -> None:
    rows = profiles(
        history([(1, 9, 3), (2, 5, 2), (1, 5, 2), (1, 5, 2), (1, 1, 1)]), np.array([3]), np.array([10 * DAY_MS])
    )
    assert rows.item.tolist() == [1, 2]
    assert rows.n_before.tolist() == [2, 1]
    assert rows.in_visit.tolist() == [True, False]
    values = dict(zip(OWN, rows.values[0].tolist(), strict=True))
    assert values["in_last_visit"] == 1
    assert values["own_share"] == 1
    assert values["in_this_visit"] == 1
    assert abs(values["own_recency"] - 1 / (1 + 5 / 30)) < 1e-6


def test_what_happened_in_the_open_visit_is_not_bought_before() -> None:
    rows = profiles(history([(4, 9, 7)]), np.array([7]), np.array([9 * DAY_MS]))
    assert rows.before.tolist() == [False]
    assert rows.known.tolist() == [False]
    assert rows.n_before.tolist() == [0]


def test_an_empty_history_is_an_empty_profile() -> None:
    rows = profiles(history([], [(1, 1, 1)]), np.array([MISSING, MISSING]), np.zeros(2, np.int64))
    assert rows.known.tolist() == [False, True]
    assert rows.owner.tolist() == [1]


def test_picking_users_gives_their_profiles_alone() -> None:
    who = history([(1, 1, 1)], [], [(2, 2, 5), (3, 1, 4)])
    rows = profiles(who, np.full(3, MISSING), np.full(3, DAY_MS))
    picked = rows.pick(np.array([2, 1, 0]))
    assert picked.owner.tolist() == [0, 0, 2]
    assert picked.item.tolist() == [2, 3, 1]
    assert picked.known.tolist() == [True, False, True]


def test_features_of_a_universe_are_columns_of_those_of_the_catalogue() -> None:
    s = statistics()
    s.counts.add(np.array([0, 1, 1, 3], np.int32))
    s.together.add(np.array([1, 1], np.int32), np.array([3, 5], np.int32), N)
    s.after.add(np.array([1], np.int32), np.array([2], np.int32), N)
    rows = profiles(history([(1, 1, 1)]), np.array([MISSING]), np.array([DAY_MS]))
    whole, some = np.arange(N, dtype=np.int32), np.array([1, 3], np.int32)
    a = inputs(s, rows, s.shared(whole), universe=whole, n_items=N)
    b = inputs(s, rows, s.shared(some), universe=some, n_items=N)
    np.testing.assert_array_equal(a.shared[some], b.shared)
    for full, part in zip(a.together, b.together, strict=True):
        assert (full is None) == (part is None)
        if full is not None and part is not None:
            np.testing.assert_array_equal(full[:, some], part)
    assert b.column.tolist() == [0]
    assert a.shared.shape == (N, len(SHARED))


def test_cosine_divides_by_how_often_either_item_is_taken() -> None:
    s = statistics()
    s.counts.add(np.array([1] * 4 + [3] * 9, np.int32))
    s.together.add(np.array([1, 1, 1], np.int32), np.array([3, 3, 3], np.int32), N)
    rows = profiles(history([(1, 1, 1)]), np.array([1]), np.array([DAY_MS]))
    assert abs(float(s.with_visit(rows, N)[0, 3]) - 3 / 6) < 1e-6
