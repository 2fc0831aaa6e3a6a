"""Checkpoints in a folder: off the loop, whole or not there, bounded in number, readable by later builds."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stream_rec.component import Snapshot
from stream_rec.errors import CheckpointRefused, JobFailed
from stream_rec.io import checkpoint_files
from stream_rec.io.checkpoint import FolderCheckpoints, Formats, Loaded
from stream_rec.io.faults import Crash, Faults
from stream_rec.io.retention import HOUR_MS


def state(n: int = 3) -> dict[str, Snapshot]:
    return {"users": {"seen": np.arange(n), "": {"n": n}}, "items": {"titles": ["a", "b"], "": {}}}


def saved(folder: Path, name: str = "5-ab") -> FolderCheckpoints:
    store = FolderCheckpoints(folder)
    store.save(name, {"tick": 5, "cut_at_ms": 0}, state())
    store.flush()
    return store


def waiting_at(gate: threading.Event) -> Callable[[], None]:
    def wait() -> None:
        gate.wait(10)

    return wait


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_equal_state_makes_equal_files(tmp_path: Path) -> None:
    saved(tmp_path / "a")
    saved(tmp_path / "b")
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_save_returns_before_anything_is_written(tmp_path: Path) -> None:
    gate = threading.Event()
    store = FolderCheckpoints(tmp_path, sync_first=waiting_at(gate))
    store.save("5-ab", {}, state())
    assert list(store.names()) == []
    gate.set()
    store.flush()
    assert list(store.names()) == ["5-ab"]


def test_the_ledger_is_synced_before_the_checkpoint_is_there(tmp_path: Path) -> None:
    seen: list[list[str]] = []
    store = FolderCheckpoints(tmp_path, sync_first=lambda: seen.append(list(store.names())))
    store.save("5-ab", {}, state())
    store.flush()
    assert seen == [[]]


def test_a_waiting_save_gives_way_to_a_newer_one(tmp_path: Path) -> None:
    gate = threading.Event()
    store = FolderCheckpoints(tmp_path, sync_first=waiting_at(gate))
    for tick in range(5):
        store.save(f"{tick}-ab", {}, state())
    gate.set()
    store.flush()
    assert {"0-ab", "4-ab"} <= set(store.names()) <= {"0-ab", "1-ab", "4-ab"}


def test_who_waits_for_a_checkpoint_does_not_wait_for_its_rests(tmp_path: Path) -> None:
    store = FolderCheckpoints(tmp_path)
    store.rests = 1_000_000_000
    store.save("5-ab", {}, state())
    store.flush()
    assert list(store.names()) == ["5-ab"]


def test_a_pinned_waiting_save_does_not_give_way(tmp_path: Path) -> None:
    gate = threading.Event()
    store = FolderCheckpoints(tmp_path, keep=10, sync_first=waiting_at(gate))
    store.pin("2-ab")
    for tick in range(5):
        store.save(f"{tick}-ab", {}, state())
    gate.set()
    store.flush()
    assert "2-ab" in store.names()


def test_any_damaged_byte_is_found(tmp_path: Path) -> None:
    saved(tmp_path / "whole")
    for name, raw in files(tmp_path / "whole").items():
        for at in range(0, len(raw), 13):
            shutil.rmtree(tmp_path / "torn", ignore_errors=True)
            shutil.copytree(tmp_path / "whole", tmp_path / "torn")
            (tmp_path / "torn" / name).write_bytes(raw[:at] + bytes([raw[at] ^ 4]) + raw[at + 1 :])
            with pytest.raises(CheckpointRefused):
                FolderCheckpoints(tmp_path / "torn").load("5-ab")


@pytest.mark.parametrize("file", ["manifest.json", "users.safetensors"])
@pytest.mark.parametrize("n_bytes", [None, 0, 10])
def test_a_missing_or_shortened_file_is_found(tmp_path: Path, file: str, n_bytes: int | None) -> None:
    store = saved(tmp_path)
    path = tmp_path / "5-ab" / file
    if n_bytes is None:
        path.unlink()
    else:
        os.truncate(path, n_bytes)
    with pytest.raises(CheckpointRefused, match=file):
        store.load("5-ab")


def test_a_newer_format_is_refused_and_never_deleted(tmp_path: Path) -> None:
    newer = FolderCheckpoints(tmp_path, formats=Formats(2, {}))
    newer.save("5-ab", {}, state())
    newer.flush()
    old = FolderCheckpoints(tmp_path, keep=1)
    with pytest.raises(CheckpointRefused, match="newer build"):
        old.load("5-ab")
    for tick in (6, 7, 8):
        old.save(f"{tick}-ab", {}, state())
        old.flush()
    assert "5-ab" in old.names()


def test_an_older_format_is_read_through_its_migrations(tmp_path: Path) -> None:
    saved(tmp_path)

    def rename(loaded: Loaded) -> Loaded:
        manifest, components = loaded
        return {**manifest, "renamed": True}, {"people": components["users"], "items": components["items"]}

    def double(loaded: Loaded) -> Loaded:
        loaded[1]["people"]["seen"] = loaded[1]["people"]["seen"] * 2
        return loaded

    manifest, components = FolderCheckpoints(tmp_path, formats=Formats(3, {1: rename, 2: double})).load("5-ab")
    assert manifest["renamed"]
    assert components["people"]["seen"].tolist() == [0, 2, 4]


def test_an_older_format_without_a_migration_is_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    with pytest.raises(CheckpointRefused, match="no longer reads"):
        FolderCheckpoints(tmp_path, formats=Formats(2, {})).load("5-ab")


def test_retention_keeps_the_first_the_last_the_pinned_and_one_an_hour(tmp_path: Path) -> None:
    store = FolderCheckpoints(tmp_path, keep=2)
    store.pin("3-ab")
    for tick in range(12):
        store.save(f"{tick}-ab", {"cut_at_ms": tick * HOUR_MS // 4}, state())
        store.flush()
    assert list(store.names()) == ["11-ab", "10-ab", "8-ab", "4-ab", "3-ab", "0-ab"]


def test_pins_outlive_the_program(tmp_path: Path) -> None:
    store = FolderCheckpoints(tmp_path, keep=1)
    store.pin("1-ab")
    store.close()
    again = FolderCheckpoints(tmp_path, keep=1)
    for tick in range(4):
        again.save(f"{tick}-ab", {}, state())
        again.flush()
    assert list(again.names()) == ["3-ab", "1-ab", "0-ab"]


def test_an_unpinned_checkpoint_goes(tmp_path: Path) -> None:
    store = FolderCheckpoints(tmp_path, keep=1)
    store.pin("1-ab")
    for tick in range(4):
        if tick == 3:
            store.unpin("1-ab")
        store.save(f"{tick}-ab", {}, state())
        store.flush()
    assert list(store.names()) == ["3-ab", "0-ab"]


def test_a_full_disk_is_told_once_and_the_next_save_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = saved(tmp_path)
    before = files(tmp_path)

    def full(path: Path, _parts: object) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint_files, "write_file", full)
    store.save("6-cd", {}, state())
    with pytest.raises(JobFailed, match="No space left"):
        store.flush()
    monkeypatch.undo()
    assert files(tmp_path) == before
    store.flush()
    store.save("7-ef", {}, state())
    store.flush()
    assert list(store.names()) == ["7-ef", "5-ab"]


def test_the_save_that_tells_of_a_failure_is_itself_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = saved(tmp_path)
    failed = threading.Event()

    def full(_path: Path, _parts: object) -> None:
        failed.set()
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_files, "write_file", full)
        store.save("6-cd", {}, state())
        store._waiting[0].future.exception(10)
    with pytest.raises(JobFailed, match="Input/output error"):
        store.save("7-ef", {}, state())
    store.flush()
    assert "7-ef" in store.names()


def test_what_a_crash_left_is_cleared_away_by_the_next_writer(tmp_path: Path) -> None:
    faults = Faults()
    faults.crash_at("checkpoint_mid")
    broken = FolderCheckpoints(tmp_path, faults=faults)
    broken.save("5-ab", {}, state())
    with pytest.raises(Crash):
        broken.flush()
    assert (tmp_path / "5-ab.tmp").exists()
    saved(tmp_path, "6-cd")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["6-cd"]


def test_reading_makes_no_folder(tmp_path: Path) -> None:
    assert list(FolderCheckpoints(tmp_path / "none").names()) == []
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("name", ["../5-ab", "latest", "5", ""])
def test_a_name_of_another_form_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointRefused):
        FolderCheckpoints(tmp_path).save(name, {}, {})


def test_the_manifest_lists_each_component_with_its_digest(tmp_path: Path) -> None:
    saved(tmp_path)
    manifest = json.loads((tmp_path / "5-ab" / "manifest.json").read_bytes())
    assert (manifest["format"], list(manifest["components"])) == (1, ["users", "items"])
    assert len(manifest["components"]["users"]["sha256"]) == 64


def test_what_was_loaded_outlives_the_deletion_of_its_checkpoint(tmp_path: Path) -> None:
    store = saved(tmp_path)
    loaded = store.load("5-ab")[1]["users"]["seen"]
    checkpoint_files.remove(tmp_path / "5-ab")
    loaded[0] = 9
    assert loaded.tolist() == [9, 1, 2]
