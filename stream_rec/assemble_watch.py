"""Settings to what is looked at and commanded on Kafka: committed records, commands and their answers, dead letters."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import closing
from typing import Any, NamedTuple

import msgspec

from stream_rec import config
from stream_rec.assemble_kafka import access_of, names_of
from stream_rec.errors import SettingsError
from stream_rec.events import Topic
from stream_rec.io.kafka import Access, Admin, Sending
from stream_rec.io.kafka_lines import redriven_sending
from stream_rec.io.kafka_sends import Sends
from stream_rec.io.kafka_tail import Tail, partitions_of
from stream_rec.stream.privacy import Sealer

LOG = logging.getLogger(__name__)
LETTER_FIELDS = frozenset({"topic", "partition", "offset", "reason"})
"""What every dead letter says."""


# ---- reading


class Stored(NamedTuple):
    """A committed record of one of our topics."""

    key: str
    timestamp_ms: int
    value: dict[str, Any] | None
    """None: a tombstone."""


def stored(settings: config.Settings, topic: str, *, from_beginning: bool, follow: bool) -> Iterator[Stored]:
    """Committed records of one of our topics: up to the present end, or on and on. Foreign ones are left out and told.

    Raises:
        Unreachable: no broker lets us in.
        JobFailed: there is no such topic.
    """
    name, n_foreign = names_of(settings)[topic], 0
    with closing(Tail(access_of(settings), name)) as tail:
        if from_beginning:
            tail.rewind()
        for record in tail.follow() if follow else tail.to_end():
            value = None if record.value is None else _object(record.value)
            if value is None and record.value is not None:
                n_foreign += 1
                continue
            yield Stored((record.key or b"").decode(errors="replace"), record.timestamp, value)
    if n_foreign:
        LOG.warning("topic %s: %d records that are no JSON objects are left out", name, n_foreign)


def _object(raw: bytes) -> dict[str, Any] | None:
    try:
        value = msgspec.json.decode(raw)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def topic_objects(settings: config.Settings, topic: str) -> Iterator[dict[str, Any]]:
    """The records of an output topic as JSON objects, oldest first, as a run folder gives them."""
    for record in stored(settings, topic, from_beginning=True, follow=False):
        if record.value is None:
            yield {"key": record.key, "tombstone": True}
        elif topic != Topic.DEAD_LETTERS or record.value.keys() >= LETTER_FIELDS:
            yield record.value


# ---- commands and dead letters


def command(settings: config.Settings, body: Mapping[str, Any], *, timeout_ms: int | None) -> dict[str, Any] | None:
    """Put a command into the control topic and wait for the notice that answers it; None: none came in time.

    Args:
        settings: how the brokers are reached.
        body: the command and its arguments.
        timeout_ms: None for not waiting at all.

    Raises:
        Unreachable: no broker lets us in.
        JobFailed: a topic is not there.
        KeyboardInterrupt: says that the command stays.
    """
    access, control = access_of(settings), settings.topics.control
    command_id = secrets.token_hex(8)
    raw = msgspec.json.encode({**body, "command_id": command_id})
    with closing(Admin(access)) as admin:
        partitions_of(admin, control)
    if timeout_ms is None:
        _send_command(access, control, raw)
        return None
    with closing(Tail(access, settings.topics.versions)) as tail:
        _send_command(access, control, raw)
        try:
            for record in tail.follow(time.monotonic() + timeout_ms / 1000):
                notice = _object(record.value) if record.value else None
                if notice is not None and notice.get("command_id") == command_id:
                    return notice
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"interrupted; the command is in topic {control}, and a worker obeys it when it runs"
            ) from None
    return None


def _send_command(access: Access, topic: str, raw: bytes) -> None:
    with Sends(access) as sends:
        sends.put(Sending(topic, None, raw, 0), "the command")


class Dead(NamedTuple):
    """A dead letter that is to be put back."""

    position: str
    record: Sending | None
    """None: it cannot be."""
    why_not: str


def dead_records(
    settings: config.Settings, positions: Collection[str] | None, reason: str | None, *, key: bytes
) -> Iterator[Dead]:
    """The dead letters of the topic at these positions, or of this reason, or all, opened; each position once.

    Raises:
        SettingsError: there is none at a position.
    """
    sealer, names, seen = Sealer(key), names_of(settings), set[str]()
    for letter in topic_objects(settings, Topic.DEAD_LETTERS):
        position = f"{letter.get('topic')}/{letter.get('partition')}/{letter.get('offset')}"
        chosen = reason in (None, letter.get("reason")) if positions is None else position in positions
        if chosen and position not in seen and not letter.get("tombstone"):
            seen.add(position)
            yield _dead(sealer, names, position, letter)
    if missing := sorted(set(positions or ()) - seen):
        raise SettingsError(f"there is no dead letter {missing[0]}; `stream-rec dead-letters list` names them")


def _dead(sealer: Sealer, names: Mapping[str, str], position: str, letter: Mapping[str, Any]) -> Dead:
    try:
        opened = sealer.unseal(msgspec.json.encode(letter))
    except SettingsError as error:
        return Dead(position, None, str(error))
    if opened.truncated:
        return Dead(position, None, "was longer than what a dead letter keeps; send it again from its source")
    if opened.record.key is None and opened.record.value is None:
        return Dead(position, None, "has neither key nor value, so there is nothing to put back")
    if opened.record.topic not in names:
        return Dead(position, None, "came from a topic that is none of this pipeline's")
    return Dead(position, redriven_sending(names[opened.record.topic], opened.record), "")


def put_back(settings: config.Settings, dead: Iterable[Dead]) -> int:
    """Put dead records back into the topics they came from; returns how many are there.

    Raises:
        Unreachable: the brokers are away.
        JobFailed: one is too large or refused.
    """
    with Sends(access_of(settings)) as sends:
        for position, record, _ in dead:
            if record is not None:
                sends.put(record, position)
    return sends.n
