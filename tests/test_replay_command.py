"""The command `replay` from end to end: what it prints, what it refuses, how it is interrupted."""

from __future__ import annotations

import gzip
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from stream_rec import cli
from stream_rec.loop import Loop
from stream_rec.stopping import Stopping
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


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_signal_lets_the_tick_end_saves_it_and_the_same_command_goes_on(
    number: signal.Signals, shop: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, ticks = Loop.step, list[int]()

    def signalled(self: Loop, **given: Any) -> bool:
        if len(ticks) == 2:
            os.kill(os.getpid(), number)
        did = step(self, **given)
        ticks.append(self.pipeline.positions.number)
        return did

    monkeypatch.setattr(Loop, "step", signalled)
    result = replay(shop[0], tmp_path / "out")
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1] == "interrupted; the same command goes on"
    assert len(ticks) == 3
    assert list((tmp_path / "out" / "checkpoints").glob(f"{ticks[-1]:010d}-*"))
    monkeypatch.undo()
    monkeypatch.setenv("STREAM_REC_PRIVACY__KEY", KEY)
    assert replay(shop[0], tmp_path / "out").exit_code == 0


def test_a_second_signal_ends_at_once_and_the_signals_are_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), Stopping() as stopping:
        stopping.gently()
        signal.raise_signal(signal.SIGTERM)
        assert stopping()
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before


def test_before_anybody_looks_the_first_signal_ends_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), Stopping():
        signal.raise_signal(signal.SIGTERM)


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    failed: list[BaseException] = []

    def enter() -> None:
        try:
            with Stopping():
                pass
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert failed == []


def test_a_folder_with_other_files_and_a_file_as_folder_are_refused_and_left_alone(
    shop: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    for out in (tmp_path, tmp_path / "thesis.txt", tmp_path / "thesis.txt" / "out"):
        result = replay(shop[0], out)
        assert (result.exit_code, "choose another --out" in result.stderr) == (2, True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.fixture(scope="module")
def finished(shop: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished replay without items, and its events."""
    out = tmp_path_factory.mktemp("finished") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STREAM_REC_PRIVACY__KEY", KEY)
        assert replay(shop[0], out).exit_code == 0
    return out


def test_other_settings_are_named_and_no_secret(shop: tuple[Path, Path], finished: Path) -> None:
    result = replay(shop[0], finished, "--set", "slate.n_slots=3", "--set", "privacy.key=other", "--set", "run.seed=4")
    assert result.exit_code == 2
    assert "other settings (privacy.key, run.seed, slate.n_slots)" in result.stderr


def test_other_input_is_named(shop: tuple[Path, Path], finished: Path) -> None:
    result = replay(shop[0], finished, "--items", shop[1], "--since", "2011-03-01")
    assert (result.exit_code, "other input (items, since differ)" in result.stderr) == (2, True)


def test_a_run_of_another_mode_is_named(shop: tuple[Path, Path], finished: Path, tmp_path: Path) -> None:
    ledger = (finished / "ledger.jsonl").read_text()
    (tmp_path / "ledger.jsonl").write_text(ledger.splitlines()[0].replace('"replay"', '"demo"') + "\n")
    result = replay(shop[0], tmp_path)
    assert (result.exit_code, "a demo's run" in result.stderr) == (2, True)


def test_the_same_events_compressed_are_the_same_input(shop: tuple[Path, Path], finished: Path, tmp_path: Path) -> None:
    packed = tmp_path / "events.jsonl.gz"
    packed.write_bytes(gzip.compress(shop[0].read_bytes()))
    assert replay(packed, finished).exit_code == 0


def test_a_damaged_file_is_refused_before_a_run_begins(shop: tuple[Path, Path], tmp_path: Path) -> None:
    packed = tmp_path / "events.jsonl.gz"
    packed.write_bytes(gzip.compress(shop[0].read_bytes())[:-3000])
    result = replay(packed, tmp_path / "out")
    assert (result.exit_code, "damaged" in result.stderr) == (1, True)
    assert not (tmp_path / "out").exists()


def test_a_selection_without_events_ends_with_a_warning(shop: tuple[Path, Path], tmp_path: Path) -> None:
    result = replay(shop[0], tmp_path / "out", "--items", shop[1], "--until", "2001-01-01")
    assert (result.exit_code, "took no event" in result.stderr) == (0, True)


def test_a_refused_input_exits_3_with_the_place_and_the_reason_and_only_commands_that_work(tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    events.write_text("jane@example.org\n" * 300)
    result = replay(events, tmp_path / "out")
    last = result.stderr.splitlines()[-1]
    assert result.exit_code == 3
    assert last.startswith("error: ")
    assert "not_json" in last
    assert "quality.dead_letter_share=1" in last
    assert "dead-letters list" not in last
    assert "jane" not in result.stderr
