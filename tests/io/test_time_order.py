"""Sorting by time in bounded memory."""

import numpy as np
import pytest

from stream_rec.io.time_order import in_time_order


@pytest.mark.parametrize("run_lines", [3, 50, 10**6])
def test_equal_times_keep_their_order_however_many_runs_there_are(tmp_path, run_lines):
    times = np.random.default_rng(2).integers(0, 20, 500).tolist()
    lines = [(at, b"%d\tx" % n) for n, at in enumerate(times)]
    assert list(in_time_order(lines, tmp_path, run_lines=run_lines)) == sorted(lines, key=lambda line: line[0])
    assert list(tmp_path.iterdir()) == []
