"""Pictures of a version say what its lines say, of the time since the version before it."""

from __future__ import annotations

import numpy as np
import pytest

from stream_rec.report_run import Run
from stream_rec.version_figure import DAY_MS, _bins, draw_calibration, draw_coverage
from stream_rec.version_page import points_of

REACH = {"served": {"coverage": 0.5, "gini": 0.7}}


def line(at_ms: int, bins=None) -> dict:
    told = {} if bins is None else {"click": {"learner": {"n": 1, "bins": bins}}}
    return {"event_at": at_ms, "consumed": 1, "heads": told, "reach": REACH}


def test_bins_of_different_lines_that_predict_the_same_meet():
    run = Run([line(0, [[100, 10.0, 12]]), line(1, [[50, 5.0, 3], [40, 20.0, 20]])], {}, [])
    np.testing.assert_array_equal(_bins(run, "click", "learner"), [[150, 15, 15], [40, 20, 20]])


def test_a_bin_of_a_few_examples_is_not_drawn():
    assert len(_bins(Run([line(0, [[3, 1.0, 1]])], {}, []), "click", "learner")) == 0


def test_without_a_known_click_there_is_no_picture_of_calibration(tmp_path):
    assert not draw_calibration(Run([line(0), line(1)], {}, [0]), tmp_path / "c.png")
    assert not (tmp_path / "c.png").exists()


@pytest.mark.parametrize(("promoted", "drawn"), [([0, 4 * DAY_MS], True), ([2 * DAY_MS, 4 * DAY_MS], False)])
def test_calibration_is_of_the_time_since_the_version_before(tmp_path, promoted, drawn):
    run = Run([line(DAY_MS, [[100, 10.0, 12]]), line(4 * DAY_MS)], {}, promoted)
    assert draw_calibration(run, tmp_path / "c.png") == drawn


def test_coverage_is_drawn_of_what_was_listed(tmp_path):
    assert draw_coverage(Run([line(0), line(DAY_MS)], {}, []), tmp_path / "c.png")
    assert (tmp_path / "c.png").stat().st_size > 1_000
    assert not draw_coverage(Run([{"event_at": 0}], {}, []), tmp_path / "none.png")


def test_what_the_served_probabilities_were_worth_is_a_metric_where_enough_is_known():
    told = {"n": 500, "ece": 0.01, "log_loss": 0.2, "auc": None}
    heads = {"click": {"champion": told}, "purchase": {"champion": told | {"n": 5}}}
    assert dict(points_of({"heads": heads})) == {"eval/click_ece": 0.01, "eval/click_log_loss": 0.2}
