"""The Kafka clients, tuned and with our errors; the only importer of kafka-python (3.0).

Topics here are the cluster's names. A client belongs to one thread. A producer lives until its first error: several
of kafka-python's transactional states cannot be trusted after one, so its owner makes another.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka import errors as kafka_errors
from kafka.admin import ConfigFilterType, ConfigResource, ConfigResourceType, OffsetSpec
from kafka.protocol.consumer import IsolationLevel
from kafka.structs import OffsetAndMetadata

from stream_rec import errors
from stream_rec.io.kafka_append import append_all
from stream_rec.io.kafka_decode import Polled, make_room, quickened

logging.getLogger("kafka").setLevel(logging.CRITICAL)
"""It logs every retry of every request; what matters comes back as an exception and is said by us."""

At = tuple[str, int]
"""Topic and partition."""

_BRIEF = {"reconnect_backoff_max_ms": 500, "retry_backoff_ms": 10, "metrics_enabled": False}
"""The defaults take 18 s to resume after an outage of 15 s; these take less than one."""
_CONSUMER = {
    **_BRIEF,
    "enable_auto_commit": False,
    "auto_offset_reset": "none",
    "allow_auto_create_topics": False,
    "fetch_max_wait_ms": 25,
    "max_partition_fetch_bytes": 4 << 20,
    "request_timeout_ms": 10_000,
}
_PRODUCER = {
    **_BRIEF,
    "allow_auto_create_topics": False,
    "request_timeout_ms": 3_000,
    "delivery_timeout_ms": 4_000,
    "max_block_ms": 15_000,
    "batch_size": 256 << 10,
}
_ADMIN = {"reconnect_backoff_max_ms": 500, "retry_backoff_ms": 10, "request_timeout_ms": 10_000}

_NOT_LET_IN = (
    kafka_errors.AuthorizationError,
    kafka_errors.SaslAuthenticationFailedError,
    kafka_errors.UnsupportedSaslMechanismError,
    kafka_errors.RetriableError,
    OSError,
)
_WHY = {
    kafka_errors.UnsupportedCodecError: "records are compressed in a way we cannot read; use gzip, lz4 or zstd",
    kafka_errors.MessageSizeTooLargeError: "a record is larger than its topic takes; raise its max.message.bytes",
    kafka_errors.InvalidReplicationFactorError: "there are fewer brokers than copies asked for; give --replication 1",
}
PATIENCE_S = 30.0
"""Plain sending waits no longer for brokers that are away."""
_FENCED = (
    kafka_errors.ProducerFencedError,
    kafka_errors.InvalidProducerEpochError,
    kafka_errors.InvalidProducerIdMappingError,
    kafka_errors.TransactionCoordinatorFencedError,
)


@dataclass(frozen=True, slots=True)
class Access:
    """How the brokers are reached; `security` are kafka-python's own names for it."""

    bootstrap: tuple[str, ...]
    protocol: str
    security: Mapping[str, Any]
    connect_timeout_ms: int = 15_000
    compression: str | None = "zstd"
    max_message_bytes: int = 1 << 20

    def config(self) -> dict[str, Any]:
        """What all clients are made with."""
        return {
            "bootstrap_servers": list(self.bootstrap),
            "security_protocol": self.protocol,
            "bootstrap_timeout_ms": self.connect_timeout_ms,
            **self.security,
        }

    @contextmanager
    def speaking(self, what: str) -> Iterator[None]:
        """Say Kafka's errors in our words; `what` is being done.

        Raises:
            Unreachable: nobody answers, or we are not let in; a client cannot tell these apart.
            InputGone: an offset was asked for that is there no more.
            JobFailed: anything else.
        """
        try:
            yield
        except (kafka_errors.OffsetOutOfRangeError, kafka_errors.NoOffsetForPartitionError) as error:
            raise errors.InputGone(
                f"{what}: an offset that is needed is gone from its topic by retention ({_about(error)}); restore a "
                "newer checkpoint, or start a new pipeline.name; keep retention.ms above checkpoint.horizon_ms"
            ) from error
        except (kafka_errors.UnknownTopicOrPartitionError, kafka_errors.InvalidTopicError) as error:
            raise errors.JobFailed(f"{what}: a topic is not there; `stream-rec topics create` makes them") from error
        except _NOT_LET_IN as error:
            raise errors.Unreachable(
                f"{what}: Kafka at {', '.join(self.bootstrap)} ({self.protocol}) is not reachable or not authorised; "
                "check kafka.bootstrap_servers, kafka.security_protocol, the login and its rights"
                f" ({_about(error)})"
            ) from error
        except kafka_errors.KafkaError as error:
            raise errors.JobFailed(f"{what}: {_WHY.get(type(error), f'Kafka says {type(error).__name__}')}") from error


