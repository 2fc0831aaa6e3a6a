"""Settings to a wired program on Kafka: what `assemble` is for files and memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stream_rec import assemble, config
from stream_rec.errors import SettingsError, StreamRecError
from stream_rec.events import INPUT_RANK, Topic
from stream_rec.fold import Loaded
from stream_rec.io import kafka_topics
from stream_rec.io.checkpoint import FolderCheckpoints
from stream_rec.io.folder import FolderWeights, hold, hold_name
from stream_rec.io.kafka import Access, Admin, Reader, Sending, Writer
from stream_rec.io.kafka_beat import KafkaBeat
from stream_rec.io.kafka_publisher import KafkaPublisher
from stream_rec.io.kafka_source import KafkaSource
from stream_rec.io.kafka_topics import InputTopics
from stream_rec.io.metrics_file import MetricsFile
from stream_rec.io.telemetry import HealthServer
from stream_rec.pipeline import Pipeline
from stream_rec.ports import Ports, TopicPartition

__all__ = ["Admin", "Reader", "Sending", "Writer"]

LOG = logging.getLogger(__name__)
CHECKPOINT_RESTS = 3
LOOKED_AT_RECORDS = 50
"""Newest records of each events partition whose keys are looked at."""
OUTPUTS = (Topic.SLATES, Topic.VERSIONS, Topic.DEAD_LETTERS, Topic.LEDGER)


def access_of(settings: config.Settings) -> Access:
    """How the brokers are reached.

    Raises:
        SettingsError: a login is asked for and not given.
    """
    s = settings
    security: dict[str, Any] = {}
    if s.kafka.security_protocol.startswith("SASL"):
        if not s.kafka.sasl_username or s.kafka.sasl_password is None:
            raise SettingsError(
                f"kafka.security_protocol is {s.kafka.security_protocol} and needs kafka.sasl_username and "
                "kafka.sasl_password (environment STREAM_REC_KAFKA__SASL_PASSWORD)"
            )
        security |= {
            "sasl_mechanism": s.kafka.sasl_mechanism,
            "sasl_plain_username": s.kafka.sasl_username,
            "sasl_plain_password": s.kafka.sasl_password.get_secret_value(),
        }
    if s.kafka.security_protocol.endswith("SSL"):
        files = {
            "ssl_cafile": s.kafka.ssl_cafile,
            "ssl_certfile": s.kafka.ssl_certfile,
            "ssl_keyfile": s.kafka.ssl_keyfile,
        }
        for name, path in files.items():
            if path is not None and not path.is_file():
                raise SettingsError(f"kafka.{name} = {path}: there is no such file")
        security |= {name: str(path) for name, path in files.items() if path is not None}
    return Access(
        tuple(server.strip() for server in s.kafka.bootstrap_servers.split(",") if server.strip()),
        s.kafka.security_protocol,
        security,
        connect_timeout_ms=s.kafka.connect_timeout_ms,
        compression=None if s.kafka.compression == "none" else s.kafka.compression,
        max_message_bytes=s.kafka.max_message_bytes,
    )


def names_of(settings: config.Settings) -> dict[str, str]:
    """Our topics to those of the cluster."""
    s = settings
    return {
        Topic.EVENTS: s.topics.events,
        Topic.ITEMS: s.topics.items,
        Topic.CONTROL: s.topics.control,
        Topic.SLATES: s.topics.slates,
        Topic.VERSIONS: s.topics.versions,
        Topic.LEDGER: s.topics.ledger,
        Topic.DEAD_LETTERS: s.topics.dead_letters,
    }


def input_names(settings: config.Settings) -> dict[str, str]:
    """The input topics alone."""
    return {ours: theirs for ours, theirs in names_of(settings).items() if ours in INPUT_RANK}


def output_names(settings: config.Settings) -> dict[str, str]:
    """The output topics alone, the ledger among them."""
    return {ours: theirs for ours, theirs in names_of(settings).items() if ours in OUTPUTS}


def kept_of(settings: config.Settings) -> Mapping[str, kafka_topics.Kept]:
    """How each topic must be kept."""
    return kafka_topics.table(settings.checkpoint.horizon_ms, settings.kafka.max_message_bytes)


def check_topics(settings: config.Settings, admin: Admin) -> None:
    """Stop where a topic is not kept as it must be.

    Raises:
        SettingsError: names each topic, what it has and what it needs.
        Unreachable: no broker lets us in.
    """
    found = kafka_topics.check(
        admin, names_of(settings), kept_of(settings), max_message_bytes=settings.kafka.max_message_bytes
    )
    kafka_topics.refuse(found)


# ---- the worker


@dataclass(frozen=True, slots=True)
class Opened:
    """A worker's connections, for as long as nothing fails on them."""

    ports: Ports
    publisher: KafkaPublisher
    source: KafkaSource
    beat: KafkaBeat
    metrics: MetricsFile

    def close(self) -> None:
        """Let go of everything; what waits to be written is written."""
        for part in (self.beat, self.ports.checkpoints, self.ports.weights, self.source, self.publisher):
            try:
                part.close()
            except StreamRecError as error:
                LOG.warning("%s", error)


def check_partitions(settings: config.Settings, topics: InputTopics) -> None:
    """Stop where events have more partitions than can be followed.

    Raises:
        SettingsError: names the topic and the setting.
    """
    n = sum(topic == Topic.EVENTS for topic, _ in topics.partitions)
    if n > settings.watermark.max_partitions:
        raise SettingsError(
            f"topic {settings.topics.events} has {n} partitions and watermark.max_partitions is "
            f"{settings.watermark.max_partitions}; raise it before the pipeline begins"
        )


