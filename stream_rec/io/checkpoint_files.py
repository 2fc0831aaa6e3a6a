"""One checkpoint as a directory: how it is written, found whole, and read.

    TICK-CHAIN/manifest.json             format, the caller's manifest, a table of the files, SHA-256 of all that
    TICK-CHAIN/COMPONENT.safetensors     tensors.py

A directory gets its name only when everything in it is on the disk, so what has a name is whole; what rots later is
found by its digest. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np

from stream_rec.component import Snapshot
from stream_rec.errors import CheckpointRefused
from stream_rec.io.durable import TMP_SUFFIX, Bytes, sync_folder, write_file
from stream_rec.io.tensors import encode_scalars, pack, unpack

MANIFEST = "manifest.json"
PIECE_BYTES = 4 << 20


class Draft(NamedTuple):
    """A checkpoint to be written. Manifest and scalars are JSON already, so later changes cannot reach them."""

    name: str
    format: int
    manifest: str
    scalars: dict[str, str]
    components: Mapping[str, Snapshot]


def draft(name: str, format_number: int, manifest: Mapping[str, object], components: Mapping[str, Snapshot]) -> Draft:
    """Take the snapshots over; their arrays are not copied.

    Raises:
        TypeError: the manifest or a scalar is no JSON value.
    """
    scalars = {component: encode_scalars(snapshot) for component, snapshot in components.items()}
    return Draft(name, format_number, json.dumps(manifest), scalars, dict(components))


def write_components(tmp: Path, what: Draft, rest: Callable[[float], object]) -> dict[str, dict[str, object]]:
    """Write, digest and fsync a file a component; returns the manifest's table of them.

    Args:
        tmp: the folder.
        what: the checkpoint.
        rest: called after each piece with the CPU seconds that it took.
    """
    table: dict[str, dict[str, object]] = {}
    for name, snapshot in what.components.items():
        parts, sha = pack(snapshot, what.scalars[name]), hashlib.sha256()
        file = f"{quote(name, safe='')}.safetensors"
        write_file(tmp / file, _digested(parts, sha.update, rest))
        table[name] = {"file": file, "bytes": sum(map(len, parts)), "sha256": sha.hexdigest()}
    return table


def _digested(
    parts: Iterable[Bytes], update: Callable[[Bytes], None], rest: Callable[[float], object]
) -> Iterator[Bytes]:
    for part in parts:
        for low in range(0, len(part), PIECE_BYTES):
            began_s = time.thread_time()
            piece = memoryview(part)[low : low + PIECE_BYTES]
            update(piece)
            yield piece
            rest(time.thread_time() - began_s)


def write_manifest(tmp: Path, what: Draft, table: Mapping[str, object]) -> None:
    """Write the manifest and make the directory's content durable."""
    body = {"format": what.format, "manifest": json.loads(what.manifest), "components": table}
    text = json.dumps({**body, "sha256": _digest_of_json(body)}, indent=1).encode()
    write_file(tmp / MANIFEST, [text])
    sync_folder(tmp)


def put_in_place(tmp: Path, path: Path) -> None:
    """Give a written directory its name, durably; one that has the name already gives way."""
    old = path.with_name(f"{path.name}.old{TMP_SUFFIX}")
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        path.rename(old)
    tmp.rename(path)
    sync_folder(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def remove(path: Path) -> None:
    """Delete a checkpoint: first its name, so that no reader meets half of one."""
    tmp = path.with_name(path.name + TMP_SUFFIX)
    shutil.rmtree(tmp, ignore_errors=True)
    with suppress(FileNotFoundError):
        path.rename(tmp)
    shutil.rmtree(tmp, ignore_errors=True)


def read_manifest(path: Path, format_number: int) -> dict[str, Any]:
    """The manifest file of a checkpoint directory, checked.

    Raises:
        CheckpointRefused: it is missing or torn, or of a newer format than `format_number`.
    """
    try:
        body = json.loads((path / MANIFEST).read_bytes())
        found, digest = int(body["format"]), body.pop("sha256")
    except (OSError, ValueError, KeyError, TypeError):
        raise torn(path, MANIFEST) from None
    if found > format_number:
        raise CheckpointRefused(
            f"checkpoint {path} has format {found}, this build knows {format_number}; use a newer build"
        )
    if digest != _digest_of_json(body):
        raise torn(path, MANIFEST)
    out: dict[str, Any] = body
    return out


def read_component(path: Path, entry: Mapping[str, Any]) -> Snapshot:
    """The snapshot in one file of the manifest's table.

    The arrays are views of a private mapping: reading into fresh memory first would cost thrice the time.

    Raises:
        CheckpointRefused: the file is missing or its bytes are not those that were written.
    """
    try:
        with (path / entry["file"]).open("rb") as file:
            data = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY), np.uint8)
    except (OSError, ValueError):
        raise torn(path, entry["file"]) from None
    if hashlib.sha256(data.data).hexdigest() != entry["sha256"]:
        raise torn(path, entry["file"])
    return unpack(data)


def torn(path: Path, file: str) -> CheckpointRefused:
    """The refusal of a damaged checkpoint."""
    return CheckpointRefused(f"checkpoint {path} is damaged: {file} is missing or torn; use an older one")


def _digest_of_json(body: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
