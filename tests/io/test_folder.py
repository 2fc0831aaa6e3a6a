"""A run folder holds whole ticks only, whatever was done to the program or the power."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from stream_rec.effects import Effects
from stream_rec.errors import JobFailed, LedgerMismatch, SettingsError
from stream_rec.events import Output, Topic
from stream_rec.io import folder as folder_module
from stream_rec.io.folder import FolderPublisher, FolderWeights
from stream_rec.io.run_folder import committed_lines, committed_records
from stream_rec.stream.ledger import GENESIS_CHAIN, chain_of, encode

N_TICKS = 4


def outputs_of(tick: int) -> list[Output]:
    slates = [Output(Topic.SLATES, b"u", b'{"tick":%d,"n":%d}' % (tick, n)) for n in range(2)]
    return [*slates, Output(Topic.VERSIONS, b"v%d" % tick, None)]


def go_on(folder: Path, n_ticks: int = N_TICKS) -> FolderPublisher:
    publisher = FolderPublisher(folder)
    ledger = publisher.read_ledger()
    prev = chain_of(ledger[-1][1]) if ledger else GENESIS_CHAIN
    for tick in range(len(ledger), n_ticks):
        entry = encode(tick, prev, "tick", {"outputs": Effects(outputs_of(tick)).sizes()})
        publisher.commit(outputs_of(tick), entry)
        prev = chain_of(entry)
    publisher.close()
    return publisher


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.glob("*.jsonl"))}


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    folder = tmp_path / "whole"
    go_on(folder)
    return folder


def test_a_tombstone_is_a_line_that_names_its_key(whole: Path) -> None:
    assert next(committed_records(whole, Topic.VERSIONS)) == {"key": "v0", "tombstone": True}


def test_every_topic_has_a_file_from_the_start(tmp_path: Path) -> None:
    FolderPublisher(tmp_path).close()
    assert set(files(tmp_path)) == {
        "slates.jsonl",
        "versions.jsonl",
        "dead-letters.jsonl",
        "metrics.jsonl",
        "ledger.jsonl",
    }


@pytest.mark.parametrize("name", ["ledger.jsonl", "slates.jsonl", "versions.jsonl"])
def test_a_file_cut_at_any_byte_is_resumed_to_the_same_bytes(whole: Path, tmp_path: Path, name: str) -> None:
    size = (whole / name).stat().st_size
    for n_bytes in range(0, size, 7 if name == "ledger.jsonl" else 3):
        torn = tmp_path / f"{name}{n_bytes}"
        shutil.copytree(whole, torn)
        os.truncate(torn / name, n_bytes)
        go_on(torn)
        assert files(torn) == files(whole), n_bytes


@pytest.mark.parametrize("name", ["ledger.jsonl", "slates.jsonl"])
def test_zero_bytes_after_a_power_cut_are_cut_off(whole: Path, name: str) -> None:
    before = files(whole)
    raw = before[name]
    at = len(raw) // 2
    (whole / name).write_bytes(raw[:at] + bytes(len(raw) - at))
    go_on(whole)
    assert files(whole) == before


def test_a_missing_topic_file_cuts_the_ledger_back(whole: Path) -> None:
    before = files(whole)
    (whole / "slates.jsonl").unlink()
    assert list(committed_lines(whole, Topic.LEDGER)) == []
    go_on(whole)
    assert files(whole) == before


def test_outputs_without_an_entry_are_cut_off_and_told(whole: Path) -> None:
    before = files(whole)
    with (whole / "slates.jsonl").open("ab") as file:
        file.write(b'{"tick":99}\n')
    publisher = FolderPublisher(whole)
    assert publisher.cut_bytes == {"slates": 12}
    publisher.close()
    assert files(whole) == before


def test_a_reader_does_not_see_outputs_without_an_entry(whole: Path) -> None:
    with (whole / "slates.jsonl").open("ab") as file:
        file.write(b'{"tick":99}\n')
    assert len(list(committed_records(whole, Topic.SLATES))) == 2 * N_TICKS


def test_a_reader_needs_no_lock(whole: Path) -> None:
    publisher = FolderPublisher(whole)
    assert len(list(committed_lines(whole, Topic.LEDGER))) == N_TICKS
    publisher.close()


def test_a_second_writer_is_turned_away_with_the_way_out(tmp_path: Path) -> None:
    first = FolderPublisher(tmp_path)
    with pytest.raises(JobFailed, match="another program is writing"):
        FolderPublisher(tmp_path)
    first.close()
    FolderPublisher(tmp_path).close()


def test_a_folder_with_outputs_but_no_ledger_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "slates.jsonl").write_bytes(b"precious\n")
    with pytest.raises(SettingsError, match="choose another --out"):
        FolderPublisher(tmp_path)
    assert files(tmp_path) == {"slates.jsonl": b"precious\n"}


def test_a_foreign_ledger_is_refused_and_not_touched(tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").write_bytes(b'{"my":"book keeping"}\n')
    with pytest.raises(LedgerMismatch):
        FolderPublisher(tmp_path)
    assert files(tmp_path) == {"ledger.jsonl": b'{"my":"book keeping"}\n'}


def test_a_refused_folder_is_not_left_locked(tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").write_bytes(b"x\n")
    for _ in range(2):
        with pytest.raises(LedgerMismatch):
            FolderPublisher(tmp_path)


def test_an_entry_that_miscounts_its_outputs_is_refused(tmp_path: Path) -> None:
    publisher = FolderPublisher(tmp_path)
    with pytest.raises(ValueError, match="differ"):
        publisher.commit(outputs_of(0), encode(0, GENESIS_CHAIN, "tick", {}))
    publisher.close()


def test_a_folder_that_is_no_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="not a run folder"):
        committed_lines(tmp_path, Topic.SLATES)


def test_a_full_disk_stops_the_job_and_costs_nothing(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files(whole)
    publisher = FolderPublisher(whole)
    write_all = folder_module.write_all

    def full(fd: int, data: bytes) -> None:
        write_all(fd, data[:5])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(folder_module, "write_all", full)
    entry = encode(N_TICKS, "", "tick", {"outputs": Effects(outputs_of(9)).sizes()})
    with pytest.raises(JobFailed, match="No space left"):
        publisher.commit(outputs_of(9), entry)
    monkeypatch.undo()
    with pytest.raises(JobFailed, match="run the same command again"):
        publisher.commit(outputs_of(9), entry)
    publisher.close()
    FolderPublisher(whole).close()
    assert files(whole) == before


def test_weights_are_durable_after_the_thread_wrote_them(tmp_path: Path) -> None:
    store = FolderWeights(tmp_path / "weights")
    store.put("v1-a", {"w": np.ones(3)})
    store.flush()
    assert list(store.durable()) == ["v1-a"]
    assert store.stored() == ["v1-a"]
    store.close()


def test_the_same_tensors_make_the_same_file(tmp_path: Path) -> None:
    tensors = {"b": np.ones(3, np.float32), "a": np.zeros((2, 2))}
    paths = []
    for order in (tensors, dict(reversed(tensors.items()))):
        store = FolderWeights(tmp_path / str(len(paths)), synchronous=True)
        store.put("v1", order)
        paths.append(store.path("v1"))
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_failed_weight_write_is_told_and_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FolderWeights(tmp_path)

    def full(_path: Path, _parts: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(folder_module, "replace_file", full)
    store.put("v1", {"w": np.ones(3)})
    store.flush()
    monkeypatch.undo()
    with pytest.raises(JobFailed, match="No space left"):
        store.durable()
    store.put("v1", {"w": np.ones(3)})
    store.flush()
    assert list(store.durable()) == ["v1"]
    store.close()


@pytest.mark.parametrize("name", ["../v1", "", "a/b", ".hidden"])
def test_a_version_name_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(JobFailed):
        FolderWeights(tmp_path).path(name)


def test_a_damaged_weights_file_is_refused(tmp_path: Path) -> None:
    store = FolderWeights(tmp_path, synchronous=True)
    store.put("v1", {"w": np.ones(3)})
    os.truncate(store.path("v1"), 20)
    with pytest.raises(JobFailed, match="damaged"):
        store.get("v1")
