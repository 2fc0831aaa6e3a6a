"""Settings to what a run folder holds of a version beside its notices: ledger, checkpoint, weights, figures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stream_rec import assemble, assemble_registry, config
from stream_rec.component import SCALARS
from stream_rec.errors import CheckpointRefused
from stream_rec.events import Topic
from stream_rec.io import checkpoint_files, registry_gc
from stream_rec.io.checkpoint import FORMATS, FolderCheckpoints
from stream_rec.io.folder import FolderWeights
from stream_rec.io.registry_server import store_of
from stream_rec.io.retention import tick_of
from stream_rec.redact import without_password
from stream_rec.version_facts import Gathered, lineage_of

WHOLE, MISSING, DIFFERS, UNPROVED = "whole", "missing", "differs", "unproved"
"""States of a weights file; the last: no notice says what it should be."""


def described(settings: config.Settings, gathered: Gathered, version: str) -> dict[str, Any]:
    """Everything that is known of a version.

    Args:
        settings: name the run folder.
        gathered: what was told.
        version: one of those.

    Returns:
        The version's notice, and beside it `serves`, `aliases`, `offsets`, `event_span`, `records`, `examples`,
        `settings`, `build` and `checkpoint` (None where neither ledger nor checkpoint of the folder says it),
        `of_its_cut` and `weights`.
    """
    notice = gathered.told[version]
    names = gathered.names_of(version)
    return {
        **notice,
        "serves": "champion" in names,
        "aliases": names,
        **lineage_of(notice, gathered.told.get(notice.get("parent") or "")),
        "settings": None,
        "build": None,
        **_checkpoint(settings.run_dir / "checkpoints", version, notice.get("tick")),
        **_entry(settings.run_dir, notice.get("tick")),
        "weights": weights_of(settings.run_dir, version, notice.get("sha256")),
    }


def weights_of(folder: Path, version: str, sha256: str | None) -> dict[str, Any]:
    """The weights file of a version: `file`, `bytes`, `sha256` as told, and its `state`, for which it is read."""
    path = FolderWeights(folder / "weights").path(version)
    if not path.is_file():
        return {"file": str(path), "bytes": None, "sha256": sha256, "state": MISSING}
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    state = UNPROVED if sha256 is None else WHOLE if found == sha256 else DIFFERS
    return {"file": str(path), "bytes": path.stat().st_size, "sha256": sha256, "state": state}


def tensors_of(settings: config.Settings, version: str) -> dict[str, np.ndarray]:
    """The weights of a version.

    Raises:
        JobFailed: they are not in the run folder, or damaged.
    """
    return FolderWeights(settings.run_dir / "weights").get(version)


def measured_by(settings: config.Settings, at_ms: int | None) -> dict[str, Any] | None:
    """The last line of `metrics.jsonl` up to an event time; None where there is none."""
    found = None
    for line in assemble.open_run(settings.run_dir).records(Topic.METRICS):
        if at_ms is None or int(line["event_at"]) > at_ms:
            break
        found = line
    return found


def collect(settings: config.Settings, gathered: Gathered, *, dry_run: bool) -> registry_gc.Collected:
    """Delete the artefacts of versions that need not stay, in MLflow and the run folder; see `io.registry_gc`."""
    genesis = assemble.open_run(settings.run_dir).genesis()
    name = assemble_registry.name_of(settings, replayed=genesis.get("mode") == "replay")
    worker = assemble_registry.worker_of(settings)
    store = store_of(settings.run_dir, assemble_registry.uri_of(settings), name, worker)
    keep_last = settings.registry.keep_last
    return registry_gc.collect(settings.run_dir, store, gathered, keep_last=keep_last, dry_run=dry_run)


def server_of(settings: config.Settings) -> str:
    """The tracking URI where it is not the run folder's own store, as it may be shown; empty where it is."""
    uri = assemble_registry.uri_of(settings)
    return "" if uri == assemble_registry.local_uri(settings) else without_password(uri)


def _entry(folder: Path, tick: int | None) -> dict[str, Any]:
    """Digests of settings and build in the ledger entry of a tick; nothing where the ledger is a topic."""
    if tick is None or not assemble.is_run(folder):
        return {}
    entries = assemble.open_run(folder).records(Topic.LEDGER)
    return next(({"settings": e["settings"], "build": e["build"]} for e in entries if e["n"] == tick), {})


def _checkpoint(folder: Path, version: str, tick: int | None) -> dict[str, Any]:
    """The newest readable checkpoint up to a tick, and whether it holds the version."""
    for name, stored in _manifests(folder, tick):
        manifest = stored["manifest"]
        try:
            progress = checkpoint_files.read_component(folder / name, stored["components"]["progress"])[SCALARS]
        except (CheckpointRefused, KeyError):
            continue
        holds = version in (progress["champion"], progress["challenger"])
        digests = {"settings": manifest.get("settings"), "build": manifest.get("build")} if holds else {}
        return {"checkpoint": name, "of_its_cut": holds, **digests}
    return {"checkpoint": None, "of_its_cut": False}


def _manifests(folder: Path, tick: int | None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name in FolderCheckpoints(folder).names():
        if tick is not None and (tick_of(name) or 0) <= tick:
            try:
                yield name, checkpoint_files.read_manifest(folder / name, FORMATS.number)
            except CheckpointRefused:
                continue
