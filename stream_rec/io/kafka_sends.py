"""Plain records into topics, in order, with bounded memory; outside of any transaction."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from stream_rec.errors import JobFailed
from stream_rec.io.kafka import Access, Sending, Writer

MAX_UNSETTLED = 4_000
"""Records that are given to the producer before it is waited for them."""
MAX_UNSETTLED_BYTES = 4 << 20
"""Bytes of the same: a slow line must carry them within the producer's delivery time-out."""
SETTLED_EVERY_S = 1.0
"""Slow sending is settled as often, so that a failure is noticed."""
OVERHEAD_BYTES = 256
"""What a record takes beside its key, value and headers, generously."""


class Sends:
    """Sends records and counts those that brokers have; use it as a context.

    Left by an exception it drops what it has not sent.

    Args:
        access: how the brokers are reached.

    Raises:
        Unreachable: no broker lets us in.
    """

    def __init__(self, access: Access) -> None:
        self._limit_bytes = access.max_message_bytes
        self._writer = Writer(access)
        self._waiting: list[Any] = []
        self._n_bytes = 0
        self._settled_s = time.monotonic()
        self.n = 0
        """Records that are there."""

    def put(self, record: Sending, said: str = "") -> None:
        """Send one more, waiting where many are on their way; `said` names it in an error.

        Raises:
            Unreachable: the brokers are away.
            JobFailed: it is too large, or they refuse it.
        """
        n_bytes = n_bytes_of(record)
        if n_bytes > self._limit_bytes:
            raise JobFailed(
                f"{said or 'a record'} has {n_bytes} bytes as a record of topic {record.topic} and "
                f"kafka.max_message_bytes is {self._limit_bytes}; raise it and the topic's max.message.bytes, or leave "
                "the record out"
            )
        if self._n_bytes + n_bytes > MAX_UNSETTLED_BYTES:
            self.settle()
        self._waiting.append(self._writer.send(record))
        self._n_bytes += n_bytes
        if len(self._waiting) >= MAX_UNSETTLED or time.monotonic() - self._settled_s >= SETTLED_EVERY_S:
            self.settle()

    def settle(self) -> None:
        """Wait until everything is there.

        Raises:
            Unreachable, JobFailed: something is not taken.
        """
        self.n += self._writer.settle(self._waiting)
        self._waiting, self._n_bytes, self._settled_s = [], 0, time.monotonic()

    def __enter__(self) -> Sends:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.settle()
        finally:
            self._writer.close(force=bool(self._waiting))


def n_bytes_of(record: Sending) -> int:
    """Bytes that a record takes at most, uncompressed.

    >>> n_bytes_of(Sending("events", b"k", b"value"))
    262
    """
    headers = sum(len(name) + len(content) for name, content in record.headers)
    return len(record.key or b"") + len(record.value or b"") + headers + OVERHEAD_BYTES


class Pace:
    """Holds a loop to a rate.

    Args:
        rate_per_s: steps a second; 0: as fast as it goes.
    """

    def __init__(self, rate_per_s: float) -> None:
        self._rate_per_s = rate_per_s
        self._began_s = time.monotonic()
        self._n = 0

    def wait(self) -> None:
        """Return when the next step is due."""
        if self._rate_per_s:
            early_s = self._began_s + self._n / self._rate_per_s - time.monotonic()
            if early_s > 0:
                time.sleep(early_s)
            self._n += 1
