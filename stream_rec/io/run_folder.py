"""Reading a run folder: what of it is committed. The ledger says; whatever lies beyond it never happened.

`DIR/ledger.jsonl` holds a ledger entry a line, `DIR/TOPIC.jsonl` the records of a topic. An entry's `outputs` gives
per topic [records, bytes of their lines]; the sums over the intact entries are where each file ends. Reading needs no
lock: outputs are written before the entry that counts them.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from stream_rec.errors import JobFailed, SettingsError
from stream_rec.events import Topic
from stream_rec.stream.ledger import decode

OUTPUT_TOPICS = (Topic.SLATES, Topic.VERSIONS, Topic.DEAD_LETTERS, Topic.METRICS)

_BLOCK_BYTES = 1 << 20
_TOPIC_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


class Committed(NamedTuple):
    """How far a run folder is committed."""

    starts: array[int]
    """Byte at which each intact ledger entry starts; one more for the end of the last."""
    n_bytes: dict[str, int]
    """Topic to the bytes of its file that intact entries account for; the ledger itself is not in it."""
    n_records: dict[str, int]
    """Topic to the records in them."""


class Account(msgspec.Struct):
    """The part of a ledger entry that says what it wrote."""

    outputs: dict[str, list[int]] = {}  # msgspec copies an empty default for each instance


def file_of(folder: Path, topic: str) -> Path:
    """The file that holds a topic.

    Raises:
        JobFailed: the name could not be a topic's.
    """
    if not _TOPIC_NAME.fullmatch(topic):
        raise JobFailed(f"the ledger of {folder} names an impossible output topic; restore it or start a new folder")
    return folder / f"{topic}.jsonl"


def committed(folder: Path) -> Committed:
    """Find the last entry of which everything is whole.

    A crash leaves a line without its end, or after a power cut a stretch of zero bytes; both end a file. An entry
    counts when all before it count and each topic's file is long enough for the sum of its lines.

    Raises:
        SettingsError: the folder holds no ledger.
        LedgerMismatch: a complete line of the ledger is not an entry; no crash does that.
    """
    ledger = file_of(folder, Topic.LEDGER)
    if not ledger.exists():
        raise SettingsError(f"{folder} is not a run folder: it has no {ledger.name}; give the folder of an earlier run")
    found = Committed(array("q", [0]), {}, {})
    lengths: dict[str, int] = {}
    for offset, line in enumerate(_lines(ledger, intact_bytes(ledger))):
        outputs = msgspec.convert(decode(line, offset).get("outputs", {}), dict[str, list[int]])
        if not all(_is_there(folder, lengths, topic, found, n_bytes) for topic, (_, n_bytes) in outputs.items()):
            break
        for topic, (n_records, n_bytes) in outputs.items():
            found.n_records[topic] = found.n_records.get(topic, 0) + n_records
            found.n_bytes[topic] = found.n_bytes.get(topic, 0) + n_bytes
        found.starts.append(found.starts[-1] + len(line) + 1)
    return found


def intact_bytes(path: Path) -> int:
    """Bytes up to the end of the last line that no crash touched; 0 when there is no file."""
    if not path.exists():
        return 0
    position = end = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            zero = block.find(0)
            last = (block if zero < 0 else block[:zero]).rfind(b"\n")
            if last >= 0:
                end = position + last + 1
            if zero >= 0:
                break
            position += len(block)
    return end


def committed_lines(folder: Path, topic: str) -> Iterator[bytes]:
    """The committed lines of a topic (`ledger` too), oldest first, without the line's end.

    Raises:
        SettingsError: the folder holds no ledger.
    """
    state = committed(folder)
    n_bytes = state.starts[-1] if topic == Topic.LEDGER else state.n_bytes.get(topic, 0)
    return _lines(file_of(folder, topic), n_bytes)


def committed_records(folder: Path, topic: str) -> Iterator[dict[str, Any]]:
    """The committed records of a topic as JSON objects, oldest first."""
    return (msgspec.json.decode(line) for line in committed_lines(folder, topic))


def lines_of(folder: Path, topic: str) -> Iterator[dict[str, Any]]:
    """The whole lines of a topic's file as JSON objects, whatever the ledger says; none when there is no file."""
    path = file_of(folder, topic)
    return (msgspec.json.decode(line) for line in _lines(path, intact_bytes(path)))


def _is_there(folder: Path, lengths: dict[str, int], topic: str, found: Committed, n_bytes: int) -> bool:
    path = file_of(folder, topic)
    if topic not in lengths:
        lengths[topic] = intact_bytes(path)
    end = found.n_bytes.get(topic, 0) + n_bytes
    if end > lengths[topic] or end == 0:
        return end == 0
    with path.open("rb") as file:
        file.seek(end - 1)
        return file.read(1) == b"\n"


def _lines(path: Path, n_bytes: int) -> Iterator[bytes]:
    """Lines of the first `n_bytes` of a file, which end at a line's end."""
    if not n_bytes:
        return
    with path.open("rb") as file:
        for line in file:
            n_bytes -= len(line)
            if n_bytes < 0:
                return
            yield line[:-1]
