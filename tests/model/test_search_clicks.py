"""The click model of search: learned only after it was asked, comparable over queries, and its line is its logit."""

from __future__ import annotations

import numpy as np

from stream_rec.component import digest
from stream_rec.model.search_clicks import FAR, NAMES, ClickModel

DRAW = np.random.Generator(np.random.PCG64(3))
TRUE = np.array([1.5, 0.0, -0.7], np.float32)
X = (DRAW.normal(size=(4_000, 3)) * (0.1, 5.0, 1.0) + (0.5, 20.0, 0.0)).astype(np.float32)
CLICKED = DRAW.random(4_000) < 1 / (1 + np.exp(-((X - X.mean(0)) / X.std(0) @ TRUE - 1)))


def learned(n: int, model: ClickModel | None = None, *, low: int = 0) -> ClickModel:
    model = model or ClickModel("abc")
    for at in range(low, n, 50):
        model.learn(X[at : at + 50], CLICKED[at : at + 50])
    return model


def test_the_first_answers_already_rank_by_a_better_match() -> None:
    x = np.tile(np.array([[0.1], [0.6]], np.float32), len(NAMES))
    assert np.diff(ClickModel().logits(x)) > 0


def test_weights_come_to_those_that_made_the_clicks_whatever_the_units() -> None:
    assert np.abs(learned(4_000).weight - [*TRUE, -1]).max() < 0.25


def test_probabilities_are_calibrated() -> None:
    assert abs(learned(4_000).probability(X).mean() - CLICKED.mean()) < 0.02


def test_the_loss_told_is_that_before_the_step() -> None:
    model = learned(1_000)
    logit = model.logits(X[1_000:1_050]).astype(np.float64)
    before = np.mean(np.logaddexp(0, np.where(CLICKED[1_000:1_050], -logit, logit)))
    assert np.isclose(model.learn(X[1_000:1_050], CLICKED[1_000:1_050]), before, atol=1e-6)


def test_scoring_is_pure_and_a_row_has_the_same_bits_in_any_company() -> None:
    model = learned(500)
    before = digest(model.snapshot())
    whole, alone = model.logits(X[:40]), [model.logits(X[i : i + 1])[0] for i in range(40)]
    model.probability(X), model.line(X, "a")
    assert np.array_equal(whole, alone)
    assert digest(model.snapshot()) == before


def test_a_line_is_the_logit_as_a_function_of_one_feature() -> None:
    model = learned(500)
    line = model.line(X[:40], "b")
    assert np.allclose(line.slope * X[:40, 1] + line.rest, model.logits(X[:40]), atol=1e-5)


def test_running_mean_and_spread_are_those_of_all_that_was_shown() -> None:
    model = learned(2_000)
    assert np.allclose(model.centre, X[:2_000].mean(axis=0, dtype=np.float64))
    assert np.allclose(model.spread2, X[:2_000].var(axis=0, dtype=np.float64))


def test_a_wild_value_counts_no_more_than_a_far_one_and_no_number_is_left_out() -> None:
    model = learned(500)
    wild, far = X[:1].copy(), X[:1].copy()
    wild[0, 1], far[0, 1] = 1e12, model.centre[1] + (FAR + 1) * np.sqrt(model.spread2[1])
    assert np.array_equal(model.logits(wild), model.logits(far))
    before = digest(model.snapshot())
    model.learn(np.full((1, 3), np.nan, np.float32), np.array([True]))
    assert digest(model.snapshot()) == before


def test_snapshot_and_restore_is_never_stopped() -> None:
    restored = ClickModel("abc")
    restored.restore(learned(1_000).snapshot())
    assert digest(learned(2_000, restored, low=1_000).snapshot()) == digest(learned(2_000).snapshot())
