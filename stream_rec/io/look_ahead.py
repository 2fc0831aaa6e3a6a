"""Which records of a file lie in the future: a file has no clock, so the records after it are asked.

A record is in the future when its time is more than a day above the median of the next 1,000 times. Where fewer
than 20 are left to ask, the file's last 1,000 times stand in, and the margin grows by four times the distance from
their lower quartile to their median: in a file in order with a steady rate the last record lies twice that distance
above the median, so a sparse file keeps its end, and one stray time far out is still caught. A file of fewer than
20 times is not judged. A file in order has no record in the future before its last 20.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

AHEAD = 1000
LEAST = 20
MARGIN_MS = 86_400_000
_RUN = 256
_SPREADS = 4

Times = NDArray[np.int64]


def in_future(times: Times, first: int, stop: int) -> NDArray[np.bool_]:
    """Judge lines `first` to `stop` of `times`.

    Args:
        times: int64 ms, negative where a line has no time; at least 1,000 lines of context after `stop` and before
            `first`, unless the file ends or begins there.
        first: index of the first line to judge.
        stop: index after the last.

    Returns:
        bool[stop - first].

    >>> in_future(np.array([5, 10**12] + [7] * 30), 0, 3).tolist()
    [False, True, False]
    """
    verdict = np.zeros(stop - first, dtype=bool)
    for start in range(first, stop, _RUN):
        end = min(start + _RUN, stop)
        for line in _suspects(times, start, end):
            verdict[line - first] = _above_neighbours(times, int(line))
    return verdict


def _suspects(times: Times, start: int, end: int) -> NDArray[np.int64]:
    """Lines of a run that can be above their median at all, by one bound for the whole run.

    The windows of the run share `core`; each adds at most `n_others` more. So the element of rank r of any window is
    at least the core's of rank r - n_others.
    """
    valid: NDArray[np.int64] = np.flatnonzero(times[start:end] >= 0) + start
    core = times[end : start + 1 + AHEAD]
    core = core[core >= 0]
    others = np.count_nonzero(times[start + 1 : end] >= 0)
    others += np.count_nonzero(times[max(start + 1 + AHEAD, end) : end + AHEAD] >= 0)
    rank = (core.size + others - 1) // 2 - others
    if core.size < LEAST or rank < 0:
        return valid
    least_median = np.partition(core, rank)[rank]
    above: NDArray[np.int64] = valid[times[valid] > least_median + MARGIN_MS]
    return above


def _above_neighbours(times: Times, line: int) -> bool:
    window = times[line + 1 : line + 1 + AHEAD]
    window = window[window >= 0]
    if window.size >= LEAST:
        rank = (window.size - 1) // 2
        return bool(times[line] > np.partition(window, rank)[rank] + MARGIN_MS)
    around = times[times >= 0][-AHEAD:]
    if around.size < LEAST:
        return False
    low, middle = np.quantile(around, [0.25, 0.5], method="lower")
    return bool(times[line] > middle + MARGIN_MS + _SPREADS * (middle - low))
