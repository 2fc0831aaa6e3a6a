"""What the ranker sees: for each user and item, popularity, the user's own history and co-occurrence with it.

Three kinds of features, kept apart because of their shapes: `shared` ones are the same for every user [N, S], `own`
ones are zero except for the items a user has [R, O], `together` ones are dense [T, B, N]. What happened in the
open visit is kept apart from what was bought before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from stream_rec.events import MISSING
from stream_rec.model.cooccurrence import Cooccurrence
from stream_rec.model.popularity import DAY_MS, DecayedPopularity, ItemCounts, RecentPopularity
from stream_rec.model.text_neighbours import TextNeighbours

Rows = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

HALF_LIVES_MS = (1 * DAY_MS, 7 * DAY_MS, 28 * DAY_MS)
BUCKETS = ("never", "once", "to_3", "to_7", "to_15")
"""Visits that took an item, in powers of two; a bias for each keeps items without a past from being buried."""
SHARED = (
    "popular_7d", "popular_1d_decayed", "popular_7d_decayed", "popular_28d_decayed", "in_visits",
    *(f"taken_{bucket}" for bucket in BUCKETS),
)  # fmt: skip
OWN = ("own_visits", "in_last_visit", "own_recency", "own_share", "in_this_visit")
TOGETHER = (
    "with_bought_before",
    "with_this_visit",
    "after_bought_before",
    "near_last",
    "text_near_last",
    "text_near_cold",
)
NAMES = SHARED + OWN + TOGETHER
N_FEATURES = len(NAMES)

RECENT = 20
"""Newest rows of a history whose order counts."""
NEAR_DECAY = 0.9
CO_FLOOR = 0.05
NEAR_FLOOR = 0.02
AFTER_FLOOR = 0.00025
"""Floors of the logarithms, found on the development data: below them a value counts as zero."""
SHRINK, EXPOSURE_SHRINK = 30.0, 5.0
RECENCY_MS = 30 * DAY_MS


class History(Protocol):
    """Histories of B users, each field [B, L], newest first, padded with MISSING."""

    @property
    def item(self) -> Rows:
        """Item rows."""
        ...

    @property
    def at_ms(self) -> Ints:
        """Event times."""
        ...

    @property
    def visit(self) -> Ints:
        """Visit serials."""
        ...


@dataclass(frozen=True, slots=True)
class Profiles:
    """Histories of B users as rows, one a user and item, sorted by (user, item)."""

    n_users: int
    owner: Ints
    """User of a row, 0..B-1, rising, [R]."""
    item: Rows
    values: Floats
    """OWN features, [R, O]."""
    n_before: Ints
    """Visits before this one in which the user took the item, [R]."""
    before: Mask
    """Taken before this visit, [R]."""
    in_visit: Mask
    """Taken in this visit, [R]."""
    known: Mask
    """Whether a user has anything from before this visit, [B]."""
    recent: Rows
    """What the user took last, newest first, padded with MISSING, [B, RECENT]."""
    recent_here: Mask
    """Which of these in this visit, [B, RECENT]."""

    def pick(self, users: Ints) -> Profiles:
        """The profiles of some users, in the given order."""
        low, high = np.searchsorted(self.owner, users), np.searchsorted(self.owner, users, side="right")
        sizes = high - low
        owner = np.repeat(np.arange(len(users)), sizes)
        rows = np.arange(len(owner)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + np.repeat(low, sizes)
        return Profiles(
            len(users),
            owner,
            self.item[rows],
            self.values[rows],
            self.n_before[rows],
            self.before[rows],
            self.in_visit[rows],
            self.known[users],
            self.recent[users],
            self.recent_here[users],
        )


def profiles(history: History, this_visit: Ints, now_ms: Ints) -> Profiles:
    """Histories [B, L] as profiles.

    Args:
        history: as gathered.
        this_visit: the user's open visit, MISSING when none is open, [B].
        now_ms: event time the histories are looked at from, [B].
    """
    n_users = len(history.item)
    user, place = np.nonzero(history.item >= 0)
    item, visit, at_ms = history.item[user, place], history.visit[user, place], history.at_ms[user, place]
    now_here = visit == this_visit[user]
    last_visit = np.full(n_users, MISSING, np.int64)
    older = np.flatnonzero(~now_here)
    last_visit[user[older][::-1]] = visit[older][::-1]  # the newest is written last
    steps = np.ones(len(older), np.bool_)
    steps[1:] = (visit[older][1:] != visit[older][:-1]) | (user[older][1:] != user[older][:-1])
    n_visits = np.bincount(user[older][steps], minlength=n_users)

    order = np.lexsort((np.arange(len(item)), item, user))
    user, item, visit, at_ms, now_here = user[order], item[order], visit[order], at_ms[order], now_here[order]
    first = np.ones(len(item), np.bool_)
    first[1:] = (user[1:] != user[:-1]) | (item[1:] != item[:-1])
    new_visit = first.copy()
    new_visit[1:] |= visit[1:] != visit[:-1]
    starts = np.flatnonzero(first)
    owner, item = user[starts], item[starts]
    n_before = _per_group(np.add, (new_visit & ~now_here).astype(np.int64), starts)
    last_at = _per_group(np.maximum, np.where(now_here, MISSING, at_ms), starts)
    in_last = _per_group(np.maximum, (~now_here & (visit == last_visit[user])).astype(np.int64), starts)
    in_visit = _per_group(np.maximum, now_here.astype(np.int64), starts) > 0
    before = n_before > 0
    age = np.maximum(now_ms[owner] - last_at, 0) / RECENCY_MS
    values = np.stack(
        [
            np.log(10.0 * n_before + 1.0),
            in_last,
            np.where(before, 1.0 / (1.0 + age), 0.0),
            n_before / np.maximum(n_visits[owner], 1),
            in_visit,
        ],
        axis=1,
    ).astype(np.float32)
    recent = np.full((n_users, RECENT), MISSING, np.int32)
    width = min(RECENT, history.item.shape[1])
    recent[:, :width] = history.item[:, :width]
    here = np.zeros(recent.shape, np.bool_)
    here[:, :width] = (history.visit[:, :width] == this_visit[:, None]) & (recent[:, :width] >= 0)
    owner = owner.astype(np.int64)
    return Profiles(n_users, owner, item, values, n_before, before, in_visit, n_visits > 0, recent, here)


def _per_group(how: np.ufunc, values: npt.NDArray[Any], starts: Ints) -> npt.NDArray[Any]:
    return how.reduceat(values, starts) if len(starts) else values[:0]


@dataclass(frozen=True, slots=True)
class Statistics:
    """The live statistics that features are read from."""

    counts: ItemCounts
    decayed: DecayedPopularity
    recent: RecentPopularity
    together: Cooccurrence
    """Taken in the same visit."""
    after: Cooccurrence
    """Taken in a visit after one that had it; directed."""
    exposures: ItemCounts
    """Visits of users who had the item from an earlier one."""
    near: Cooccurrence
    """Taken shortly after one another."""
    alike: TextNeighbours | None = None
    """Items with similar texts."""

    def shared(self, universe: Rows) -> Floats:
        """SHARED features of the items in `universe`, float32 [U, S]."""
        mass = self.decayed.mass[universe]
        columns = [np.log(self.recent.counts[universe] + 1.0)]
        columns += [np.log(mass[:, i] + 0.1) for i in range(len(HALF_LIVES_MS))]
        counts = self.counts.in_visits[universe]
        columns.append(np.log(counts + 1.0))
        bucket = np.ceil(np.log2(counts + 1.0))
        columns += [bucket == place for place in range(len(BUCKETS))]
        return np.stack(columns, axis=1).astype(np.float32)

    def with_before(self, rows: Profiles, n_items: int) -> Floats:
        """Cosine of each item with what a user took in earlier visits, weighted by how often and how lately."""
        chosen = np.flatnonzero(rows.before)
        norm = self._norm(n_items, 0.0)
        weight = _fondness(rows, chosen) * norm[rows.item[chosen]]
        return self._sums(self.together, rows, chosen, weight, norm=norm)

    def with_visit(self, rows: Profiles, n_items: int) -> Floats:
        """Cosine of each item with what a user took in the open visit, float32 [B, N], 0 or more."""
        chosen = np.flatnonzero(rows.in_visit)
        norm = self._norm(n_items, 0.0)
        return self._sums(self.together, rows, chosen, norm[rows.item[chosen]], norm=norm)

    def after_before(self, rows: Profiles, n_items: int) -> Floats:
        """How much each item follows, in later visits, on what a user took before, float32 [B, N], 0 or more."""
        chosen = np.flatnonzero(rows.before)
        seen = np.sqrt(self.exposures.in_visits[rows.item[chosen]]) + EXPOSURE_SHRINK
        weight = (_fondness(rows, chosen) / seen).astype(np.float32)
        return self._sums(self.after, rows, chosen, weight, norm=self._norm(n_items, SHRINK))

    def near_last(self, rows: Profiles, n_items: int) -> Floats:
        """Cosine of each item with what a user took last, the newest counting most, float32 [B, N], 0 or more."""
        owner, place = np.nonzero(rows.recent >= 0)
        item, norm = rows.recent[owner, place], self._norm(n_items, 0.0)
        weight = (NEAR_DECAY**place * norm[item]).astype(np.float32)
        sums = self.near.sums(item, weight, owner, n_users=rows.n_users, n_items=n_items)
        sums *= norm
        return sums

    def _norm(self, n_items: int, shrink: float) -> Floats:
        return (1.0 / np.sqrt(np.maximum(self.counts.in_visits[:n_items], 1) + shrink)).astype(np.float32)

    def _sums(self, pairs: Cooccurrence, rows: Profiles, chosen: Ints, weight: Floats, *, norm: Floats) -> Floats:
        item, owner = rows.item[chosen], rows.owner[chosen]
        sums = pairs.sums(item, weight, owner, n_users=rows.n_users, n_items=len(norm))
        sums *= norm
        return sums


def _fondness(rows: Profiles, chosen: Ints) -> Floats:
    """Weight of an earlier item: log(1 + visits) x (recency + 0.1)."""
    recency = rows.values[chosen, OWN.index("own_recency")]
    weight: Floats = (np.log1p(rows.n_before[chosen]) * (0.1 + recency)).astype(np.float32)
    return weight


@dataclass(frozen=True, slots=True)
class Inputs:
    """Features of B users over the U items of a universe."""

    shared: Floats
    """[U, S]."""
    together: tuple[Floats | None, ...]
    """One [B, U] a name of TOGETHER: log((x + floor) / floor); None where it is zero for all."""
    owner: Ints
    column: Ints
    """Place in the universe, [R]."""
    values: Floats
    """[R, O]."""
    known: Mask
    """[B]."""


def inputs(statistics: Statistics, rows: Profiles, shared: Floats, *, universe: Rows, n_items: int) -> Inputs:
    """Everything the ranker needs to score `rows` over `universe` (rising item rows)."""
    had, has = bool(rows.before.any()), bool(rows.in_visit.any())
    near = statistics.near_last(rows, n_items) if had or has else None
    alike = statistics.alike.smoothed(near) if near is not None and statistics.alike is not None else None
    co = (
        _log(statistics.with_before(rows, n_items), CO_FLOOR, universe) if had else None,
        _log(statistics.with_visit(rows, n_items), CO_FLOOR, universe) if has else None,
        _log(statistics.after_before(rows, n_items), AFTER_FLOOR, universe) if had else None,
        None if near is None else _log(near, NEAR_FLOOR, universe),
        None if alike is None else _log(alike, NEAR_FLOOR, universe),
        None,
    )
    if co[-2] is not None:
        co = (*co[:-1], co[-2] * (statistics.counts.in_visits[universe] == 0))
    column = np.searchsorted(universe, rows.item)
    column[column == len(universe)] = 0
    inside = universe[column] == rows.item
    return Inputs(shared, co, rows.owner[inside], column[inside], rows.values[inside], rows.known)


def _log(x: Floats, floor: float, universe: Rows) -> Floats:
    """log((x + floor) / floor) of the universe's columns; overwrites x."""
    if len(universe) != x.shape[1]:
        x = x[:, universe]
    x *= 1.0 / floor
    x += 1.0
    np.log(x, out=x)
    return x
