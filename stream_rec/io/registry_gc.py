"""Which versions' artefacts go, and their going: from MLflow's local store and the weights of the run folder.

What people named stays, and the newest, and the last of each day, and whatever a checkpoint may return to. Ledger,
notices and checkpoints are not touched, so what is gone can be rebuilt as long as its inputs are there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from stream_rec.component import SCALARS
from stream_rec.errors import CheckpointRefused
from stream_rec.io import checkpoint_files
from stream_rec.io.checkpoint import FORMATS
from stream_rec.io.folder import FolderWeights
from stream_rec.io.registry_outbox import NAME as WAITING
from stream_rec.io.registry_store import ARTIFACTS, DATABASE, LocalStore
from stream_rec.version_facts import DAY_MS, Gathered, kept

WEIGHTS, CHECKPOINTS = "weights", "checkpoints"
FULL_DAYS = 30
"""Days of event time whose metric points all stay."""
ROLES = ("champion", "challenger")
"""Of the versions in a checkpoint: those that would serve if the run went on from there."""


class Collected(NamedTuple):
    """What went, or would go."""

    versions: list[str]
    """Oldest first."""
    n_kept: int
    bytes_before: int
    """Of MLflow's store, its artefacts and the weights, measured on the disk."""
    bytes_after: int
    """Measured again; of a dry run what is left when the files are gone, the store's own shrinking not counted."""


def collect(folder: Path, name: str, gathered: Gathered, *, keep_last: int, dry_run: bool = False) -> Collected:
    """Delete what need not stay: versions, and of runs of more than FULL_DAYS ago all but each metric's last point.

    Args:
        folder: the run folder.
        name: of the registered model.
        gathered: what was told of the versions; of one that is logged only its tags are taken.
        keep_last: newest versions that stay.
        dry_run: only say what would go.

    Raises:
        JobFailed: the store is held by another program, or is none of this MLflow.
    """
    store, weights = LocalStore(folder, name), FolderWeights(folder / WEIGHTS)
    logged = store.versions()
    of_tags = {version: {"tick": one.tick, "event_at": one.event_at} for version, one in logged.items()}
    told: dict[str, Mapping[str, Any]] = {**of_tags, **gathered.told}
    named = {*gathered.aliases.values(), *(version for version, one in logged.items() if one.has_alias)}
    stay = kept(told, named, keep_last) | needed(folder)
    stored = {version for version in weights.stored() if version in told}
    gone = sorted((logged.keys() | stored) - stay, key=lambda version: (told[version].get("tick", 0), version))
    before = measured(folder)
    paths = [weights.path(version) for version in gone if version in stored]
    rows = {version: logged[version] for version in gone if version in logged}
    if dry_run:
        paths += [path for version, one in rows.items() for path in store.folders_of(version, one)]
        return Collected(gone, len(told) - len(gone), before, before - sum(map(_bytes_of, paths)))
    if rows:
        store.delete(rows)
    newest_ms = max((int(one.get("event_at", 0)) for one in told.values()), default=0)
    if store.thin(newest_ms - FULL_DAYS * DAY_MS) or rows:
        store.shrink()
    for path in paths:
        path.unlink(missing_ok=True)
    return Collected(gone, len(told) - len(gone), before, measured(folder))


def measured(folder: Path) -> int:
    """Bytes of MLflow's store with its artefacts, and of the weights, in a run folder."""
    parts = [*folder.glob(f"{DATABASE}*"), folder / ARTIFACTS, folder / WEIGHTS]
    return sum(map(_bytes_of, parts))


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


def _bytes_of(path: Path) -> int:
    with suppress(OSError):
        if path.is_file():
            return path.stat().st_size
        return sum(map(_bytes_of, path.iterdir())) if path.is_dir() else 0
    return 0
