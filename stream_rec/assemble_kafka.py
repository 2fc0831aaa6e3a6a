"""Settings to a wired program on Kafka: what `assemble` is for files and memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stream_rec import config
from stream_rec.errors import SettingsError
from stream_rec.events import INPUT_RANK, Topic
from stream_rec.io import kafka_topics
from stream_rec.io.kafka import Access, Admin, Reader, Sending, Writer

__all__ = ["Admin", "Reader", "Sending", "Writer"]

OUTPUTS = (Topic.SLATES, Topic.VERSIONS, Topic.DEAD_LETTERS, Topic.LEDGER)


def access_of(settings: config.Settings) -> Access:
    """How the brokers are reached.

    Raises:
        SettingsError: a login is asked for and not given.
    """
    s = settings.kafka
    security: dict[str, Any] = {}
    if s.security_protocol.startswith("SASL"):
        if not s.sasl_username or s.sasl_password is None:
            raise SettingsError(
                f"kafka.security_protocol is {s.security_protocol} and needs kafka.sasl_username and "
                "kafka.sasl_password (environment STREAM_REC_KAFKA__SASL_PASSWORD)"
            )
        security |= {
            "sasl_mechanism": s.sasl_mechanism,
            "sasl_plain_username": s.sasl_username,
            "sasl_plain_password": s.sasl_password.get_secret_value(),
        }
    if s.security_protocol.endswith("SSL"):
        files = {"ssl_cafile": s.ssl_cafile, "ssl_certfile": s.ssl_certfile, "ssl_keyfile": s.ssl_keyfile}
        for name, path in files.items():
            if path is not None and not path.is_file():
                raise SettingsError(f"kafka.{name} = {path}: there is no such file")
        security |= {name: str(path) for name, path in files.items() if path is not None}
    return Access(
        tuple(server.strip() for server in s.bootstrap_servers.split(",") if server.strip()),
        s.security_protocol,
        security,
        connect_timeout_ms=s.connect_timeout_ms,
        compression=None if s.compression == "none" else s.compression,
        max_message_bytes=s.max_message_bytes,
    )


def names_of(settings: config.Settings) -> dict[str, str]:
    """Our topics to those of the cluster."""
    t = settings.topics
    return {
        Topic.EVENTS: t.events,
        Topic.ITEMS: t.items,
        Topic.CONTROL: t.control,
        Topic.SLATES: t.slates,
        Topic.VERSIONS: t.versions,
        Topic.LEDGER: t.ledger,
        Topic.DEAD_LETTERS: t.dead_letters,
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
