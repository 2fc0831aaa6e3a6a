"""Rows of CSV and TSV files with the source bytes of each, so that a broken one can be passed on as it is."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

_MOST_LINES = 100
"""A quoted field may span this many lines; more means that a quote was never closed."""

_QUOTE: Final = b'"'


class Row(NamedTuple):
    """One row."""

    raw: bytes
    """Its bytes without the line end; where a quoted field spans lines, all of them, joined by LF."""
    fields: list[str] | None
    """None when the bytes are no UTF-8 or the quotes cannot be read."""


def rows(lines: Iterable[bytes], delimiter: str) -> Iterator[Row]:
    r"""Split lines into fields; quotes as in RFC 4180, none in tab-separated files.

    >>> [row.fields for row in rows([b'a,"b,c"', b'"d', b'e",f', b'\xff'], ",")]
    [['a', 'b,c'], ['d\ne', 'f'], None]
    """
    if delimiter == "\t":
        for raw in lines:
            yield Row(raw, _split(raw, delimiter))
        return
    for raw in _whole(lines):
        yield Row(raw, _split(raw, delimiter) if _QUOTE not in raw else _quoted(raw, delimiter))


def _whole(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Join the lines of an open quoted field; give up on a quote that stays open and go on behind its line."""
    waiting: list[bytes] = []
    n_open = 0
    for line in lines:
        waiting.append(line)
        n_open += line.count(_QUOTE)
        if n_open % 2 == 0:
            yield b"\n".join(waiting)
        elif len(waiting) < _MOST_LINES:
            continue
        else:
            yield waiting[0]
            yield from _whole(waiting[1:])
        waiting, n_open = [], 0
    if waiting:
        yield waiting[0]
        yield from _whole(waiting[1:])


def _split(raw: bytes, delimiter: str) -> list[str] | None:
    try:
        return raw.decode().split(delimiter)
    except UnicodeDecodeError:
        return None


def _quoted(raw: bytes, delimiter: str) -> list[str] | None:
    try:
        found = list(csv.reader(raw.decode().splitlines(keepends=True), delimiter=delimiter, strict=True))
    except (UnicodeDecodeError, csv.Error):
        return None
    return found[0] if len(found) == 1 else None
