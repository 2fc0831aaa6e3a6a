"""A stretch of stored topics as a bounded EventSource: each partition from an offset to an offset, all of it.

It waits for what must be there, so that ticks depend on the log alone and two backfills of one stretch are equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stream_rec.events import Record
from stream_rec.io.kafka import Access
from stream_rec.io.kafka_buffers import KafkaBuffers
from stream_rec.io.kafka_ranges import KafkaRanges, await_more
from stream_rec.io.kafka_topics import InputTopics
from stream_rec.io.same_topics import same_topics
from stream_rec.ports import TopicPartition

BUFFERED_RECORDS = 8_192


class KafkaStretch:
    """An EventSource over [first, end) of each partition.

    Args:
        access: how the brokers are reached.
        topics: who the topics are.
        stretch: partition to first offset and end.
        until_ms: as in `KafkaBuffers`.
    """

    def __init__(
        self,
        access: Access,
        topics: InputTopics,
        stretch: Mapping[TopicPartition, tuple[int, int]],
        *,
        until_ms: int | None = None,
    ) -> None:
        self._topics, self._stretch = topics, dict(sorted(stretch.items()))
        self._buffers = KafkaBuffers(access, topics, BUFFERED_RECORDS, until_ms=until_ms)
        self._ranges = KafkaRanges(access, topics, until_ms=until_ms)

    def partitions(self) -> Sequence[TopicPartition]:
        """The partitions of the stretch, in (topic, partition) order."""
        return list(self._stretch)

    def topic_ids(self) -> Mapping[str, str]:
        """The brokers' ids of the topics."""
        return self._topics.ids

    def same_topics(self, topic_ids: Mapping[str, str], partitions: Sequence[TopicPartition]) -> None:
        """Compare with what the ledger began with.

        Raises:
            InputGone: a topic is another one, or a partition is gone.
        """
        same_topics(self.topic_ids(), self._topics.partitions, topic_ids=topic_ids, partitions=partitions)

    def seek(self, positions: Mapping[TopicPartition, int]) -> None:
        """Continue each named partition at the given offset."""
        self._buffers.seek(positions)

    def poll(self, partition: TopicPartition, max_records: int) -> Sequence[Record]:
        """The `max_records` next records of one partition; fewer only at the end of the stretch.

        Raises:
            InputGone: retention has passed the position.
            Unreachable: nothing came for long.
        """
        end, taken = self._stretch[partition][1], list[Record]()
        while len(taken) < max_records and not self._buffers.reaches(partition, end):
            if not self._buffers.held[partition]:
                self._buffers.pump(20)
                if not self._buffers.held[partition] and not self._buffers.reaches(partition, end):
                    await_more(self._buffers)
                continue
            held = self._buffers.held[partition]
            inside = len(held) if held[-1].offset < end else sum(record.offset < end for record in held)
            taken += self._buffers.take(partition, min(max_records - len(taken), inside))
        return taken

    def read_range(self, partition: TopicPartition, first: int, count: int) -> Sequence[Record]:
        """Exactly the `count` records from offset `first` on.

        Raises:
            InputGone: fewer are there, or retention has passed `first`.
        """
        return self._ranges.read(partition, first, count)

    def behind(self, partition: TopicPartition) -> bool:
        """Whether something of the stretch is left."""
        return not self.exhausted(partition)

    def exhausted(self, partition: TopicPartition) -> bool:
        """Whether the end of the stretch is reached."""
        return self._buffers.reaches(partition, self._stretch[partition][1])

    def lag(self) -> int:
        """Offsets that are left of the stretch."""
        return sum(max(0, end - self._buffers.next.get(p, first)) for p, (first, end) in self._stretch.items())

    def progress(self) -> tuple[int, int]:
        """(offsets done, offsets of the stretch): for a progress bar."""
        total = sum(max(0, end - first) for first, end in self._stretch.values())
        return total - self.lag(), total

    def in_future(self, partition: TopicPartition, offset: int) -> bool:
        """Never told: the records' own time judges."""
        del partition, offset
        return False

    def close(self) -> None:
        """Let go of the connections."""
        self._buffers.close()
        self._ranges.close()
