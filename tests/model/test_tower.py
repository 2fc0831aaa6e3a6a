"""The tower: it begins as the encoder, its gradient is the loss's, its vectors have the same bits however made."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stream_rec.events import MISSING
from stream_rec.model import tower, tower_learning
from stream_rec.model.features import RECENT
from stream_rec.model.tower import Recent, TowerWeights, Vectors
from stream_rec.model.tower_learning import Moments, Part, Rates
from tests.model.hashed import EMBEDDER, TITLES, WIDTH

N = len(TITLES)


def texts() -> np.ndarray:
    table = np.zeros((tower.BLOCK, WIDTH), np.float16)
    table[:N] = EMBEDDER.embed(TITLES)
    return table


def recent(*users: list[int]) -> Recent:
    item = np.full((len(users), RECENT), MISSING, np.int32)
    for row, items in enumerate(users):
        item[row, : len(items)] = items
    return Recent(item, np.zeros(item.shape, np.bool_))


def weights(seed: int | None = None) -> TowerWeights:
    w = TowerWeights(WIDTH)
    w.reserve(tower.BLOCK)
    if seed is not None:
        rng = np.random.default_rng(seed)
        for name in w.columns:
            value = getattr(w, name)
            value += rng.normal(0, 0.1, value.shape).astype(np.float32)
    return w


def logits(w: TowerWeights, users: Recent, task: int) -> np.ndarray:
    with torch.no_grad():
        p, vectors = w.parameters(), torch.from_numpy(Vectors(w).table(texts()))
        user = tower.users(p, vectors, users, task)
        tasks = torch.full((len(user),), task, dtype=torch.long)
        return tower.logits(p, vectors, user, tasks, np.arange(N, dtype=np.int32)).numpy()


def part(w: TowerWeights, seed: int = 0) -> Part:
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(3, N)).astype(np.float32)
    user, column = np.array([0, 1, 1, 2]), np.array([3, 4, 9, 5])
    share, weight = np.array([1, 0.5, 0.5, 1], np.float32), np.array([1, 2, 0.5], np.float32)
    return Part(1, recent([1, 2], [7], [11, 12, 13]), np.arange(N, dtype=np.int32), user, column, share, weight, base)


def test_before_learning_the_logit_is_the_cosine_of_the_encoder_times_the_temperature() -> None:
    cosine = texts()[7].astype(np.float32) @ texts()[:N].astype(np.float32).T
    for task in range(tower.N_TASKS):
        assert logits(weights(), recent([7]), task)[0] == pytest.approx(tower.START_TAU[task] * cosine, abs=2e-2)


def test_statistics_alone_rank_for_a_user_without_a_history() -> None:
    strangers, known = logits(weights(seed=1), recent([], [7]), 0)
    assert not strangers.any() and known.all()


def test_the_gradient_is_that_of_the_mean_weighted_log_loss() -> None:
    w = weights(seed=2)
    one = part(w)

    def loss() -> float:
        both = logits(w, one.recent, 1).astype(np.float64) + one.base
        log_p = (
            both - np.log(np.exp(both - both.max(1, keepdims=True)).sum(1, keepdims=True)) - both.max(1, keepdims=True)
        )
        return float(-(log_p[one.user, one.column] * one.share * one.weight[one.user]).sum() / 3)

    found, n = tower_learning.gradients(w, texts().astype(np.float32), [one])
    assert n == 3
    for name in w.columns:
        value, step = getattr(w, name), 1e-2
        cell = np.unravel_index(int(np.abs(found[name]).argmax()), value.shape)
        kept = value[cell]
        value[cell] = kept + step
        above = loss()
        value[cell] = kept - step
        below = loss()
        value[cell] = kept
        assert found[name][cell] == pytest.approx((above - below) / (2 * step), rel=0.03), name


def test_steps_on_one_micro_batch_bring_its_loss_down() -> None:
    w = weights()
    moments, one = Moments(w, Rates(warm_up=0)), part(w)
    before = logits(w, one.recent, 1)[one.user, one.column].mean()
    for _ in range(20):
        gradients, n = tower_learning.gradients(w, texts().astype(np.float32), [one])
        moments.step(w, gradients, n)
    assert logits(w, one.recent, 1)[one.user, one.column].mean() > before + 1


def test_vectors_made_in_two_calls_have_the_bits_of_those_made_in_one() -> None:
    w, table = weights(seed=3), texts()
    piecemeal, whole = Vectors(w), Vectors(w)
    later = table.copy()
    later[5] = 0
    piecemeal.table(later)
    piecemeal.drop(np.array([5], np.int32))
    assert (piecemeal.table(table) == whole.table(table)).all()


def test_an_item_row_that_changes_hands_starts_at_zero() -> None:
    w = weights(seed=4)
    w.forget_items(np.array([2], np.int32))
    assert not w.residual[2].any() and w.bias[2] == 0 and w.residual[3].any()


def test_without_texts_residuals_start_from_the_seed() -> None:
    one, two, other = (TowerWeights(WIDTH, seed) for seed in (1, 1, 2))
    for w in (one, two, other):
        w.reserve(N)
    assert (one.residual == two.residual).all() and (one.residual != other.residual).any()


def test_the_step_is_clipped_to_its_norm() -> None:
    w = weights()
    moments = Moments(w, Rates(warm_up=0, clip=1e-3))
    gradients, n = tower_learning.gradients(w, texts().astype(np.float32), [part(w)])
    moments.step(w, gradients, n)
    norm = np.sqrt(sum((gradients[name] ** 2).sum() for name in (*tower_learning.MAPS, *tower_learning.SCALARS)))
    assert norm == pytest.approx(1e-3, rel=1e-3)