def _about(error: Exception) -> str:
    """An error's name, with the places or the topics that it is about."""
    name, told = type(error).__name__, error.args[0] if error.args else ()
    if isinstance(told, Mapping):
        return f"{name}: " + ", ".join(f"{tp.topic}/{tp.partition} offset {at}" for tp, at in told.items())
    if isinstance(error, kafka_errors.TopicAuthorizationFailedError) and told:
        return f"{name}: topic " + ", ".join([told] if isinstance(told, str) else sorted(told))
    return name


class Reader:
    """A consumer without a group: partitions are assigned, every offset is ours.

    Args:
        access: how the brokers are reached.
        committed: whether records of open and aborted transactions are kept out.

    Raises:
        Unreachable: no broker lets us in.
    """

    def __init__(self, access: Access, *, committed: bool = True) -> None:
        self._access = access
        level = "read_committed" if committed else "read_uncommitted"
        with access.speaking("connecting"):
            self._consumer = KafkaConsumer(**access.config(), **_CONSUMER, isolation_level=level)
        self._fetcher = quickened(self._consumer._fetcher, kafka_errors.CorruptRecordError)

    def assign(self, partitions: Iterable[At]) -> None:
        """Read exactly these; those that were read before go on from where they are."""
        wanted = [TopicPartition(*p) for p in partitions]
        before = {tp: self._consumer.position(tp) for tp in self._consumer.assignment() if tp in set(wanted)}
        self._consumer.assign(wanted)
        for tp, offset in before.items():
            if offset is not None:
                self._consumer.seek(tp, offset)

    def seek(self, partition: At, offset: int) -> None:
        """Continue a partition at an offset."""
        self._consumer.seek(TopicPartition(*partition), offset)

    def poll(self, timeout_ms: int, max_records: int) -> dict[At, list[Polled]]:
        """What has come, by partition, in offset order.

        Raises:
            InputGone: retention has passed a position.
        """
        make_room(self._fetcher)
        with self._access.speaking("reading"):
            polled: dict[At, list[Polled]] = self._consumer.poll(timeout_ms, max_records)
            return polled

    def position(self, partition: At) -> int:
        """Offset that is read next: beyond markers and aborted records at the end of what was polled."""
        with self._access.speaking("reading"):
            return int(self._consumer.position(TopicPartition(*partition)) or 0)

    def highwater(self, partition: At) -> int | None:
        """End of the partition as the last fetch told it; None before the first."""
        told: int | None = self._consumer.highwater(TopicPartition(*partition))
        return told

    def begins(self, partitions: Iterable[At]) -> dict[At, int]:
        """First offset that is still there."""
        with self._access.speaking("asking for first offsets"):
            return dict(self._consumer.beginning_offsets([TopicPartition(*p) for p in partitions]))

    def ends(self, partitions: Iterable[At]) -> dict[At, int]:
        """Offset behind the last one that can be read."""
        with self._access.speaking("asking for last offsets"):
            return dict(self._consumer.end_offsets([TopicPartition(*p) for p in partitions]))

    def offsets_at(self, partitions: Iterable[At], at_ms: int) -> dict[At, int]:
        """First offset with a record time of `at_ms` or later; the end where there is none."""
        wanted = [TopicPartition(*p) for p in partitions]
        with self._access.speaking("asking for offsets by time"):
            ends = self._consumer.end_offsets(wanted)
            found = self._consumer.offsets_for_times(dict.fromkeys(wanted, at_ms))
            return {tp: ends[tp] if found.get(tp) is None else found[tp].offset for tp in wanted}

    def pause(self, partitions: Iterable[At]) -> None:
        """Fetch no more of these."""
        self._consumer.pause(*(TopicPartition(*p) for p in partitions))

    def resume(self, partitions: Iterable[At]) -> None:
        """Fetch these again."""
        self._consumer.resume(*(TopicPartition(*p) for p in partitions))

    def close(self) -> None:
        """Let go of the connections."""
        with suppress(kafka_errors.KafkaError, OSError):
            self._consumer.close(autocommit=False, timeout_ms=1_000)


