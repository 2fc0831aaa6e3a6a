"""A stretch of stored topics as a bounded EventSource: each partition from an offset to an offset, all of it.

It waits for what must be there, so that ticks depend on the log alone and two backfills of one stretch are equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stream_rec.events import Record
from stream_rec.io.kafka import Access
from stream_rec.io.kafka_input import KafkaInput
from stream_rec.io.kafka_ranges import await_more
from stream_rec.io.kafka_topics import InputTopics
from stream_rec.ports import TopicPartition

BUFFERED_RECORDS = 8_192


class KafkaStretch(KafkaInput):
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
        super().__init__(access, topics, ahead_records=BUFFERED_RECORDS, until_ms=until_ms)
        self._stretch = dict(sorted(stretch.items()))

    def partitions(self) -> Sequence[TopicPartition]:
        """The partitions of the stretch, in (topic, partition) order."""
        return list(self._stretch)

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

    def behind(self, partition: TopicPartition) -> bool:
        """Whether something of the stretch is left."""
        return not self.exhausted(partition)

    def exhausted(self, partition: TopicPartition) -> bool:
        """Whether the end of the stretch is reached."""
        return self._buffers.reaches(partition, self._stretch[partition][1])

    def lag(self) -> int:
        """Offsets that are left of the stretch."""
        at = {p: self._buffers.next.get(p, first) for p, (first, _) in self._stretch.items()}
        return sum(max(0, end - self._buffers.beyond(p, at[p])) for p, (_, end) in self._stretch.items())

    def progress(self) -> tuple[int, int]:
        """(offsets done, offsets of the stretch): for a progress bar."""
        total = sum(max(0, end - first) for first, end in self._stretch.values())
        return total - self.lag(), total
