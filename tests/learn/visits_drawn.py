"""Visits drawn with a seed, on which a champion and a challenger are compared."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

LEVEL = 0.3


class Drawn(NamedTuple):
    """E visits in order: users, and the recall of both models on the visit's organic targets, float64 [E]."""

    user_key: np.ndarray
    champion: np.ndarray
    challenger: np.ndarray


def draw(seed: int, n_visits: int, effect: float = 0.0, *, n_users: int = 600, like: float = 0.05) -> Drawn:
    """Visits with one to five targets; `effect` is the challenger's true gain, `like` how alike a user's visits are.

    On four visits in ten the two models find the same targets, as models of one stream do.
    """
    rng = np.random.default_rng([seed, n_visits])
    user = rng.integers(0, n_users, n_visits)
    own = rng.normal(0.0, like, n_users)
    targets = rng.integers(1, 6, n_visits)
    champion = rng.binomial(targets, LEVEL) / targets
    chance = np.clip(LEVEL + effect / 0.6 + own[user] - own.mean(), 0.0, 1.0)
    other = rng.binomial(targets, chance) / targets
    return Drawn(user, champion, np.where(rng.random(n_visits) < 0.4, champion, other))
