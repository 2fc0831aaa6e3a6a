"""What is kept of a draw with each slot until its wait has closed: one float16.

p: the slot shows its greedy candidate, whose chance p was (1: nothing was drawn). -p: it passed that candidate over.
2 + p: it shows its greedy candidate, which the slot before has passed over, so chance alone has moved that item down.
0: the slot does not say. The exact propensities are in the slates; these are rounded to 3 digits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Halves = NDArray[np.float16]
Bools = NDArray[np.bool_]

MOVED = 2.0
LEAST = 2.0**-9
"""Smallest chance of the greedy candidate that is kept: behind MOVED a float16 tells no smaller one."""


def coded(p: Any, passed: Any, moved: Any) -> Any:
    """Codes of slots, from the chance of the greedy candidate, whether it was passed over and whether it was moved.

    >>> coded(np.array([0.75, 0.75, 0.75]), np.array([False, True, False]), np.array([False, False, True])).tolist()
    [0.75, -0.75, 2.75]
    """
    kept = np.maximum(p, LEAST)
    return np.where(passed, -kept, np.where(moved, MOVED + kept, kept)).astype(np.float16)


def coded_one(p: float, *, passed: bool, moved: bool) -> float:
    """`coded` of one slot, not rounded yet.

    >>> coded_one(0.75, passed=False, moved=True)
    2.75
    """
    kept = max(p, LEAST)
    return -kept if passed else MOVED + kept if moved else kept


def greedy_chance(code: Halves) -> Doubles:
    """Chance of the greedy candidate of each slot, float64 of the same shape; 1 where nothing is said."""
    told = np.abs(code.astype(np.float64))
    chance = np.where(told > MOVED, told - MOVED, told)
    return np.where(code == 0, 1.0, chance)


def is_drawn(code: Halves) -> Bools:
    """Which slates [B], of codes [B, k], had a slot that could have shown another candidate."""
    return np.asarray((greedy_chance(code) < 1.0).any(1))


def greedy_weight(code: Halves) -> Doubles:
    """Weight that makes drawn slates stand for greedy ones, float64 [B]: 1 / chance if all is greedy, else 0.

    Its mean over draws is one, slate by slot: the chance that no slot passes its greedy candidate over is the product.

    >>> greedy_weight(np.array([[1.0, 0.5, 0.8], [1.0, -0.5, 2.75]], np.float16)).round(2).tolist()
    [2.5, 0.0]
    """
    return np.asarray(np.where((code < 0).any(1), 0.0, 1.0 / greedy_chance(code).prod(1)))