class Sending(NamedTuple):
    """A record to be published."""

    topic: str
    key: bytes | None
    value: bytes | None
    partition: int | None = None
    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp_ms: int | None = None


class Writer:
    """A producer, transactional when it has an id.

    Args:
        access: how the brokers are reached.
        transactional_id: whoever calls `begin_epoch` last under an id fences the others.
        transaction_timeout_ms: brokers abort a transaction that is open for longer.

    Raises:
        Unreachable: no broker lets us in.
    """

    def __init__(
        self, access: Access, transactional_id: str | None = None, *, transaction_timeout_ms: int = 5_000
    ) -> None:
        self._access = access
        self._patience_s = transaction_timeout_ms / 1000
        own: dict[str, Any] = {"linger_ms": 20}
        if transactional_id is not None:
            own = {"linger_ms": 2, "transactional_id": transactional_id}
            own["transaction_timeout_ms"] = transaction_timeout_ms
        with access.speaking("connecting"):
            self._producer = KafkaProducer(
                **access.config(),
                **_PRODUCER,
                **own,
                compression_type=access.compression,
                max_request_size=access.max_message_bytes + 4096,
            )

    def begin_epoch(self) -> None:
        """Fence every other producer of this id and settle what it left open."""
        with self._access.speaking("taking over"):
            self._producer.init_transactions()

    def transact(self, records: Iterable[Sending]) -> int:
        """Publish records in one transaction; returns the offset of the last one.

        Raises:
            Unsettled: something went wrong on the way. Whether it was committed, only a reader can tell; this
                writer must not be used again.
        """
        try:
            self._producer.begin_transaction()
            futures = append_all(self._producer, TopicPartition, records)
            # Without a time of its own it waits for brokers that are away: records do not expire meanwhile.
            self._producer.flush(self._patience_s)
            # Commit does not look at them: it returns although a record was never delivered.
            offsets = [future.get(0).offset for future in futures]
            self._commit()
            return int(offsets[-1])
        except (kafka_errors.KafkaError, OSError, AssertionError) as error:
            weather = isinstance(error, (*_NOT_LET_IN, *_FENCED))
            raise errors.Unsettled(
                f"a transaction failed on the way ({_about(error)})",
                counts=not weather,
                fenced=isinstance(error, _FENCED),
            ) from error

    def _commit(self) -> None:
        # commit_transaction() retries without end while the brokers are away.
        result = self._producer._transaction_manager.begin_commit()
        self._producer._sender.wakeup()
        if not result.wait(round(1000 * self._patience_s)):
            raise kafka_errors.KafkaTimeoutError("no answer to the end of a transaction")

    def send(self, record: Sending) -> Any:
        """Begin to publish one record outside of any transaction; the future tells when it is there."""
        with self._access.speaking("publishing"):
            return self._send(record)

    def settle(self, futures: Iterable[Any]) -> int:
        """Wait until sent records are there, at most PATIENCE_S; returns how many.

        Raises:
            Unreachable, JobFailed: one was not taken.
        """
        with self._access.speaking("publishing"):
            self._producer.flush(PATIENCE_S)
            return sum(future.get(0) is not None for future in futures)

    def _send(self, record: Sending) -> Any:
        topic, key, value, partition, headers, timestamp_ms = record
        return self._producer.send(
            topic, value, key=key, headers=list(headers), partition=partition, timestamp_ms=timestamp_ms
        )

    def close(self, *, force: bool = False) -> None:
        """Let go; with `force` without waiting for what is unsent."""
        with suppress(kafka_errors.KafkaError, OSError, AssertionError, RuntimeError):
            if force:
                # close() alone raises on unflushed records and leaves its thread alive.
                self._producer._sender.force_close()
            self._producer.close(1)


