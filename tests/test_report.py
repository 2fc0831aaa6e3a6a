"""A report says what the run folder says, draws it, and copes with what a folder may look like."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread
from rich.console import Console

from stream_rec.errors import SettingsError
from stream_rec.report import report
from stream_rec.report_run import moving_average, read_run

START_MS = 1_767_571_200_000
HOUR_MS = 3_600_000
MODELS = {"served": 0.24, "ranker": 0.25, "popular_7d": 0.16, "repeat": 0.09, "own_then_popular_7d": 0.2}


def table(factor: float) -> dict[str, Any]:
    slices = {"all": 1.0, "known": 1.2, "new": 0.5}
    return {
        task: {
            model: {name: {"n": 100, "recall@20": recall * factor * by, "ndcg@20": 0.1} for name, by in slices.items()}
            for model, recall in MODELS.items()
        }
        for task in ("next_visit", "next_item")
    }


def line(hour: int) -> dict[str, Any]:
    return {
        "tick": hour, "event_at": START_MS + hour * HOUR_MS, "watermark": START_MS, "version": f"v{hour // 20}",
        "consumed": 100, "accepted": 95, "duplicate": 3, "late": 1, "dead_lettered": 1, "ignored": 0, "repaired": 2,
        "impressions": 40, "clicks": 10 + hour // 10, "click_rate": None, "join_rate": 1.0,
        "metrics": table(1 + hour / 200) if hour % 3 else {},
    }  # fmt: skip


SUMMARY = {
    "consumed": 10_000, "accepted": 9_500, "duplicate": 300, "late": 100, "dead_lettered": 100, "ignored": 0,
    "repaired": 200, "n_versions": 5, "champion": "v4", "events_per_s": 2500.0, "cpu_s": 4.0,
    "metrics": {"first_tenth": table(0.5), "last_tenth": table(1.0), "whole": table(0.8)},
    "click_rate": {"first_tenth": 0.2, "last_tenth": 0.3},
}  # fmt: skip


def folder(path: Path, *, lines: int = 100, summary: dict[str, Any] | None = None) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    if lines:
        (path / "metrics.jsonl").write_text("".join(json.dumps(line(h)) + "\n" for h in range(lines)))
    if summary is not None:
        (path / "summary.json").write_text(json.dumps(summary))
    return path


def told(path: Path, width: int = 80) -> str:
    out = io.StringIO()
    report(path, Console(file=out, width=width))
    return out.getvalue()


def rows(text: str, label: str) -> list[list[str]]:
    return [
        row.removeprefix(label).split() for raw in text.splitlines() if (row := raw.strip()).startswith(label + " ")
    ]


@pytest.fixture(scope="module")
def told_of_a_run(tmp_path_factory: pytest.TempPathFactory) -> str:
    return told(folder(tmp_path_factory.mktemp("run"), summary=SUMMARY))


def test_the_model_table_holds_the_first_tenth_the_last_tenth_and_what_it_gains_on_popularity(
    told_of_a_run: str,
) -> None:
    text = told_of_a_run
    assert rows(text, "served slates")[0] == ["0.120", "0.240", "+100", "%", "0.192", "1.50x"]


def test_the_simple_lists_follow_from_best_to_worst(told_of_a_run: str) -> None:
    first = told_of_a_run.split("next item")[0]
    order = ["served slates", "ranker", "own, then popular", "popular, last 7 days", "bought before"]
    places = [first.index(name) for name in order]
    assert places == sorted(places)


def test_a_slice_is_held_against_its_strongest_simple_list(told_of_a_run: str) -> None:
    known = rows(told_of_a_run, "known users")[0]
    assert known == ["100", "0.288", "0.300", "0.192", "own,", "then", "popular", "0.240", "1.25x"]


def test_the_accounting_adds_up_in_words(told_of_a_run: str) -> None:
    text = " ".join(told_of_a_run.split())
    assert "10,000 consumed = 9,500 accepted + 300 duplicate + 100 late + 100 dead lettered + 0 ignored" in text
    assert "first tenth 20.0%, last tenth 30.0% (+50 %)" in text


def test_nothing_is_cut_off_on_a_terminal_of_80_columns(told_of_a_run: str) -> None:
    text = told_of_a_run
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_the_figure_is_a_picture_with_something_on_it(tmp_path: Path) -> None:
    told(folder(tmp_path, summary=SUMMARY))
    picture = imread(tmp_path / "figures" / "learning.png")
    assert picture.shape[0] > 900
    assert picture.shape[1] > 1200
    ink = (picture[..., :3].min(axis=2) < 0.9).mean()
    assert 0.01 < ink < 0.5


def test_the_same_folder_gives_the_same_picture(tmp_path: Path) -> None:
    figure = folder(tmp_path, summary=SUMMARY) / "figures" / "learning.png"
    told(tmp_path)
    before = figure.read_bytes()
    told(tmp_path)
    assert figure.read_bytes() == before


def test_it_returns_what_the_folder_holds_with_the_figure_first(tmp_path: Path) -> None:
    folder(tmp_path, summary=SUMMARY)
    (tmp_path / "slates.jsonl").write_text("")
    (tmp_path / "checkpoints").mkdir()
    paths = report(tmp_path, Console(file=io.StringIO()))
    assert [str(p.relative_to(tmp_path)) for p in paths] == [
        "figures/learning.png", "summary.json", "metrics.jsonl", "slates.jsonl", "checkpoints",
    ]  # fmt: skip


@pytest.mark.parametrize("lines", [1, 2, 3])
def test_a_run_that_has_hardly_begun_can_be_drawn(tmp_path: Path, lines: int) -> None:
    told(folder(tmp_path, lines=lines))
    assert (tmp_path / "figures" / "learning.png").exists()


def test_a_run_without_impressions_or_metrics_can_be_drawn(tmp_path: Path) -> None:
    bare = {"event_at": START_MS, "consumed": 10, "accepted": 10, "version": "v0"}
    later = {**bare, "event_at": START_MS + HOUR_MS}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(bare) + "\n" + json.dumps(later) + "\n")
    assert told(tmp_path).strip() != ""
    assert (tmp_path / "figures" / "learning.png").exists()


def test_a_finished_run_without_interval_lines_still_has_its_tables(tmp_path: Path) -> None:
    assert "served slates" in told(folder(tmp_path, lines=0, summary=SUMMARY))
    assert not (tmp_path / "figures").exists()


def test_a_line_that_is_being_written_is_left_out(tmp_path: Path) -> None:
    folder(tmp_path, lines=10)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"tick": 11, "event_at"')
    assert len(read_run(tmp_path).lines) == 10


def test_an_empty_folder_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="give the folder of a run"):
        report(tmp_path, Console(file=io.StringIO()))


def test_an_unfinished_run_says_so_and_has_its_tables_from_the_lines_so_far(tmp_path: Path) -> None:
    text = told(folder(tmp_path, lines=100))
    assert text.startswith("unfinished: 10,000 records so far")
    assert rows(text, "popular, last 7 days")[0][1] == f"{0.16 * (1 + (91 + 92 + 94 + 95 + 97 + 98) / 6 / 200):.3f}"
    assert "10,000 consumed = 9,500 accepted" in " ".join(text.split())


def test_a_run_that_has_only_a_ledger_is_unfinished(tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").write_text("{}\n")
    assert told(tmp_path).startswith("unfinished: 0 records so far")


def test_promotions_are_the_version_notices(tmp_path: Path) -> None:
    folder(tmp_path, lines=10)
    notices = [{"version": "v1", "event_at": START_MS + 5}, {"command": "freeze", "event_at": START_MS + 6}]
    (tmp_path / "versions.jsonl").write_text("".join(json.dumps(n) + "\n" for n in notices))
    assert read_run(tmp_path).promoted_at_ms == [START_MS + 5]


def test_without_notices_promotions_are_the_changes_of_version(tmp_path: Path) -> None:
    assert read_run(folder(tmp_path, lines=50)).promoted_at_ms == [START_MS + 20 * HOUR_MS, START_MS + 40 * HOUR_MS]


def test_a_stray_line_far_in_the_future_does_not_stretch_the_picture(tmp_path: Path) -> None:
    folder(tmp_path, lines=100)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({**line(99), "event_at": START_MS + 10_000 * HOUR_MS, "consumed": 1}) + "\n")
    assert read_run(tmp_path).extent_ms() == (START_MS, START_MS + 99 * HOUR_MS)


def test_a_moving_average_never_looks_ahead() -> None:
    times, n = np.array([0.0, 10, 20, 30, 40, 50]), np.ones(6)
    before = moving_average(times, n, np.arange(6.0), window_ms=25)
    after = moving_average(times, n, np.array([0.0, 1, 2, 3, 99, 99]), window_ms=25)
    np.testing.assert_array_equal(before[:4], after[:4])
