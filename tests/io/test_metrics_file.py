"""`metrics.jsonl` of a worker: each line exactly once, whatever a crash left behind."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from stream_rec.io.metrics_file import MetricsFile


def line(tick: int, n: int = 0) -> bytes:
    return msgspec.json.encode({"tick": tick, "n": n})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with two lines of tick 1, one of 2 and one of 4."""
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(path)
    file.append([line(1), line(1, 1)])
    file.append([line(2)])
    file.append([line(4)])
    return path


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


@pytest.mark.parametrize(("tick", "n"), [(0, 0), (1, 2), (2, 3), (3, 3), (4, 4), (9, 4)])
def test_lines_of_ticks_that_were_never_committed_are_cut_off(path: Path, tick: int, n: int) -> None:
    MetricsFile(path).cut(tick)
    assert lines(path) == [line(1), line(1, 1), line(2), line(4)][:n]


@pytest.mark.parametrize("torn", [b'{"tick":4,"n', b'{"tick":4,"n":1}', b"\0" * 40, b"no line of ours\n"])
def test_what_a_crash_left_of_a_line_is_cut_off(path: Path, torn: bytes) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    MetricsFile(path).cut(4)
    assert path.read_bytes() == whole


def test_lines_behind_a_broken_one_are_cut_off_with_it(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole + b"\0\0\0\n" + line(4, 1) + b"\n")
    MetricsFile(path).cut(9)
    assert path.read_bytes() == whole


def test_a_tick_that_is_made_again_after_a_cut_has_its_lines_once(path: Path) -> None:
    file = MetricsFile(path)
    file.cut(2)
    file.append([line(3)])
    assert lines(path) == [line(1), line(1, 1), line(2), line(3)]


def test_nothing_is_made_before_there_is_a_line(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "metrics.jsonl")
    file.cut(3)
    file.append([])
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_takes_nothing_loses_lines_and_stops_nobody(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "gone" / "metrics.jsonl")
    file.append([line(1), line(2)])
    assert file.n_lost == 2
