"""One consumer over many partitions, each buffered by itself and fetched no further while its buffer is full.

Kafka tells the end of a partition only with a fetch, and its positions run ahead of what was handed out. So the place
in a partition is counted by records, and kafka-python's position is asked only where the buffer is empty, to step over
transaction markers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping

from stream_rec.events import Record, Topic
from stream_rec.io.kafka import Access, Reader
from stream_rec.io.kafka_decode import Polled
from stream_rec.io.kafka_topics import InputTopics
from stream_rec.ports import TopicPartition

POLLED_RECORDS = 4_096
_NEVER_MS = 1 << 63
_new = tuple.__new__
"""Quicker than the class itself, which is a function in Python: this runs once a record."""


class KafkaBuffers:
    """Buffers of the partitions that were sought.

    Args:
        access: how the brokers are reached.
        topics: what the partitions are called there.
        most_records: a partition with more in its buffer is fetched no further until half of them are taken.
        until_ms: catalogue records of this record time or later are the newer state of a compacted topic: they are
            known from the start, so their time is 0.
    """

    def __init__(self, access: Access, topics: InputTopics, most_records: int, *, until_ms: int | None = None) -> None:
        self.reader = Reader(access)
        self._topics, self._most_records, self._until_ms = topics, most_records, until_ms
        self.held: dict[TopicPartition, deque[Record]] = {}
        self.next: dict[TopicPartition, int] = {}
        """Offset of the next record that `take` gives, where it is known."""
        self._paused: set[TopicPartition] = set()

    def seek(self, positions: Mapping[TopicPartition, int]) -> None:
        """Continue these partitions at these offsets; drops what was buffered of them."""
        fresh = [p for p in positions if p not in self.held]
        for partition, offset in positions.items():
            self.held[partition], self.next[partition] = deque(), offset
        if fresh:
            self.reader.assign(map(self._topics.physical, self.held))
            # Those that were read before go on from their buffers, and as they were paused.
            if self._paused:
                self.reader.pause(map(self._topics.physical, self._paused))
        for partition, offset in positions.items():
            self.reader.seek(self._topics.physical(partition), offset)
            self._play(partition)

    def pump(self, timeout_ms: int) -> int:
        """Take what was fetched into the buffers, waiting for it; returns how many records that were.

        Raises:
            InputGone: retention has passed a position.
        """
        n = 0
        for physical, polled in self.reader.poll(timeout_ms, POLLED_RECORDS).items():
            partition = self._topics.logical(physical)
            self.held[partition].extend(self._records(partition[0], polled))
            n += len(polled)
        full = [p for p, held in self.held.items() if len(held) > self._most_records and p not in self._paused]
        if full:
            self.reader.pause(map(self._topics.physical, full))
            self._paused.update(full)
        return n

    def take(self, partition: TopicPartition, n: int) -> list[Record]:
        """The next `n` records of the buffer, or all there are."""
        held = self.held[partition]
        taken = [held.popleft() for _ in range(min(n, len(held)))]
        if taken:
            self.next[partition] = taken[-1].offset + 1
            if len(held) <= self._most_records // 2:
                self._play(partition)
        return taken

    def reaches(self, partition: TopicPartition, end: int) -> bool:
        """Whether everything in front of the offset `end` was taken."""
        if self.held[partition]:
            return self.held[partition][0].offset >= end
        return self.next[partition] >= end or self.reader.position(self._topics.physical(partition)) >= end

    def beyond(self, partition: TopicPartition, offset: int) -> int:
        """`offset`, or what lies behind the transaction markers there, when it is our place and nothing is buffered."""
        if self.held.get(partition) or self.next.get(partition) != offset or offset == self.end(partition):
            return offset
        return max(offset, self.reader.position(self._topics.physical(partition)))

    def end(self, partition: TopicPartition) -> int | None:
        """End of a partition as the last fetch told it; None before the first."""
        return self.reader.highwater(self._topics.physical(partition))

    def close(self) -> None:
        """Let go of the connection."""
        self.reader.close()

    def _play(self, partition: TopicPartition) -> None:
        if partition in self._paused:
            self._paused.discard(partition)
            self.reader.resume([self._topics.physical(partition)])

    def _records(self, topic: str, polled: Iterable[Polled]) -> Iterator[Record]:
        """Records under our name of their topic; one without a time has 0."""
        until_ms = self._until_ms if topic == Topic.ITEMS and self._until_ms is not None else _NEVER_MS
        for _, number, offset, at_ms, key, value, headers in polled:
            yield _new(Record, (topic, number, offset, at_ms if 0 < at_ms < until_ms else 0, key, value, headers))
