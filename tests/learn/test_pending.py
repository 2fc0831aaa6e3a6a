"""Open visits: when they close and what is counted."""

from __future__ import annotations

import numpy as np

from stream_rec.component import digest
from stream_rec.events import MISSING
from stream_rec.learn.batch import Visits
from stream_rec.learn.pending import PendingVisits
from stream_rec.learn.prequential import MODELS, K


def visits(*rows: tuple[int, int, int]) -> Visits:
    """Rows of (visit, user, at_ms)."""
    visit, user, at_ms = (np.array([r[i] for r in rows], np.int64) for i in range(3))
    n = len(rows)
    return Visits(
        visit, user.astype(np.int32), user, np.zeros(n, np.int8), at_ms, np.full(n, MISSING), np.zeros((n, K), np.int32)
    )


def opened(pending: PendingVisits, *rows: tuple[int, int, int]) -> None:
    n = len(rows)
    lists = np.tile(np.arange(K, dtype=np.int32), (n, len(MODELS), 1))
    pending.open(visits(*rows), np.zeros(n, np.int64), np.ones(n, np.bool_), lists=lists)


def take(pending: PendingVisits, visit: int, item: int, group: int = 3, organic: bool = True) -> None:
    place = pending.place(np.array([visit]))
    pending.target(place, np.array([item], np.int32), np.array([group]), np.array([organic]))


def test_a_visit_closes_when_the_watermark_is_past_its_last_event_by_the_gap() -> None:
    pending = PendingVisits(4, gap_ms=100)
    opened(pending, (1, 7, 0))
    take(pending, 1, 3)
    pending.touch(pending.place(np.array([1])), np.array([50]))
    assert len(pending.close(150).user) == 0
    assert pending.close(151).user.tolist() == [7]
    assert pending.place(np.array([1])).tolist() == [MISSING]


def test_the_next_visit_of_a_user_closes_the_one_before_at_the_end_of_the_tick() -> None:
    pending = PendingVisits(4)
    opened(pending, (1, 7, 0), (2, 7, 10))
    take(pending, 1, 3)
    closed = pending.close(0)
    assert closed.scored.tolist() == [True]
    assert pending.place(np.array([1, 2])).tolist() == [MISSING, 1]


def test_a_closed_visit_says_its_hits_by_model_and_group() -> None:
    pending = PendingVisits(4)
    opened(pending, (1, 7, 0))
    take(pending, 1, 0, group=2)
    take(pending, 1, 99, group=3, organic=False)
    closed = pending.close(10**9)
    assert closed.n_targets.tolist() == [[2, 0, 1, 1]]
    assert closed.hits[0, 0].tolist() == [1, 0, 1, 0]
    assert closed.dcg[0, 0].tolist() == [1, 0, 1, 0]
    assert closed.n_organic.tolist() == [[1, 0, 1, 0]]
    assert closed.organic_hits[0].tolist() == [[1, 0, 1, 0]] * len(MODELS)


def test_a_visit_that_began_without_a_slate_says_so() -> None:
    pending = PendingVisits(4)
    opened(pending, (1, 7, 0), (2, 8, 0))
    pending.lists[1, MODELS.index("served")] = MISSING
    take(pending, 1, 3)
    take(pending, 2, 3)
    assert pending.close(10**9).had_slate.tolist() == [True, False]


def test_a_visit_that_takes_nothing_closes_unscored() -> None:
    pending = PendingVisits(4)
    opened(pending, (1, 7, 0))
    closed = pending.close(10**9)
    assert closed.scored.tolist() == [False]
    assert len(closed.n_targets) == 0


def test_a_full_pool_gives_up_the_oldest_and_counts_it() -> None:
    pending = PendingVisits(2)
    opened(pending, (1, 1, 0), (2, 2, 0), (3, 3, 0))
    assert pending.n_evicted == 1
    assert pending.place(np.array([1, 2, 3])).tolist() == [MISSING, 1, 0]
    take(pending, 3, 5)
    assert pending.close(10**9).user.tolist() == [2, 3]


def test_a_forgotten_user_leaves_nothing_in_the_pool_and_the_open_visit_is_counted_nowhere() -> None:
    pending = PendingVisits(4)
    opened(pending, (1, 7, 0), (2, 8, 0))
    pending.close(10**9)
    opened(pending, (3, 7, 10**9), (4, 9, 10**9))
    take(pending, 3, 3)
    pending.forget_users(np.array([7]))
    assert pending.place(np.array([3, 4])).tolist() == [MISSING, 3]
    assert pending.visit_of == {9: 4}
    left = {name: getattr(pending, name)[[0, 2]] for name in pending.columns}
    assert {name for name, column in left.items() if column.any()} == set()
    opened(pending, (5, 1, 10**9), (6, 1, 10**9), (7, 1, 10**9))
    assert pending.n_evicted == 0
    assert pending.close(10**10).user.tolist() == [9, 1, 1, 1]


def test_a_pool_restored_after_a_forget_goes_on_as_if_never_stopped() -> None:
    one, two = PendingVisits(4), PendingVisits(4)
    opened(one, (1, 1, 0), (2, 2, 0), (3, 3, 0), (4, 1, 5))
    one.forget_users(np.array([1, 2]))
    two.restore(one.snapshot())
    for pending in (one, two):
        opened(pending, (5, 1, 9), (6, 2, 9))
        take(pending, 6, 1)
        assert pending.close(10**9).user.tolist() == [3, 1, 2]
    assert digest(one.snapshot()) == digest(two.snapshot())


def test_a_restored_pool_goes_on_as_if_never_stopped() -> None:
    one, two = PendingVisits(3), PendingVisits(3)
    opened(one, (1, 1, 0), (2, 2, 0), (3, 3, 0), (4, 1, 5))
    two.restore(one.snapshot())
    assert (two.place_of, two.visit_of) == (one.place_of, one.visit_of)
    for pending in (one, two):
        take(pending, 4, 1)
        opened(pending, (5, 4, 9), (6, 2, 9))
        pending.close(8)
    assert digest(one.snapshot()) == digest(two.snapshot())
