"""Visits that are still open: their lists were made at the first event, their targets are still coming.

A visit closes when the watermark is past its last event by the gap, or when the same user opens the next one. Only
then it is counted, so that recall is over everything the visit took.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stream_rec.component import Component
from stream_rec.events import MISSING
from stream_rec.learn.batch import Visits
from stream_rec.learn.prequential import GAIN, GROUPS, MODELS, K, rank_in

Rows = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

SERVED = MODELS.index("served")


class Closed(NamedTuple):
    """Visits that have closed, in the order they were opened."""

    user: Rows
    """Users row of every closed visit, [A]."""
    scored: Mask
    """Which of them carry lists and had a target, [A]."""
    user_key: Ints
    """Of the scored ones from here on, [E]."""
    user_slice: Ints
    n_targets: Ints
    """[E, GROUPS]."""
    hits: Doubles
    """[E, MODELS, GROUPS]."""
    dcg: Doubles
    n_organic: Ints
    """Targets that no slate caused, [E, GROUPS]."""
    organic_hits: Doubles
    """[E, MODELS, GROUPS]."""
    had_slate: Mask
    """Whether a slate was in force when the visit began, [E]."""


class PendingVisits(Component):
    """The pool of open visits; when it is full the oldest makes room and is counted, never scored.

    Args:
        capacity: open visits.
        gap_ms: a visit is over this long after its last event.
    """

    half = "learned"
    columns = (
        "visit", "user", "user_key", "user_slice", "last_at_ms", "state", "sampled", "lists", "n_targets", "hits",
        "dcg", "n_organic", "organic_hits",
    )  # fmt: skip
    scalars = ("next_place", "n_evicted")
    derived = ("place_of", "visit_of")
    fixed = ("capacity", "gap_ms")

    def __init__(self, capacity: int = 20_000, gap_ms: int = 1_800_000) -> None:
        self.capacity, self.gap_ms = capacity, gap_ms
        self.visit = np.zeros(capacity, np.int64)
        self.user = np.zeros(capacity, np.int32)
        self.user_key = np.zeros(capacity, np.int64)
        self.user_slice = np.zeros(capacity, np.int8)
        self.last_at_ms = np.zeros(capacity, np.int64)
        self.state = np.zeros(capacity, np.int8)
        """0 free, 1 open, 2 to close at the end of this tick."""
        self.sampled = np.zeros(capacity, np.bool_)
        self.lists = np.zeros((capacity, len(MODELS), K), np.int32)
        self.n_targets = np.zeros((capacity, GROUPS), np.int32)
        self.hits = np.zeros((capacity, len(MODELS), GROUPS), np.int16)
        self.dcg = np.zeros((capacity, len(MODELS), GROUPS), np.float32)
        self.n_organic = np.zeros((capacity, GROUPS), np.int32)
        self.organic_hits = np.zeros((capacity, len(MODELS), GROUPS), np.int16)
        self.next_place = self.n_evicted = 0
        self.place_of: dict[int, int] = {}
        self.visit_of: dict[int, int] = {}

    def used(self) -> int:
        """Places taken at least once."""
        return min(self.next_place, self.capacity)

    def rebuild(self) -> None:
        """Index the open visits again, oldest first."""
        places = np.arange(self.next_place - self.used(), self.next_place) % self.capacity
        held = [p for p in places.tolist() if self.state[p]]
        self.place_of = {int(self.visit[p]): p for p in held}
        self.visit_of = {int(self.user_key[p]): int(self.visit[p]) for p in held}

    def open(self, visits: Visits, user_slice: Ints, sampled: Mask, *, lists: Rows) -> None:
        """Begin visits [V]; a user's visit before it is marked to close at the end of the tick.

        Args:
            visits: what opened.
            user_slice: place in USER_SLICES, [V].
            sampled: which are scored, [V].
            lists: [number sampled, MODELS, K].
        """
        n = len(visits)
        places = np.arange(self.next_place, self.next_place + n) % self.capacity
        for place, visit, key in zip(places.tolist(), visits.visit.tolist(), visits.user_key.tolist(), strict=True):
            if self.state[place]:
                self.n_evicted += 1
                self._unindex(place)
            before = self.place_of.get(self.visit_of.get(key, MISSING))
            if before is not None:
                self.state[before] = 2
            self.place_of[visit], self.visit_of[key] = place, visit
            self.visit[place], self.user_key[place], self.state[place] = visit, key, 1
        self.next_place += n
        self.user[places], self.last_at_ms[places] = visits.user, visits.start_at_ms
        self.user_slice[places], self.sampled[places] = user_slice, sampled
        self.lists[places] = MISSING
        self.lists[places[sampled]] = lists
        for name in ("n_targets", "hits", "dcg", "n_organic", "organic_hits"):
            getattr(self, name)[places] = 0

    def place(self, visit: Ints) -> Ints:
        """Place of each visit, MISSING when it is not open (any more), [P]."""
        get = self.place_of.get
        return np.array([get(v, MISSING) for v in visit.tolist()], np.int64)

    def touch(self, place: Ints, at_ms: Ints) -> None:
        """Say that visits went on at these times."""
        np.maximum.at(self.last_at_ms, place, at_ms)

    def target(self, place: Ints, item: Rows, group: Ints, organic: Mask) -> None:
        """Add targets [T], each an item's first time in its visit.

        Args:
            place: of the visit.
            item: taken.
            group: place in TARGET_SLICES plus one; 0 for none of them.
            organic: not caused by a slate.
        """
        use = self.sampled[place]
        place, item, group, organic = place[use], item[use], group[use], organic[use]
        if not len(place):
            return
        rank = rank_in(self.lists[place], item)
        hit = (rank >= 0).astype(np.int16)
        gain = np.where(rank >= 0, GAIN[rank], 0.0).astype(np.float32)
        member = np.zeros((len(place), GROUPS), np.int32)
        member[:, 0] = 1
        member[np.arange(len(place)), group] = 1
        found = hit[:, :, None] * member[:, None, :].astype(np.int16)
        np.add.at(self.n_targets, place, member)
        np.add.at(self.hits, place, found)
        np.add.at(self.dcg, place, gain[:, :, None] * member[:, None, :].astype(np.float32))
        np.add.at(self.n_organic, place[organic], member[organic])
        np.add.at(self.organic_hits, place[organic], found[organic])

    def close(self, watermark_ms: int) -> Closed:
        """Take out the visits that are over as of the watermark."""
        used = self.used()
        state = self.state[:used]
        over = (state == 2) | ((state == 1) & (self.last_at_ms[:used] + self.gap_ms < watermark_ms))
        places = np.flatnonzero(over)
        places = places[np.argsort((places - self.next_place) % self.capacity, kind="stable")]
        scored = self.sampled[places] & (self.n_targets[places, 0] > 0)
        s = places[scored]
        out = Closed(
            self.user[places].copy(),
            scored,
            self.user_key[s],
            self.user_slice[s].astype(np.int64),
            self.n_targets[s].astype(np.int64),
            self.hits[s].astype(np.float64),
            self.dcg[s].astype(np.float64),
            self.n_organic[s].astype(np.int64),
            self.organic_hits[s].astype(np.float64),
            (self.lists[s, SERVED] >= 0).any(axis=1),
        )
        for place in places.tolist():
            self._unindex(place)
        self.state[places] = 0
        return out

    def drop(self) -> None:
        """Let go of all open visits; they are counted as evicted and scored nowhere."""
        self.n_evicted += len(self.place_of)
        self.state[: self.used()] = 0
        self.rebuild()

    def forget_items(self, rows: Rows) -> None:
        """Take item rows that were given to other items out of the lists."""
        held = self.lists[: self.used()]
        held[np.isin(held, rows)] = MISSING

    def forget_users(self, user_key: Ints) -> None:
        """Blank the visits of some users, open or closed; an open one is counted nowhere.

        Args:
            user_key: as in `Visits`, [n].
        """
        places = np.flatnonzero(np.isin(self.user_key[: self.used()], user_key))
        for place in places[self.state[places] != 0].tolist():
            self._unindex(place)
        for name in self.columns:
            getattr(self, name)[places] = 0

    def _unindex(self, place: int) -> None:
        visit, key = int(self.visit[place]), int(self.user_key[place])
        if self.place_of.get(visit) == place:
            del self.place_of[visit]
        if self.visit_of.get(key) == visit:
            del self.visit_of[key]
