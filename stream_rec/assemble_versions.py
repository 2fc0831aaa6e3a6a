"""Settings to what a run folder holds of a version beside its notices: ledger, checkpoint, weights, figures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy

from stream_rec import assemble, assemble_registry, config
from stream_rec.component import SCALARS
from stream_rec.errors import CheckpointRefused, SettingsError
from stream_rec.events import Topic
from stream_rec.fold import Fold, Identity
from stream_rec.io import checkpoint_files, registry_gc
from stream_rec.io.checkpoint import FORMATS, FolderCheckpoints
from stream_rec.io.files import FileSource
from stream_rec.io.folder import FolderWeights
from stream_rec.io.folder_ledger import FolderLedger
from stream_rec.io.retention import tick_of
from stream_rec.past import Past
from stream_rec.ports import Ports
from stream_rec.version_facts import Gathered, lineage_of

WHOLE, MISSING, DIFFERS, UNPROVED = "whole", "missing", "differs", "unproved"
"""States of a weights file; the last: no notice says what it should be."""


class Given(NamedTuple):
    """What a rebuild is made from."""

    events: Path
    items: Path | None
    whole: bool
    """Fold from the beginning of the ledger, whatever checkpoints there are."""


class Rebuilt(NamedTuple):
    """A version made again."""

    version: str
    after_tick: int
    """Tick of the checkpoint that the fold began from; -1: it began with the ledger."""
    tick: int
    """Tick that the fold arrived at."""
    sha256: str | None
    """Of the weights; None where another version serves there."""
    told: str | None
    """The digest that the version's notice told."""
    same_build: bool
    n_differed: int
    """Ticks that gave other effects than their entries record, under another build."""


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
    """Delete the artefacts of versions that need not stay, in the run folder; see `io.registry_gc.collect`."""
    genesis = assemble.open_run(settings.run_dir).genesis()
    name = assemble_registry.name_of(settings, replayed=genesis.get("mode") == "replay")
    return registry_gc.collect(settings.run_dir, name, gathered, keep_last=settings.registry.keep_last, dry_run=dry_run)


def server_of(settings: config.Settings) -> str:
    """The tracking URI where it is not the run folder's own store; empty where it is."""
    uri = assemble_registry.uri_of(settings)
    return "" if uri == assemble_registry.local_uri(settings) else uri


def rebuilt(settings: config.Settings, notice: Mapping[str, Any], given: Given, *, write: bool) -> Rebuilt:
    """Fold the ledger of a replay again up to the tick at which a version began to serve, and look at its weights.

    Args:
        settings: name the run folder and the privacy key; what can change a result is taken from the ledger.
        notice: what was told of the version.
        given: the run's input.
        write: put the weights into the run folder when they are the ones that were told.

    Raises:
        SettingsError: the folder is no replay of a file, or its privacy key was another one.
        InputGone: records that the ledger names are not in the files.
        LedgerMismatch: they are others, or a tick gave other effects under the same build.
    """
    folder, version, tick = settings.run_dir, str(notice["version"]), int(notice["tick"])
    genesis = assemble.open_run(folder).genesis()
    if genesis.get("mode") != "replay" or "input" not in genesis:
        raise SettingsError(f"{folder} is no replay of a file, so its input cannot be named; rebuild is for those")
    own = config.with_semantic(settings, genesis["semantic"])
    now = config.semantic(own)
    if other := sorted(name for name, value in genesis["semantic"].items() if now.get(name) != value):
        raise SettingsError(
            f"this run was made with another {', '.join(other)}; set what it had, in this build's words"
        )
    identity = Identity(genesis["settings"], assemble.build_digest(own), "replay", genesis)
    since, until = genesis["input"]["since"], genesis["input"]["until"]
    source = FileSource(given.events, given.items, since_ms=since, until_ms=until)
    weights = FolderWeights(folder / "weights", synchronous=True)
    ports = Ports(source, FolderLedger(folder), FolderCheckpoints(folder / "checkpoints"), weights)
    past = Past(ports, lambda: Fold(lambda: assemble.pipeline_of(own), identity), live=False)
    try:
        fold, began = past.fold_to(tick, newest=-1 if given.whole else tick)
        sets = fold.pipeline.learner.versions
        tensors = sets.tensors("champion") if sets.champion_version == version else {}
        found = hashlib.sha256(safetensors.numpy.save(tensors)).hexdigest() if tensors else None
        if write and tensors and found == notice.get("sha256"):
            weights.put(version, tensors)
    finally:
        weights.close()
        source.close()
    same_build = genesis["build"] == identity.build_digest
    return Rebuilt(version, began, fold.positions.number, found, notice.get("sha256"), same_build, len(fold.differed))


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
