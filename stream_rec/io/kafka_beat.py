"""What is looked at beside the loop, every few seconds, by a thread with a client of its own: nothing here is truth.

Offsets are committed plainly for lag tools; the topics are looked at for new partitions and for ones that are not what
they were; a consumer that gets nothing although records are there is reported.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping

from stream_rec.errors import JobFailed, StreamRecError
from stream_rec.io.kafka import Access, Admin
from stream_rec.io.kafka_topics import InputTopics
from stream_rec.io.same_topics import same_topics
from stream_rec.ports import TopicPartition

LOG = logging.getLogger(__name__)
BEAT_S = 5.0
STALLED_BEATS = 3
"""Beats without any progress of a partition that has records, after which its consumer is taken for stuck."""


class KafkaBeat:
    """Runs until closed.

    Args:
        access: how the brokers are reached.
        topics: looked at again at every beat, in place.
        group: the name under which offsets are committed.
        beat_s: seconds between two beats.
    """

    def __init__(self, access: Access, topics: InputTopics, group: str, *, beat_s: float = BEAT_S) -> None:
        self._access, self._topics, self._group, self._beat_s = access, topics, group, beat_s
        self._first_ids, self._first_partitions = dict(topics.ids), list(topics.partitions)
        self._end = threading.Event()
        self._admin: Admin | None = None
        self._before: dict[TopicPartition, int] = {}
        self._still: dict[TopicPartition, int] = {}
        self.positions: Mapping[TopicPartition, int] = {}
        """Next offset of each partition as of the last committed tick; the loop puts a new mapping here."""
        self.lag: int | None = None
        """Records behind those positions, as the brokers say; None before the first beat."""
        self.stalled = threading.Event()
        """Set when a partition has records and gives none; whoever rebuilds the consumer clears it."""
        self.trouble: JobFailed | None = None
        """What must end the worker: a topic that is another one now."""
        self._thread = threading.Thread(target=self._run, name="beat", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._end.set()
        self._thread.join(2.0)

    def _run(self) -> None:
        while not self._end.wait(self._beat_s):
            try:
                self.beat()
            except StreamRecError as error:
                LOG.debug("beat: %s", error)
                self._let_go()
        self._let_go()

    def beat(self) -> None:
        """Look once."""
        positions = dict(self.positions)
        admin = self._admin = self._admin or Admin(self._access)
        self._topics.refresh(admin)
        try:
            same_topics(
                self._topics.ids,
                self._topics.partitions,
                topic_ids=self._first_ids,
                partitions=self._first_partitions,
            )
        except JobFailed as error:
            self.trouble = error
            return
        if not positions:
            return
        physical = {self._topics.physical(p): p for p in positions}
        ends = {physical[at]: end for at, end in admin.ends(physical, committed=True).items()}
        self.lag = sum(max(0, ends[p] - at) for p, at in positions.items())
        self._watch(positions, ends)
        admin.commit_offsets(self._group, {at: positions[p] for at, p in physical.items()})

    def _watch(self, positions: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]) -> None:
        for partition, at in positions.items():
            still = at < ends[partition] and self._before.get(partition) == at
            self._still[partition] = self._still.get(partition, 0) + 1 if still else 0
        self._before = dict(positions)
        if any(n >= STALLED_BEATS for n in self._still.values()):
            self._still.clear()
            self.stalled.set()

    def _let_go(self) -> None:
        if self._admin is not None:
            self._admin.close()
            self._admin = None
