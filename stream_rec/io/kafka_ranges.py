"""Reading again what ledger entries name: exact ranges of stored topics, one behind the other."""

from __future__ import annotations

import time
from collections.abc import Sequence

from stream_rec.errors import InputGone, Unreachable
from stream_rec.events import Record
from stream_rec.io.kafka import Access
from stream_rec.io.kafka_buffers import KafkaBuffers
from stream_rec.io.kafka_topics import InputTopics
from stream_rec.ports import TopicPartition

PREFETCHED_RECORDS = 8_192
SILENCE_S = 30.0
"""Without anything for so long although more must be there, the brokers are taken for gone."""


class KafkaRanges:
    """Exact ranges by offset, through a consumer of its own; ranges that follow each other are read without seeking.

    Args:
        access: how the brokers are reached.
        topics: what the partitions are called there.
        until_ms: as in `KafkaBuffers`.
    """

    def __init__(self, access: Access, topics: InputTopics, *, until_ms: int | None = None) -> None:
        self._access, self._topics, self._until_ms = access, topics, until_ms
        self._opened: KafkaBuffers | None = None

    def read(self, partition: TopicPartition, first: int, count: int) -> Sequence[Record]:
        """The `count` records from offset `first` on.

        Raises:
            InputGone: fewer are there.
            Unreachable: the brokers answer no more.
        """
        buffers = self._opened = self._opened or KafkaBuffers(
            self._access, self._topics, PREFETCHED_RECORDS, until_ms=self._until_ms
        )
        if buffers.next.get(partition) != first:
            buffers.seek({partition: first})
        end = None
        while len(buffers.held[partition]) < count:
            if buffers.pump(100):
                continue
            end = self._end(buffers, partition) if end is None else end
            if buffers.reader.position(self._topics.physical(partition)) >= end:
                raise InputGone(
                    f"{partition[0]}/{partition[1]}: {count} records from offset {first} on can no longer all be read: "
                    "deleted or compacted away; restore a newer checkpoint or start a new pipeline.name"
                )
            await_more(buffers)
        return buffers.take(partition, count)

    def _end(self, buffers: KafkaBuffers, partition: TopicPartition) -> int:
        physical = self._topics.physical(partition)
        return buffers.reader.ends([physical])[physical]

    def close(self) -> None:
        """Let go of the connection."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None


def await_more(buffers: KafkaBuffers) -> None:
    """Wait for records that must be there.

    Raises:
        Unreachable: nothing came for long.
    """
    until_s = time.monotonic() + SILENCE_S
    while not buffers.pump(500):
        if time.monotonic() > until_s:
            raise Unreachable(
                "Kafka gives nothing more although the end is not reached; see whether its brokers are up"
            )
