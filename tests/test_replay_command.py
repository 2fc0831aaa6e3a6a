"""The command `replay` from end to end: what it prints, what it refuses, how it is interrupted."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from stream_rec import cli
from tests.shop_files import KEY, write_shop

SMALL = ("tick.max_records=128", "slate.refresh_users_per_tick=8", "learn.light_cut_examples=400")


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAM_REC_PRIVACY__KEY", KEY)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_shop(tmp_path_factory.mktemp("shop"))


def run(*words: object) -> Result:
    return CliRunner().invoke(cli.app, [str(word) for word in words])


def replay(events: Path, out: Path, *words: object, sets: tuple[str, ...] = SMALL) -> Result:
    return run("replay", events, "--out", out, *words, *(word for text in sets for word in ("--set", text)))


def test_a_replay_ends_with_the_counts_the_table_in_a_line_and_the_paths_picture_first(
    shop: tuple[Path, Path], tmp_path: Path
) -> None:
    result = replay(shop[0], tmp_path / "out", "--items", shop[1])
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].startswith("consumed ")
    assert lines[1].startswith("recall@20 at the next visit, last tenth: ")
    assert lines[2] == str(tmp_path / "out" / "figures" / "learning.png")
    assert Path(lines[2]).read_bytes()[:4] == b"\x89PNG"
    assert str(tmp_path / "out" / "summary.json") in lines
