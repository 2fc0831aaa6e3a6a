"""A run folder as a place to write: output topics and ledger as JSON lines, weights as safetensors.

A tick's outputs are appended first and its ledger entry last, so a killed writer leaves at most a tail that no entry
accounts for. Opening the folder again cuts that tail off; a resumed folder is byte-equal to an uninterrupted one.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import filelock
import msgspec
import numpy as np
import safetensors.numpy

from stream_rec.effects import line_of
from stream_rec.errors import Fenced, JobFailed, SettingsError
from stream_rec.events import Output, Topic
from stream_rec.io.durable import TMP_SUFFIX, replace_file, sync_folder, write_all
from stream_rec.io.faults import Faults, passing_of
from stream_rec.io.run_folder import OUTPUT_TOPICS, Account, committed, file_of

LOCK_NAME = ".lock"
_VERSION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class FolderPublisher:
    """A Publisher into a run folder; the one writer there.

    The ledger offset of an entry is its line number from 0. `commit` survives kill -9; a power cut may take what was
    committed after the last `sync`.

    Args:
        folder: made when missing.
        faults: crash and pause points, for tests.

    Raises:
        JobFailed: another program is writing there.
        SettingsError: the folder holds output files but no ledger: it is no run folder.
        LedgerMismatch: its ledger holds something else than entries.
    """

    def __init__(self, folder: Path, *, faults: Faults | None = None) -> None:
        self.folder = folder
        self.cut_bytes: dict[str, int] = {}
        """Topic to the bytes that opening cut off its file: what a killed writer left without an entry."""
        self._passing = passing_of(faults)
        self._broken = ""
        self._dirty: set[str] = set()
        self._fds: dict[str, int] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(folder)
        try:
            self._open()
        except BaseException:
            self._release()
            raise

    def commit(self, outputs: Sequence[Output], entry: bytes) -> int:
        """Append the outputs, then the entry that accounts for them; returns the entry's line number.

        Raises:
            JobFailed: the disk is full or broken. The folder must be opened again before the next commit.
            ValueError: the entry's `outputs` are not what is being written: a bug of the caller.
        """
        if self._broken:
            raise JobFailed(self._broken)
        self._passing("before_outputs")
        lines = _lines_by_topic(outputs)
        _check(entry, lines)
        self._broken = f"an earlier write to {self.folder} was cut short; run the same command again"
        self._append_all(lines, entry)
        self._broken = ""
        self._starts.append(self._starts[-1] + len(entry) + 1)
        self._passing("after_commit")
        return len(self._starts) - 2

    def take_over(self) -> None:
        """Nothing to do: whoever holds the folder's lock is its one writer."""

    def read_ledger(self, offset: int = 0) -> Sequence[tuple[int, bytes]]:
        """(line number, entry) of every committed entry from line `offset` on."""
        first = max(0, offset)
        if first >= len(self._starts) - 1:
            return []
        with file_of(self.folder, Topic.LEDGER).open("rb") as file:
            file.seek(self._starts[first])
            data = file.read(self._starts[-1] - self._starts[first])
        return list(enumerate(data.split(b"\n")[:-1], start=first))

    def sync(self) -> None:
        """Make all commits so far survive a power cut. Waits for the disk; may be called from another thread.

        Raises:
            JobFailed: the disk says no.
        """
        dirty, self._dirty = self._dirty, set()
        try:
            for topic in sorted(dirty - {Topic.LEDGER}):
                os.fsync(self._fds[topic])
            os.fsync(self._fds[Topic.LEDGER])
        except OSError as error:
            raise JobFailed(f"cannot write to {self.folder}: {error.strerror}") from error

    def close(self) -> None:
        """Sync and let another writer in."""
        try:
            if self._fds and not self._broken:
                self.sync()
        finally:
            self._release()

    def _open(self) -> None:
        ledger = file_of(self.folder, Topic.LEDGER)
        if not ledger.exists():
            strangers = [p.name for t in OUTPUT_TOPICS if (p := file_of(self.folder, t)).exists() and p.stat().st_size]
            if strangers:
                raise SettingsError(f"{self.folder} holds {strangers[0]} but no {ledger.name}; choose another --out")
            ledger.touch()
        state = committed(self.folder)
        self._starts = state.starts
        wanted = {**dict.fromkeys(OUTPUT_TOPICS, 0), **state.n_bytes, Topic.LEDGER: state.starts[-1]}
        for topic, n_bytes in wanted.items():
            self._open_one(topic, n_bytes)
        sync_folder(self.folder)

    def _open_one(self, topic: str, n_bytes: int) -> None:
        fd = os.open(file_of(self.folder, topic), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._fds[topic] = fd
        if (surplus := os.fstat(fd).st_size - n_bytes) > 0:
            os.ftruncate(fd, n_bytes)
            os.fsync(fd)
            self.cut_bytes[topic] = surplus

    def _append_all(self, lines: Mapping[str, Sequence[bytes]], entry: bytes) -> None:
        try:
            for i, (topic, of_topic) in enumerate(lines.items()):
                if i:
                    self._passing("between_outputs")
                self._append(topic, b"".join(of_topic))
            self._passing("before_entry")
            self._append(Topic.LEDGER, entry + b"\n", self._passing)
        except OSError as error:
            raise JobFailed(
                f"cannot write to {self.folder}: {error.strerror}; make room and run the same command again"
            ) from error

    def _append(self, topic: str, data: bytes, passing: Callable[[str], None] | None = None) -> None:
        if topic not in self._fds:
            self._open_one(topic, 0)
        self._dirty.add(topic)
        if passing is None:
            write_all(self._fds[topic], data)
            return
        half = len(data) // 2
        write_all(self._fds[topic], data[:half])
        passing("before_commit")
        write_all(self._fds[topic], data[half:])

    def _release(self) -> None:
        while self._fds:
            os.close(self._fds.popitem()[1])
        self._lock.release()


class FolderWeights:
    """A WeightStore of one safetensors file a version, written by a thread.

    Args:
        folder: made at the first `put`.
        synchronous: `put` returns when the version is on the disk, so that `durable` names it at its very next call
            whatever the disk's speed: a backfill's boundaries then do not depend on it.
        faults: crash and pause points, for tests.
    """

    def __init__(self, folder: Path, *, synchronous: bool = False, faults: Faults | None = None) -> None:
        self.folder = folder
        self._synchronous = synchronous
        self._passing = passing_of(faults)
        self._writer: ThreadPoolExecutor | None = None
        self._writing: list[tuple[str, Future[None]]] = []

    def put(self, version: str, tensors: Mapping[str, np.ndarray]) -> None:
        """Copy the tensors and begin to write them; a version put twice is written twice, with equal bytes.

        Raises:
            JobFailed: `synchronous`, and the disk is full or broken.
        """
        path = self.path(version)
        copies = {name: np.array(tensor, order="C", copy=True) for name, tensor in tensors.items()}
        if self._writer is None:
            self._writer = ThreadPoolExecutor(1, thread_name_prefix="weights")
            self._prepare()
        future = self._writer.submit(self._write, path, copies)
        self._writing.append((version, future))
        if self._synchronous:
            try:
                _result(future, path)
            except BaseException:
                self._writing.remove((version, future))
                raise

    def durable(self) -> Sequence[str]:
        """Versions that are on the disk since the last call, in the order they were put.

        Raises:
            JobFailed: one could not be written; it is given up, so that the next call goes on after it.
        """
        done: list[str] = []
        while self._writing and self._writing[0][1].done():
            if done and self._writing[0][1].exception() is not None:
                break
            version, future = self._writing.pop(0)
            _result(future, self.path(version))
            done.append(version)
        return done

    def get(self, version: str) -> dict[str, np.ndarray]:
        """The tensors of a stored version.

        Raises:
            JobFailed: no such version is stored, or its file is damaged.
        """
        path = self.path(version)
        try:
            return safetensors.numpy.load(path.read_bytes())
        except FileNotFoundError:
            raise JobFailed(f"the weights of version {version} are not in {self.folder}") from None
        except safetensors.SafetensorError:
            raise JobFailed(
                f"the weights file {path} is damaged; rebuild the version or roll back to another"
            ) from None

    def stored(self) -> list[str]:
        """Versions that can be read, by name."""
        return sorted(path.stem for path in self.folder.glob("*.safetensors"))

    def path(self, version: str) -> Path:
        """Where a version's file is.

        Raises:
            JobFailed: the name could not be a version's.
        """
        if not _VERSION_NAME.fullmatch(version):
            raise JobFailed("a version's name has letters, digits, dots, dashes and underscores only")
        return self.folder / f"{version}.safetensors"

    def flush(self) -> None:
        """Return when all that was put is written; `durable` then names it."""
        for _, future in list(self._writing):
            future.exception()

    def close(self) -> None:
        """Finish writing and end the thread."""
        if self._writer is not None:
            self._writer.shutdown()
            self._writer = None

    def _prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for left_over in self.folder.glob(f"*{TMP_SUFFIX}"):
            left_over.unlink()

    def _write(self, path: Path, tensors: dict[str, np.ndarray]) -> None:
        self._passing("weights_begin")
        data = safetensors.numpy.save(tensors)
        self._passing("weights_mid")
        replace_file(path, [data])
        self._passing("weights_after")


def _result(future: Future[None], path: Path) -> None:
    try:
        future.result()
    except OSError as error:
        raise JobFailed(f"cannot write {path}: {error.strerror}; make room and run the same command again") from error


def hold(folder: Path) -> filelock.FileLock:
    """Become the one program that writes to a folder, until the lock is released; the folder is made when missing.

    Raises:
        JobFailed: another program is writing there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return _lock(folder)


def hold_name(name: str) -> filelock.FileLock:
    """Become the one program of a name on this machine, until the lock is released.

    Raises:
        Fenced: another one runs.
    """
    lock = filelock.FileLock(Path(tempfile.gettempdir()) / f"stream-rec-{name}.lock", timeout=0, thread_local=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise Fenced(
            f"a worker of the name {name} runs on this machine already; stop it, or give worker.instance another name"
        ) from None
    return lock


def _lock(folder: Path) -> filelock.FileLock:
    lock = filelock.FileLock(folder / LOCK_NAME, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise JobFailed(f"another program is writing to {folder}; wait until it ends or choose another --out") from None
    return lock


def _lines_by_topic(outputs: Sequence[Output]) -> dict[str, list[bytes]]:
    lines: dict[str, list[bytes]] = {}
    for output in outputs:
        lines.setdefault(output.topic, []).append(line_of(output))
    return lines


def _check(entry: bytes, lines: Mapping[str, Sequence[bytes]]) -> None:
    written = {topic: [len(of_topic), sum(map(len, of_topic))] for topic, of_topic in lines.items()}
    if msgspec.json.decode(entry, type=Account).outputs != written:
        raise ValueError("the ledger entry's `outputs` differ from the outputs it is committed with")
    if b"\n" in entry or any(b"\n" in line[:-1] for of_topic in lines.values() for line in of_topic):
        raise ValueError("a record with a line break in it cannot be a line")
