"""Claims about hash samples, thinning and the reservoir."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_rec.component import digest
from stream_rec.stream.examples import EXAMPLE_COLUMNS
from stream_rec.stream.sampling import Reservoir, hash01, hash64, hash_one, in_sample, thin

INT64 = st.integers(-(2**63), 2**63 - 1)


def batch(events: list[int], items: list[int] | None = None) -> dict[str, np.ndarray]:
    out = {name: np.zeros(len(events), dtype) for name, dtype in EXAMPLE_COLUMNS}
    out["event"] = np.array(events, np.int64)
    out["order"], out["user_born"] = out["event"].copy(), out["event"].copy()
    out["item"] = np.array(items if items is not None else [0] * len(events), np.int32)
    return out


def content(reservoir: Reservoir) -> set[int]:
    return set(reservoir.event[reservoir.rows()].tolist())


@settings(derandomize=True, deadline=None)
@given(INT64, st.lists(INT64, min_size=1, max_size=4))
def test_one_hash_equals_the_hash_of_columns(seed: int, values: list[int]) -> None:
    assert hash_one(seed, *values) == hash64(seed, *values).item() == hash64(seed, *([v] for v in values))[0].item()


def test_hash_broadcasts_and_depends_on_seed_and_order_of_values() -> None:
    grid = hash64(1, np.arange(3)[:, None], np.arange(4))
    assert grid.shape == (3, 4)
    assert len(set(grid.ravel().tolist())) == 12
    assert hash64(1, 2, 3) != hash64(1, 3, 2)
    assert hash64(1, 2, 3) != hash64(2, 2, 3)
    assert hash64(1, np.zeros(0, np.int64)).shape == (0,)


def test_hash01_is_uniform_on_consecutive_integers() -> None:
    drawn = np.sort(hash01(5, np.arange(100_000)))
    distance = np.abs(drawn - (np.arange(100_000) + 0.5) / 100_000).max()
    assert distance < 1.63 / np.sqrt(100_000)
    assert 0 <= drawn[0] <= drawn[-1] < 1


def test_each_input_bit_flips_half_the_output_bits() -> None:
    base = np.arange(2000)
    for bit in range(0, 63, 7):
        flipped = hash64(3, base) ^ hash64(3, base ^ (1 << bit))
        share = np.unpackbits(flipped.view(np.uint8)).mean()
        assert abs(share - 0.5) < 0.01


def test_sample_keeps_one_in_n_and_one_keeps_all() -> None:
    digests = np.arange(40_000)
    assert abs(in_sample(digests, 4, seed=1).mean() - 0.25) < 0.01
    assert in_sample(digests, 1, seed=1).all()


@pytest.mark.parametrize("keep", [[0.0], [1.5], [float("nan")]])
def test_keep_probability_outside_zero_to_one_is_refused(keep: list[float]) -> None:
    with pytest.raises(ValueError, match=r"in \(0, 1\]"):
        thin([0], [0], keep, [1], seed=1)


def test_thinning_keeps_all_positives_and_the_share_of_negatives() -> None:
    keys, label = np.arange(30_000), np.arange(30_000) % 10 == 0
    kept, offset = thin(label, np.zeros(30_000, int), [0.2], keys, seed=4)
    assert kept[label].all()
    assert abs(kept[~label].mean() - 0.2) < 0.01
    assert np.allclose(offset, -np.log(0.2))


def logistic(features: np.ndarray, label: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Maximum likelihood by Newton's method."""
    weights = np.zeros(features.shape[1])
    for _ in range(30):
        prob = 1 / (1 + np.exp(-(features @ weights + offset)))
        hessian = (features * (prob * (1 - prob))[:, None]).T @ features
        weights += np.linalg.solve(hessian, features.T @ (label - prob))
    return weights


def test_offset_of_thinned_data_recovers_the_weights_of_the_full_data() -> None:
    n, true = 200_000, np.array([-3.0, 1.0])
    x = hash01(1, np.arange(n)) * 4 - 2
    features = np.stack([np.ones(n), x], axis=1)
    label = hash01(2, np.arange(n)) < 1 / (1 + np.exp(-features @ true))
    kept, offset = thin(label, (x > 0).astype(int), [0.1, 0.5], np.arange(n), seed=9)
    fit = logistic(features[kept], label[kept].astype(float), offset[kept])
    naive = logistic(features[kept], label[kept].astype(float), np.zeros(kept.sum()))
    assert np.abs(fit - true).max() < 0.06
    assert naive[0] - true[0] > 1


