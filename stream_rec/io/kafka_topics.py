"""The topics of a pipeline: their names, how each must be kept, and whether they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from stream_rec.errors import JobFailed, SettingsError
from stream_rec.events import INPUT_RANK, Topic
from stream_rec.io.kafka import Admin, TopicAs
from stream_rec.ports import TopicPartition

DAY_MS = 86_400_000
INPUTS = tuple(sorted(INPUT_RANK))
OUTPUTS = (Topic.SLATES, Topic.VERSIONS, Topic.DEAD_LETTERS, Topic.LEDGER)


@dataclass(frozen=True, slots=True)
class Names:
    """Our topics to those of the cluster, both ways."""

    names: Mapping[str, str]

    def physical(self, partition: TopicPartition) -> TopicPartition:
        """A partition as the cluster calls it."""
        return self.names[partition[0]], partition[1]


class InputTopics:
    """The input topics as they are: partitions and identities. `refresh` looks again.

    Args:
        names: our input topics to those of the cluster.

    >>> topics = InputTopics({"events": "shop.events"})
    >>> topics.see({"shop.events": TopicAs("id", 2, 1)})
    >>> topics.partitions, topics.physical(("events", 1)), topics.logical(("shop.events", 0))
    ([('events', 0), ('events', 1)], ('shop.events', 1), ('events', 0))
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = dict(names)
        self._ours = {theirs: ours for ours, theirs in names.items()}
        self.partitions: list[TopicPartition] = []
        self.ids: dict[str, str] = {}

    @property
    def names(self) -> list[str]:
        """The cluster's names."""
        return list(self._names.values())

    def see(self, topics: Mapping[str, TopicAs]) -> None:
        """Take what the brokers say.

        Raises:
            JobFailed: an input topic is not there.
        """
        for ours, theirs in self._names.items():
            if theirs not in topics:
                raise JobFailed(f"there is no topic {theirs} (topics.{ours}); `stream-rec topics create` makes it")
        self.ids = {ours: topics[theirs].topic_id for ours, theirs in self._names.items()}
        self.partitions = sorted((o, n) for o, t in self._names.items() for n in range(topics[t].n_partitions))

    def refresh(self, admin: Admin) -> None:
        """Look at the topics again.

        Raises:
            JobFailed: an input topic is not there.
        """
        self.see(admin.topics(self.names))

    def physical(self, partition: TopicPartition) -> TopicPartition:
        """A partition as the cluster calls it."""
        return self._names[partition[0]], partition[1]

    def logical(self, partition: TopicPartition) -> TopicPartition:
        """A partition of the cluster as we call it."""
        return self._ours[partition[0]], partition[1]


class Kept(NamedTuple):
    """How a topic must be kept."""

    n_partitions: int | None
    """None: as many as wanted."""
    configs: Mapping[str, str]
    """What it is made with."""
    least: Mapping[str, int]
    """Settings that must not be lower; -1 counts as for ever."""
    policy: str | None = None
    """`cleanup.policy` that must be set, as a set of words."""


def table(horizon_ms: int, max_message_bytes: int) -> dict[str, Kept]:
    """Topic to how it must be kept, by the rebuild horizon and the size of records.

    >>> table(86_400_000, 1 << 20)["items"].least
    {'min.compaction.lag.ms': 86400000, 'delete.retention.ms': 604800000}
    """
    size = {"max.message.bytes": str(max_message_bytes)}
    horizon = {"cleanup.policy": "delete", "retention.ms": str(horizon_ms), **size}
    lag = {"min.compaction.lag.ms": horizon_ms, "delete.retention.ms": 7 * DAY_MS}
    slates = {"retention.ms": str(7 * DAY_MS), "min.compaction.lag.ms": str(DAY_MS), "compression.type": "zstd"}
    return {
        Topic.EVENTS: Kept(None, horizon, {"retention.ms": horizon_ms}, "delete"),
        Topic.ITEMS: Kept(
            None, {"cleanup.policy": "compact", **{k: str(v) for k, v in lag.items()}, **size}, lag, "compact"
        ),
        Topic.CONTROL: Kept(1, horizon, {"retention.ms": horizon_ms}, "delete"),
        Topic.LEDGER: Kept(1, horizon, {"retention.ms": horizon_ms}, "delete"),
        Topic.SLATES: Kept(None, {"cleanup.policy": "compact,delete", **slates, **size}, {}, "compact,delete"),
        Topic.VERSIONS: Kept(1, {"cleanup.policy": "compact", **size}, {}, "compact"),
        Topic.DEAD_LETTERS: Kept(1, {"cleanup.policy": "delete", "retention.ms": str(14 * DAY_MS), **size}, {}),
    }


class Fault(NamedTuple):
    """Something that is not as it must be."""

    topic: str
    what: str


def faults(
    name: str, kept: Kept, topic: TopicAs | None, configs: Mapping[str, str], max_message_bytes: int = 0
) -> list[Fault]:
    """What is wrong with a topic; empty when nothing is.

    >>> faults("control", Kept(1, {}, {}), TopicAs("id", 3, 1), {})
    [Fault(topic='control', what='has 3 partitions and must have exactly 1')]
    """
    if topic is None:
        return [Fault(name, "is not there; `stream-rec topics create` makes it")]
    found = []
    if kept.n_partitions is not None and topic.n_partitions != kept.n_partitions:
        found.append(Fault(name, f"has {topic.n_partitions} partitions and must have exactly {kept.n_partitions}"))
    policy = configs.get("cleanup.policy", "delete")
    if kept.policy is not None and set(policy.split(",")) != set(kept.policy.split(",")):
        found.append(Fault(name, f"has cleanup.policy={policy} and must have {kept.policy}"))
    for key, least in kept.least.items():
        if key in configs and 0 <= int(configs[key]) < least:
            found.append(Fault(name, f"has {key}={configs[key]} and needs {least} or more: the rebuild horizon"))
    if "max.message.bytes" in configs and int(configs["max.message.bytes"]) < max_message_bytes:
        found.append(
            Fault(name, f"has max.message.bytes={configs['max.message.bytes']} and kafka.max_message_bytes is larger")
        )
    return found


def check(
    admin: Admin, names: Mapping[str, str], kept: Mapping[str, Kept], *, max_message_bytes: int
) -> Sequence[Fault]:
    """What is wrong with the topics `names` (ours to the cluster's)."""
    there = admin.topics(names.values())
    configs = admin.configs(there) if there else {}
    return [
        fault
        for ours, theirs in names.items()
        for fault in faults(
            theirs,
            kept[ours],
            there.get(theirs),
            configs.get(theirs, {}),
            0 if ours in INPUTS else max_message_bytes,
        )
    ]


def refuse(found: Sequence[Fault]) -> None:
    """Stop where a topic is not kept as it must be.

    Raises:
        SettingsError: names each topic, what it has and what it needs.
    """
    if found:
        told = "; ".join(f"topic {fault.topic} {fault.what}" for fault in found)
        raise SettingsError(f"{told}; mend this, or let `stream-rec topics create` make topics that are missing")
