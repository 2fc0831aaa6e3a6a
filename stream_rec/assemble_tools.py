"""Settings to what the commands around a pipeline do on Kafka: make topics, send, read, command, put back."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from stream_rec import config
from stream_rec.adapters.registry import ADAPTERS
from stream_rec.assemble_kafka import access_of, kept_of, names_of
from stream_rec.errors import SettingsError
from stream_rec.io import kafka_topics
from stream_rec.io.kafka import Admin, At, Reader, Sending, Writer
from stream_rec.io.lines import LineReader
from stream_rec.io.peek import NO_TIME, event_time_ms, item_time_ms, peek_item

REDRIVEN = "stream-rec-redriven"
"""Header of a record that was put back: the position of the one that died."""
IN_FLIGHT = 5_000
"""Records that are sent before it is waited for them."""
ANSWER_EVERY_MS = 200


class Stored(NamedTuple):
    """A record as a reader sees it."""

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None


# ---- topics


def create_topics(
    settings: config.Settings, *, n_partitions: int, replication: int, min_isr: int
) -> list[dict[str, Any]]:
    """Make the topics that are missing; a row each with `topic` and `what`, `wrong` where one is not as it must be.

    Raises:
        Unreachable: no broker lets us in.
        JobFailed: the brokers refuse one.
    """
    kept, rows = kept_of(settings), []
    with closing(Admin(access_of(settings))) as admin:
        there = admin.topics(names_of(settings).values())
        for ours, name in names_of(settings).items():
            if name not in there:
                configs = {**kept[ours].configs, "min.insync.replicas": str(min_isr)}
                n = kept[ours].n_partitions or n_partitions
                admin.create(name, n_partitions=n, replication=replication, configs=configs)
            rows.append({"topic": name, "what": "there already" if name in there else "made"})
    wrong = {row["topic"]: row["wrong"] for row in describe_topics(settings)}
    return [row | {"wrong": wrong[row["topic"]]} for row in rows]


def describe_topics(settings: config.Settings) -> list[dict[str, Any]]:
    """How the pipeline's topics are kept, a row each; `wrong` says what must be mended, "" nothing."""
    limit = settings.kafka.max_message_bytes
    with closing(Admin(access_of(settings))) as admin:
        names = names_of(settings)
        there = admin.topics(names.values())
        configs = admin.configs(there) if there else {}
        found = kafka_topics.check(admin, names, kept_of(settings), max_message_bytes=limit)
    wrong: dict[str, list[str]] = {}
    for fault in found:
        wrong.setdefault(fault.topic, []).append(fault.what)
    return [
        {
            "topic": name,
            "partitions": there[name].n_partitions if name in there else None,
            "replication": there[name].replication if name in there else None,
            "cleanup": configs.get(name, {}).get("cleanup.policy"),
            "retention_ms": configs.get(name, {}).get("retention.ms"),
            "compaction_lag_ms": configs.get(name, {}).get("min.compaction.lag.ms"),
            "wrong": "; ".join(wrong.get(name, ())),
        }
        for name in names.values()
    ]


# ---- sending


def event_sending(topic: str, line: bytes, *, source_format: str, own_time: bool) -> Sending:
    """An event line as a record, keyed by its user, else its session; a broken line goes as it is, without a key.

    >>> event_sending("events", b'{"user_id": 17850, "event_at": 5}', source_format="stream_rec", own_time=False).key
    b'17850'
    """
    at_ms = event_time_ms(line) if own_time else NO_TIME
    return Sending(topic, _user_of(line, source_format), line, timestamp_ms=None if at_ms == NO_TIME else at_ms)


def _user_of(line: bytes, source_format: str) -> bytes | None:
    try:
        said = msgspec.json.decode(line)
        adapter = ADAPTERS.get(source_format)
        events = adapter(said) if adapter is not None else [said]
        first: dict[str, Any] = next(iter(events), {})
        event = first["data"] if isinstance(first.get("data"), dict) else first
        who = event.get("user_id") if event.get("user_id") not in (None, "") else event.get("session_id")
    except (msgspec.DecodeError, AttributeError, TypeError, ValueError, RecursionError):
        return None
    return str(who).strip().encode(errors="replace") if isinstance(who, str | int | float) and who != "" else None


def item_sending(topic: str, line: bytes, *, own_time: bool) -> Sending:
    """A catalogue line as a record, keyed by its item; one that says `deleted` becomes a tombstone."""
    peek = peek_item(line)
    at_ms = item_time_ms(line) if own_time else 0
    key = None if peek.item_id is None else peek.item_id.encode(errors="replace")
    return Sending(topic, key, None if peek.deleted and key else line, timestamp_ms=at_ms if at_ms > 0 else None)


def refuse_expired(settings: config.Settings, path: Path, *, now_ms: int) -> None:
    """Stop before records go into a topic that would delete them at once for their time.

    Raises:
        SettingsError: the first event is older than the topic's retention.
    """
    with closing(LineReader(path)) as reader:
        at_ms = next((at for at in map(event_time_ms, reader) if at != NO_TIME), now_ms)
    with closing(Admin(access_of(settings))) as admin:
        kept_ms = int(admin.configs([settings.topics.events])[settings.topics.events].get("retention.ms", -1))
    if 0 <= kept_ms < now_ms - at_ms:
        raise SettingsError(
            f"topic {settings.topics.events} keeps records for {kept_ms} ms and the first event is older, so it would "
            "be deleted at once; raise retention.ms (-1: for ever), or send with --times now"
        )


