"""Metrics against a calculation by hand."""

from __future__ import annotations

import numpy as np

from stream_rec.component import digest
from stream_rec.learn.prequential import FIRST_BIN, GROUPS, MODELS, N_BINS, NEXT_VISIT, Prequential, Reach, gini


def one(hits: int, targets: int, user_slice: int = 0, dcg: float = 0.0) -> tuple[np.ndarray, ...]:
    n = np.array([[targets, 0, targets, 0]])
    shape = (1, len(MODELS), GROUPS)
    found, gain = np.zeros(shape), np.zeros(shape)
    found[:, :, [0, 2]], gain[:, :, [0, 2]] = hits, dcg
    return np.array([user_slice]), n, found, gain


def add(metrics: Prequential, hits: int, targets: int, user_slice: int = 0, dcg: float = 0.0) -> None:
    where, n, found, gain = one(hits, targets, user_slice, dcg)
    metrics.add(NEXT_VISIT, where, n, found, dcg=gain)


def test_recall_divides_by_what_a_list_of_twenty_can_hold() -> None:
    metrics = Prequential()
    add(metrics, 5, 40)
    assert metrics.take_interval()["next_visit"]["ranker"]["all"] == {"n": 1, "recall@20": 0.25, "ndcg@20": 0.0}


def test_a_perfect_list_has_an_ndcg_of_one() -> None:
    metrics = Prequential()
    add(metrics, 2, 2, dcg=1.0 + 1.0 / np.log2(3))
    assert metrics.take_interval()["next_visit"]["ranker"]["all"]["ndcg@20"] == 1.0


def test_slices_hold_their_own_and_empty_ones_are_left_out() -> None:
    metrics = Prequential()
    add(metrics, 1, 1, user_slice=0)
    add(metrics, 0, 1, user_slice=2)
    table = metrics.take_interval()["next_visit"]["ranker"]
    assert {name: value["recall@20"] for name, value in table.items()} == {
        "all": 0.5,
        "known": 1.0,
        "anonymous": 0.0,
        "head": 0.5,
    }


def test_an_interval_begins_empty() -> None:
    metrics = Prequential()
    add(metrics, 1, 1)
    metrics.take_interval()
    assert metrics.take_interval() == {}


def test_the_tenths_are_those_of_the_stream_and_the_timeline_stays_bounded() -> None:
    metrics = Prequential()
    n_steps = 3 * N_BINS
    for step in range(n_steps):
        add(metrics, int(step >= n_steps // 2), 1)
        metrics.advance(FIRST_BIN)
    assert metrics.n_bins <= N_BINS
    recall = {part: t["next_visit"]["ranker"]["all"] for part, t in metrics.summary().items()}
    assert recall["first_tenth"]["recall@20"] == 0.0
    assert recall["last_tenth"]["recall@20"] == 1.0
    assert recall["whole"] == {"n": n_steps, "recall@20": 0.5, "ndcg@20": 0.0}
    assert abs(recall["last_tenth"]["n"] - n_steps / 10) < 6


def test_restored_metrics_go_on_as_if_never_stopped() -> None:
    a, b = Prequential(), Prequential()
    add(a, 1, 3)
    a.advance(FIRST_BIN)
    b.restore(a.snapshot())
    for metrics in (a, b):
        add(metrics, 0, 2)
        metrics.advance(5)
    assert digest(a.snapshot()) == digest(b.snapshot())


def test_reach_counts_how_often_an_item_is_shown() -> None:
    reach = Reach(10)
    lists = np.full((2, len(MODELS), 2), -1, np.int32)
    lists[:, 1, 0] = [3, 3]
    reach.add(lists)
    assert reach.table(4)["ranker"] == {"coverage": 0.25, "gini": 0.75}
    assert "served" not in reach.table(4)


def test_gini_of_nothing_is_zero() -> None:
    assert gini(np.zeros(3, np.int64)) == 0.0
