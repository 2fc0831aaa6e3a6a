"""Rows of CSV and TSV files with the source bytes of each, so that a broken one can be passed on as it is."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterable, Iterator
from io import StringIO
from itertools import islice
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


def rows(lines: Iterable[bytes], delimiter: str, n_fields: int | None = None) -> Iterator[Row]:
    r"""Split lines into fields; quotes as in RFC 4180, none in tab-separated files.

    Lines are joined to one row only where that gives `n_fields` fields (any number when None), so that a quote which
    is never closed costs its own line and no other.

    >>> [row.fields for row in rows([b'a,"b,c"', b'"d', b'e",f', b'\xff', b'6" plate,g'], ",")]
    [['a', 'b,c'], ['d\ne', 'f'], None, ['6" plate', 'g']]
    """
    if delimiter == "\t":
        yield from (Row(line, _split(line, delimiter)) for line in lines)
        return
    source, again = iter(lines), deque[bytes]()
    while (raw := again.popleft() if again else next(source, None)) is not None:
        if _QUOTE not in raw:
            yield Row(raw, _split(raw, delimiter))
            continue
        row = Row(raw, _quoted(raw, delimiter))
        if row.fields is not None or raw.count(_QUOTE) % 2 == 0:
            yield row
            continue
        again.extend(islice(source, max(0, _MOST_LINES - 1 - len(again))))
        yield _joined(raw, again, delimiter, n_fields) or row


def _joined(raw: bytes, again: deque[bytes], delimiter: str, n_fields: int | None) -> Row | None:
    """The row that `raw` begins, its further lines taken from `again`; None when the quote stays open."""
    lines = [raw]
    for n_taken, line in enumerate(again, 1):
        lines.append(line)
        if line.count(_QUOTE) % 2:
            whole = b"\n".join(lines)
            fields = _quoted(whole, delimiter)
            if fields is not None and n_fields in (None, len(fields)):
                for _ in range(n_taken):
                    again.popleft()
                return Row(whole, fields)
    return None


def _split(raw: bytes, delimiter: str) -> list[str] | None:
    try:
        return raw.decode().split(delimiter)
    except UnicodeDecodeError:
        return None


def _quoted(raw: bytes, delimiter: str) -> list[str] | None:
    try:
        found = list(csv.reader(StringIO(raw.decode(), newline=""), delimiter=delimiter, strict=True))
    except (UnicodeDecodeError, csv.Error):
        return None
    return found[0] if len(found) == 1 else None
