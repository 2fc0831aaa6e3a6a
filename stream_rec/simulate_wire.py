"""What the simulated shop puts on the wire: encoded records with offsets, in order of arrival, with some dirt.

Real streams repeat, delay, reorder and mangle. A settable share of events does here, and each is counted under its
word, so that a run's own counts can be held against the truth.
"""

from __future__ import annotations

import heapq
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from stream_rec.events import Record, Topic

SECOND_MS = 1_000
MINUTE_MS = 60 * SECOND_MS

_OUT_OF_ORDER, _DUPLICATE, _LATE, _MALFORMED = 0.5, 0.8, 0.9, 1.0
"""Upper ends of the shares of dirt: half arrives out of order, three tenths twice, a tenth late, a tenth mangled."""


class Outbox:
    """Encodes events, holds what has not arrived yet, hands over what has, in order of arrival."""

    def __init__(self, seed: int, *, n_partitions: int, dirty_share: float) -> None:
        self._rng = np.random.default_rng([seed, 4])
        self._dice: list[float] = []
        self._n_partitions = n_partitions
        self._dirty_share = dirty_share
        self._waiting: list[tuple[int, int, str, int, bytes, bytes | None]] = []
        self._serial = 0
        self._offsets: Counter[tuple[str, int]] = Counter()
        self.counts: Counter[str] = Counter()
        """Events by type, and dirt by word: out_of_order, duplicate, late, malformed."""

    def event(self, at_ms: int, key: bytes, fields: dict[str, Any]) -> None:
        """An event happens at `at_ms`; it arrives then, or later when it is out of order or late."""
        self.counts[fields["event_type"]] += 1
        value = msgspec.json.encode({"event_id": f"e{self._serial:09d}", "event_at": at_ms, **fields})
        partition = zlib.crc32(key) % self._n_partitions
        arrives_at_ms = at_ms
        if self._roll() < self._dirty_share:
            arrives_at_ms += self._dirt(at_ms, partition, key, value)
        self._put(arrives_at_ms, Topic.EVENTS, partition, key, value)

    def item(self, at_ms: int, item_id: str, value: bytes | None) -> None:
        """An item record, or its tombstone, arrives at `at_ms`."""
        self._put(at_ms, Topic.ITEMS, 0, item_id.encode(), value)

    def arrived(self, until_ms: int) -> list[Record]:
        """Everything that arrives before `until_ms`, in order of arrival, with its offset."""
        out: list[Record] = []
        waiting, offsets = self._waiting, self._offsets
        while waiting and waiting[0][0] < until_ms:
            at_ms, _serial, topic, partition, key, value = heapq.heappop(waiting)
            offset = offsets[topic, partition]
            offsets[topic, partition] = offset + 1
            out.append(Record(topic, partition, offset, at_ms, key, value))
        return out

    def __len__(self) -> int:
        return len(self._waiting)

    def _put(self, at_ms: int, topic: str, partition: int, key: bytes, value: bytes | None) -> None:
        heapq.heappush(self._waiting, (at_ms, self._serial, topic, partition, key, value))
        self._serial += 1

    def _roll(self) -> float:
        if not self._dice:
            self._dice = self._rng.random(4096).tolist()
        return self._dice.pop()

    def _dirt(self, at_ms: int, partition: int, key: bytes, value: bytes) -> int:
        """Soil one event; returns how much later it arrives, in ms."""
        which, how = self._roll(), self._roll()
        if which < _OUT_OF_ORDER:
            self.counts["out_of_order"] += 1
            return int(how * 50 * SECOND_MS)
        if which < _DUPLICATE:
            self.counts["duplicate"] += 1
            self._put(at_ms + 1 + int(how * 90 * SECOND_MS), Topic.EVENTS, partition, key, value)
        elif which < _LATE:
            self.counts["late"] += 1
            return int((30 + how * 180) * MINUTE_MS)
        else:
            self.counts["malformed"] += 1
            self._put(at_ms, Topic.EVENTS, partition, key, mangled(value, how))
        return 0


def mangled(value: bytes, how: float) -> bytes:
    """A broken copy of an event; `how` in [0, 1) chooses the defect.

    >>> mangled(b'{"event_at":1,"event_type":"click"}', 0.1)
    b'{"event_at":1,"ev'
    """
    defects: tuple[Callable[[bytes], bytes], ...] = (
        lambda v: v[: len(v) // 2],
        lambda v: v.replace(b'"event_at":', b'"event_at":"yesterday","was":'),
        lambda v: v[:-1] + b"\xff\xfe}",
        lambda v: b"[" + v + b"]",
        lambda v: v.replace(b'"event_type":"', b'"event_type":"page_ping_'),
        lambda v: v.replace(b'"event_at":', b'"event_at":NaN,"was":'),
    )
    return defects[int(how * len(defects))](value)
