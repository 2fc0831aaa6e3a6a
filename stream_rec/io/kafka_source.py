"""Live input topics as an EventSource: every partition is assigned and every offset is ours."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from itertools import islice

from stream_rec.errors import InputGone, JobFailed
from stream_rec.events import Record
from stream_rec.io.kafka import Access, Admin
from stream_rec.io.kafka_beat import KafkaBeat
from stream_rec.io.kafka_buffers import KafkaBuffers
from stream_rec.io.kafka_input import KafkaInput
from stream_rec.io.kafka_topics import InputTopics
from stream_rec.ports import TopicPartition

LOG = logging.getLogger(__name__)
BUFFERED_RECORDS = 5_000
"""Records of one partition that are read ahead."""
AHEAD_MS = 60_000
"""Record time by which a partition may run ahead of one whose records are still on their way."""
PATIENCE_S = 5.0
"""Longest time that others wait for such a partition."""
LOOK_EVERY_S = 0.005
"""A look at what was fetched serves all partitions that are polled within this time: each that finds nothing leaves
kafka-python's exception behind with the frames of the whole stack, for the garbage collector to find."""


class KafkaSource(KafkaInput):
    """An EventSource over live topics.

    Args:
        access: how the brokers are reached.
        topics: which topics are read, and who they are.
        beat: what is known from beside the loop: trouble with the topics, a consumer that is stuck.
    """

    def __init__(self, access: Access, topics: InputTopics, beat: KafkaBeat | None = None) -> None:
        super().__init__(access, topics, ahead_records=BUFFERED_RECORDS)
        self._beat = beat
        self._began_ids = dict(topics.ids)
        self._handed_ms: dict[TopicPartition, int] = {}
        self._empty_since_s: dict[TopicPartition, float] = {}
        self._looked_s = -math.inf

    def partitions(self) -> Sequence[TopicPartition]:
        """All input partitions that are known by now, in (topic, partition) order."""
        return self._topics.partitions

    def seek(self, positions: Mapping[TopicPartition, int]) -> None:
        """Continue each named partition at the given offset; drops what was buffered of it.

        Raises:
            JobFailed: there is no such partition.
        """
        if unknown := sorted(set(positions) - set(self.partitions())):
            raise JobFailed(f"there is no input partition {unknown[0][0]}/{unknown[0][1]}")
        self._buffers.seek(positions)
        self._looked_s = -math.inf

    def poll(self, partition: TopicPartition, max_records: int) -> Sequence[Record]:
        """Up to `max_records` records of one partition that have come by now; none that run far ahead of others.

        Raises:
            InputGone: retention has passed the position, or a topic was made anew.
        """
        self._heed()
        held = self._buffers.held[partition]
        if len(held) < max_records and time.monotonic() - self._looked_s >= LOOK_EVERY_S:
            self._pump(0)
        if not held:
            return []
        limit_ms = self._limit_ms(partition)
        if limit_ms is not None:
            ready = enumerate(islice(held, max_records))
            max_records = next((i for i, record in ready if record.timestamp_ms > limit_ms), max_records)
        records = self._buffers.take(partition, max_records)
        if records:
            self._handed_ms[partition] = records[-1].timestamp_ms
        return records

    def wait(self, duration_ms: int, n_enough: int) -> None:
        """Return when `n_enough` records are there that may be handed out, at the latest after `duration_ms`."""
        until_s = time.monotonic() + duration_ms / 1000
        while self._n_ready() < n_enough and (left_s := until_s - time.monotonic()) > 0:
            self._pump(max(1, round(left_s * 1000)))

    def _n_ready(self) -> int:
        """Records of the buffers, without those of partitions that must wait for others."""
        n = 0
        for partition, held in self._buffers.held.items():
            limit_ms = self._limit_ms(partition) if held else None
            n += len(held) if limit_ms is None or held[0].timestamp_ms <= limit_ms else 0
        return n

    def behind(self, partition: TopicPartition) -> bool:
        """Whether records wait; before the brokers have said, they must be assumed to."""
        if partition not in self._buffers.held:
            return True
        end = self._buffers.end(partition)
        return end is None or not self._buffers.reaches(partition, end)

    def exhausted(self, partition: TopicPartition) -> bool:
        """Never: more may come."""
        del partition
        return False

    def lag(self) -> int:
        """Records that wait behind the current positions, as of the last fetches."""
        return sum(max(0, (self._buffers.end(p) or 0) - at) for p, at in self.beyond(self._buffers.next).items())

    def beyond(self, positions: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """These positions; where nothing but transaction markers lies in front of one, the offset behind them."""
        return {p: self._buffers.beyond(p, at) for p, at in positions.items()}

    def _pump(self, timeout_ms: int) -> int:
        try:
            n = self._buffers.pump(timeout_ms)
            # Where something came, more may be there.
            self._looked_s = -math.inf if n else time.monotonic()
            return n
        except InputGone:
            # An offset is also out of range in a topic that was made anew, which is another thing to mend.
            with closing(Admin(self._access)) as admin:
                self._topics.refresh(admin)
            self.same_topics(self._began_ids, list(self._buffers.next))
            raise

    def _heed(self) -> None:
        """Act on what was seen from beside the loop."""
        beat = self._beat
        if beat is None:
            return
        if beat.trouble is not None:
            raise beat.trouble
        if beat.stalled.is_set():
            beat.stalled.clear()
            LOG.warning("a partition has records and its consumer gives none; the consumer is made anew")
            positions = dict(self._buffers.next)
            self._buffers.close()
            self._buffers = KafkaBuffers(self._access, self._topics, BUFFERED_RECORDS)
            self._buffers.seek(positions)

    def _limit_ms(self, partition: TopicPartition) -> int | None:
        """Record time that may be handed out while records of other partitions are still on their way."""
        now_s, slowest = time.monotonic(), None
        for other, held in self._buffers.held.items():
            if held or other == partition or not self.behind(other):
                self._empty_since_s.pop(other, None)
                continue
            since_s = self._empty_since_s.setdefault(other, now_s)
            at_ms = self._handed_ms.get(other)
            if now_s - since_s < PATIENCE_S and at_ms is not None and (slowest is None or at_ms < slowest):
                slowest = at_ms
        return None if slowest is None else slowest + AHEAD_MS
