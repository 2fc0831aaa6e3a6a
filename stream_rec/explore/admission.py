"""Which candidates a slate draws from: the best by upper bound, with places held for items on trial."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream_rec.events import MISSING

Doubles = NDArray[np.float64]
Bools = NDArray[np.bool_]
I32 = NDArray[np.int32]


def admit(upper: Doubles, offered: Bools, n: int, *, trial: Bools | None = None, n_trial: int = 0) -> I32:
    """Columns of the admitted candidates, int32 [B, n], best first; MISSING where fewer are offered.

    Args:
        upper: float64 [B, N], upper bound of the utility.
        offered: bool [B, N], what may be shown: not blocked, in stock, within the price limits.
        n: places.
        trial: bool [B, N], items that have not had their trial impressions.
        n_trial: how many of the places are held for items on trial; what they do not take goes by the bound.

    >>> upper = np.array([[0.5, 0.4, 0.3, 0.2, 0.1]])
    >>> offered = np.array([[True, False, True, True, True]])
    >>> admit(upper, offered, 3).tolist()
    [[0, 2, 3]]
    >>> admit(upper, offered, 3, trial=np.array([[False, False, False, False, True]]), n_trial=1).tolist()
    [[0, 2, 4]]
    >>> admit(upper, offered, 6).tolist()
    [[0, 2, 3, 4, -1, -1]]
    """
    bound = np.where(offered, upper, -np.inf)
    if trial is None or n_trial == 0:
        return _best(bound, n)
    left = bound.copy()
    chosen = [_take(left, left, n - n_trial)]
    chosen.append(_take(np.where(trial, left, -np.inf), left, n_trial))
    chosen.append(_take(left, left, n_trial))
    together = np.concatenate(chosen, 1)
    # What is missing goes last, then the order is by bound again.
    together = np.take_along_axis(together, np.argsort(together == MISSING, 1, kind="stable"), 1)[:, :n]
    held = np.where(together == MISSING, -np.inf, np.take_along_axis(bound, np.maximum(together, 0), 1))
    return np.take_along_axis(together, np.argsort(-held, 1, kind="stable"), 1)


def _take(bound: Doubles, left: Doubles, n: int) -> I32:
    """The best by `bound`; they are no longer `left`."""
    out = _best(bound, n)
    row, place = np.nonzero(out != MISSING)
    left[row, out[row, place]] = -np.inf
    return out


def _best(bound: Doubles, n: int) -> I32:
    """The n best columns of each row, of equals the first; MISSING beyond what is finite."""
    width = min(n, bound.shape[1])
    if width < bound.shape[1]:
        best = np.sort(np.argpartition(-bound, width, axis=1)[:, :width], axis=1)
    else:
        best = np.broadcast_to(np.arange(width), (len(bound), width))
    held = np.take_along_axis(bound, best, 1)
    order = np.argsort(-held, 1, kind="stable")
    is_held = np.isfinite(np.take_along_axis(held, order, 1))
    out = np.full((len(bound), n), MISSING, np.int32)
    out[:, :width] = np.where(is_held, np.take_along_axis(best, order, 1), MISSING)
    return out
