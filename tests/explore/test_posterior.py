"""The head: what it learns, that late rewards are exact, that it forgets by event time and stays positive definite."""

from __future__ import annotations

import numpy as np
import pytest

from stream_rec.component import digest
from stream_rec.explore.forgetting import MAX_ALARMS, HalfLives
from stream_rec.explore.posterior import DAY_MS, HeadRules, Posterior

D, N_ITEMS = 5, 40
RULES = HeadRules(n_features=D, n_items=N_ITEMS)


def head_of(long_ms: int = 10 * DAY_MS, rules: HeadRules = RULES) -> Posterior:
    return Posterior(rules, HalfLives(long_ms, min(DAY_MS, long_ms), DAY_MS))


def shown(rng: np.random.Generator, n: int, weights: np.ndarray | None = None) -> tuple[np.ndarray, ...]:
    """Features, items, rewards, times over a day."""
    x = rng.normal(3.0, [1, 2, 5, 0.1, 10], (n, D))
    told = np.array([0.05, 0.02, 0, 0.3, 0.001]) if weights is None else weights
    reward = np.clip(0.3 + (x - 3.0) @ told + rng.normal(0, 0.05, n), 0, 1)
    return x, rng.integers(0, N_ITEMS, n), reward, np.sort(rng.integers(0, DAY_MS, n))


def test_a_batch_equals_the_ridge_regression_of_standardised_features() -> None:
    x, items, reward, _ = shown(np.random.default_rng(0), 500)
    head = head_of()
    head.observe(x, items, reward, np.zeros(500, np.int64))
    z = np.column_stack((np.ones(500), (x - x.mean(0)) / x.std(0)))
    weights = np.linalg.solve(z.T @ z + np.eye(D + 1), z.T @ reward)
    cold = np.full(500, N_ITEMS - 1)
    head.forget_items([N_ITEMS - 1])
    assert np.allclose(head.predict(x, cold).mean, np.clip(z @ weights, 0, 1), atol=1e-12)


def test_batches_of_any_size_give_the_same_head() -> None:
    x, items, reward, at = shown(np.random.default_rng(1), 600)
    whole, parts = head_of(), head_of()
    whole.observe(x, items, reward, at)
    for k in range(0, 600, 50):
        parts.observe(x[k : k + 50], items[k : k + 50], reward[k : k + 50], at[k : k + 50])
    assert np.allclose(whole._weights, parts._weights, atol=1e-9)


def test_the_order_of_arrival_does_not_change_the_weights() -> None:
    x, items, reward, at = shown(np.random.default_rng(2), 600)
    straight, mixed = head_of(long_ms=DAY_MS), head_of(long_ms=DAY_MS)
    order = np.random.default_rng(3).permutation(600)
    for k in range(0, 600, 100):
        rows = slice(k, k + 100)
        straight.observe(x[rows], items[rows], reward[rows], at[rows])
        mixed.observe(x[order[rows]], items[order[rows]], reward[order[rows]], at[order[rows]])
    assert np.allclose(straight._weights, mixed._weights, atol=1e-9)


def test_a_late_reward_gives_the_head_that_had_it_at_once() -> None:
    rng = np.random.default_rng(4)
    x, items, reward, at = shown(rng, 400)
    later = shown(rng, 200)
    at_once, late = head_of(), head_of()
    at_once.observe(x, items, reward, at)
    late.observe(x, items, np.zeros(400), at)
    for head in (at_once, late):
        head.observe(*later[:3], later[3] + 3 * DAY_MS)
    late.late(x, items, reward, at)
    assert np.allclose(at_once._weights, late._weights, atol=1e-12)
    assert np.isclose(at_once._noise, late._noise, rtol=1e-9)


def test_the_spread_shrinks_with_evidence_and_is_larger_far_from_it() -> None:
    rng, head = np.random.default_rng(5), head_of()
    spreads = []
    for n in (50, 500, 5_000):
        head.observe(*shown(rng, n))
        spreads.append(head.predict([[3.0] * D], [0]).spread[0])
    assert spreads[0] > spreads[1] > spreads[2]
    assert head.predict([[60.0] * D], [0]).spread[0] > 3 * spreads[2]


def test_an_items_residual_is_learned_and_shrunk_to_the_head() -> None:
    rng, head = np.random.default_rng(6), head_of()
    for _ in range(20):
        x, items, reward, at = shown(rng, 500, np.zeros(D))
        head.observe(x, items, reward + 0.2 * (items == 7), at)
    mean = head.predict(np.full((2, D), 3.0), [7, 8]).mean
    assert 0.14 < mean[0] - mean[1] < 0.2


