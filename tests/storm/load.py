"""The shop of a storm: `python -m tests.storm.load BOOTSTRAP SEED SECONDS`.

A simulated shop in fast motion: it sees the slates that are published, mixes in dirt and commands, and puts every
record into the topics exactly once, whatever happens to the brokers. It ends by itself, or early on SIGTERM, with
everything acknowledged.
"""

from __future__ import annotations

import signal
import sys
import time
import warnings
from typing import Any

import msgspec

from stream_rec.demo_run import Shopfront
from stream_rec.effects import Effects
from stream_rec.events import Output, Topic
from stream_rec.simulate import Shop, ShopPlan
from tests.laws.world import extras
from tests.storm.pipeline import KEY, N_PARTITIONS

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from kafka import KafkaConsumer, KafkaProducer, TopicPartition

DAYS = 4.0
STEPS = 400
EVENTS_PER_VISIT = 7


def shop_of(seed: int, seconds: float, rate: float) -> Shop:
    """A shop whose four days make about `rate` events a second of the storm."""
    visits = rate * seconds / EVENTS_PER_VISIT / DAYS
    plan = ShopPlan(
        days=DAYS, n_users=2_000, n_items=400, visits_per_day=visits, dirty_share=0.05, anonymous_share=0.2,
        n_partitions=N_PARTITIONS, outage_day=1.0, outage_hours=3,
    )  # fmt: skip
    return Shop(seed, plan)


class Front:
    """The slates topic as the shop's own cache of it."""

    def __init__(self, bootstrap: str) -> None:
        self._front = Shopfront(KEY.encode())
        self._consumer = KafkaConsumer(
            bootstrap_servers=bootstrap, isolation_level="read_committed", enable_auto_commit=False,
            fetch_max_wait_ms=25, reconnect_backoff_max_ms=500,
        )  # fmt: skip
        self._consumer.assign([TopicPartition(Topic.SLATES, n) for n in range(N_PARTITIONS)])
        self._consumer.seek_to_beginning()

    def look(self, now_ms: int) -> Any:
        """Take what was published; gives the way to ask for a slate."""
        self._front.at(now_ms)
        for records in self._consumer.poll(10, max_records=5_000).values():
            outputs = [Output(Topic.SLATES, r.key, r.value) for r in records]
            self._front.receive(Effects(outputs=outputs))
        return self._front.slate


def run(bootstrap: str, seed: int, seconds: float, rate: float = 250.0) -> int:
    """Send a whole storm's records; returns how many."""
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: stopped.append(number))
    producer = KafkaProducer(
        bootstrap_servers=bootstrap, delivery_timeout_ms=900_000, request_timeout_ms=5_000, retry_backoff_ms=50,
        reconnect_backoff_max_ms=500, linger_ms=5, max_block_ms=300_000,
    )  # fmt: skip
    shop, front = shop_of(seed, seconds, rate), Front(bootstrap)
    records = shop.catalogue()
    futures: list[Any] = []
    began_s, step_ms = time.monotonic(), int(DAYS * 86_400_000 / STEPS)
    for step in range(1, STEPS + 1):
        now_ms = shop.start_ms + step * step_ms
        records += shop.step(now_ms, front.look(now_ms))
        if step % 40 == 0:
            records += extras(step // 40, now_ms)
        futures += [
            producer.send(r.topic, r.value, key=r.key, partition=r.partition, headers=list(r.headers)) for r in records
        ]
        records = []
        while not stopped and time.monotonic() < began_s + seconds * step / STEPS:
            time.sleep(0.01)
        if stopped:
            break
    producer.flush()
    return sum(msgspec.convert(future.get(0).offset, int) >= 0 for future in futures)


if __name__ == "__main__":
    print(run(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
