"""Bytes of a real broker to the window: events a CPU second, beside a bare poll and the same intake fed from memory.

Run at the top of the tree: `python -m tests.bench.bench_kafka_intake [--ticks 200] [--rounds 3]`

Ticks of 1,024 seeded events (11 % impressions of 20 items that name a published slate; `traffic.py`) lie in a topic of
two partitions, written once with zstd. In each round four ways take turns, each in a process of its own, over all of
them; the second half is measured, CPU seconds of all threads of the process:
  poll     stock kafka-python: assign, read_committed, poll, nothing else
  read     the product's read path alone: buffers, pause, records of our own
  memory   the intake, fed from lists: order, decode, validation, dedupe, joins, window
  kafka    both: KafkaSource, order, intake; nothing is learned and no slate made
The topic holds more than is read, so that what was fetched ahead at the start is made up for at the end.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from stream_rec import garbage
from stream_rec.assemble_kafka import Admin, Sending, input_names
from stream_rec.events import Record, Topic
from stream_rec.io.kafka_source import KafkaSource
from stream_rec.io.kafka_topics import InputTopics
from stream_rec.stream.positions import Positions
from stream_rec.stream.tick import Tick, ranges_of
from tests.bench.bench_stream import Run
from tests.bench.kafka_ground import N_PARTITIONS, Ground, load_average, say
from tests.bench.traffic import TICK, Batch, Traffic, publish, rows_of

TARGET_PER_S = 40_000
SEED = 1
SPARE_TICKS = 40
"""Ticks in the topic behind the last one that is read: more than all buffers hold."""
EVENTS = [(Topic.EVENTS, n) for n in range(N_PARTITIONS)]
FOR_EVER = "checkpoint.horizon_ms=315360000000"
"""Traffic has times of its own, and the topic must keep them."""
Buffers = dict[tuple[str, int], list[Record]]


class Meter:
    """CPU seconds of the process over the second half of the ticks, all threads."""

    def __init__(self, n_ticks: int) -> None:
        self._half, self._n = n_ticks // 2, 0
        self._began_s = 0.0
        self.left_out_s = 0.0

    def tick(self) -> None:
        """Another tick is done."""
        self._n += 1
        if self._n == self._half:
            self._began_s, self.left_out_s = time.process_time(), 0.0

    def per_s(self) -> float:
        """Events a CPU second so far."""
        return (self._n - self._half) * TICK / (time.process_time() - self._began_s - self.left_out_s)


def sendings(batches: list[Batch]) -> Iterator[Sending]:
    """The events as a shop sends them: keyed by user or session, into the partition of their visit."""
    for batch in batches:
        for r in batch.records:
            value = r.value or b""
            yield Sending(Topic.EVENTS, value.split(b'"', 16)[15], value, r.partition, (), r.timestamp_ms)


def poll_alone(ground: Ground, batches: list[Batch]) -> float:
    """Stock kafka-python, poll and nothing else."""
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(
        bootstrap_servers=ground.broker.bootstrap, enable_auto_commit=False, isolation_level="read_committed"
    )
    consumer.assign([TopicPartition("events", n) for n in range(N_PARTITIONS)])
    consumer.seek_to_beginning()
    meter, n = Meter(len(batches)), 0
    for k in range(1, len(batches) + 1):
        while n < k * TICK:
            n += sum(map(len, consumer.poll(500).values()))
        meter.tick()
    per_s = meter.per_s()
    consumer.close(autocommit=False)
    return per_s


def source_of(ground: Ground) -> KafkaSource:
    """The product's source, at the beginning of the topic."""
    topics, admin = InputTopics(input_names(ground.settings())), Admin(ground.access())
    topics.refresh(admin)
    admin.close()
    source = KafkaSource(ground.access(), topics)
    source.seek(dict.fromkeys(EVENTS, 0))
    return source


def fill(source: KafkaSource, buffers: Buffers) -> None:
    """Top up to a tick's records of each partition, as the loop does, and wait while all together are too few."""
    at_start = not any(buffers.values())
    while True:
        for partition, buffer in buffers.items():
            if len(buffer) < TICK:
                buffer.extend(source.poll(partition, TICK - len(buffer)))
        # A partition that runs ahead in time is held back, so what is there belongs to the next ticks; at the start
        # nobody knows yet.
        if sum(map(len, buffers.values())) >= (N_PARTITIONS if at_start else 1) * TICK:
            return
        source.wait(100, TICK)


