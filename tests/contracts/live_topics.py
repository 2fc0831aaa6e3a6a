"""Topics of the real broker that hold what the contract of event sources asks for, and sources over them.

Their offsets have gaps, as transactions leave them: a marker ends every partition, and an aborted one lies in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

from stream_rec.io.kafka import Access, Admin, Reader, Sending, Writer
from stream_rec.io.kafka_source import KafkaSource
from stream_rec.io.kafka_stretch import KafkaStretch
from stream_rec.io.kafka_topics import InputTopics

Row = tuple[bytes | None, bytes, int]
"""Key, value, record time in ms."""


class Topics:
    """Events and items on a broker, filled once.

    Args:
        bootstrap: where clients connect.
        prefix: in front of the names.
        rows: topic to its records, all in partition 0.
    """

    def __init__(self, bootstrap: str, prefix: str, rows: dict[str, Sequence[Row]]) -> None:
        self.access = Access((bootstrap,), "PLAINTEXT", {})
        self._topics = InputTopics({topic: f"{prefix}.{topic}" for topic in rows})
        with closing(Admin(self.access)) as admin:
            for topic in rows:
                admin.create(f"{prefix}.{topic}", n_partitions=1, replication=1, configs={"retention.ms": "-1"})
            self._topics.refresh(admin)
        for topic, held in rows.items():
            sendings = [Sending(f"{prefix}.{topic}", key, value, 0, (), at_ms) for key, value, at_ms in held]
            half = len(sendings) // 2
            self._commit(f"{prefix}-one", sendings[:half])
            abort(self.access, f"{prefix}-two", sendings[:3])
            self._commit(f"{prefix}-three", sendings[half:])

    def _commit(self, name: str, sendings: Sequence[Sending]) -> None:
        with closing(Writer(self.access, name)) as writer:
            writer.begin_epoch()
            writer.transact(sendings)

    def live(self) -> KafkaSource:
        """The topics as a live worker reads them, from their beginnings."""
        source = KafkaSource(self.access, self._topics)
        source.seek(dict.fromkeys(source.partitions(), 0))
        return source

    def stretch(self) -> KafkaStretch:
        """The topics from their beginnings to their present ends, as a replay reads them."""
        with closing(Reader(self.access)) as reader:
            ends = reader.ends(map(self._topics.physical, self._topics.partitions))
        offsets = {p: (0, ends[self._topics.physical(p)]) for p in self._topics.partitions}
        source = KafkaStretch(self.access, self._topics, offsets)
        source.seek(dict.fromkeys(source.partitions(), 0))
        return source


def abort(access: Access, name: str, sendings: Sequence[Sending]) -> None:
    """Leave records of a transaction in topics and abort it."""
    with closing(Writer(access, name)) as writer:
        writer.begin_epoch()
        producer = writer._producer
        producer.begin_transaction()
        for sending in sendings:
            writer._send(sending)
        producer.flush()
        producer.abort_transaction()