def send_lines(
    settings: config.Settings,
    lines: Iterable[Sending],
    *,
    rate_per_s: float = 0.0,
    sent: Callable[[int], None] = lambda _n: None,
) -> int:
    """Publish records, in order, and return how many are there when all are.

    Args:
        settings: how the brokers are reached.
        lines: what to send.
        rate_per_s: at most so many a second; 0 for as fast as it goes.
        sent: told how many more were given to the producer.

    Raises:
        Unreachable: the brokers are away.
        JobFailed: one was refused, for its size for instance.
    """
    waiting: list[Any] = []
    n, began_s = 0, time.monotonic()
    with closing(Writer(access_of(settings))) as writer:
        for line in lines:
            waiting.append(writer.send(line))
            sent(1)
            if rate_per_s and (early_s := began_s + (n + len(waiting)) / rate_per_s - time.monotonic()) > 0:
                time.sleep(early_s)
            if len(waiting) >= IN_FLIGHT:
                n += writer.settle(waiting)
                waiting = []
        return n + writer.settle(waiting)


def event_lines(settings: config.Settings, path: Path, *, own_time: bool) -> Iterator[tuple[Sending, tuple[int, int]]]:
    """The records of an events file, each with (bytes read, bytes) of the file."""
    with closing(LineReader(path)) as reader:
        for line in reader:
            record = event_sending(
                settings.topics.events, line, source_format=settings.events.format, own_time=own_time
            )
            yield record, reader.progress()


def item_lines(settings: config.Settings, path: Path, *, own_time: bool) -> Iterator[tuple[Sending, tuple[int, int]]]:
    """The records of a catalogue file, each with (bytes read, bytes) of the file."""
    with closing(LineReader(path)) as reader:
        for line in reader:
            yield item_sending(settings.topics.items, line, own_time=own_time), reader.progress()


# ---- reading


def stored(settings: config.Settings, topic: str, *, from_beginning: bool, follow: bool) -> Iterator[Stored]:
    """Committed records of one of our output topics: up to the present end, or on and on.

    Raises:
        Unreachable: no broker lets us in.
        JobFailed: there is no such topic.
    """
    with closing(Admin(access_of(settings))) as admin:
        partitions = _partitions(admin, names_of(settings)[topic])
    with closing(Reader(access_of(settings))) as reader:
        ends = reader.ends(partitions)
        yield from _read(reader, reader.begins(partitions) if from_beginning else ends, ends, follow=follow)


def _partitions(admin: Admin, name: str) -> list[At]:
    there = admin.topics([name])
    if name not in there:
        raise SettingsError(f"there is no topic {name}; `stream-rec topics create` makes it")
    return [(name, number) for number in range(there[name].n_partitions)]


def _read(reader: Reader, first: Mapping[At, int], ends: Mapping[At, int], *, follow: bool) -> Iterator[Stored]:
    reader.assign(first)
    for at, offset in first.items():
        reader.seek(at, offset)
    while follow or any(reader.position(at) < end for at, end in ends.items()):
        for at, polled in reader.poll(500, 2_000).items():
            for r in polled:
                if follow or r.offset < ends[at]:
                    yield Stored(r.partition, r.offset, r.timestamp, r.key, r.value)


def topic_objects(settings: config.Settings, topic: str) -> Iterator[dict[str, Any]]:
    """The records of an output topic as JSON objects, oldest first, as a run folder gives them."""
    for record in stored(settings, topic, from_beginning=True, follow=False):
        if record.value is None:
            yield {"key": (record.key or b"").decode(errors="replace"), "tombstone": True}
        else:
            yield msgspec.json.decode(record.value)


# ---- commands and dead letters


def command(settings: config.Settings, body: Mapping[str, Any], *, timeout_ms: int) -> dict[str, Any] | None:
    """Put a command into the control topic and wait for the notice that answers it; None: none came in time.

    Args:
        settings: how the brokers are reached.
        body: the command and its arguments.
        timeout_ms: 0 for not waiting at all.
    """
    command_id = secrets.token_hex(8)
    with closing(Admin(access_of(settings))) as admin:
        versions = _partitions(admin, settings.topics.versions)
        _partitions(admin, settings.topics.control)
    with closing(Reader(access_of(settings))) as reader:
        ends = reader.ends(versions)
        raw = msgspec.json.encode({**body, "command_id": command_id})
        send_lines(settings, [Sending(settings.topics.control, None, raw, 0)])
        reader.assign(versions)
        for at, offset in ends.items():
            reader.seek(at, offset)
        until_s = time.monotonic() + timeout_ms / 1000
        while time.monotonic() < until_s:
            for polled in reader.poll(ANSWER_EVERY_MS, 1_000).values():
                for record in polled:
                    notice = msgspec.json.decode(record.value) if record.value else {}
                    if notice.get("command_id") == command_id:
                        return dict(notice)
    return None


def put_back(settings: config.Settings, records: Sequence[tuple[str, Any]]) -> int:
    """Put dead records back into the topics they came from; (position, record as it arrived) each."""
    names = names_of(settings)
    sendings = [
        Sending(names[r.topic], r.key, r.value, headers=(*r.headers, (REDRIVEN, position.encode())))
        for position, r in records
    ]
    return send_lines(settings, sendings)
