"""Offers of candidates for tests, drawn by seed."""

from __future__ import annotations

from typing import Any

import numpy as np

from stream_rec.explore.slate import Offer, slate_seeds


def offer_of(n_slates: int, n_candidates: int, seed: int = 0, *, tick: int = 1, **named: Any) -> Offer:
    """Different slates, the utilities of clicks; every candidate allowed."""
    rng = np.random.default_rng(seed)
    utility = np.sort(rng.beta(1.5, 30, (n_slates, n_candidates)))[:, ::-1].copy()
    keys = [f"user-{k}" for k in range(n_slates)]
    told: dict[str, Any] = {
        "utility": utility,
        "allowed": np.ones(utility.shape, np.bool_),
        "seeds": slate_seeds(seed, tick, keys, "touched"),
        "spread": np.full(utility.shape, 0.02),
        "vectors": rng.normal(size=(n_slates, n_candidates, 8)),
    }
    return Offer(**{**told, **named})


def repeated(n: int, utility: list[float], seed: int = 0, **named: Any) -> Offer:
    """The same candidates n times, each time with other draws; they lie in three directions."""
    m = len(utility)
    vectors = np.eye(3)[np.arange(m) % 3]
    told: dict[str, Any] = {
        "utility": np.tile(np.asarray(utility), (n, 1)),
        "allowed": np.ones((n, m), np.bool_),
        "seeds": slate_seeds(seed, 5, [str(k) for k in range(n)], "touched"),
        "spread": np.full((n, m), 0.05),
        "vectors": np.broadcast_to(vectors, (n, m, 3)),
    }
    return Offer(**{**told, **named})