def warn_of_unkeyed(settings: config.Settings, opened: Opened) -> None:
    """Say when newest events have no key: those of one user then lie in any partition, out of order.

    Raises:
        Unreachable: no broker lets us in.
    """
    reader = Reader(access_of(settings))
    try:
        events = [
            (settings.topics.events, number) for topic, number in opened.source.partitions() if topic == Topic.EVENTS
        ]
        begins, ends = reader.begins(events), reader.ends(events)
        reader.assign(events)
        for at in events:
            reader.seek(at, max(begins[at], ends[at] - LOOKED_AT_RECORDS))
        polled: list[Any] = []
        for _ in range(3):
            if any(reader.position(at) < ends[at] for at in events):
                polled += [record for records in reader.poll(200, 10_000).values() for record in records]
        if n := sum(record.key is None for record in polled):
            LOG.warning(
                "%d of the newest %d records of topic %s have no key; key events by user, so that each user's stay in "
                "order", n, len(polled), settings.topics.events,
            )  # fmt: skip
    finally:
        reader.close()


def open_worker(settings: config.Settings) -> Opened:
    """Connect: check the topics, then make source, publisher and stores. Fences nobody.

    Raises:
        SettingsError: a topic is not kept as it must be.
        Unreachable: no broker lets us in.
    """
    access, folder = access_of(settings), settings.run_dir
    topics = InputTopics(input_names(settings))
    admin = Admin(access)
    try:
        check_topics(settings, admin)
        topics.refresh(admin)
        check_partitions(settings, topics)
    finally:
        admin.close()
    beat = KafkaBeat(access, topics, settings.pipeline.name)
    source = KafkaSource(access, topics, beat)
    metrics = MetricsFile(folder / "metrics.jsonl")
    publisher = KafkaPublisher(
        access,
        output_names(settings),
        settings.pipeline.name,
        transaction_timeout_ms=settings.kafka.transaction_timeout_ms,
        metrics=metrics,
    )
    checkpoints = checkpoints_of(settings)
    checkpoints.rests = CHECKPOINT_RESTS
    ports = Ports(source, publisher, checkpoints, FolderWeights(folder / "weights"))
    return Opened(ports, publisher, source, beat, metrics)


def checkpoints_of(settings: config.Settings) -> FolderCheckpoints:
    """The checkpoints of the run folder."""
    return FolderCheckpoints(
        settings.run_dir / "checkpoints", keep=settings.checkpoint.keep, horizon_ms=settings.checkpoint.horizon_ms
    )


def pipeline_under(settings: config.Settings, kept: Mapping[str, Any]) -> Pipeline:
    """A pipeline under semantic settings that a ledger kept.

    Raises:
        SettingsError: they were those of another privacy key, which a pipeline keeps for life.
    """
    own = config.semantic(settings)["privacy.key"]
    if kept.get("privacy.key") != own:
        raise SettingsError(
            f"the ledger or state to go on from was made under the privacy key of fingerprint "
            f"{kept.get('privacy.key')}, and that of privacy.key is {own}: every user would be a stranger, and nobody "
            "could be forgotten; bring the old key back, or start a new pipeline.name"
        )
    return assemble.pipeline_of(config.with_semantic(settings, kept))


# ---- where a pipeline begins


def start_offsets(settings: config.Settings, where: str | int) -> dict[TopicPartition, int]:
    """First offset of every input partition: `earliest`, `latest`, or a time in ms; of the items always the first.

    Raises:
        Unreachable: no broker lets us in.
    """
    access, topics = access_of(settings), InputTopics(input_names(settings))
    admin, reader = Admin(access), Reader(access)
    try:
        topics.refresh(admin)
        ours = {topics.physical(p): p for p in topics.partitions}
        begins = reader.begins(ours)
        if isinstance(where, int):
            wanted = reader.offsets_at(ours, where)
        else:
            wanted = begins if where == "earliest" else reader.ends(ours)
        return {p: begins[at] if p[0] == Topic.ITEMS else max(wanted[at], begins[at]) for at, p in ours.items()}
    finally:
        reader.close()
        admin.close()


def newest_checkpoint(folder: Path) -> Loaded:
    """The newest checkpoint of a run folder, to begin from.

    Raises:
        SettingsError: there is none.
    """
    store = FolderCheckpoints(folder / "checkpoints")
    names = store.names()
    if not names:
        raise SettingsError(
            f"{folder} holds no checkpoint; --init-from takes the folder of a replay that came to its end"
        )
    return store.load(names[0])


def hold_run(settings: config.Settings, cache_of: Path | None = None) -> Callable[[], None]:
    """Become the one worker of this name on this machine, and the one writer of the run folder; returns the release.

    Args:
        settings: name worker and folder.
        cache_of: a run whose encoder states are taken over where the folder has none yet.

    Raises:
        Fenced: a worker of this name runs here.
        JobFailed: another program writes to the folder.
    """
    name = hold_name(f"{settings.pipeline.name}-{settings.worker.instance}")
    try:
        folder = hold(settings.run_dir)
    except BaseException:
        name.release()
        raise
    if cache_of is not None:
        assemble.copy_cache(cache_of, settings.run_dir)

    def release() -> None:
        folder.release()
        name.release()

    return release


health_server = HealthServer