def test_reservoir_is_the_smallest_hashes_of_all_examples() -> None:
    reservoir = Reservoir(50, seed=3)
    for start in range(0, 5000, 100):
        reservoir.add(batch(list(range(start, start + 100))))
    rank = hash64(3, np.arange(5000), 0)
    assert content(reservoir) == set(np.argsort(rank)[:50].tolist())
    assert reservoir.ceiling == int(np.sort(rank)[50])


@settings(derandomize=True, deadline=None, max_examples=100)
@given(
    st.lists(st.integers(0, 500), unique=True), st.integers(1, 20), st.integers(1, 9), st.randoms(use_true_random=False)
)
def test_reservoir_does_not_depend_on_arrival_order(events: list[int], capacity: int, chunk: int, rng) -> None:
    one, other = Reservoir(capacity, seed=1), Reservoir(capacity, seed=1)
    one.add(batch(events))
    shuffled = rng.sample(events, len(events))
    for start in range(0, len(shuffled), chunk):
        other.add(batch(shuffled[start : start + chunk]))
    assert content(one) == content(other)
    assert len(one) == min(len(events), capacity)


STEP = st.one_of(
    st.tuples(st.just("add"), st.lists(st.integers(0, 200), max_size=20)),
    st.tuples(st.just("retract"), st.integers(0, 200)),
)


def perform(reservoir: Reservoir, steps: list[tuple]) -> None:
    for word, rest in steps:
        if word == "add":
            reservoir.add(batch(rest))
        else:
            reservoir.retract_event([rest], [0])


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.lists(STEP, max_size=25), st.integers(1, 20))
def test_reservoir_after_retractions_is_what_lies_below_its_ceiling(steps: list[tuple], capacity: int) -> None:
    reservoir, left = Reservoir(capacity, seed=2), []
    perform(reservoir, steps)
    for word, rest in steps:
        left = left + rest if word == "add" else [event for event in left if event != rest]
    below = {event for event in left if hash_one(2, event, 0) < reservoir.ceiling}
    # Of examples with one hash only some may fit, so the ceiling itself may be held too.
    assert below <= content(reservoir) <= set(left)
    assert len(reservoir) <= capacity


def test_a_forgotten_user_leaves_nothing_in_the_reservoir() -> None:
    """Neither what it held, nor the rest of an example that had made room for another one."""
    reservoir = Reservoir(50, seed=3)
    for start in range(0, 300, 100):
        events = list(range(start, start + 100))
        reservoir.add(batch(events) | {"user_born": np.array(events) % 2 + 1})
    reservoir.retract_event(reservoir.event[:5], [0] * 5)
    held = reservoir.rows()
    mine = reservoir.user_born[held] == 1
    assert 0 < mine.sum() == reservoir.forget_users([1]) < len(held)
    assert reservoir.rows().tolist() == held[~mine].tolist()
    hers = reservoir.user_born != 2
    assert hers.sum() > mine.sum()
    assert not any(getattr(reservoir, name)[hers].any() for name in reservoir.columns)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.lists(STEP, max_size=25), st.lists(st.integers(1, 200), max_size=20), st.lists(STEP, max_size=9))
def test_a_reservoir_goes_on_after_a_forget_as_it_does_after_taking_all_of_the_user_back(
    before: list[tuple], hers: list[int], after: list[tuple]
) -> None:
    """Users are told by the event here; a restored reservoir goes on the same."""
    one, other, twin = Reservoir(9, seed=4), Reservoir(9, seed=4), Reservoir(9, seed=4)
    for each in (one, other):
        perform(each, before)
    one.forget_users(hers)
    other.retract_event(hers, [0] * len(hers))
    twin.restore(one.snapshot())
    for each in (one, other, twin):
        perform(each, after)
    assert sorted(one.event[one.rows()].tolist()) == sorted(other.event[other.rows()].tolist())
    assert (one.ceiling, digest(twin.snapshot())) == (other.ceiling, digest(one.snapshot()))


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.lists(STEP, max_size=25), st.integers(0, 25), st.integers(1, 20))
def test_restored_reservoir_goes_on_as_if_never_stopped(steps: list[tuple], cut: int, capacity: int) -> None:
    reservoir, twin = Reservoir(capacity, seed=5), Reservoir(capacity, seed=5)
    perform(reservoir, steps[:cut])
    perform(twin, steps[cut:])
    twin.restore(reservoir.snapshot())
    assert digest(twin.snapshot()) == digest(reservoir.snapshot())
    perform(twin, steps[cut:])
    perform(reservoir, steps[cut:])
    assert digest(twin.snapshot()) == digest(reservoir.snapshot())
