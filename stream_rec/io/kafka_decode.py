"""Records out of the batches of a fetch, twice as fast as kafka-python makes them, and none that cannot be read.

It makes three objects a record, one property at a time, and a header whose name is no text stops it for ever. Here a
batch is decoded in one loop. Checksums, aborted transactions and positions stay its own, under names that are not
public: its version is pinned, and a test compares the two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

_new = tuple.__new__
"""Quicker than the class itself, which is a function in Python."""


class Polled(NamedTuple):
    """A record as it was fetched; topic as the cluster calls it."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    """ms since the epoch; -1 without one."""
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    """A content that is missing is empty, and what is no text in a name is replaced."""


class QuickRecords:
    """Takes the place of the unpacking in kafka-python's `PartitionRecords`; what is only declared here is its own."""

    damaged: type[Exception]
    """What it raises on records that cannot be read."""
    check_crcs: bool
    isolation_level: int
    leader_epoch: int
    next_fetch_offset: int
    aborted_producer_ids: set[int]
    drain: Callable[[], None]
    _consume_aborted_transactions_up_to: Callable[[int], None]
    _contains_abort_marker: Callable[[Any], bool]
    _is_batch_aborted: Callable[[Any], bool]

    def _unpack_records(self, tp: tuple[str, int], records: Any, *_deserializers: Any) -> Iterator[Polled]:
        while (batch := records.next_batch()) is not None:
            if self.check_crcs and not batch.validate_crc():
                raise self.damaged(f"the checksum of {tp[0]}/{tp[1]} at offset {batch.base_offset} is wrong")
            if batch.magic < 2:
                for r in batch:
                    self.next_fetch_offset = r.offset + 1
                    yield Polled(*tp, r.offset, r.timestamp, r.key, r.value, ())
                continue
            self.leader_epoch = batch.leader_epoch
            if not self._left_out(batch):
                try:
                    for record in decoded(*tp, batch):
                        self.next_fetch_offset = record.offset + 1
                        yield record
                except (IndexError, ValueError) as error:
                    raise self.damaged(f"{tp[0]}/{tp[1]} cannot be read at offset {batch.base_offset}") from error
            # Behind the last record of a batch compaction may have removed others.
            self.next_fetch_offset = batch.next_offset
        self.drain()

    def _left_out(self, batch: Any) -> bool:
        """Whether a batch is a transaction's marker, or of a transaction that was aborted."""
        if self.isolation_level and batch.has_producer_id():
            self._consume_aborted_transactions_up_to(batch.last_offset)
            if self._contains_abort_marker(batch):
                self.aborted_producer_ids.discard(batch.producer_id)
            elif self._is_batch_aborted(batch):
                return True
        return bool(batch.is_control_batch)


def quickened(fetcher: Any, damaged: type[Exception]) -> Any:
    """The same fetcher of kafka-python, with the faster unpacking; `damaged` is what it raises on bad records."""
    base = fetcher.PartitionRecords
    fetcher.PartitionRecords = type("PartitionRecords", (QuickRecords, base), {"damaged": damaged})
    return fetcher


def make_room(fetcher: Any) -> None:
    """Let a partition that goes on have its turn.

    Its records were put aside while it was paused and come back only where this is None: a used-up one keeps them
    there when no other partition has anything more, and nothing more of it is fetched.
    """
    if not fetcher._next_partition_records:
        fetcher._next_partition_records = None


def decoded(topic: str, partition: int, batch: Any) -> Iterator[Polled]:
    """The records of one batch of format 2 or later, in offset order.

    Raises:
        IndexError, ValueError: they do not fill the batch exactly.
    """
    batch._maybe_uncompress()
    data, at = bytes(batch._buffer), batch._pos
    first_offset, first_ms = batch.base_offset, batch.first_timestamp
    appended_ms = batch.max_timestamp if batch.timestamp_type else None
    for _ in range(batch.records_count):
        while data[at] > 127:  # Its length, which is not needed.
            at += 1
        at += 2  # Nor its attributes: there are none.
        # Numbers of one byte and of two are read in place: a call for each would cost a fifth of all this.
        n, at = data[at], at + 1
        if n > 127:
            n, at = (n + (data[at] - 1) * 128, at + 1) if data[at] < 128 else _rest(data, at, n)
        at_ms = first_ms + ((n >> 1) ^ -(n & 1)) if appended_ms is None else appended_ms
        n, at = data[at], at + 1
        if n > 127:
            n, at = (n + (data[at] - 1) * 128, at + 1) if data[at] < 128 else _rest(data, at, n)
        offset = first_offset + (n >> 1)
        key, at = _bytes(data, at)
        n, at = data[at], at + 1
        if n > 127:
            n, at = (n + (data[at] - 1) * 128, at + 1) if data[at] < 128 else _rest(data, at, n)
        end = at + (n >> 1)
        value, at = (None, at) if n & 1 else (data[at:end], end)
        n, at = data[at], at + 1
        headers: tuple[tuple[str, bytes], ...] = ()
        if n:
            headers, at = _headers(data, at, n)
        yield _new(Polled, (topic, partition, offset, at_ms, key, value, headers))
    if at != len(data):
        raise ValueError("records do not fill their batch")


def _rest(data: bytes, at: int, low: int) -> tuple[int, int]:
    """A number of several bytes, whose first one was `low`, still zigzag; and where it ends."""
    n, shift = low & 127, 7
    while True:
        byte = data[at]
        at += 1
        n |= (byte & 127) << shift
        if byte < 128:
            return n, at
        shift += 7


def _bytes(data: bytes, at: int) -> tuple[bytes | None, int]:
    """A length and so many bytes, None for a negative one; and where they end."""
    n = data[at]
    at += 1
    if n > 127:
        n, at = _rest(data, at, n)
    if n & 1:
        return None, at
    end = at + (n >> 1)
    return data[at:end], end


def _headers(data: bytes, at: int, low: int) -> tuple[tuple[tuple[str, bytes], ...], int]:
    n, headers = low, []
    if n > 127:
        n, at = _rest(data, at, low)
    for _ in range(n >> 1):
        name, at = _bytes(data, at)
        content, at = _bytes(data, at)
        headers.append(((name or b"").decode("utf-8", "replace"), content or b""))
    return tuple(headers), at
