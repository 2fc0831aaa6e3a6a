"""The in-memory twins of every port, over one broker that outlives a crash.

Whatever survives kill -9 is in `MemoryBroker`: input logs, output logs with their transactions, checkpoints, weights.
The other classes are what a process holds; a test throws them away at a crash and makes new ones over the same broker.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from stream_rec.component import Snapshot
from stream_rec.errors import CheckpointRefused, InputGone, JobFailed
from stream_rec.events import Output, Record, Topic
from stream_rec.io.faults import Faults, passing_of
from stream_rec.io.memory_broker import MemoryBroker
from stream_rec.io.retention import newest_first
from stream_rec.io.same_topics import same_topics
from stream_rec.io.stored import StoredCheckpoint
from stream_rec.ports import TopicPartition


class MemorySource:
    """An EventSource over a broker's inputs.

    Args:
        broker: where the records are.
        future: (partition, offset) of records that a look ahead judged to lie in the future.
    """

    def __init__(self, broker: MemoryBroker, *, future: Iterable[tuple[TopicPartition, int]] = ()) -> None:
        self._broker = broker
        self._future = frozenset(future)
        self._next: dict[TopicPartition, int] = dict.fromkeys(broker.inputs, 0)

    def partitions(self) -> Sequence[TopicPartition]:
        """All input partitions, in (topic, partition) order."""
        return sorted(self._broker.inputs)

    def seek(self, positions: Mapping[TopicPartition, int]) -> None:
        """Continue each named partition at the given offset."""
        for partition, offset in positions.items():
            if partition not in self._broker.inputs:
                raise JobFailed(f"there is no input partition {partition[0]}/{partition[1]}")
            self._next[partition] = offset

    def poll(self, partition: TopicPartition, max_records: int) -> Sequence[Record]:
        """Up to `max_records` next records of one partition."""
        records = self._records(partition, self._next[partition], max_records)
        if records:
            self._next[partition] = records[-1].offset + 1
        return records

    def read_range(self, partition: TopicPartition, first: int, count: int) -> Sequence[Record]:
        """Exactly `count` records from offset `first` on.

        Raises:
            InputGone: fewer are there, or retention has passed `first`.
        """
        records = self._records(partition, first, count)
        log = self._broker.inputs.get(partition, [])
        if len(records) < count or (log and log[0].offset > first):
            raise InputGone(
                f"{partition[0]}/{partition[1]}: {count} records from offset {first} on can no longer all be read"
            )
        return records

    def behind(self, partition: TopicPartition) -> bool:
        """Whether records wait behind the current position."""
        return self._next[partition] < self._broker.end_offset(partition)

    def topic_ids(self) -> Mapping[str, str]:
        """What the broker calls its topics; none unless a test gave names."""
        return dict(self._broker.topic_ids)

    def same_topics(self, topic_ids: Mapping[str, str], partitions: Sequence[TopicPartition]) -> None:
        """Compare with what the ledger began with.

        Raises:
            InputGone: a topic is another one, or a partition is gone.
        """
        same_topics(self.topic_ids(), self.partitions(), topic_ids=topic_ids, partitions=partitions)

    def exhausted(self, partition: TopicPartition) -> bool:
        """Whether the input was ended and all of this partition was polled."""
        return self._broker.ended and self._next[partition] >= self._broker.end_offset(partition)

    def lag(self) -> int:
        """Records that wait behind the current positions."""
        return sum(
            len(log) - bisect_left(log, self._next[partition], key=_offset_of)
            for partition, log in self._broker.inputs.items()
        )

    def in_future(self, partition: TopicPartition, offset: int) -> bool:
        """Whether the test that made this source said so."""
        return (partition, offset) in self._future

    def _records(self, partition: TopicPartition, first: int, count: int) -> list[Record]:
        log = self._broker.inputs.get(partition, [])
        at = bisect_left(log, first, key=_offset_of)
        return log[at : at + count]


class MemoryPublisher:
    """A Publisher over a broker: one transaction a commit; making one fences the one before."""

    def __init__(self, broker: MemoryBroker, *, faults: Faults | None = None) -> None:
        self._broker = broker
        self._passing = passing_of(faults)
        self._claim = broker.claim()

    def commit(self, outputs: Sequence[Output], entry: bytes) -> int:
        """Write outputs and entry in one transaction; returns the ledger offset.

        Raises:
            Fenced: another publisher was made over the same broker; nothing of this became visible.
        """
        self._passing("before_outputs")
        transaction = self._broker.begin(self._claim)
        for i, output in enumerate(outputs):
            if i:
                self._passing("between_outputs")
            self._broker.write(transaction, output)
        self._passing("before_entry")
        offset = self._broker.write(transaction, Output(Topic.LEDGER, b"", entry))
        self._passing("before_commit")
        self._broker.commit(transaction, self._claim)
        self._passing("after_commit")
        return offset

    def take_over(self) -> None:
        """Claim the broker; whoever claimed it before is fenced."""
        self._claim = self._broker.claim()

    def read_ledger(self, offset: int = 0) -> Sequence[tuple[int, bytes]]:
        """(offset, entry) of every committed entry from `offset` on; offsets have gaps.

        Raises:
            InputGone: the entry at an `offset` above 0 was forgotten.
        """
        first = self._broker.first_offset(Topic.LEDGER)
        if 0 < offset < first:
            raise InputGone(f"the ledger's entries in front of offset {first} are gone")
        return [(at, output.value or b"") for at, output in self._broker.read_committed(Topic.LEDGER, offset)]

    def close(self) -> None:
        """Nothing is held."""


class MemoryCheckpoints:
    """A CheckpointStore over a broker.

    Args:
        broker: what outlives a crash.
        faults: crash and pause points.
        delayed: a saved checkpoint becomes durable only at the next `save` or `flush`, as with a writing thread.
    """

    def __init__(self, broker: MemoryBroker, *, faults: Faults | None = None, delayed: bool = False) -> None:
        self._broker = broker
        self._passing = passing_of(faults)
        self._delayed = delayed
        self._waiting: dict[str, StoredCheckpoint] = {}

    def save(self, name: str, manifest: Mapping[str, object], components: Mapping[str, Snapshot]) -> None:
        """Keep one checkpoint."""
        self._passing("checkpoint_begin")
        self.flush()
        stored = StoredCheckpoint(manifest, components)
        self._passing("checkpoint_mid")
        self._waiting[name] = stored
        if not self._delayed:
            self.flush()
        self._passing("after_checkpoint")

    def names(self) -> Sequence[str]:
        """Names of the durable checkpoints, newest tick first."""
        return newest_first(self._broker.checkpoints)

    def load(self, name: str) -> tuple[dict[str, object], dict[str, Snapshot]]:
        """Manifest and components, as fresh copies.

        Raises:
            CheckpointRefused: there is none of that name, or a test tore it.
        """
        stored = self._broker.checkpoints.get(name)
        if stored is None or stored.torn:
            raise CheckpointRefused(f"checkpoint {name} is {'missing' if stored is None else 'torn'}; use an older one")
        return stored.read()

    def manifest(self, name: str) -> dict[str, object]:
        """The manifest alone.

        Raises:
            CheckpointRefused: as `load`.
        """
        return self.load(name)[0]

    def pin(self, name: str) -> None:
        """Remember the name; nothing is ever collected here."""
        self._broker.pinned.add(name)

    def unpin(self, name: str) -> None:
        """Forget the name."""
        self._broker.pinned.discard(name)

    def n_unwritten(self) -> int:
        """None: nothing is slow here."""
        return 0

    def pinned(self) -> Sequence[str]:
        """Names that are pinned, newest tick first."""
        return newest_first(self._broker.pinned)

    def close(self) -> None:
        """Make what was saved durable."""
        self.flush()

    def flush(self) -> None:
        """Make what was saved durable."""
        self._broker.checkpoints.update(self._waiting)
        self._waiting.clear()

    def tear(self, name: str) -> None:
        """Damage a durable checkpoint, so that `load` refuses it."""
        self._broker.checkpoints[name].torn = True


class MemoryWeights:
    """A WeightStore over a broker.

    Args:
        broker: what outlives a crash.
        faults: crash and pause points.
        n_polls: calls of `durable` a version waits before it counts as stored, as with a slow disk.
    """

    def __init__(self, broker: MemoryBroker, *, faults: Faults | None = None, n_polls: int = 0) -> None:
        self._broker = broker
        self._passing = passing_of(faults)
        self._n_polls = n_polls
        self._waiting: list[tuple[str, dict[str, np.ndarray], int]] = []

    def put(self, version: str, tensors: Mapping[str, np.ndarray]) -> None:
        """Take a copy of the tensors and begin to write."""
        self._passing("weights_begin")
        copies = {name: np.array(tensor, copy=True) for name, tensor in tensors.items()}
        self._passing("weights_mid")
        self._waiting.append((version, copies, self._n_polls))
        self._passing("weights_after")

    def durable(self) -> Sequence[str]:
        """Versions stored since the last call, in the order they were put."""
        done: list[str] = []
        while self._waiting and self._waiting[0][2] <= 0:
            version, tensors, _ = self._waiting.pop(0)
            self._broker.weights[version] = tensors
            done.append(version)
        self._waiting = [(version, tensors, n - 1) for version, tensors, n in self._waiting]
        return done

    def close(self) -> None:
        """Nothing is held."""

    def get(self, version: str) -> dict[str, np.ndarray]:
        """Copies of a durable version's tensors.

        Raises:
            JobFailed: no such version is stored.
        """
        if version not in self._broker.weights:
            raise JobFailed(f"the weights of version {version} are not stored")
        return {name: tensor.copy() for name, tensor in self._broker.weights[version].items()}


def _offset_of(record: Record) -> int:
    return record.offset
