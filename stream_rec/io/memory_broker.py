"""A broker in memory that outlives a crash: topics with the semantics of Kafka that the worker leans on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from stream_rec.errors import Fenced
from stream_rec.events import Output, Record, Topic
from stream_rec.io.stored import StoredCheckpoint
from stream_rec.ports import TopicPartition

Headers = tuple[tuple[str, bytes], ...]

COMMITTED, OPEN, ABORTED = "committed", "open", "aborted"


class MemoryBroker:
    """Topics in memory, with the semantics of Kafka that the worker leans on.

    Offsets of inputs count up from 0 in each partition. Output topics have one partition; a transaction that ends
    leaves a marker, so their offsets have gaps, as on Kafka.

    Args:
        partitions: input topic to number of partitions.

    >>> broker = MemoryBroker()
    >>> broker.append(Topic.EVENTS, 0, b'{"n":1}', timestamp_ms=5), broker.append(Topic.EVENTS, 0, b'{"n":2}')
    (0, 1)
    """

    def __init__(self, partitions: Mapping[str, int] | None = None) -> None:
        counts = {Topic.CONTROL: 1, Topic.ITEMS: 1, Topic.EVENTS: 1} if partitions is None else partitions
        self.inputs: dict[TopicPartition, list[Record]] = {
            (topic, number): [] for topic, n in sorted(counts.items()) for number in range(n)
        }
        self.ended = False
        self.topic_ids: dict[str, str] = {}
        self.checkpoints: dict[str, StoredCheckpoint] = {}
        self.pinned: set[str] = set()
        self.weights: dict[str, dict[str, np.ndarray]] = {}
        self._next: dict[TopicPartition, int] = dict.fromkeys(self.inputs, 0)
        self._logs: dict[str, list[tuple[int, Output | None]]] = {}
        self._first: dict[str, int] = {}
        self._status: dict[int, str] = {}
        self._claims = 0

    # ---- inputs

    def append(
        self,
        topic: str,
        partition: int,
        value: bytes | None,
        *,
        key: bytes | None = None,
        timestamp_ms: int = 0,
        headers: Headers = (),
    ) -> int:
        """Add one input record; returns its offset."""
        at = topic, partition
        offset = self._next[at]
        self.inputs[at].append(Record(topic, partition, offset, timestamp_ms, key, value, headers))
        self._next[at] = offset + 1
        return offset

    def extend(self, records: Iterable[Record]) -> None:
        """Add input records in order; each gets the next offset of its partition, whatever it carried."""
        for record in records:
            at = record.topic, record.partition
            offset = self._next[at]
            self.inputs[at].append(record if record.offset == offset else record._replace(offset=offset))
            self._next[at] = offset + 1

    def end(self) -> None:
        """Say that no more input will come."""
        self.ended = True

    def drop_before(self, partition: TopicPartition, offset: int) -> None:
        """Retention: forget the input records before `offset`."""
        self.inputs[partition] = [r for r in self.inputs[partition] if r.offset >= offset]

    def remove(self, partition: TopicPartition, offset: int) -> None:
        """Compaction: forget one input record and leave a gap."""
        self.inputs[partition] = [r for r in self.inputs[partition] if r.offset != offset]

    def add_partition(self, topic: str, number: int) -> None:
        """Let a partition of an input topic come into being."""
        self.inputs[topic, number] = []
        self._next[topic, number] = 0

    def end_offset(self, partition: TopicPartition) -> int:
        """Offset the next record of an input partition will get."""
        return self._next[partition]

    # ---- outputs

    def claim(self) -> int:
        """Become the one writer: aborts what an older one left open and fences it; returns the claim's number."""
        self._claims += 1
        for number, status in self._status.items():
            if status == OPEN:
                self._finish(number, ABORTED)
        return self._claims

    def begin(self, claim: int) -> int:
        """Open a transaction.

        Raises:
            Fenced: another writer has claimed since.
        """
        self._check(claim)
        number = len(self._status)
        self._status[number] = OPEN
        return number

    def write(self, transaction: int, output: Output) -> int:
        """Append to an output topic within a transaction; returns the offset."""
        if self._status[transaction] != OPEN:
            raise Fenced("another learner has claimed the pipeline; this one stops")
        log = self._logs.setdefault(output.topic, [])
        log.append((transaction, output))
        return len(log) - 1

    def commit(self, transaction: int, claim: int) -> None:
        """Make a transaction visible, whole.

        Raises:
            Fenced: another writer has claimed since; the transaction was aborted.
        """
        self._check(claim)
        self._finish(transaction, COMMITTED)

    def read_committed(self, topic: str, offset: int = 0) -> list[tuple[int, Output]]:
        """(offset, output) from `offset` on, up to the first open transaction, without aborted ones."""
        out: list[tuple[int, Output]] = []
        log = self._logs.get(topic, [])
        for at in range(max(self.first_offset(topic), offset), len(log)):
            transaction, output = log[at]
            status = self._status[transaction]
            if status == OPEN:
                break
            if status == COMMITTED and output is not None:
                out.append((at, output))
        return out

    def forget_before(self, topic: str, offset: int) -> None:
        """Retention of an output topic: forget what is before `offset`."""
        self._first[topic] = offset

    def first_offset(self, topic: str) -> int:
        """Offset of an output topic before which everything was forgotten."""
        return self._first.get(topic, 0)

    def outputs(self, topic: str) -> list[Output]:
        """All a `read_committed` reader sees of a topic."""
        return [output for _, output in self.read_committed(topic)]

    def _check(self, claim: int) -> None:
        if claim != self._claims:
            raise Fenced("another learner has claimed the pipeline; this one stops")

    def _finish(self, transaction: int, status: str) -> None:
        self._status[transaction] = status
        for log in self._logs.values():
            if log[-1][0] == transaction:
                log.append((transaction, None))
