"""Actions that named a decision before any impression of it arrived: kept for a while in case it does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stream_rec.component import Component
from stream_rec.stream.decisions import blank_items


class EarlyFeedback(Component):
    """A ring of the last `capacity` such actions, found by the key of the exposure they wait for.

    Columns by slot of the ring: `key` int64 (0: empty), `item` int32 row, `kind` int8, `at_ms` int64.
    """

    columns = ("key", "item", "kind", "at_ms")
    scalars = ("n_kept",)
    derived = ("_slots_of",)
    fixed = ("capacity",)

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.key = np.zeros(capacity, np.int64)
        self.item = np.zeros(capacity, np.int32)
        self.kind = np.zeros(capacity, np.int8)
        self.at_ms = np.zeros(capacity, np.int64)
        self.n_kept = 0
        self._slots_of: dict[int, list[int]] = {}

    def __len__(self) -> int:
        """Keys that wait."""
        return len(self._slots_of)

    def rebuild(self) -> None:
        """Index the keys again, each one's slots in order of arrival."""
        self._slots_of = {}
        for i in range(max(0, self.n_kept - self.capacity), self.n_kept):
            slot = i % self.capacity
            if key := int(self.key[slot]):
                self._slots_of.setdefault(key, []).append(slot)

    def keep(self, key: int, item: int, kind: int, *, at_ms: int) -> None:
        """Put one action in; the oldest goes when the ring is full."""
        slot = self.n_kept % self.capacity
        if replaced := int(self.key[slot]):
            slots = self._slots_of[replaced]
            slots.remove(slot)
            if not slots:
                del self._slots_of[replaced]
        self.n_kept += 1
        self.key[slot], self.item[slot], self.kind[slot], self.at_ms[slot] = key, item, kind, at_ms
        self._slots_of.setdefault(key, []).append(slot)

    def take(self, key: int) -> list[tuple[int, int, int]]:
        """(item row, kind, at_ms) of the actions that wait under `key`, in order of arrival; they wait no more."""
        out = []
        for slot in self._slots_of.pop(key, ()):
            out.append((int(self.item[slot]), int(self.kind[slot]), int(self.at_ms[slot])))
            self.key[slot] = self.item[slot] = self.kind[slot] = self.at_ms[slot] = 0
        return out

    def forget_items(self, items: Sequence[int]) -> None:
        """Make the actions on the given item rows match nothing."""
        blank_items(self.item, self.key != 0, items)
