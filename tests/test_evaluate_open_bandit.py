"""Open Bandit logs: the other policy's value is found, and what cannot be used is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from stream_rec import cli, config
from stream_rec import evaluate as evaluation
from stream_rec.evaluate_open_bandit import COLUMNS, as_in, read, table, uniform

N, K = 4_000, 5
TRUE = np.array([0.05, 0.1, 0.15, 0.2, 0.3])
SKEWED = np.array([0.1, 0.1, 0.2, 0.2, 0.4])


def rows_of(policy: np.ndarray, seed: int, n: int = N) -> list[list[str]]:
    """Three positions, the policy alike at each."""
    rng = np.random.default_rng(seed)
    shown = rng.choice(K, n, p=policy)
    clicked = rng.random(n) < TRUE[shown]
    return [
        [f"t{i}", f"item {shown[i]}", str(i % 3 + 1), str(int(clicked[i])), repr(float(policy[shown[i]]))]
        for i in range(n)
    ]


def file_of(path: Path, rows: list[list[str]], header: tuple[str, ...] = COLUMNS) -> Path:
    path.write_text("\n".join(",".join(row) for row in [list(header), *rows]) + "\n")
    return path


@pytest.fixture
def logs(tmp_path: Path) -> tuple[Path, Path]:
    return file_of(tmp_path / "skewed.csv", rows_of(SKEWED, 0)), file_of(
        tmp_path / "even.csv", rows_of(np.full(K, 0.2), 1)
    )


def told_of(log: Path, policy: str, **asked: Any) -> evaluation.Told:
    return evaluation.evaluate(config.Settings(), evaluation.Asked(log, policy, **asked))


def cell(told: evaluation.Told, estimator: str, group: str = "all") -> dict[str, Any]:
    (row,) = (r for r in told.rows if (r["estimator"], r["group"]) == (estimator, group))
    return row


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["evaluate", *map(str, arguments)])


@pytest.mark.parametrize("estimator", ["ips", "snips", "dr", "switch_dr"])
def test_each_log_tells_the_value_of_the_others_policy(estimator: str, logs: tuple[Path, Path]) -> None:
    skewed, even = logs
    assert cell(told_of(skewed, str(even)), estimator)["value"] == pytest.approx(TRUE.mean(), rel=0.12)
    assert cell(told_of(even, str(skewed)), estimator)["value"] == pytest.approx(TRUE @ SKEWED, rel=0.12)


def test_uniform_by_name_is_what_the_uniform_log_says(logs: tuple[Path, Path]) -> None:
    by_name, by_log = told_of(logs[0], "uniform"), told_of(logs[0], str(logs[1]))
    assert cell(by_name, "snips")["value"] == pytest.approx(cell(by_log, "snips")["value"])


@pytest.mark.parametrize("asked", [{"policy": "even.csv"}, {"policy": "uniform", "against": Path("even.csv")}])
def test_the_other_logs_own_value_stands_beside(
    logs: tuple[Path, Path], asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(logs[0].parent)
    own = cell(told_of(logs[0], **asked), "on_policy", "even.csv")
    clicks = [float(line.split(",")[3]) for line in logs[1].read_text().splitlines()[1:]]
    assert own["value"] == pytest.approx(np.mean(clicks))
    assert own["low"] < own["value"] < own["high"]


def test_a_policy_that_changed_counts_by_its_mean_over_time() -> None:
    """Item 0 was shown with 0.9 in one half of the time and 0.1 in the other; the plain mean of its rows is 0.82."""
    rng = np.random.default_rng(0)
    chance = np.where(np.arange(20_000) % 2 == 0, 0.9, 0.1)
    first = rng.random(20_000) < chance
    rows = [
        [str(i), "01"[not f], "1", "0", str(p if f else 1 - p)]
        for i, (f, p) in enumerate(zip(first, chance, strict=True))
    ]
    log = read(COLUMNS, rows)
    assert as_in(log, log)[np.array(log.item) == 0].mean() == pytest.approx(0.5, abs=0.02)


def test_an_item_that_the_other_log_never_shows_is_refused(tmp_path: Path) -> None:
    log = file_of(tmp_path / "a.csv", [*rows_of(SKEWED, 0), ["t", "new", "1", "1", "0.5"]])
    other = file_of(tmp_path / "b.csv", rows_of(SKEWED, 1))
    assert cell(told_of(log, str(other)), "snips")["refused_reasons"] == {"unknown to the target policy": 1}


@pytest.mark.parametrize(
    ("click", "propensity", "reason"),
    [
        ("0", "0", "propensity is zero or tiny"),
        ("0", "1e-9", "propensity is zero or tiny"),
        ("0", "nan", "propensity is missing"),
        ("0", "", "propensity is missing"),
        ("0", "many", "propensity is missing"),
        ("0", "7", "propensity is above one"),
        ("nan", "0.5", "reward is not finite"),
        ("yes", "0.5", "reward is not finite"),
    ],
)
def test_hostile_rows_are_refused_with_the_reason(tmp_path: Path, click: str, propensity: str, reason: str) -> None:
    log = file_of(tmp_path / "a.csv", [*rows_of(SKEWED, 0), ["t", "item 0", "1", click, propensity]])
    for row in told_of(log, "uniform").rows:
        assert row["refused_reasons"] == {reason: 1}
        assert np.isfinite(row["value"])


def test_rows_of_another_width_are_counted_and_left_out(tmp_path: Path) -> None:
    told = told_of(file_of(tmp_path / "a.csv", [*rows_of(SKEWED, 0), ["t", "7"]]), "uniform")
    assert told.left_out == {"rows without the columns of the first line": 1}


def test_a_small_effective_sample_gets_no_verdict(tmp_path: Path) -> None:
    rows = rows_of(np.array([0.0004, 0.0004, 0.0004, 0.0004, 0.9984]), 0)
    told = told_of(file_of(tmp_path / "a.csv", rows), "uniform")
    assert not cell(told, "snips")["verdict"]


@pytest.mark.parametrize("rows", [[], [["t", "1", "1", "0", "0"]]])
def test_a_log_without_a_usable_row_exits_3(tmp_path: Path, rows: list[list[str]]) -> None:
    result = run(file_of(tmp_path / "a.csv", rows), "--policy", "uniform")
    assert result.exit_code == 3 and result.stderr.count("\n") == 1


def test_a_folder_with_one_log_is_that_log_and_with_two_asks_which(logs: tuple[Path, Path]) -> None:
    assert run(logs[0].parent, "--policy", "uniform").exit_code == 2
    logs[1].unlink()
    (logs[0].parent / "item_context.csv").write_text("item_id,item_feature_0\n1,0.5\n")
    assert run(logs[0].parent, "--policy", "uniform").exit_code == 0


@pytest.mark.parametrize("policy", ["bogus", "item_context.csv"])
def test_a_policy_that_is_no_log_exits_2(policy: str, logs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(logs[0].parent)
    Path("item_context.csv").write_text("item_id,item_feature_0\n1,0.5\n")
    assert run(logs[0], "--policy", policy).exit_code == 2


def test_a_log_that_lacks_a_column_exits_2_and_names_the_columns(tmp_path: Path) -> None:
    rows = [row[:4] for row in rows_of(SKEWED, 0, 10)]
    result = run(file_of(tmp_path / "a.csv", rows, COLUMNS[:4]), "--policy", "uniform")
    assert result.exit_code == 2 and "propensity_score" in result.stderr


def test_there_is_no_reward_model_where_the_target_is_not_known_whole() -> None:
    log = read(COLUMNS, rows_of(SKEWED, 0, 200))
    assert table(log, uniform(log)) is not None
    assert table(log, uniform(log) / 2) is None


def test_json_lines_hold_no_nan(logs: tuple[Path, Path]) -> None:
    for line in run(logs[0], "--policy", "uniform", "--json").stdout.splitlines():
        json.loads(line, parse_constant=lambda word: pytest.fail(word))
