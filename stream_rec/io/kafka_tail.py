"""A topic as a reader of committed records sees it: from its beginning or its end, to the present end or on and on."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from stream_rec.errors import InputGone, JobFailed
from stream_rec.io.kafka import Access, Admin, At, Reader
from stream_rec.io.kafka_decode import Polled

POLL_MS = 200
POLLED_RECORDS = 2_000
SILENCE_S = 30.0
"""Without anything for so long although the present end is not reached, the brokers are taken for gone."""


def partitions_of(admin: Admin, name: str) -> list[At]:
    """The partitions of a topic.

    Raises:
        JobFailed: there is none of this name.
    """
    topic = admin.topics([name]).get(name)
    if topic is None:
        raise JobFailed(f"there is no topic {name}; `stream-rec topics create` makes it, or name it right by --set")
    return [(name, number) for number in range(topic.n_partitions)]


class Tail:
    """Reads the committed records of one topic; use one a thread, and close it.

    Args:
        access: how the brokers are reached.
        name: the topic, as the cluster calls it.

    Raises:
        Unreachable: no broker lets us in.
        JobFailed: there is no such topic.
    """

    def __init__(self, access: Access, name: str) -> None:
        admin = Admin(access)
        try:
            self._partitions = partitions_of(admin, name)
        finally:
            admin.close()
        self._reader = Reader(access)
        self._reader.assign(self._partitions)
        self._ends = self._reader.ends(self._partitions)
        """Ends as they were in the beginning."""
        self._seek(self._ends)

    def rewind(self) -> None:
        """Begin with the oldest record instead of the next one."""
        self._seek(self._reader.begins(self._partitions))

    def follow(self, until_s: float | None = None) -> Iterator[Polled]:
        """Records as they are committed, without end, or until `time.monotonic()` is `until_s`."""
        while until_s is None or time.monotonic() < until_s:
            yield from self._poll()

    def to_end(self) -> Iterator[Polled]:
        """Records in front of the end as it was when this was opened.

        Raises:
            JobFailed: the brokers gave nothing more for long.
        """
        heard_s = time.monotonic()
        while any(self._reader.position(at) < end for at, end in self._ends.items()):
            polled = self._poll()
            if polled:
                heard_s = time.monotonic()
            elif time.monotonic() - heard_s > SILENCE_S:
                raise JobFailed("Kafka gives nothing more although the end is not reached; see whether it is up")
            yield from (record for record in polled if record.offset < self._ends[record.topic, record.partition])

    def _poll(self) -> list[Polled]:
        try:
            polled = self._reader.poll(POLL_MS, POLLED_RECORDS)
        except InputGone:
            # Retention was quicker: whoever looks on wants what is left.
            begins = self._reader.begins(self._partitions)
            self._seek({at: begin for at, begin in begins.items() if self._reader.position(at) < begin})
            return []
        return [record for records in polled.values() for record in records]

    def _seek(self, offsets: Mapping[At, int]) -> None:
        for at, offset in offsets.items():
            self._reader.seek(at, offset)

    def close(self) -> None:
        """Let go of the connection."""
        self._reader.close()
