"""Output topics of the real broker as a place that outlives publishers, with crash points inside a transaction."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import closing

from stream_rec.events import Topic
from stream_rec.io.faults import Faults
from stream_rec.io.kafka import Access, Admin, Reader, Sending
from stream_rec.io.kafka_publisher import KafkaPublisher

WAIT_S = 20.0
LOOK_MS = 10
"""Markers at the end of a topic are no records that would end a poll."""
TOPICS = (Topic.SLATES, Topic.DEAD_LETTERS, Topic.LEDGER)


class Dying(KafkaPublisher):
    """Passes its crash points in mid-transaction too, with what went before on the broker already."""

    def take_over(self) -> None:
        super().take_over()
        assert self._writer is not None
        transact = self._writer.transact
        self._writer.transact = lambda records: transact(self._one_by_one(records))  # type: ignore[method-assign]

    def _one_by_one(self, records: Iterable[Sending]) -> Iterator[Sending]:
        assert self._writer is not None
        rows = list(records)
        for n, row in enumerate(rows):
            if n:
                self._writer._producer.flush()
                self._passing("before_entry" if n == len(rows) - 1 else "between_outputs")
            yield row
        # kafka-python sends nothing before it is told to, so this is the last moment before the commit.
        self._writer._producer.flush()


class KafkaPlace:
    """Three topics and a transactional id.

    Args:
        bootstrap: where clients connect.
        prefix: in front of all names.
    """

    def __init__(self, bootstrap: str, prefix: str) -> None:
        self.access = Access((bootstrap,), "PLAINTEXT", {})
        self.prefix = prefix
        self.names = {topic: f"{prefix}.{topic}" for topic in TOPICS}
        self._opened: list[KafkaPublisher] = []
        self._reader: Reader | None = None
        with closing(Admin(self.access)) as admin:
            for name in self.names.values():
                admin.create(name, n_partitions=1, replication=1, configs={})

    def open(self, faults: Faults | None = None) -> KafkaPublisher:
        """A publisher that has not taken over yet."""
        publisher = (KafkaPublisher if faults is None else Dying)(self.access, self.names, self.prefix, faults=faults)
        self._opened.append(publisher)
        return publisher

    def topic(self, topic: str) -> list[bytes]:
        """Committed values of a topic, in order."""
        at = (self.names[topic], 0)
        reader = self._reader = self._reader or Reader(self.access)
        end, values = reader.ends([at])[at], list[bytes]()
        reader.assign([at])
        reader.seek(at, reader.begins([at])[at])
        while reader.position(at) < end:
            values += [record.value or b"" for record in reader.poll(LOOK_MS, 1_000).get(at, ())]
        return values

    def settle(self) -> None:
        """A commit is answered before brokers have marked its end on every topic; readers see it then."""
        partitions = [(name, 0) for name in self.names.values()]
        until_s = time.monotonic() + WAIT_S
        with closing(Admin(self.access)) as admin:
            while admin.ends(partitions, committed=True) != admin.ends(partitions, committed=False):
                assert time.monotonic() < until_s, "a transaction stays open"

    def forget_before(self, offset: int) -> None:
        """Retention of the ledger."""
        from kafka import KafkaAdminClient, TopicPartition

        admin = KafkaAdminClient(bootstrap_servers=list(self.access.bootstrap))
        admin.delete_records({TopicPartition(self.names[Topic.LEDGER], 0): offset})
        admin.close()

    def close(self) -> None:
        """Let go of every publisher."""
        for publisher in self._opened:
            publisher.close()
        if self._reader is not None:
            self._reader.close()
