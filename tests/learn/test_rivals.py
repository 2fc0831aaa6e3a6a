"""Negatives of a catalogue too large to compare with whole: the corrected softmax is the whole one in expectation."""

from __future__ import annotations

import numpy as np
import pytest

from stream_rec.learn.learner import Learner
from stream_rec.learn.scoring import Catalogue, Scorer
from tests.learn.shop import SETTINGS

N = 40
NOTHING = np.zeros(0, np.int32)


def scorer(full_items: int, *, draws: int = 12) -> Scorer:
    one = Learner(SETTINGS)
    one.decayed.add(np.repeat(np.arange(10, dtype=np.int32), np.arange(1, 11)), np.full(55, 10**9, np.int64))
    return Scorer(one.scorer.statistics, full_items=full_items, pool_items=draws)


def test_a_small_catalogue_is_compared_with_whole() -> None:
    universe = np.arange(N, dtype=np.int32)
    rivals = scorer(N).rivals(Catalogue(N), universe, NOTHING, 1)
    assert rivals.log_share is None and (rivals.universe == universe).all()


def test_the_sampled_softmax_is_the_whole_one_in_expectation() -> None:
    one, logits = scorer(N - 1), np.random.default_rng(0).normal(size=N).astype(np.float32)
    sums = []
    for draw in range(3_000):
        rivals = one.rivals(Catalogue(N), NOTHING, NOTHING, draw)
        sums.append(np.exp(rivals.corrected(logits[None, rivals.universe].copy())).sum())
    assert np.mean(sums) == pytest.approx(np.exp(logits).sum(), rel=0.02)


def test_without_the_correction_it_is_not() -> None:
    one, logits = scorer(N - 1), np.random.default_rng(0).normal(size=N).astype(np.float32)
    sums = [np.exp(logits[one.rivals(Catalogue(N), NOTHING, NOTHING, draw).universe]).sum() for draw in range(300)]
    assert np.mean(sums) < 0.6 * np.exp(logits).sum()


def test_targets_are_always_there_and_never_unknown_items() -> None:
    known = np.arange(N) % 2 == 0
    rivals = scorer(10, draws=4).rivals(Catalogue(N, known=known), NOTHING, np.array([6, 7], np.int32), 5)
    assert 6 in rivals.universe and 7 not in rivals.universe and known[rivals.universe].all()


def test_one_seed_draws_one_sample() -> None:
    one = scorer(10)
    first, again = (one.rivals(Catalogue(N), NOTHING, NOTHING, 9).universe for _ in range(2))
    assert (first == again).all()
    assert not np.array_equal(first, one.rivals(Catalogue(N), NOTHING, NOTHING, 10).universe)