def test_after_a_change_the_past_is_forgotten_by_event_time() -> None:
    rng, head = np.random.default_rng(7), head_of(long_ms=DAY_MS)
    x, items, reward, at = shown(rng, 2_000)
    head.observe(x, items, reward, at)
    for day in (1, 12):
        again = shown(rng, 200)
        head.observe(again[0], again[1], 1 - again[2], again[3] + day * DAY_MS)
    mean = head.predict(x, np.full(2_000, 0)).mean
    assert np.abs(mean - (1 - reward)).mean() < 0.08


def test_an_alarm_halves_the_past_faster_for_a_spell_and_then_no_more() -> None:
    lives = HalfLives(long_ms=10 * DAY_MS, short_ms=DAY_MS, spell_ms=2 * DAY_MS)
    lives.alarm(5 * DAY_MS)
    passed = [float(lives.until(day * DAY_MS)) for day in (5, 6, 7, 8)]
    assert np.allclose(np.diff(passed), [1.0, 1.0, 0.1])


def test_an_alarm_does_not_change_what_the_past_weighed() -> None:
    head = head_of()
    head.observe(*shown(np.random.default_rng(8), 300))
    before = head._weights.copy()
    head.alarm(head.now_ms)
    head.rebuild()
    assert np.array_equal(head._weights, before)


def test_more_alarms_than_are_told_apart_keep_the_clock_running_straight() -> None:
    lives = HalfLives(long_ms=100, short_ms=10, spell_ms=5)
    for k in range(2 * MAX_ALARMS):
        lives.alarm(k * 100)
    end = 2 * MAX_ALARMS * 100
    assert float(lives.until(end)) == pytest.approx(end / 100 + 2 * MAX_ALARMS * 5 * (1 / 10 - 1 / 100))


def test_rows_that_are_not_finite_are_left_out_and_counted() -> None:
    x, items, reward, at = shown(np.random.default_rng(9), 100)
    clean, dirty = head_of(), head_of()
    clean.observe(x[2:], items[2:], reward[2:], at[2:])
    x[0, 1], reward[1] = np.nan, np.inf
    assert dirty.observe(x, items, reward, at) == 2
    assert np.array_equal(clean._weights, dirty._weights)


@pytest.mark.parametrize("long_ms", [DAY_MS // 10, 1_000 * DAY_MS])
def test_the_precision_stays_positive_definite_over_many_hostile_updates(long_ms: int) -> None:
    """Equal, constant and nearly equal columns, wild values, weeks of silence."""
    rng, head = np.random.default_rng(10), head_of(long_ms)
    for k in range(100):
        x, items, reward, at = shown(rng, 256)
        x[:, 1] = x[:, 0]
        x[:, 2] = 7.0
        x[:, 3] = x[:, 0] * (1 + 1e-9 * rng.normal(size=256))
        x[rng.integers(0, 256, 3), 4] = 1e12
        head.observe(x, items, reward, at + k * DAY_MS // 7 + (k > 50) * 40 * DAY_MS)
        belief = head.predict(x, items)
        assert np.isfinite(belief.mean).all() and (belief.spread > 0).all()


def test_a_new_meaning_of_the_features_keeps_a_share_of_the_weights() -> None:
    head = head_of()
    head.observe(*shown(np.random.default_rng(11), 500))
    before = head._weights.copy()
    head.begin_anew(keep=0.5)
    assert np.allclose(head._weights, 0.5 * before)
    assert head.n_observed == 0 and not head.item_weight.any()


def test_a_restored_head_goes_on_as_if_it_had_never_stopped() -> None:
    rng = np.random.default_rng(12)
    first, second = shown(rng, 300), shown(rng, 300)
    lives, again_lives = (HalfLives(DAY_MS, DAY_MS // 4, DAY_MS) for _ in range(2))
    whole, again = Posterior(RULES, lives), Posterior(RULES, again_lives)
    whole.observe(*first)
    whole.alarm(whole.now_ms)
    again.restore(whole.snapshot())
    again_lives.restore(lives.snapshot())
    for head in (whole, again):
        head.observe(*second[:3], second[3] + DAY_MS)
    assert digest(whole.snapshot()) == digest(again.snapshot())
    assert np.array_equal(whole.predict(*second[:2]).spread, again.predict(*second[:2]).spread)


def test_asking_changes_nothing() -> None:
    x, items, reward, at = shown(np.random.default_rng(13), 100)
    head = head_of()
    head.observe(x, items, reward, at)
    before = digest(head.snapshot())
    head.predict(x, items)
    assert digest(head.snapshot()) == before
