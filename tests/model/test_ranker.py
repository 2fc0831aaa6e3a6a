"""The linear ranker: its gradient, its steps, its purity."""

from __future__ import annotations

import numpy as np

from stream_rec.component import digest
from stream_rec.model import ranker
from stream_rec.model.features import N_FEATURES, OWN, SHARED, TOGETHER, Inputs


def some_inputs(seed: int = 0, users: int = 3, items: int = 7) -> Inputs:
    rng = np.random.default_rng(seed)
    dense = [rng.normal(size=(users, items)).astype(np.float32) for _ in TOGETHER]
    return Inputs(
        rng.normal(size=(items, len(SHARED))).astype(np.float32),
        (dense[0], None, *dense[2:]),
        np.array([0, 0, 2]),
        np.array([1, 4, 6]),
        rng.normal(size=(3, len(OWN))).astype(np.float32),
        np.array([True, False, True]),
    )


def dense_features(x: Inputs) -> np.ndarray:
    users, items = len(x.known), len(x.shared)
    out = np.zeros((users, items, N_FEATURES))
    out[:, :, : len(SHARED)] = x.shared
    out[x.owner, x.column, len(SHARED) : len(SHARED) + len(OWN)] = x.values
    for place, feature in enumerate(x.together):
        if feature is not None:
            out[:, :, len(SHARED) + len(OWN) + place] = feature
    return out


def loss_of(x: Inputs, w: np.ndarray, user: np.ndarray, target: np.ndarray, share: np.ndarray) -> np.ndarray:
    logits = (dense_features(x) * w[x.known.astype(int)][:, None, :]).sum(axis=2)
    log_prob = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    out = np.zeros(len(x.known))
    np.subtract.at(out, user, share * log_prob[user, target])
    return out


WEIGHTS = np.random.default_rng(1).normal(size=(2, N_FEATURES)).astype(np.float32) * 0.3
USER, TARGET, SHARE = np.array([0, 0, 1, 2]), np.array([1, 2, 3, 6]), np.array([0.25, 0.75, 1.0, 1.0], np.float32)


def test_scores_are_the_dot_product_of_features_and_weights() -> None:
    x = some_inputs()
    expected = (dense_features(x) * WEIGHTS[x.known.astype(int)][:, None, :]).sum(axis=2)
    np.testing.assert_allclose(ranker.score(x, WEIGHTS), expected, rtol=1e-4, atol=1e-5)


def test_the_gradient_is_that_of_finite_differences() -> None:
    x = some_inputs()
    gradient, loss = ranker.gradients(x, ranker.score(x, WEIGHTS), USER, TARGET, share=SHARE)
    w = WEIGHTS.astype(np.float64)
    np.testing.assert_allclose(loss, loss_of(x, w, USER, TARGET, SHARE), rtol=1e-4)
    for feature in range(N_FEATURES):
        step = np.zeros_like(w)
        step[:, feature] = 1e-5
        slope = loss_of(x, w + step, USER, TARGET, SHARE) - loss_of(x, w - step, USER, TARGET, SHARE)
        np.testing.assert_allclose(gradient[:, feature], slope / 2e-5, rtol=2e-3, atol=1e-4)


def test_scoring_changes_nothing() -> None:
    x = some_inputs()
    copies = [x.shared.copy(), x.values.copy(), *(f.copy() for f in x.together if f is not None)]
    ranker.score(x, WEIGHTS)
    ranker.gradients(x, ranker.score(x, WEIGHTS), USER, TARGET, share=SHARE)
    now = [x.shared, x.values, *(f for f in x.together if f is not None)]
    assert all(np.array_equal(a, b) for a, b in zip(copies, now, strict=True))


def test_steps_lower_the_loss_of_the_kind_they_are_for_only() -> None:
    x, learner = some_inputs(), ranker.Learner(rate=0.05)
    start = learner.value.copy()
    losses = []
    for _ in range(60):
        logits = ranker.score(x, learner.value[ranker.VISIT])
        gradient, loss = ranker.gradients(x, logits, USER, TARGET, share=SHARE)
        losses.append(loss[x.known].mean())
        learner.step(ranker.VISIT, 1, gradient[x.known].mean(axis=0))
    assert losses[-1] < losses[0] - 0.3
    assert np.array_equal(learner.value[ranker.VISIT, 0], start[ranker.VISIT, 0])
    assert np.array_equal(learner.value[ranker.CONTINUE], start[ranker.CONTINUE])


def test_a_restored_learner_steps_on_as_if_never_stopped() -> None:
    one, two = ranker.Learner(), ranker.Learner()
    one.step(0, 1, np.ones(N_FEATURES))
    two.restore(one.snapshot())
    for part in (one, two):
        part.step(0, 1, np.full(N_FEATURES, -0.5))
    assert digest(one.snapshot()) == digest(two.snapshot())
