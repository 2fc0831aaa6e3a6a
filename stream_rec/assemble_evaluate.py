"""Paths to what `evaluate` reads: slates of a run with its events, or a log in the form of the Open Bandit Dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from stream_rec import assemble, config
from stream_rec.errors import SettingsError
from stream_rec.evaluate_open_bandit import COLUMNS, OpenBandit, read
from stream_rec.events import Line, Record, Topic
from stream_rec.io.delimited import rows
from stream_rec.io.lines import LineReader, text_digest, written_whole
from stream_rec.io.run_folder import committed_lines, committed_records, file_of

KEY = b"stream-rec evaluate"
"""Users are told apart and nothing more, so what they are called by does not matter."""
LOOKED_IN = ("*.jsonl", "*.jsonl.gz", "*.jsonl.zst")
OURS = frozenset({"slates.jsonl", "versions.jsonl", "ledger.jsonl", "dead-letters.jsonl", "metrics.jsonl"})
BATCH = 4_096


class Place(NamedTuple):
    """What a path turned out to be; one of the two is set."""

    slates: Path | None
    """A run folder, or a file of slates."""
    open_bandit: Path | None
    """A CSV file."""


def place_of(path: Path) -> Place:
    """Tell a run folder or its slates from an Open Bandit log.

    Raises:
        SettingsError: it is neither, or a folder with several logs.
    """
    if path.is_dir():
        if file_of(path, Topic.LEDGER).is_file() or file_of(path, Topic.SLATES).is_file():
            return Place(path, None)
        found = [file for file in sorted(path.iterdir()) if ".csv" in file.suffixes and _is_open_bandit(file)]
        if len(found) > 1:
            raise SettingsError(f"{path} holds {len(found)} logs; name one: {', '.join(map(str, found))}")
        if found:
            return Place(None, found[0])
        raise SettingsError(f"{path} holds no slates.jsonl and no CSV with the columns {', '.join(COLUMNS)}")
    if not path.is_file():
        raise SettingsError(f"there is no run folder and no log {path}; check the path")
    if _is_open_bandit(path):
        return Place(None, path)
    if ".csv" in path.suffixes:
        raise SettingsError(f"{path} lacks columns of a log: {', '.join(COLUMNS)}")
    return Place(path, None)


def slate_lines(path: Path) -> Iterator[bytes]:
    """The slates of a run folder as far as they are committed, or of a file, a record a line."""
    if path.is_dir() and file_of(path, Topic.LEDGER).is_file():
        yield from committed_lines(path, Topic.SLATES)
        return
    with closing(LineReader(file_of(path, Topic.SLATES) if path.is_dir() else path)) as reader:
        yield from reader


def events_of(path: Path) -> Path | None:
    """The file whose content the run's ledger names; looked for in the folder, above it and where we are.

    Raises:
        SettingsError: a file cannot be opened.
        JobFailed: a compressed file is damaged.
    """
    if not (path.is_dir() and file_of(path, Topic.LEDGER).is_file()):
        return None
    read = next(committed_records(path, Topic.LEDGER), {}).get("input")
    digest = read.get("events") if isinstance(read, dict) else None
    folders = dict.fromkeys(folder.resolve() for folder in (path, path.absolute().parent, Path()))
    there = [file for folder in folders for glob in LOOKED_IN for file in sorted(folder.glob(glob))]
    wanted = (file for file in there if file.name not in OURS and digest and text_digest(file) == digest)
    return next(wanted, None)


def event_lines(settings: config.Settings, path: Path) -> Iterator[list[Line]]:
    """The events of a file as the pipeline reads them, in batches; what it would dead-letter is left out."""
    front = assemble.front_of(settings, KEY)
    records: list[Record] = []
    with closing(LineReader(path)) as reader:
        for n, line in enumerate(reader):
            records.append(Record(Topic.EVENTS, 0, n, 0, None, line))
            if len(records) == BATCH:
                yield front.read(records).lines
                records.clear()
    yield front.read(records).lines


@contextmanager
def keeping(path: Path | None) -> Iterator[Callable[[Iterable[Record]], None]]:
    """Gives what writes the events among records to a file; the file is there when the block ends well."""
    if path is None:
        yield lambda _: None
        return
    with written_whole(path) as file:

        def keep(records: Iterable[Record]) -> None:
            file.writelines(r.value + b"\n" for r in records if r.topic == Topic.EVENTS and r.value is not None)

        yield keep


def open_bandit(path: Path) -> OpenBandit:
    """An Open Bandit log.

    Raises:
        JobFailed: a compressed file is damaged.
    """
    with closing(LineReader(path)) as reader:
        table = rows(reader, ",")
        header = _fields(next(table).fields)
        return read(header, (row.fields for row in table))


def _is_open_bandit(path: Path) -> bool:
    with closing(LineReader(path)) as reader:
        first = next(rows(reader, ","), None)
    return first is not None and set(COLUMNS) <= set(_fields(first.fields))


def _fields(fields: Sequence[str] | None) -> list[str]:
    return [name.strip() for name in fields or ()]
