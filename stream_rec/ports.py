"""What the loop needs from outside, as protocols. Each port has an in-memory twin and one contract suite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from stream_rec.component import Snapshot
from stream_rec.events import Output, Record

TopicPartition = tuple[str, int]


class EventSource(Protocol):
    """Ordered records of the input partitions, re-readable by offset."""

    def partitions(self) -> Sequence[TopicPartition]:
        """All input partitions there are now, in (topic, partition) order; of a live topic more may appear."""
        ...

    def seek(self, positions: Mapping[TopicPartition, int]) -> None:
        """Continue each named partition at the given offset; drops what was buffered."""
        ...

    def poll(self, partition: TopicPartition, max_records: int) -> Sequence[Record]:
        """Up to `max_records` next records of one partition, in offset order; empty when none is there now."""
        ...

    def read_range(self, partition: TopicPartition, first: int, count: int) -> Sequence[Record]:
        """Exactly the `count` records from offset `first` on, without moving the position.

        Raises:
            InputGone: fewer than `count` can be read there any more.
        """
        ...

    def behind(self, partition: TopicPartition) -> bool:
        """Whether records of this partition are known, or must be assumed, to be there that were not polled yet."""
        ...

    def topic_ids(self) -> Mapping[str, str]:
        """Topic to the identity its transport gave it; empty where topics have none."""
        ...

    def same_topics(self, topic_ids: Mapping[str, str], partitions: Sequence[TopicPartition]) -> None:
        """Compare the input with the one that a ledger began with.

        Raises:
            InputGone: a topic is another one now, or has fewer partitions.
        """
        ...

    def exhausted(self, partition: TopicPartition) -> bool:
        """Whether nothing is left and nothing more will come (a file at its end); False for a live topic."""
        ...

    def lag(self) -> int:
        """Records known to wait behind the current positions; 0 when not known."""
        ...

    def in_future(self, partition: TopicPartition, offset: int) -> bool:
        """Whether a look ahead judged this record's time to be in the future (files only)."""
        ...


class Publisher(Protocol):
    """Writes a tick's outputs and its ledger entry as one: a reader sees all of them or none."""

    def commit(self, outputs: Sequence[Output], entry: bytes) -> int:
        """Write and make visible; returns the ledger offset of the entry."""
        ...

    def take_over(self) -> None:
        """Become the one writer: whoever wrote before is fenced, and what it left open is settled.

        Raises:
            Fenced: that is not possible now.
        """
        ...

    def read_ledger(self, offset: int = 0) -> Iterable[tuple[int, bytes]]:
        """(offset, entry) of every committed ledger entry from `offset` on, as of the call; 0 begins with the oldest.

        Raises:
            InputGone: the entry at a given offset above 0 was deleted by the ledger's retention.
        """
        ...

    def close(self) -> None:
        """Release what is held."""
        ...


class CheckpointStore(Protocol):
    """Keeps copies of the state, each intact or not there."""

    def save(self, name: str, manifest: Mapping[str, object], components: Mapping[str, Snapshot]) -> None:
        """Write one checkpoint; may return before it is durable. Never blocks on the disk."""
        ...

    def names(self) -> Sequence[str]:
        """Names of the checkpoints there are, newest tick first."""
        ...

    def load(self, name: str) -> tuple[dict[str, object], dict[str, Snapshot]]:
        """Manifest and components of one checkpoint.

        Raises:
            CheckpointRefused: it is torn, or its format is newer than this build knows.
        """
        ...

    def manifest(self, name: str) -> dict[str, object]:
        """The manifest of one checkpoint, without its components.

        Raises:
            CheckpointRefused: as `load`.
        """
        ...

    def pin(self, name: str) -> None:
        """Keep the checkpoint of this name until it is unpinned; may come before its `save`."""
        ...

    def unpin(self, name: str) -> None:
        """Let retention have a checkpoint again."""
        ...

    def n_unwritten(self) -> int:
        """How many earlier saves are still on their way."""
        ...

    def pinned(self) -> Sequence[str]:
        """Names that are pinned, newest tick first."""
        ...

    def flush(self) -> None:
        """Return when everything saved so far is durable."""
        ...

    def close(self) -> None:
        """Finish writing and release what is held."""
        ...


class WeightStore(Protocol):
    """Keeps the weights of versions; writes off the loop."""

    def put(self, version: str, tensors: Mapping[str, np.ndarray]) -> None:
        """Begin to write; `durable` says when it is done."""
        ...

    def durable(self) -> Sequence[str]:
        """Versions that became durable since the last call, in the order they were put."""
        ...

    def get(self, version: str) -> dict[str, np.ndarray]:
        """The tensors of a version."""
        ...

    def close(self) -> None:
        """Finish writing and release what is held."""
        ...


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything outside that the loop may touch."""

    source: EventSource
    publisher: Publisher
    checkpoints: CheckpointStore
    weights: WeightStore
