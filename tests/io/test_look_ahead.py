"""The look ahead against the definition computed line by line."""

import numpy as np
import pytest

from stream_rec.io.look_ahead import AHEAD, LEAST, MARGIN_MS, in_future

DAY = MARGIN_MS


def by_definition(times, line):
    window = sorted(t for t in times[line + 1 : line + 1 + AHEAD] if t >= 0)
    if times[line] < 0:
        return False
    if len(window) >= LEAST:
        return times[line] > window[(len(window) - 1) // 2] + DAY
    around = sorted([t for t in times if t >= 0][-AHEAD:])
    if len(around) < LEAST:
        return False
    low, middle = around[(len(around) - 1) // 4], around[(len(around) - 1) // 2]
    return times[line] > middle + DAY + 4 * (middle - low)


@pytest.mark.parametrize("seed", range(6))
def test_judges_as_the_definition_does(seed):
    rng = np.random.default_rng(seed)
    times = 10**12 + np.sort(rng.integers(0, 40 * DAY, 2600))
    times += rng.integers(0, 2 * DAY, times.size) * (rng.random(times.size) < 0.3)
    times[rng.random(times.size) < 0.1 * seed] = -1
    times[rng.random(times.size) < 0.06] = 0
    times[rng.random(times.size) < 0.05] = 4 * 10**12
    expected = [by_definition(times.tolist(), line) for line in range(times.size)]
    assert in_future(times, 0, times.size).tolist() == expected
    assert 0 < sum(expected) < times.size


def test_nothing_in_a_file_in_order_is_in_the_future_before_its_last_twenty():
    times = np.cumsum(np.random.default_rng(1).integers(0, 9 * DAY, 3000))
    assert not in_future(times, 0, times.size - LEAST).any()


def test_a_sparse_file_in_order_keeps_its_end():
    times = 10**12 + np.arange(60) * 7 * DAY
    assert not in_future(times, 0, times.size).any()


def test_the_very_last_record_can_be_in_the_future():
    times = np.append(10**12 + np.arange(500) * 1000, 4 * 10**12)
    assert np.flatnonzero(in_future(times, 0, times.size)).tolist() == [500]


def test_fewer_than_twenty_times_are_not_judged():
    assert not in_future(np.array([1, 2, 4 * 10**12, 3]), 0, 4).any()
