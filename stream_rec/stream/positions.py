"""Where the fold stands: tick, chain, and per partition the next offset and the largest record time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain as concatenate
from typing import Any

import numpy as np

from stream_rec.component import Component
from stream_rec.events import INPUT_RANK, Record
from stream_rec.stream.ledger import GENESIS_CHAIN
from stream_rec.stream.tick import Tick

TopicPartition = tuple[str, int]


class Positions(Component):
    """The reading position of the fold; what a checkpoint is named after."""

    scalars = ("number", "chain", "ledger_offset", "next_by_name", "high_by_name", "finished", "topic_ids")

    def __init__(self) -> None:
        self.number = -1
        self.chain = GENESIS_CHAIN
        self.ledger_offset = -1
        self.next_by_name: dict[str, int] = {}
        self.high_by_name: dict[str, int] = {}
        self.finished = False
        self.topic_ids: dict[str, str] = {}
        """Input topic to the identity its transport gave it when the ledger began; empty where there is none."""

    def next_of(self, partition: TopicPartition) -> int:
        """Offset of the first record not yet folded."""
        return self.next_by_name.get(_name(partition), 0)

    def start(self, offsets: Mapping[TopicPartition, int], topic_ids: Mapping[str, str] | None = None) -> None:
        """Take the offsets a genesis entry starts from and the identities of the topics they count in."""
        self.next_by_name = {_name(p): o for p, o in sorted(offsets.items())}
        self.high_by_name = {}
        self.finished = False
        self.topic_ids = dict(topic_ids or {})

    def partitions(self) -> list[TopicPartition]:
        """Input partitions that the ledger knows, in (topic, partition) order."""
        split = (name.rpartition("/") for name in self.next_by_name)
        return sorted((topic, int(number)) for topic, _, number in split)

    def record_time_ms(self) -> int:
        """The largest record time folded so far; 0 before any."""
        return max(self.high_by_name.values(), default=0)

    def order(self, buffers: Mapping[TopicPartition, Sequence[Record]]) -> list[Record]:
        """Merge partitions on (running maximum of record time, topic rank, partition, offset).

        Any prefix of the result takes a prefix of each partition, because the first key never falls inside one.
        """
        filled = sorted((p for p, records in buffers.items() if records), key=_rank)
        records = list(concatenate.from_iterable(buffers[p] for p in filled))
        if len(filled) < 2:
            return records
        # One behind the other they have the right order at equal times, and a stable sort keeps it.
        times = np.concatenate([self._running_ms(p, buffers[p]) for p in filled])
        return [records[i] for i in np.argsort(times, kind="stable").tolist()]

    def advance(self, tick: Tick, records: Iterable[Record]) -> None:
        """Step over a tick's records, beside the partitions that came into being with it."""
        for partition in tick.appeared:
            self.next_by_name.setdefault(_name(partition), 0)
        for r in tick.ranges:
            self.next_by_name[f"{r.topic}/{r.partition}"] = r.next
        for record in records:
            name = f"{record.topic}/{record.partition}"
            if record.timestamp_ms > self.high_by_name.get(name, 0):
                self.high_by_name[name] = record.timestamp_ms
        self.finished = tick.drain

    def _running_ms(self, partition: TopicPartition, records: Sequence[Record]) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The running maximum of record time in a partition, from what was folded of it on, int64 [n]."""
        folded = self.high_by_name.get(_name(partition), 0)
        times = np.array([record.timestamp_ms for record in records], np.int64)
        return np.maximum.accumulate(np.maximum(times, folded))


def _name(partition: TopicPartition) -> str:
    return f"{partition[0]}/{partition[1]}"


def _rank(partition: TopicPartition) -> tuple[int, int]:
    return INPUT_RANK[partition[0]], partition[1]
