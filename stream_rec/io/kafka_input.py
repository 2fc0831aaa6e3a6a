"""What live topics and a stretch of stored ones have in common as an input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stream_rec.events import Record
from stream_rec.io.kafka import Access
from stream_rec.io.kafka_buffers import KafkaBuffers
from stream_rec.io.kafka_ranges import KafkaRanges
from stream_rec.io.kafka_topics import InputTopics
from stream_rec.io.same_topics import same_topics
from stream_rec.ports import TopicPartition


class KafkaInput:
    """The part of an EventSource that does not depend on where it ends.

    Args:
        access: how the brokers are reached.
        topics: which topics are read, and who they are.
        ahead_records: records of one partition that are read ahead.
        until_ms: as in `KafkaBuffers`.
    """

    def __init__(self, access: Access, topics: InputTopics, *, ahead_records: int, until_ms: int | None = None) -> None:
        self._access, self._topics = access, topics
        self._buffers = KafkaBuffers(access, topics, ahead_records, until_ms=until_ms)
        self._ranges = KafkaRanges(access, topics, until_ms=until_ms)

    def topic_ids(self) -> Mapping[str, str]:
        """The brokers' ids of the topics."""
        return self._topics.ids

    def same_topics(self, topic_ids: Mapping[str, str], partitions: Sequence[TopicPartition]) -> None:
        """Compare with what the ledger began with.

        Raises:
            InputGone: a topic is another one, or a partition is gone.
        """
        same_topics(self.topic_ids(), self._topics.partitions, topic_ids=topic_ids, partitions=partitions)

    def read_range(self, partition: TopicPartition, first: int, count: int) -> Sequence[Record]:
        """Exactly the `count` records from offset `first` on.

        Raises:
            InputGone: fewer are there, or retention has passed `first`.
            Unreachable: the brokers answer no more.
        """
        return self._ranges.read(partition, first, count)

    def in_future(self, partition: TopicPartition, offset: int) -> bool:
        """Never told: the tick's clock judges."""
        del partition, offset
        return False

    def close(self) -> None:
        """Let go of the connections."""
        self._buffers.close()
        self._ranges.close()
