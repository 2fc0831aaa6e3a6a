"""Actions that named a decision before any impression of it arrived: kept for a while in case it does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stream_rec.component import Component
from stream_rec.stream.decisions import blank_items


class EarlyFeedback(Component):
    """A ring of the last `capacity` such actions, found by the key of the exposure they wait for.

    Columns by slot of the ring: `key` int64 (0: empty), `user` int32 row of who acted, `item` int32 row, `kind` int8,
    `at_ms` int64.
    """

    columns = ("key", "user", "item", "kind", "at_ms")
    scalars = ("n_kept",)
    derived = ("_slots_of",)
    fixed = ("capacity",)

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.key = np.zeros(capacity, np.int64)
        self.user = np.zeros(capacity, np.int32)
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

    def keep(self, key: int, user: int, item: int, *, kind: int, at_ms: int) -> None:
        """Put one action of a user row in; the oldest goes when the ring is full."""
        slot = self.n_kept % self.capacity
        if self.key[slot]:
            self._clear(slot)
        self.n_kept += 1
        self.key[slot], self.user[slot], self.item[slot] = key, user, item
        self.kind[slot], self.at_ms[slot] = kind, at_ms
        self._slots_of.setdefault(key, []).append(slot)

    def take(self, key: int) -> list[tuple[int, int, int]]:
        """(item row, kind, at_ms) of the actions that wait under `key`, in order of arrival; they wait no more."""
        out = []
        for slot in tuple(self._slots_of.get(key, ())):
            out.append((int(self.item[slot]), int(self.kind[slot]), int(self.at_ms[slot])))
            self._clear(slot)
        return out

    def forget_users(self, users: Sequence[int]) -> None:
        """Drop the actions of user rows that hold nobody or somebody else now."""
        theirs = (self.key != 0) & np.isin(self.user, np.asarray(users, np.int32))
        for slot in np.flatnonzero(theirs).tolist():
            self._clear(slot)

    def forget_items(self, items: Sequence[int]) -> None:
        """Make the actions on the given item rows match nothing."""
        blank_items(self.item, self.key != 0, items)

    def _clear(self, slot: int) -> None:
        """Blank a slot that holds an action, so that its key does not find it."""
        key = int(self.key[slot])
        slots = self._slots_of[key]
        slots.remove(slot)
        if not slots:
            del self._slots_of[key]
        for name in self.columns:
            getattr(self, name)[slot] = 0
