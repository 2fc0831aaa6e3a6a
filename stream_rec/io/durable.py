"""What "on the disk" means here: bytes, then fsync of the file, then the name, then fsync of the folder."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

TMP_SUFFIX = ".tmp"

Bytes = bytes | bytearray | memoryview
"""One-dimensional, of single bytes."""


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_all(fd: int, data: Bytes) -> None:
    """Write every byte, however many calls it takes.

    Raises:
        OSError: the disk is full or broken; a part may have been written.
    """
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def write_file(path: Path, parts: Iterable[Bytes]) -> None:
    """Write a new file of the joined parts and fsync it; the caller makes its name durable."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        for part in parts:
            write_all(fd, part)
        os.fsync(fd)
    finally:
        os.close(fd)


def replace_file(path: Path, parts: Iterable[Bytes]) -> None:
    """Write a file such that a reader, whatever happens, finds the old bytes or the new ones."""
    tmp = path.with_name(path.name + TMP_SUFFIX)
    write_file(tmp, parts)
    tmp.replace(path)
    sync_folder(path.parent)