def read_alone(ground: Ground, batches: list[Batch]) -> float:
    """The product's read path; records are dropped tick by tick."""
    garbage.settle()
    source, meter = source_of(ground), Meter(len(batches))
    buffers: Buffers = {p: [] for p in EVENTS}
    for batch in batches:
        fill(source, buffers)
        for partition, n in enumerate(np.bincount([r.partition for r in batch.records], minlength=N_PARTITIONS)):
            del buffers[EVENTS[partition]][:n]
        meter.tick()
    per_s = meter.per_s()
    source.close()
    return per_s


def from_kafka(ground: Ground, batches: list[Batch]) -> float:
    """The intake on the product's source."""
    source = source_of(ground)
    per_s = intake(batches, lambda buffers: fill(source, buffers))
    source.close()
    return per_s


def from_memory(ground: Ground, batches: list[Batch]) -> float:
    """The intake on lists, cut like the topic."""
    lists: Buffers = {p: [] for p in EVENTS}
    for batch in batches:
        for record in batch.records:
            lists[EVENTS[record.partition]].append(record)
    at = dict.fromkeys(EVENTS, 0)

    def fill_from_lists(buffers: Buffers) -> None:
        for p, buffer in buffers.items():
            more = lists[p][at[p] : at[p] + TICK - len(buffer)]
            at[p] += len(more)
            buffer.extend(more)

    return intake(batches, fill_from_lists)


def intake(batches: list[Batch], more: Callable[[Buffers], None]) -> float:
    """Order and fold the ticks; telling the joiner what was published is the shop's doing and left out."""
    run, positions, meter = Run(Traffic(SEED, n_partitions=N_PARTITIONS)), Positions(), Meter(len(batches))
    items = run._items
    buffers: Buffers = {p: [] for p in EVENTS}
    garbage.settle()
    for batch in batches:
        more(buffers)
        records = positions.order(buffers)[:TICK]
        tick = Tick(batch.tick.number, ranges_of(records, dict.fromkeys(EVENTS, 0)), batch.tick.cut_at_ms)
        taken = run.intake.read(tick, records)
        positions.advance(tick, records)
        for partition in buffers:
            del buffers[partition][: sum(r.partition == partition[1] for r in records)]
        began_s = time.thread_time()
        slates = Batch(tick, records, batch.slates)
        publish(run.intake.facts, rows_of(taken, slates), batch.slates, items, tick.cut_at_ms)
        meter.left_out_s += time.thread_time() - began_s
        meter.tick()
    return meter.per_s()


WAYS: dict[str, Callable[[Ground, list[Batch]], float]] = {
    "poll": poll_alone,
    "read": read_alone,
    "memory": from_memory,
    "kafka": from_kafka,
}


def elsewhere(work: Callable[[], Any]) -> Any:
    """Run in a forked process, which finds everything made before it, and give back what it returns."""

    def call(into: Connection) -> None:
        into.send(work())

    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=call, args=(theirs,))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    finally:
        process.join()


def main() -> None:
    """Print a line a way, and the verdict."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--ticks", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    traffic = Traffic(SEED, n_partitions=N_PARTITIONS)
    batches = [traffic.tick() for _ in range(options.ticks + SPARE_TICKS)]
    n_bytes = sum(len(r.value or b"") for b in batches for r in b.records) / len(batches) / TICK
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    with Ground(FOR_EVER) as ground:
        elsewhere(lambda: ground.put(sendings(batches)))
        for _ in range(options.rounds):
            for way, work in WAYS.items():
                found[way].append(elsewhere(lambda work=work: work(ground, batches[: options.ticks])))
    say(f"{n_bytes:.0f} bytes an event, {options.ticks} ticks of {TICK}, seed {SEED}; {load_average()}")
    middle = {way: float(np.median(per_s)) for way, per_s in found.items()}
    for way, per_s in found.items():
        rounds = ", ".join(f"{each:,.0f}" for each in per_s)
        say(f"{way:8s} {middle[way]:9,.0f} events a CPU second  {1e6 / middle[way]:6.2f} us an event  ({rounds})")
    verdict = "reached" if middle["kafka"] >= TARGET_PER_S else "MISSED"
    say(f"kafka / memory = {middle['kafka'] / middle['memory']:.2f}; target {TARGET_PER_S:,} a core: {verdict}")


if __name__ == "__main__":
    main()
