"""A tick in one Kafka transaction: all output records and the ledger entry, nothing else.

Only the ledger says what was committed: after any error of a transaction the writer is thrown away, the state too, and
the next start reads the ledger. Offsets of consumers are no part of it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from stream_rec.errors import InputGone, JobFailed, Unsettled
from stream_rec.events import Output, Topic
from stream_rec.io.faults import Faults, passing_of
from stream_rec.io.kafka import Access, Admin, At, Reader, Sending, Writer
from stream_rec.io.metrics_file import MetricsFile

READ_RECORDS = 2_000
LOOK_MS = 25
"""How long a read waits before it looks whether the end is reached: markers are no records that would end it."""
TAIL_RECORDS = 64
"""Offsets looked at for the newest entry: the others are markers."""
MARGIN_MS = 5_000
"""What a transaction may take beyond its time-out until the brokers have cleaned up after it."""
_OVERHEAD_BYTES = 256
"""What a record takes beside its key and value, generously."""


class Entry(NamedTuple):
    """A ledger entry with its place and the time at which it was written."""

    offset: int
    raw: bytes
    written_at_ms: int


class KafkaPublisher:
    """A Publisher over topics; nothing is fenced before `take_over`.

    Args:
        access: how the brokers are reached.
        names: our output topics to the cluster's, `ledger` among them.
        transactional_id: the pipeline's name.
        transaction_timeout_ms: brokers abort what is open for longer.
        metrics: where the lines of `metrics` go, which are no topic.
        faults: crash and pause points, for tests.
    """

    def __init__(
        self,
        access: Access,
        names: Mapping[str, str],
        transactional_id: str,
        *,
        transaction_timeout_ms: int = 5_000,
        metrics: MetricsFile | None = None,
        faults: Faults | None = None,
    ) -> None:
        self._access, self._names, self._id = access, dict(names), transactional_id
        self._timeout_ms, self._metrics = transaction_timeout_ms, metrics
        self._passing = passing_of(faults)
        self._writer: Writer | None = None
        self.take_over_s = 0.0, 0.0
        """Monotonic seconds at which the last take-over began and ended."""
        self._ledger = (self._names[Topic.LEDGER], 0)
        self._reader = Reader(access)
        self._reader.assign([self._ledger])

    # ---- the ledger

    def read_ledger(self, offset: int = 0) -> Iterator[tuple[int, bytes]]:
        """(offset, entry) of every entry committed by now from `offset` on; 0 begins with the oldest there is.

        Raises:
            InputGone: the ledger's retention has passed `offset`.
        """
        for entry in self._entries(offset):
            yield entry.offset, entry.raw

    def newest(self) -> Entry | None:
        """The entry that was committed last; None while there is none.

        Raises:
            InputGone: there was one, and retention has passed them all.
        """
        end = self._reader.ends([self._ledger])[self._ledger]
        begin = self._reader.begins([self._ledger])[self._ledger]
        newest = None
        for back in (TAIL_RECORDS, end):
            for entry in self._entries(max(begin, end - back)):
                newest = entry
            if newest is not None:
                return newest
        if begin > 0:
            raise InputGone(
                f"every entry of the ledger in topic {self._ledger[0]} is gone by its retention, so nobody can tell "
                "where this pipeline stands; start a new pipeline.name with a ledger topic of its own"
            )
        return None

    def _entries(self, offset: int) -> Iterator[Entry]:
        begin = self._reader.begins([self._ledger])[self._ledger]
        if 0 < offset < begin:
            raise InputGone(f"the ledger's entries in front of offset {begin} are gone by its retention")
        end = self._reader.ends([self._ledger])[self._ledger]
        at = max(offset, begin)
        if at >= end:
            return
        self._reader.seek(self._ledger, at)
        while at < end:
            # Whoever takes an entry may read the ledger in between, to go back to an earlier state.
            if self._reader.position(self._ledger) != at:
                self._reader.seek(self._ledger, at)
            polled = self._reader.poll(LOOK_MS, READ_RECORDS).get(self._ledger, ())
            at = self._reader.position(self._ledger)
            for record in polled:
                yield Entry(record.offset, record.value or b"", record.timestamp)

    # ---- writing

    def take_over(self) -> None:
        """Fence whoever wrote under this id and wait until nothing of theirs is open on any output topic.

        Raises:
            JobFailed: a transaction hangs there that is not ours to abort.
            Unreachable: the brokers do not answer.
        """
        began_s = time.monotonic()
        self.close_writer()
        self._writer = Writer(self._access, self._id, transaction_timeout_ms=self._timeout_ms)
        self._writer.begin_epoch()
        admin = Admin(self._access)
        try:
            self._await_stable(admin)
        finally:
            admin.close()
        self.take_over_s = began_s, time.monotonic()

    def _await_stable(self, admin: Admin) -> None:
        """Reading while a transaction is open would hide entries that are committed behind it.

        On every topic, not the ledger alone: a broker that was killed may forget to mark the end of an aborted
        transaction on one of them, and our next commit there would make its records visible with ours.
        """
        outputs = [
            (name, n) for name, topic in admin.topics(self._names.values()).items() for n in range(topic.n_partitions)
        ]
        until_s = time.monotonic() + (self._timeout_ms + MARGIN_MS) / 1000
        while True:
            stable, ends = admin.ends(outputs, committed=True), admin.ends(outputs, committed=False)
            open_at = next((at for at in outputs if stable[at] < ends[at]), None)
            if open_at is None:
                return
            if time.monotonic() > until_s:
                raise JobFailed(_hanging(open_at, stable[open_at], self._id))
            time.sleep(0.05)

    def commit(self, outputs: Sequence[Output], entry: bytes) -> int:
        """Publish a tick; returns the ledger offset of its entry.

        Brokers answer before they have marked the end on every topic: readers may see it a moment later.

        Raises:
            JobFailed: a record is larger than topics take; nothing was begun.
            Unsettled: whether it was committed, the ledger will tell.
        """
        if self._writer is None:
            raise Unsettled("the worker has not taken over yet")
        sendings = [self._sending(output) for output in outputs if output.topic != Topic.METRICS]
        sendings.append(Sending(self._ledger[0], None, entry, 0))
        self._check_sizes(sendings)
        self._passing("before_outputs")
        if self._metrics is not None:
            self._metrics.append([o.value for o in outputs if o.topic == Topic.METRICS and o.value is not None])
        self._passing("before_commit")
        try:
            offset = self._writer.transact(sendings)
        except Unsettled:
            self.close_writer()
            raise
        self._passing("after_commit")
        return offset

    def _sending(self, output: Output) -> Sending:
        return Sending(self._names[output.topic], output.key or None, output.value)

    def _check_sizes(self, sendings: Sequence[Sending]) -> None:
        for topic, key, value, *_ in sendings:
            n_bytes = len(key or b"") + len(value or b"") + _OVERHEAD_BYTES
            if n_bytes > self._access.max_message_bytes:
                raise JobFailed(
                    f"a record for topic {topic} has {n_bytes} bytes and kafka.max_message_bytes is "
                    f"{self._access.max_message_bytes}; raise it and the topic's max.message.bytes"
                )

    def close_writer(self) -> None:
        """Throw the producer away, without waiting for what it has not sent."""
        if self._writer is not None:
            self._writer.close(force=True)
            self._writer = None

    def close(self) -> None:
        """Let go of everything."""
        self.close_writer()
        self._reader.close()
        if self._metrics is not None:
            self._metrics.close()


def _hanging(at: At, offset: int, transactional_id: str) -> str:
    """What to tell the person who alone may decide."""
    return (
        f"a transaction hangs on topic {at[0]}: it has been open at offset {offset} for longer than its time-out, and "
        f"nothing behind it can be read. `kafka-transactions.sh describe-producers --topic {at[0]} --partition {at[1]}`"
        f" shows its producer, and `describe --transactional-id {transactional_id}` what was decided: unless that is a "
        "commit, end it with `abort` on every topic that has it, then start the worker again"
    )
