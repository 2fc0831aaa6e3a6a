"""Settings to a wired replay of stored topics: what is read, where it goes, whose ledger is followed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stream_rec import config
from stream_rec.assemble_kafka import access_of, checkpoints_of, input_names, kept_of, output_names
from stream_rec.errors import SettingsError
from stream_rec.events import Topic
from stream_rec.io.checkpoint import FolderCheckpoints
from stream_rec.io.folder import FolderWeights
from stream_rec.io.kafka import Admin, Reader
from stream_rec.io.kafka_publisher import KafkaPublisher
from stream_rec.io.kafka_stretch import KafkaStretch
from stream_rec.io.kafka_topics import InputTopics
from stream_rec.io.metrics_file import MetricsFile
from stream_rec.ports import Ports, TopicPartition


@dataclass(frozen=True, slots=True)
class Stretch:
    """What of each partition is replayed: first offset and end."""

    offsets: Mapping[TopicPartition, tuple[int, int]]

    def to_json(self) -> list[list[Any]]:
        """As the ledger keeps it."""
        return [[topic, number, first, end] for (topic, number), (first, end) in sorted(self.offsets.items())]

    @classmethod
    def from_json(cls, kept: Iterable[Iterable[Any]]) -> Stretch:
        """The inverse of `to_json`."""
        return cls({(topic, number): (first, end) for topic, number, first, end in kept})


class OpenedReplay:
    """The connections of a replay.

    Args:
        live: settings of the pipeline whose topics are read.
        own: settings of the replay.
        names: our output topics to the replay's.
    """

    def __init__(self, live: config.Settings, own: config.Settings, names: Mapping[str, str]) -> None:
        self._access, self._live, self._own = access_of(own), live, own
        self._topics = InputTopics(input_names(live))
        self._reader = Reader(self._access)
        self._source: KafkaStretch | None = None
        self._stores: tuple[FolderCheckpoints, FolderWeights] | None = None
        self._followed: KafkaPublisher | None = None
        self._progress = (0, 0)
        self.metrics = MetricsFile(own.run_dir / "metrics.jsonl")
        self.publisher = KafkaPublisher(
            self._access,
            names,
            own.pipeline.name,
            transaction_timeout_ms=own.kafka.transaction_timeout_ms,
            metrics=self.metrics,
        )
        admin = Admin(self._access)
        try:
            self._topics.refresh(admin)
        finally:
            admin.close()

    def find(self, since_ms: int | None, until_ms: int | None, partitions: Sequence[int]) -> Stretch:
        """The offsets of a time range as of now; the whole catalogue belongs to every range.

        Raises:
            SettingsError: there is no such partition.
        """
        events = {number for topic, number in self._topics.partitions if topic == Topic.EVENTS}
        if unknown := sorted(set(partitions) - events):
            raise SettingsError(f"--partitions: topic {self._live.topics.events} has no partition {unknown[0]}")
        chosen = [p for p in self._topics.partitions if p[0] != Topic.EVENTS or not partitions or p[1] in partitions]
        ours = {self._topics.physical(p): p for p in chosen}
        begins, ends = self._reader.begins(ours), self._reader.ends(ours)
        first = begins if since_ms is None else self._reader.offsets_at(ours, since_ms)
        last = ends if until_ms is None else self._reader.offsets_at(ours, until_ms)
        whole = {p: (begins[at], ends[at]) for at, p in ours.items() if p[0] == Topic.ITEMS}
        return Stretch({p: (max(first[at], begins[at]), last[at]) for at, p in ours.items()} | whole)

    def ports(self, stretch: Stretch, *, until_ms: int | None) -> Ports:
        """Source, publisher and stores of the replay."""
        folder = self._own.run_dir
        self._source = KafkaStretch(self._access, self._topics, stretch.offsets, until_ms=until_ms)
        self._stores = checkpoints_of(self._own), FolderWeights(folder / "weights", synchronous=True)
        return Ports(self._source, self.publisher, *self._stores)

    def live_ledger_end(self) -> int:
        """Offset behind the newest entry of the live ledger.

        Raises:
            SettingsError: it has none.
        """
        newest = self._live_publisher().newest()
        if newest is None:
            raise SettingsError(f"topic {self._live.topics.ledger} holds no ledger to follow; leave out --from-ledger")
        return newest.offset + 1

    def live_ledger(self, end: int) -> Iterator[tuple[int, bytes]]:
        """Entries of the live ledger in front of an offset."""
        for offset, raw in self._live_publisher().read_ledger():
            if offset >= end:
                return
            self._progress = offset + 1, end
            yield offset, raw

    def ledger_progress(self) -> tuple[int, int]:
        """(offsets followed, all of them)."""
        return self._progress

    def _live_publisher(self) -> KafkaPublisher:
        self._followed = self._followed or KafkaPublisher(self._access, output_names(self._live), "reads only")
        return self._followed

    def close(self) -> None:
        """Let go of everything; what waits to be written is written."""
        for part in (*(self._stores or ()), self._source, self._reader, self._followed, self.publisher):
            if part is not None:
                part.close()


def open_replay(live: config.Settings, own: config.Settings, *, output_topic: str | None) -> OpenedReplay:
    """Connect, and make the replay's own topics where they are missing, as the live ones are made.

    Raises:
        Unreachable: no broker lets us in.
        JobFailed: a topic cannot be made.
    """
    names = {ours: f"{theirs}.{own.pipeline.name}" for ours, theirs in output_names(live).items()}
    if output_topic is not None:
        names[Topic.SLATES] = output_topic
    admin = Admin(access_of(own))
    try:
        there, kept = admin.topics([*names.values(), *output_names(live).values(), live.topics.events]), kept_of(own)
        like = there.get(live.topics.events)
        for ours, name in names.items():
            if name not in there:
                model = there.get(output_names(live)[ours], like)
                replication = model.replication if model is not None else 1
                n = kept[ours].n_partitions or (model.n_partitions if model is not None else 1)
                admin.create(name, n_partitions=n, replication=replication, configs=kept[ours].configs)
    finally:
        admin.close()
    return OpenedReplay(live, own, names)
