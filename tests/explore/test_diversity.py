"""Diversity inside the slot step, against its definitions written out plainly."""

from __future__ import annotations

import numpy as np
import pytest

from stream_rec.errors import SettingsError
from stream_rec.explore.diversity import Cosines, Diversity

B, M, D, K = 3, 12, 6, 5


def candidates(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.uniform(0.01, 0.5, (B, M)), rng.normal(size=(B, M, D))


def picks(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.array([rng.permutation(M)[:K] for _ in range(B)])


@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_a_dpp_value_is_the_factor_on_the_determinant_of_the_prefix(strength: float) -> None:
    u, vectors = candidates(0)
    dpp = Diversity(u, Cosines(vectors, K), "dpp", strength=strength, n_slots=K)
    taken = picks(1)
    for k in range(K - 1):
        dpp.take(taken[:, k])
        value = dpp.value()
        for b in range(B):
            unit = vectors[b] / np.linalg.norm(vectors[b], axis=1, keepdims=True)
            kernel = strength * unit @ unit.T
            np.fill_diagonal(kernel, 1.0)
            kernel *= np.sqrt(np.outer(u[b], u[b]))
            prefix = taken[b, : k + 1].tolist()
            for j in set(range(M)) - set(prefix):
                both = [*prefix, j]
                ratio = np.linalg.det(kernel[np.ix_(both, both)]) / np.linalg.det(kernel[np.ix_(prefix, prefix)])
                assert value[b, j] == pytest.approx(ratio, abs=1e-9)


def test_an_mmr_value_is_the_utility_less_the_nearest_cosine_clipped_at_zero() -> None:
    u, vectors = candidates(2)
    mmr = Diversity(u, Cosines(vectors, K), "mmr", strength=0.6, n_slots=K)
    taken = picks(3)
    for k in range(K):
        mmr.take(taken[:, k])
    unit = vectors / np.linalg.norm(vectors, axis=2, keepdims=True)
    for b in range(B):
        nearest = np.maximum((unit[b] @ unit[b][taken[b]].T).max(1), 0)
        assert np.allclose(mmr.value()[b], np.maximum(u[b] - 0.6 * u[b].max() * nearest, 0))


@pytest.mark.parametrize("kind", ["dpp", "mmr"])
def test_the_value_never_exceeds_the_utility_and_is_never_below_zero(kind: str) -> None:
    u, vectors = candidates(4)
    vectors[:, 3] = vectors[:, 2]
    vectors[:, 5] = 0.0
    diversity = Diversity(u, Cosines(vectors, M), kind, strength=1.0, n_slots=M)
    for k in range(M):
        diversity.take(np.full(B, k))
        value = diversity.value()
        assert (value >= 0).all() and (value <= u + 1e-12).all()


def test_rows_of_cosines_are_the_same_computed_at_once_and_when_asked() -> None:
    vectors = np.random.default_rng(5).normal(size=(2, 40, 8))
    at = np.array([3, 30])
    assert np.allclose(Cosines(vectors, 20).rows(at), Cosines(vectors, 2).rows(at), atol=1e-12)


def test_without_vectors_the_value_is_the_utility() -> None:
    u, _ = candidates(6)
    plain = Diversity(u, None, "dpp", strength=1.0, n_slots=K)
    plain.take(np.zeros(B, np.intp))
    assert np.array_equal(plain.value(), u)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(SettingsError, match="is none of dpp, mmr, none"):
        Diversity(candidates(7)[0], None, "random", strength=0.5, n_slots=K)