class TopicAs(NamedTuple):
    """A topic as it is."""

    topic_id: str
    n_partitions: int
    replication: int


class Admin:
    """Topics, offsets for lag tools, and the state of transactions.

    Raises:
        Unreachable: no broker lets us in.
    """

    def __init__(self, access: Access) -> None:
        self._access = access
        with access.speaking("connecting"):
            self._admin = KafkaAdminClient(**access.config(), **_ADMIN)

    def topics(self, names: Iterable[str]) -> dict[str, TopicAs]:
        """Those of the named topics that are there."""
        wanted = list(names)
        with self._access.speaking("looking at topics"):
            told = self._admin.describe_topics(wanted)
            absent = kafka_errors.UnknownTopicOrPartitionError.errno
            refused = {t["name"]: t["error_code"] for t in told if t["error_code"] not in (0, absent)}
            for code in refused.values():
                raise kafka_errors.for_code(code)({name for name, told_of in refused.items() if told_of == code})
            there = [t for t in told if not t["error_code"]]
        return {
            t["name"]: TopicAs(str(t["topic_id"]), len(t["partitions"]), len(t["partitions"][0]["replica_nodes"]))
            for t in there
        }

    def configs(self, names: Iterable[str]) -> dict[str, dict[str, str]]:
        """Every setting of the named topics."""
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        with self._access.speaking("looking at topics"):
            told = self._admin.describe_configs(resources, config_filter=ConfigFilterType.ALL)
        return {
            name: {key: str(entry["value"]) for key, entry in table.items()}
            for name, table in told.get("topic", {}).items()
        }

    def create(self, name: str, *, n_partitions: int, replication: int, configs: Mapping[str, str]) -> None:
        """Make a topic and wait until it can be used.

        Raises:
            JobFailed: the brokers refuse it.
        """
        wanted = {"num_partitions": n_partitions, "replication_factor": replication, "configs": dict(configs)}
        with self._access.speaking(f"making topic {name}"), suppress(kafka_errors.TopicAlreadyExistsError):
            self._admin.create_topics({name: wanted}, wait_for_metadata=True)

    def ends(self, partitions: Iterable[At], *, committed: bool) -> dict[At, int]:
        """Ends of partitions; `committed`: in front of the first open transaction."""
        level = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
        wanted = {TopicPartition(*p): OffsetSpec.LATEST for p in partitions}
        with self._access.speaking("asking for last offsets"):
            return {tp: o.offset for tp, o in self._admin.list_partition_offsets(wanted, level).items()}

    def commit_offsets(self, group: str, offsets: Mapping[At, int]) -> None:
        """Say for lag tools how far a pipeline is; nothing reads it back."""
        wanted = {TopicPartition(*p): OffsetAndMetadata(o) for p, o in offsets.items()}
        with self._access.speaking("committing offsets for lag tools"):
            self._admin.alter_group_offsets(group, wanted)

    def committed_offsets(self, group: str) -> dict[At, int]:
        """What `commit_offsets` said last."""
        with self._access.speaking("asking for committed offsets"):
            told = self._admin.list_group_offsets({group: None})
        return {tp: o.offset for tp, o in told[group].items()}

    def close(self) -> None:
        """Let go of the connections."""
        with suppress(kafka_errors.KafkaError, OSError):
            self._admin.close()
