"""Checkpoints in a local folder, written off the loop; how one looks on the disk is in checkpoint_files.py."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from stream_rec.component import Snapshot
from stream_rec.errors import CheckpointRefused, JobFailed
from stream_rec.io import checkpoint_files
from stream_rec.io.checkpoint_files import Draft
from stream_rec.io.durable import TMP_SUFFIX, replace_file
from stream_rec.io.faults import Crash, Faults, passing_of
from stream_rec.io.retention import REBUILD_HORIZON_MS, Kept, newest_first, retained, tick_of

PINNED = "pinned.json"
NICENESS = 10
"""Of the thread that writes."""

Loaded = tuple[dict[str, object], dict[str, Snapshot]]
Migration = Callable[[Loaded], Loaded]


class Formats(NamedTuple):
    """What this build writes, and how it reads what earlier builds wrote."""

    number: int
    migrations: Mapping[int, Migration]
    """Format number to the step that makes the next one of it."""


FORMATS = Formats(number=1, migrations=MappingProxyType({}))


class _Waiting(NamedTuple):
    name: str
    future: Future[None]
    gives_way: bool


class FolderCheckpoints:
    """A CheckpointStore in a local folder; one program writes it, any may read.

    `save` hands over to a thread and returns. A save that still waits for its turn when a newer one comes gives way
    to it, unless it is pinned or the first of all. What goes wrong in the thread is raised by the next `save` or
    `flush`, once; earlier checkpoints stay whole.

    Args:
        folder: made at the first `save`.
        keep: newest checkpoints that stay in any case; retention.py says which others do.
        horizon_ms: how far back one a day stays, in the manifests' `cut_at_ms`.
        formats: the format number and the migrations to it.
        sync_first: called by the thread before it writes: makes the ledger durable up to what the checkpoint covers.
        faults: crash and pause points, for tests.

    Attributes:
        rests: how many times as long as it works the thread rests in between; 0 at first. A live loop often shares two
            cores with its broker: a checkpoint that takes one of them for a second makes a dozen ticks late.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep: int = 3,
        horizon_ms: int = REBUILD_HORIZON_MS,
        formats: Formats = FORMATS,
        sync_first: Callable[[], None] | None = None,
        faults: Faults | None = None,
    ) -> None:
        self.folder = folder
        self._keep = keep
        self._horizon_ms = horizon_ms
        self._formats = formats
        self._sync_first = sync_first
        self.rests = 0
        self._passing = passing_of(faults)
        self._thread: ThreadPoolExecutor | None = None
        self._hurry = threading.Event()
        self._waiting: list[_Waiting] = []
        self._pinned = _read_pinned(folder / PINNED)
        self._kept: dict[str, Kept] = {}

    def save(self, name: str, manifest: Mapping[str, object], components: Mapping[str, Snapshot]) -> None:
        """Take the snapshots over and begin to write them; the caller must not change their arrays any more.

        Args:
            name: `TICK-CHAIN`.
            manifest: JSON values; `cut_at_ms` decides which hour and day the checkpoint stands for.
            components: name to snapshot.

        Raises:
            JobFailed: an earlier save failed. This one is being written all the same.
            CheckpointRefused: `name` is not of that form.
        """
        if tick_of(name) is None:
            raise CheckpointRefused("a checkpoint's name is TICK-CHAIN")
        what = checkpoint_files.draft(name, self._formats.number, manifest, components)
        is_first = not self._waiting and not self.names()
        if self._waiting and self._waiting[-1].gives_way and self._waiting[-1].name not in self._pinned:
            self._waiting[-1].future.cancel()
        self._raise_failure(self._submit(name, not is_first, self._write, what))

    def names(self) -> Sequence[str]:
        """Names of the checkpoints on the disk, newest tick first."""
        if not self.folder.exists():
            return []
        return newest_first(path.name for path in self.folder.iterdir())

    def load(self, name: str) -> Loaded:
        """Manifest and components, every byte checked; the arrays are the caller's to keep.

        Raises:
            CheckpointRefused: it is missing, torn, of a newer format, or of an older one that no migration reads.
        """
        path = self.folder / name
        stored = checkpoint_files.read_manifest(path, self._formats.number)
        table = stored["components"]
        with ThreadPoolExecutor(2) as pool:
            snapshots = list(pool.map(lambda entry: checkpoint_files.read_component(path, entry), table.values()))
        loaded: Loaded = stored["manifest"], dict(zip(table, snapshots, strict=True))
        for number in range(stored["format"], self._formats.number):
            if number not in self._formats.migrations:
                raise CheckpointRefused(f"checkpoint {path} has format {number}, which this build no longer reads")
            loaded = self._formats.migrations[number](loaded)
        return loaded

    def manifest(self, name: str) -> dict[str, object]:
        """The manifest alone; says nothing of whether the components are whole.

        Raises:
            CheckpointRefused: it is missing, torn or of a newer format.
        """
        stored: dict[str, object] = checkpoint_files.read_manifest(self.folder / name, self._formats.number)["manifest"]
        return stored

    def flush(self) -> None:
        """Return when what was saved is on the disk; it is written without rests from now on.

        Raises:
            JobFailed: a save since the last call failed.
        """
        self._hurry.set()
        for waiting in self._waiting:
            if not waiting.future.cancelled():
                waiting.future.exception()
        self._hurry.clear()
        self._raise_failure(self._reap())

    def pin(self, name: str) -> None:
        """Keep a checkpoint, saved or about to be, until `unpin`; remembered across restarts.

        Raises:
            JobFailed: an earlier save failed; the pin is set all the same.
        """
        self._pinned.add(name)
        self._raise_failure(self._submit(PINNED, False, self._write_pins, sorted(self._pinned)))

    def unpin(self, name: str) -> None:
        """Let retention have a checkpoint again.

        Raises:
            JobFailed: an earlier save failed; the pin is gone all the same.
        """
        self._pinned.discard(name)
        self._raise_failure(self._submit(PINNED, False, self._write_pins, sorted(self._pinned)))

    def n_unwritten(self) -> int:
        """How many checkpoints were handed over and are not yet on the disk."""
        return sum(not waiting.future.done() for waiting in self._waiting if waiting.name != PINNED)

    def pinned(self) -> Sequence[str]:
        """Names that are pinned, newest tick first."""
        return newest_first(self._pinned)

    def close(self) -> None:
        """Finish writing and end the thread.

        Raises:
            JobFailed: as `flush`.
        """
        try:
            self.flush()
        finally:
            thread, self._thread = self._thread, None
            if thread is not None:
                thread.shutdown()

    # ---- on the loop

    def _submit(self, name: str, gives_way: bool, work: Callable[..., None], what: object) -> BaseException | None:
        """Queue work for the writing thread; returns what went wrong before."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint", initializer=_give_way)
            self._thread.submit(self._prepare)
        failure = self._reap()
        self._waiting.append(_Waiting(name, self._thread.submit(work, what), gives_way))
        return failure

    def _reap(self) -> BaseException | None:
        """Forget finished work; returns the first thing that went wrong in it."""
        done = [waiting.future for waiting in self._waiting if waiting.future.done()]
        self._waiting = [waiting for waiting in self._waiting if waiting.future not in done]
        failures = [error for future in done if not future.cancelled() and (error := future.exception()) is not None]
        return failures[0] if failures else None

    def _raise_failure(self, failure: BaseException | None) -> None:
        if isinstance(failure, OSError):
            raise JobFailed(
                f"no checkpoint could be written to {self.folder}: {failure.strerror}; make room, the others are whole"
            ) from failure
        if failure is not None:
            raise failure

    # ---- in the thread

    def _prepare(self) -> None:
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            for left_over in self.folder.glob(f"*{TMP_SUFFIX}"):
                shutil.rmtree(left_over, ignore_errors=True)

    def _write(self, what: Draft) -> None:
        tmp = self.folder / (what.name + TMP_SUFFIX)
        try:
            self._passing("checkpoint_begin")
            if self._sync_first is not None:
                self._sync_first()
            self._write_to(tmp, what)
        except Crash:
            raise
        except BaseException:
            shutil.rmtree(tmp, ignore_errors=True)
            raise
        self._passing("after_checkpoint")
        self._retain()

    def _write_to(self, tmp: Path, what: Draft) -> None:
        shutil.rmtree(tmp, ignore_errors=True)
        tmp.mkdir()
        table = checkpoint_files.write_components(tmp, what, lambda took_s: self._hurry.wait(self.rests * took_s))
        self._passing("checkpoint_mid")
        checkpoint_files.write_manifest(tmp, what, table)
        checkpoint_files.put_in_place(tmp, self.folder / what.name)

    def _write_pins(self, names: Iterable[str]) -> None:
        replace_file(self.folder / PINNED, [json.dumps(list(names)).encode()])

    def _retain(self) -> None:
        """Delete what need not stay; a checkpoint whose manifest cannot be read is left for people to look at."""
        for name in self.names():
            if name not in self._kept:
                with suppress(CheckpointRefused):
                    self._kept[name] = self._judge(name)
        stay = retained(self._kept.values(), self._keep, frozenset(self._pinned), horizon_ms=self._horizon_ms)
        for name in [name for name in self._kept if name not in stay]:
            checkpoint_files.remove(self.folder / name)
            del self._kept[name]

    def _judge(self, name: str) -> Kept:
        stored = checkpoint_files.read_manifest(self.folder / name, self._formats.number)
        return Kept(name, tick_of(name) or 0, int(stored["manifest"].get("cut_at_ms", 0)))


def _read_pinned(path: Path) -> set[str]:
    try:
        return set(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return set()
    except ValueError:
        raise CheckpointRefused(f"{path} is damaged; delete it and pin what must stay again") from None


def _give_way() -> None:
    """Let the loop and the broker have the processor first; on Linux a thread has a niceness of its own."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
