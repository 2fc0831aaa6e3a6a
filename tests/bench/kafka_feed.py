"""A shop that sends events at a steady rate, and somebody who sees the slates: two processes beside the worker.

Every event carries in its `event_id` the nanosecond at which it was handed to the producer; every slate is noted with
the nanosecond at which a reader under read_committed had it. Same machine, same clock.
"""

from __future__ import annotations

import datetime
import multiprocessing
import multiprocessing.synchronize
import time
import zlib
from array import array
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from stream_rec.assemble_kafka import Access, Reader
from tests.bench.traffic import KINDS, Traffic

SPAWN = multiprocessing.get_context("spawn")
WAKE_S = 0.005
BLOCK = 512
"""Events that are drawn at once."""
ID_AT, ID_END = len('{"event_id":"'), len('{"event_id":"') + 36


class LiveTraffic(Traffic):
    """Traffic of now, event by event: what the producer costs is taken from the worker on a small machine."""

    def __init__(self, seed: int, **named: Any) -> None:
        super().__init__(seed, **named)
        self._drawn: list[tuple[int, str, int, int]] = []
        self._touched = np.empty(0, np.int64)

    def event(self, at: str) -> tuple[bytes, int, str]:
        """(key, partition, text with 36 characters left for the id) of an event at a time."""
        if not self._drawn:
            self._draw(BLOCK)
        visit, kind, item, draw = self._drawn.pop()
        key = (self._user[visit][11:-2] or self._session[visit]).encode()
        return key, zlib.crc32(key) % self._n_partitions, self._event(kind, visit, item, draw, at)

    def _draw(self, n: int) -> None:
        """Who does what in the next `n` events; after the last ones some visits ended, and others saw a slate."""
        rng, before = self._rng, self._touched
        self._n_ticks += 1
        if len(before):
            self._publish(np.unique(before))
            self._open(before[rng.random(len(before)) < 1 / self.mean_visit].tolist())
        self._touched = visits = rng.integers(0, len(self._user), n)
        names = list(KINDS)
        kinds = [names[kind] for kind in rng.choice(len(KINDS), n, p=np.array(list(KINDS.values()))).tolist()]
        items = (rng.random(n) ** 3 * len(self.item_ids)).astype(np.int64).tolist()
        draws = rng.integers(0, 1 << 40, n).tolist()
        self._drawn = list(zip(visits.tolist(), kinds, items, draws, strict=True))


class Feed:
    """Sends events at a rate from a process of its own until stopped.

    Args:
        bootstrap: the broker.
        rate: events a second.
        traffic: arguments of `LiveTraffic`; `seed` among them.
    """

    def __init__(self, bootstrap: str, rate: float, **traffic: Any) -> None:
        self._stop = SPAWN.Event()
        self._sent = SPAWN.Value("q", 0)
        self._process = SPAWN.Process(target=_send, args=(bootstrap, rate, traffic, self._stop, self._sent))
        self._process.start()

    @property
    def pid(self) -> int:
        """Of the process."""
        return int(self._process.pid or 0)

    @property
    def n_sent(self) -> int:
        """Events handed to the producer so far."""
        return int(self._sent.value)

    def stop(self) -> int:
        """Send no more; returns how many were sent."""
        self._stop.set()
        self._process.join(30)
        return self.n_sent


def _send(bootstrap: str, rate: float, named: dict[str, Any], stop: Any, sent: Any) -> None:
    from kafka import KafkaProducer

    # A shop's own producer: Kafka's default linger, and what is refused shows up as a difference of counts.
    producer = KafkaProducer(bootstrap_servers=bootstrap, linger_ms=5, batch_size=64 << 10, compression_type="zstd")
    traffic = LiveTraffic(**named)
    began_s, n = time.monotonic(), 0
    while not stop.is_set():
        due = int((time.monotonic() - began_s) * rate) - n
        if due > 0:
            now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
            for _ in range(due):
                key, partition, text = traffic.event(now)
                n += 1
                value = f"{text[:ID_AT]}{time.time_ns():020d}-{n:015d}{text[ID_END:]}"
                producer.send("events", value.encode(), key=key, partition=partition)
            sent.value = n
        time.sleep(WAKE_S)
    producer.flush(20)
    producer.close()


def handed_at_ns(value: bytes) -> int:
    """The stamp of an event."""
    return int(value[ID_AT : ID_AT + 20])


class Watch:
    """Notes in a process of its own when each slate of a touched user could be read.

    Args:
        access: how the broker is reached.
        n_partitions: of the topic of slates; read from their present ends on.
        into: the file of the notes.
    """

    def __init__(self, access: Access, n_partitions: int, into: Path) -> None:
        self._stop, self._into = SPAWN.Event(), into
        ready = SPAWN.Event()
        self._process = SPAWN.Process(target=_watch, args=(access, n_partitions, into, self._stop, ready))
        self._process.start()
        ready.wait(60)

    @property
    def pid(self) -> int:
        """Of the process."""
        return int(self._process.pid or 0)

    def stop(self) -> dict[tuple[bytes, int], int]:
        """(user key, tick) to the nanosecond at which the slate was there."""
        self._stop.set()
        self._process.join(60)
        notes = np.load(self._into)
        keys = notes["keys"].tobytes()
        return {
            (keys[16 * i : 16 * i + 16], tick): at_ns
            for i, (tick, at_ns) in enumerate(zip(notes["ticks"].tolist(), notes["at_ns"].tolist(), strict=True))
        }


class _Slate(msgspec.Struct):
    user_key: str
    cause: str
    statistics_tick: int


def _watch(access: Access, n_partitions: int, into: Path, stop: Any, ready: Any) -> None:
    reader = Reader(access)
    partitions = [("slates", n) for n in range(n_partitions)]
    reader.assign(partitions)
    for partition, end in reader.ends(partitions).items():
        reader.seek(partition, end)
    reader.poll(0, 1)
    ready.set()
    decode, keys, ticks, at = msgspec.json.Decoder(_Slate).decode, bytearray(), array("q"), array("q")
    while not stop.is_set():
        polled = reader.poll(100, 10_000)
        now_ns = time.time_ns()
        for records in polled.values():
            for record in records:
                if record.value is None:
                    continue
                slate = decode(record.value)
                if slate.cause == "touched":
                    keys += bytes.fromhex(slate.user_key)
                    ticks.append(slate.statistics_tick)
                    at.append(now_ns)
    reader.close()
    np.savez(into, keys=np.frombuffer(keys, np.uint8), ticks=np.array(ticks), at_ns=np.array(at))
