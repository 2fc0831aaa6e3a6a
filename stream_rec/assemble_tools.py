"""Settings to what the commands around a pipeline do on Kafka: make topics and send."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from stream_rec import config
from stream_rec.adapters.registry import ADAPTERS
from stream_rec.assemble_kafka import access_of, kept_of, names_of
from stream_rec.errors import JobFailed, SettingsError
from stream_rec.io import kafka_topics
from stream_rec.io.kafka import Admin, Sending
from stream_rec.io.kafka_lines import RecordTimes, event_sending, item_sending
from stream_rec.io.kafka_sends import Pace, Sends
from stream_rec.io.kafka_tail import partitions_of
from stream_rec.io.lines import LineReader
from stream_rec.io.peek import NO_TIME, event_time_ms

# ---- topics


def create_topics(
    settings: config.Settings, *, n_partitions: int, replication: int, min_isr: int
) -> list[dict[str, Any]]:
    """Make the topics that are missing; a row each with `topic`, `what` was done and `state` (see `describe_topics`).

    Raises:
        Unreachable: no broker lets us in.
        JobFailed: the brokers refuse one.
    """
    kept, made = kept_of(settings), set()
    with closing(Admin(access_of(settings))) as admin:
        there = admin.topics(names_of(settings).values())
        for ours, name in names_of(settings).items():
            if name not in there:
                configs = {**kept[ours].configs, "min.insync.replicas": str(min_isr)}
                n = kept[ours].n_partitions or n_partitions
                admin.create(name, n_partitions=n, replication=replication, configs=configs)
                made.add(name)
    return [
        {"topic": row["topic"], "what": "made" if row["topic"] in made else "there already", "state": row["state"]}
        for row in describe_topics(settings)
    ]


def describe_topics(settings: config.Settings) -> list[dict[str, Any]]:
    """How the pipeline's topics are kept, a row each; `state` is `ok` or what must be mended.

    Raises:
        Unreachable: no broker lets us in.
    """
    limit, kept, names = settings.kafka.max_message_bytes, kept_of(settings), names_of(settings)
    with closing(Admin(access_of(settings))) as admin:
        there = admin.topics(names.values())
        configs = admin.configs(there) if there else {}
    rows = []
    for ours, name in names.items():
        topic, has = there.get(name), configs.get(name, {})
        least_bytes = 0 if ours in kafka_topics.INPUTS else limit
        found = kafka_topics.faults(name, kept[ours], topic, has, least_bytes)
        rows.append(
            {
                "topic": name,
                "partitions": topic and topic.n_partitions,
                "replication": topic and topic.replication,
                "cleanup": has.get("cleanup.policy"),
                "retention_ms": _whole(has.get("retention.ms")),
                "compaction_lag_ms": _whole(has.get("min.compaction.lag.ms")),
                "state": "; ".join(fault.what for fault in found) or "ok",
            }
        )
    return rows


def _whole(text: str | None) -> int | None:
    return None if text is None else int(text)


# ---- sending


class Line(NamedTuple):
    """A line of a file as a record to be sent."""

    record: Sending
    said: str
    """Its place, for people."""
    n_read: int
    """Bytes of the file that were read."""
    n_file: int
    """Bytes of the file."""


def event_lines(settings: config.Settings, path: Path, *, own_time: bool) -> Iterator[Line]:
    """The lines of an events file as records; with `own_time` each has the time at which it happened."""
    adapter, times = ADAPTERS.get(settings.events.format), _times(own_time)
    return _lines(
        settings, path, lambda line: event_sending(settings.topics.events, line, adapter=adapter, times=times)
    )


def item_lines(settings: config.Settings, path: Path, *, own_time: bool) -> Iterator[Line]:
    """The lines of a catalogue file as records; with `own_time` each has its `updated_at` where it says one."""
    times = _times(own_time)
    return _lines(settings, path, lambda line: item_sending(settings.topics.items, line, times=times))


def _times(own_time: bool) -> RecordTimes | None:
    return RecordTimes(_now_ms) if own_time else None


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _lines(settings: config.Settings, path: Path, record_of: Callable[[bytes], Sending]) -> Iterator[Line]:
    # A longer line is cut, and refused for the length that it has then.
    with closing(LineReader(path, max_line_bytes=settings.kafka.max_message_bytes)) as reader:
        for n, line in enumerate(reader, 1):
            yield Line(record_of(line), f"{path} line {n}", *reader.progress())


def send_lines(
    settings: config.Settings, lines: Iterable[Line], *, rate_per_s: float = 0.0, sent: Callable[[Line], None]
) -> int:
    """Publish records, in order, and return how many are there when all are.

    Args:
        settings: how the brokers are reached.
        lines: what to send.
        rate_per_s: at most so many a second; 0 for as fast as it goes.
        sent: told of each when it was given to the producer.

    Raises:
        Unreachable: the brokers are away.
        JobFailed: one is too large or refused.
        KeyboardInterrupt: says how many are there.
    """
    pace, sends = Pace(rate_per_s), Sends(access_of(settings))
    try:
        with sends:
            for line in lines:
                pace.wait()
                sends.put(line.record, line.said)
                sent(line)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted; the first {sends.n:,} or more are sent") from None
    except JobFailed as error:
        raise type(error)(f"{error}; the first {sends.n:,} or more are sent") from error
    return sends.n


def check_input(settings: config.Settings, events: Path, *, items: bool, own_time: bool) -> None:
    """Stop before anything is sent that could not stay.

    Raises:
        JobFailed: a topic is not there.
        SettingsError: the first event is older than its topic keeps records, and its record time would say so.
    """
    name = settings.topics.events
    with closing(Admin(access_of(settings))) as admin:
        for topic in (name, settings.topics.items) if items else (name,):
            partitions_of(admin, topic)
        kept_ms = int(admin.configs([name])[name].get("retention.ms", -1))
    if not own_time or kept_ms < 0:
        return
    with closing(LineReader(events)) as reader:
        at_ms = next((at for at in map(event_time_ms, reader) if at != NO_TIME), _now_ms())
    if kept_ms < _now_ms() - at_ms:
        raise SettingsError(
            f"topic {name} keeps records for retention.ms={kept_ms} and the first event is older, so it would be "
            "deleted at once; raise retention.ms (-1: for ever), or send with --times now"
        )
