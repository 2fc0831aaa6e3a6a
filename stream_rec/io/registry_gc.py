"""Which versions' artefacts go, and their going: from where they are logged and the weights of the run folder.

What people named stays, and the newest, and the last of each day, and whatever a checkpoint may return to. Ledger,
notices and checkpoints are not touched, so what is gone can be rebuilt as long as its inputs are there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec

from stream_rec.component import SCALARS
from stream_rec.errors import CheckpointRefused
from stream_rec.io import checkpoint_files
from stream_rec.io.checkpoint import FORMATS
from stream_rec.io.folder import FolderWeights
from stream_rec.io.registry_outbox import NAME as WAITING
from stream_rec.io.registry_store import Logged, bytes_of
from stream_rec.version_facts import DAY_MS, Gathered, kept

WEIGHTS, CHECKPOINTS = "weights", "checkpoints"
FULL_DAYS = 30
"""Days of event time whose metric points all stay."""
ROLES = ("champion", "challenger")
"""Of the versions in a checkpoint: those that would serve if the run went on from there."""


class Store(Protocol):
    """Where versions are logged; see `LocalStore` and `ServerStore`."""

    def versions(self) -> dict[str, Logged]:
        """Registered versions that carry our id, oldest first."""
        ...

    def own(self, versions: Mapping[str, Logged], told: Collection[str]) -> dict[str, Logged]:
        """Of its versions those that a run may delete, which was told of some."""
        ...

    def bytes(self, own: Mapping[str, Logged]) -> int:
        """Of everything it holds of these versions."""
        ...

    def bytes_of(self, gone: Mapping[str, Logged]) -> int:
        """Of the artefacts of some versions."""
        ...

    def delete(self, gone: Mapping[str, Logged]) -> None:
        """Take versions out of it, with their artefacts, so that they are not logged again."""
        ...

    def settle(self, before_ms: int, *, deleted: bool) -> None:
        """Thin what is older than an event time, and give back what is free."""
        ...


class Collected(NamedTuple):
    """What went, or would go."""

    versions: list[str]
    """Oldest first."""
    n_kept: int
    bytes_before: int
    """See `measured`."""
    bytes_after: int
    """Measured again; of a dry run what is left when the files are gone, a store's own shrinking not counted."""


def collect(folder: Path, store: Store, gathered: Gathered, *, keep_last: int, dry_run: bool = False) -> Collected:
    """Delete what need not stay: versions, and of runs of more than FULL_DAYS ago all but each metric's last point.

    Args:
        folder: the run folder.
        store: where versions are logged.
        gathered: what was told of the versions; of one that is logged only its tags are taken.
        keep_last: newest versions that stay.
        dry_run: only say what would go.

    Raises:
        JobFailed: the store is held by another program, refuses, or is none of this MLflow.
    """
    weights, logged = FolderWeights(folder / WEIGHTS), store.own(store.versions(), gathered.told)
    of_tags = {version: {"tick": one.tick, "event_at": one.event_at} for version, one in logged.items()}
    told: dict[str, Mapping[str, Any]] = {**of_tags, **gathered.told}
    named = {*gathered.aliases.values(), *(version for version, one in logged.items() if one.has_alias)}
    stay = kept(told, named, keep_last) | needed(folder)
    stored = {version for version in weights.stored() if version in told}
    gone = sorted((logged.keys() | stored) - stay, key=lambda version: (told[version].get("tick", 0), version))
    before = measured(folder, store, logged)
    paths = [weights.path(version) for version in gone if version in stored]
    rows = {version: logged[version] for version in gone if version in logged}
    if dry_run:
        left = before - store.bytes_of(rows) - sum(map(bytes_of, paths))
        return Collected(gone, len(told) - len(gone), before, max(left, 0))
    if rows:
        store.delete(rows)
    newest_ms = max((int(one.get("event_at", 0)) for one in told.values()), default=0)
    store.settle(newest_ms - FULL_DAYS * DAY_MS, deleted=bool(rows))
    for path in paths:
        path.unlink(missing_ok=True)
    kept_rows = {version: one for version, one in logged.items() if version not in rows}
    return Collected(gone, len(told) - len(gone), before, measured(folder, store, kept_rows))


def measured(folder: Path, store: Store, own: Mapping[str, Logged]) -> int:
    """Bytes of a run's own versions in the store, and of the weights in the run folder."""
    return store.bytes(own) + bytes_of(folder / WEIGHTS)


def needed(folder: Path) -> set[str]:
    """Versions that would serve if a run went on from a checkpoint, and those that wait for MLflow."""
    found: set[str] = set()
    for path in (folder / CHECKPOINTS).glob("*/"):
        with suppress(CheckpointRefused, KeyError):
            found |= set(_of_checkpoint(path))
    for path in (folder / WAITING).glob("*/news.json"):
        with suppress(OSError, msgspec.DecodeError):
            found |= {notice.get("version", "") for notice in msgspec.json.decode(path.read_bytes())["notices"]}
    return found - {""}


def _of_checkpoint(path: Path) -> Iterator[str]:
    table = checkpoint_files.read_manifest(path, FORMATS.number)["components"]
    progress, release = (checkpoint_files.read_component(path, table[n])[SCALARS] for n in ("progress", "release"))
    yield from (progress[role] for role in ROLES)
    yield release["pinned"]
    yield from release["waiting"]
