"""Lines of text files, plain, gzip or zstd: read with the place of each, written whole or not at all."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import zstandard

from stream_rec.errors import JobFailed, SettingsError

MAX_LINE_BYTES = 4 * 1024 * 1024
"""Default length above which a line is cut: four times the default limit of a record."""

_BUFFER_BYTES = 1 << 20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError)


class LineReader:
    """Reads one file line by line; holds one line at a time, and closes the file when it is dropped.

    The compression is told by the first bytes, not by the name. A line ends at LF or CR LF; the last needs no end.

    Raises:
        SettingsError: the file is not there or cannot be opened.
    """

    def __init__(self, path: Path, *, at_byte: int = 0, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        """Open `path` with the next line at byte `at_byte` of the decompressed text (a former `place`)."""
        self._path = path
        self._limit = max_line_bytes + 1
        try:
            self._raw = path.open("rb")
        except OSError as error:
            raise SettingsError(f"cannot read {path}: {error.strerror}; check the path") from error
        self._n_file_bytes = os.fstat(self._raw.fileno()).st_size
        self._file = _decompressed(self._raw)
        self.place = 0
        """Byte of the decompressed text where the next line begins."""
        self._go_to(at_byte)

    def read(self) -> bytes | None:
        """The next line without its end; None when there is none.

        Raises:
            JobFailed: the compressed data is damaged or ends too early.
        """
        try:
            line = self._file.readline(self._limit)
        except _DAMAGE as error:
            raise self._damaged(error) from error
        if not line:
            return None
        first = self.place == 0
        self.place += len(line)
        if len(line) == self._limit and line[-1] != 10:
            self._skip_rest()
        line = line.rstrip(b"\r\n")
        return line.removeprefix(_BYTE_ORDER_MARK) if first else line

    def __iter__(self) -> Iterator[bytes]:
        """The lines that are left."""
        while (line := self.read()) is not None:
            yield line

    def digest(self) -> str:
        """SHA-256 of what is left, in hex.

        Raises:
            JobFailed: the compressed data is damaged or ends too early.
        """
        found = hashlib.sha256()
        with self._damage_named():
            while piece := self._file.read(_BUFFER_BYTES):
                self.place += len(piece)
                found.update(piece)
        return found.hexdigest()

    def progress(self) -> tuple[int, int]:
        """(bytes of the file read so far, bytes of the file), compressed as it is."""
        return min(self._raw.tell(), self._n_file_bytes), self._n_file_bytes

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._raw.close()

    def __del__(self) -> None:
        with suppress(AttributeError):
            self.close()

    def _go_to(self, at_byte: int) -> None:
        if isinstance(self._file.raw, io.BufferedReader):
            self.place = self._file.seek(at_byte)
        with self._damage_named():
            while self.place < at_byte and (piece := self._file.read(min(at_byte - self.place, _BUFFER_BYTES))):
                self.place += len(piece)

    def _skip_rest(self) -> None:
        with self._damage_named():
            while rest := self._file.readline(_BUFFER_BYTES):
                self.place += len(rest)
                if rest[-1] == 10:
                    return

    @contextmanager
    def _damage_named(self) -> Iterator[None]:
        try:
            yield
        except _DAMAGE as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> JobFailed:
        return JobFailed(
            f"{self._path}: the compressed data is damaged or cut after {self.place} bytes of text "
            f"({type(error).__name__}); bring an intact copy, or decompress what is there and use that"
        )


def text_digest(path: Path) -> str:
    """SHA-256 of the decompressed text of a file, in hex: equal however the same text is compressed.

    Raises:
        SettingsError: the file is not there or cannot be opened.
        JobFailed: the compressed data is damaged or ends too early.
    """
    with closing(LineReader(path)) as reader:
        return reader.digest()


def _decompressed(raw: BinaryIO) -> io.BufferedReader:
    magic = raw.read(4)
    raw.seek(0)
    if magic[:2] == b"\x1f\x8b":
        return io.BufferedReader(cast(io.RawIOBase, gzip.GzipFile(fileobj=raw, mode="rb")), _BUFFER_BYTES)
    if magic == b"\x28\xb5\x2f\xfd":
        return io.BufferedReader(_ZstdText(raw), _BUFFER_BYTES)
    return io.BufferedReader(cast(io.RawIOBase, raw), _BUFFER_BYTES)


class _ZstdText(io.RawIOBase):
    """The text of zstd frames one after another; a frame cut short is an error, not an end."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._begun = False
        self._text = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        while not self._text:
            packed = self._frame.unused_data if self._frame.eof else b""
            packed = packed or self._raw.read(1 << 17)
            if not packed:
                if self._begun and not self._frame.eof:
                    raise EOFError
                return 0
            if self._frame.eof:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            self._begun = True
            self._text = self._frame.decompress(packed)
        n = min(len(buffer), len(self._text))
        buffer[:n] = self._text[:n]
        self._text = self._text[n:]
        return n


@contextmanager
def written_whole(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that appears under `path` when the block ends well, and not at all otherwise.

    `.gz` and `.zst` names are compressed; gzip carries no time stamp, so equal content gives equal bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".tmp")
    try:
        with partial.open("wb") as raw:
            with _compressed(raw, path.suffix) as out:
                yield out
            raw.flush()
            os.fsync(raw.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def _compressed(raw: BinaryIO, suffix: str) -> Iterator[IO[bytes]]:
    if suffix == ".gz":
        with gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=6, mtime=0) as packed:
            yield cast(IO[bytes], packed)
    elif suffix == ".zst":
        with zstandard.ZstdCompressor(level=6).stream_writer(raw, closefd=False) as stream:
            yield cast(IO[bytes], stream)
    else:
        yield raw
