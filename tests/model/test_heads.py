"""Click and purchase heads: calibrated from little, under thinning too, and with no state that scoring could change."""

from __future__ import annotations

import numpy as np
import pytest

from stream_rec.model import heads
from stream_rec.model.heads import CLICK, NAMES, SCORED, HeadLearner, HeadSets, design, logits, plain, sigmoid
from stream_rec.stream.sampling import thin

TRUE = np.array([1.2, 0.0, 0.4, -0.3, -0.8, 0.5, -2.5])
N = 40_000


def drawn(seed: int, n: int = N) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, labels and true probabilities."""
    rng = np.random.default_rng(seed)
    raw = rng.normal([-6, 0, 2, 0], [3, 5, 2, 2], (n, len(SCORED))).astype(np.float16)
    x = design(raw, rng.integers(0, 20, n))
    p = sigmoid(logits(x, TRUE))
    return x, rng.random(n) < p, p


def learned(x: np.ndarray, label: np.ndarray, offset: np.ndarray | None = None) -> HeadLearner:
    learner = HeadLearner()
    offset = np.zeros(len(x)) if offset is None else offset
    for low in range(0, len(x), 256):
        some = slice(low, low + 256)
        learner.learn(CLICK, plain(x[some], label[some], offset[some]))
    return learner


def test_a_head_finds_the_weights_that_made_the_clicks():
    x, label, p = drawn(1)
    learner = learned(x, label)
    assert np.abs(sigmoid(logits(x, learner.value[CLICK])) - p).mean() < 0.01
    assert np.abs(learner.value[CLICK] - TRUE).max() < 0.15


def test_probabilities_stay_calibrated_when_negatives_are_thinned_by_stratum():
    x, label, p = drawn(2)
    stratum = (x[:, NAMES.index("position")] > 0).astype(np.int64)
    thinned = thin(label, stratum, [0.5, 0.1], np.arange(N), seed=1)
    assert thinned.kept.mean() < 0.5
    kept = thinned.kept
    learner = learned(x[kept], label[kept], thinned.logit_offset[kept])
    unmended = learned(x[kept], label[kept])
    for s in (0, 1):
        said = sigmoid(logits(x[stratum == s], learner.value[CLICK])).mean()
        assert said == pytest.approx(p[stratum == s].mean(), rel=0.06)
    assert sigmoid(logits(x, unmended.value[CLICK])).mean() > 1.5 * p.mean()


def test_one_step_moves_no_logit_of_its_examples_far():
    x, _, _ = drawn(3, 256)
    learner = HeadLearner()
    before = logits(x, learner.value[CLICK])
    learner.learn(CLICK, plain(x, np.ones(256, np.bool_))._replace(weight=np.full(256, 50.0)))
    moved = np.abs(logits(x, learner.value[CLICK]) - before)
    assert 0.1 < moved.max() <= heads.MAX_STEP + 1e-9


def test_rows_that_are_no_numbers_teach_nothing():
    x, label, _ = drawn(4, 64)
    spoilt = np.concatenate([x, np.full((1, len(NAMES)), np.nan)])
    one, other = HeadLearner(), HeadLearner()
    one.learn(CLICK, plain(x, label))
    other.learn(CLICK, plain(spoilt, np.append(label, True)))
    other.learn(CLICK, plain(spoilt[-1:], np.ones(1, np.bool_)))
    assert np.allclose(one.value, other.value)


def test_a_logit_has_the_same_bits_alone_and_among_others():
    x, _, _ = drawn(5, 100)
    assert [logits(x[i : i + 1], TRUE)[0] for i in range(100)] == logits(x, TRUE).tolist()


def test_the_champion_serves_as_it_was_cut_until_the_next_one_and_comes_back_when_called():
    x, label, _ = drawn(6, 2_000)
    sets = HeadSets()
    first = sets.champion.value.copy()
    sets.learner.value = learned(x, label).value
    sets.cut()
    cut = sets.challenger.value.copy()
    sets.learner.value = sets.learner.value + 1
    assert (sets.champion.value == first).all()
    sets.promote()
    assert (sets.champion.value == cut).all()
    assert (sets.tensors("champion")["head.click"] == cut[CLICK]).all()
    sets.restore_previous()
    sets.reset()
    assert (sets.champion.value == first).all()
    assert (sets.learner.value == first).all()
