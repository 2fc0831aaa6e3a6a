"""From a dataset's files to one event a line, in order of time, nothing dropped or cleaned."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path

import msgspec

from stream_rec.errors import SettingsError
from stream_rec.io.csv_columns import CsvColumns
from stream_rec.io.delimited import Row, rows
from stream_rec.io.lines import LineReader, written_whole
from stream_rec.io.loaders import Event, Loader, Table
from stream_rec.io.movielens import MovieLens100K
from stream_rec.io.online_retail import OnlineRetail
from stream_rec.io.peek import time_ms
from stream_rec.io.rees46 import Rees46
from stream_rec.io.time_order import Timed, in_time_order

LOADERS: dict[str, Callable[[], Loader]] = {
    "online-retail": OnlineRetail,
    "rees46": Rees46,
    "movielens-100k": MovieLens100K,
}
"""Datasets known by name; `csv` is the one that takes a column map."""

Told = Callable[[int, int, int], None]
"""Takes (lines read since the last call, bytes read, bytes of all files)."""

_TOLD_EVERY = 1_000
_MAX_LINE_BYTES = 64 * 1024 * 1024

_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class ImportReport:
    """What an import read and wrote; its text is for people."""

    dataset: str
    out: Path
    items_out: Path | None
    n_events: int = 0
    """Lines of the events file, the unreadable ones included."""
    n_unreadable: int = 0
    """Of these, source lines passed on as they are."""
    n_items: int = 0
    first_at_ms: int = 0
    """Earliest event time; 0 when none could be read."""
    last_at_ms: int = 0

    def __str__(self) -> str:
        span = f", {_day(self.first_at_ms)} to {_day(self.last_at_ms)}" if self.last_at_ms else ""
        raw = f"; {self.n_unreadable:,} unreadable lines are in it as they are" if self.n_unreadable else ""
        items = f"\n{self.items_out}: {self.n_items:,} items" if self.items_out else ""
        return f"{self.out}: {self.n_events:,} events of {self.dataset}{span}{raw}{items}"


def import_dataset(
    name: str,
    files: Sequence[Path],
    out: Path,
    *,
    items_out: Path | None = None,
    column_map: Mapping[str, str],
    told: Told | None = None,
) -> ImportReport:
    """Write the events of `files` to `out` and the catalogue to `items_out` (.jsonl, .gz or .zst, in and out).

    One line a source line, sorted stably by time; a line without a readable time stays behind the one before it.
    Naive times are UTC. `event_id` is the first 32 hex digits of the SHA-256 of the source line, so exact duplicates
    have equal ids. A line that cannot be split into the header's columns is passed on raw. `told` is called now and
    then with the lines read since, and the bytes read of all bytes.

    Raises:
        SettingsError: the dataset, a file, a column or the column map is wrong.
        JobFailed: a compressed file is damaged.
    """
    loader = _loader(name, column_map)
    _check_paths(name, files, out, items_out)
    report = ImportReport(name, out, items_out)
    with written_whole(out) as file:
        for _, line in in_time_order(chain.from_iterable(_timed(files, loader, report, told or _nobody)), out.parent):
            file.write(line + b"\n")
    if items_out is not None:
        with written_whole(items_out) as file:
            for item in loader.items():
                report.n_items += 1
                file.write(_encode(item) + b"\n")
    return report


def _check_paths(name: str, files: Sequence[Path], out: Path, items_out: Path | None) -> None:
    if not files:
        raise SettingsError(f"import {name}: no file is named; give the dataset's files")
    taken = {file.resolve() for file in files}
    for target in (out, items_out):
        if target is not None and target.resolve() in taken:
            raise SettingsError(f"import {name}: {target} is named twice; write to a file of its own")
        taken.add(out.resolve())


def _loader(name: str, column_map: Mapping[str, str]) -> Loader:
    if name == "csv":
        return CsvColumns(column_map)
    if column_map:
        raise SettingsError(f"--map is for csv; the columns of {name} are known")
    if name not in LOADERS:
        raise SettingsError(f"there is no dataset {name}; known are {', '.join((*LOADERS, 'csv'))}")
    return LOADERS[name]()


def _nobody(n_lines: int, n_bytes: int, total_bytes: int) -> None:
    """Nobody looks."""


def _watched(lines: LineReader, told: Told, *, before: int, total: int) -> Iterator[bytes]:
    """The lines, their number told every _TOLD_EVERY of them and at the end."""
    while some := list(islice(lines, _TOLD_EVERY)):
        yield from some
        told(len(some), before + lines.progress()[0], total)


def _timed(files: Sequence[Path], loader: Loader, report: ImportReport, told: Told) -> Iterator[Iterator[Timed]]:
    sizes = [path.stat().st_size if path.is_file() else 0 for path in files]
    for i, path in enumerate(files):
        with closing(LineReader(path, max_line_bytes=_MAX_LINE_BYTES)) as lines:
            first = next(iter(lines), b"")
            delimiter = max(",\t;|", key=lambda c: first.count(c.encode()))
            header = next(rows([first], delimiter)).fields
            if header is None:
                raise SettingsError(f"{path}: the first line is no readable header; the file must be UTF-8 text")
            table = loader.table(header)
            rest = _watched(lines, told, before=sum(sizes[:i]), total=sum(sizes))
            data = chain([first], rest) if table.headless else rest
            yield _events(rows(data, delimiter, len(table.columns)), table, report)


def _events(source: Iterator[Row], table: Table, report: ImportReport) -> Iterator[Timed]:
    """(sort time, events line) of each row; an unreadable time sorts as the last good one."""
    columns, n_columns = table.columns, len(table.columns)
    last_ms = report.last_at_ms
    for raw, fields in source:
        if fields is None or len(fields) != n_columns:
            report.n_events += 1
            report.n_unreadable += 1
            yield last_ms, raw.replace(b"\n", b" ")
            continue
        event = table.event(dict(zip(columns, fields, strict=True)))
        if event is None:
            continue
        at_ms = time_ms(event.get("event_at"))
        if at_ms >= 0:
            last_ms = at_ms
            report.first_at_ms = min(report.first_at_ms or at_ms, at_ms)
            report.last_at_ms = max(report.last_at_ms, at_ms)
        report.n_events += 1
        yield last_ms, _encode(_with_id(raw, event))


def _with_id(raw: bytes, event: Event) -> Event:
    return {"event_id": hashlib.sha256(raw).hexdigest()[:32]} | event


def _day(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).date().isoformat()
