"""The unit of the loop: which records, in which order, and every fact from outside. Knows no transport."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from stream_rec.events import Record


class Range(NamedTuple):
    """Consecutive records of one partition: exactly `n_records` records from `first` to before `next`."""

    topic: str
    partition: int
    first: int
    next: int
    n_records: int
    digest: str


class Restore(NamedTuple):
    """The answer to a rollback: which state the learned half is taken from, or why from none."""

    tick: int
    """The state after this tick; -1 when refused."""
    digest: str
    """SHA-256 over the learned half of that state."""
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Tick:
    """One step of the loop. A run is a function of settings, seed, build and its ticks."""

    number: int
    ranges: tuple[Range, ...]
    cut_at_ms: int
    """The worker's clock when the tick was cut; in a backfill the running maximum of the records' own time."""
    idle: tuple[int, ...] = ()
    """Events partitions that were caught up and silent."""
    in_future: tuple[tuple[int, int], ...] = ()
    """(events partition, offset) of records that a file source judged to lie in the future."""
    lagging: bool = False
    drain: bool = False
    weights_durable: tuple[str, ...] = field(default=())
    """Versions whose weights are safely stored; they may be promoted now."""
    appeared: tuple[tuple[str, int], ...] = ()
    """Input partitions that came into being; they are read from offset 0."""
    restore: Restore | None = None
    """What became of the rollback that was asked for in an earlier tick."""

    def to_json(self) -> dict[str, Any]:
        """The form kept in the ledger; empty facts are left out."""
        out: dict[str, Any] = {"ranges": [list(r) for r in self.ranges], "cut_at_ms": self.cut_at_ms}
        for name in ("idle", "in_future", "lagging", "drain", "weights_durable", "appeared", "restore"):
            if value := getattr(self, name):
                out[name] = [list(v) if isinstance(v, tuple) else v for v in value] if value is not True else True
        return out

    @classmethod
    def from_json(cls, number: int, data: dict[str, Any]) -> Tick:
        """The inverse of `to_json`."""
        return cls(
            number=number,
            ranges=tuple(Range(*r) for r in data["ranges"]),
            cut_at_ms=data["cut_at_ms"],
            idle=tuple(data.get("idle", ())),
            in_future=tuple((p, o) for p, o in data.get("in_future", ())),
            lagging=data.get("lagging", False),
            drain=data.get("drain", False),
            weights_durable=tuple(data.get("weights_durable", ())),
            appeared=tuple((t, p) for t, p in data.get("appeared", ())),
            restore=Restore(*data["restore"]) if "restore" in data else None,
        )


def digest_of(records: Iterable[Record]) -> str:
    """SHA-256 over offset, time, key, value and headers of records, each length-prefixed."""
    parts: list[bytes] = []
    for r in records:
        key, value = r.key, r.value
        parts.append(
            struct.pack(
                "<qqqqq",
                r.offset,
                r.timestamp_ms,
                MISSING_LENGTH if key is None else len(key),
                MISSING_LENGTH if value is None else len(value),
                len(r.headers),
            )
        )
        parts.append(key or b"")
        parts.append(value or b"")
        for name, content in r.headers:
            raw = name.encode()
            parts += (struct.pack("<qq", len(raw), len(content)), raw, content)
    return hashlib.sha256(b"".join(parts)).hexdigest()


MISSING_LENGTH = -1


def ranges_of(records: Sequence[Record], positions: dict[tuple[str, int], int]) -> tuple[Range, ...]:
    """The ranges that records in processing order take from each partition.

    `positions` gives each partition's `next` before the tick (the range's `first`).
    """
    by_partition: dict[tuple[str, int], list[Record]] = {}
    for r in records:
        by_partition.setdefault((r.topic, r.partition), []).append(r)
    return tuple(
        Range(topic, partition, positions[topic, partition], rs[-1].offset + 1, len(rs), digest_of(rs))
        for (topic, partition), rs in sorted(by_partition.items())
    )
