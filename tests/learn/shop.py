"""A tiny shop that turns a list of takes into ticks, as the pipeline would."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stream_rec.events import MISSING, Kind
from stream_rec.learn.batch import Positives, Retractions, TickBatch, Visits, no_retractions
from stream_rec.learn.learner import LearnSettings
from stream_rec.learn.promotion import Rules
from stream_rec.learn.scoring import Catalogue
from stream_rec.stream.histories import Histories, HistoryRow

N_ITEMS = 30
CATALOGUE = Catalogue(N_ITEMS)
MINUTE_MS = 60_000
SETTINGS = LearnSettings(
    item_capacity=50,
    recent_capacity=500,
    sample_one_in=1,
    cut_examples=50,
    max_pending_visits=40,
    gate=Rules(min_users=0),
)
"""A dozen users: nothing has to be seen before a challenger serves."""


class Take(NamedTuple):
    user: int
    item: int
    at_ms: int
    visit: int
    source: int = 0
    position: int = MISSING
    stand_in: int = 0


class Shop:
    """Keeps histories and makes batches."""

    def __init__(self) -> None:
        self.histories = Histories(10_000)
        self.last: dict[int, int] = {}
        self.before_visit: dict[int, int] = {}
        self.number = 0

    def tick(
        self, takes: list[Take], retractions: Retractions | None = None, served: np.ndarray | None = None
    ) -> TickBatch:
        positives, visits = [], []
        for e, t in enumerate(takes):
            before = self.last.get(t.user, MISSING)
            if t.visit not in self.before_visit:
                self.before_visit[t.visit] = before
                visits.append((t.visit, t.user, t.user, t.stand_in, t.at_ms, before))
            row = HistoryRow(t.item, t.at_ms, Kind.PURCHASE, visit=t.visit, order=0, prev=before, user=t.user)
            serial = self.histories.append(row)
            self.last[t.user] = serial
            event = self.number * 10_000 + e
            who, first = (t.user, t.user, t.stand_in), self.before_visit[t.visit]
            what = (t.item, t.at_ms, int(Kind.PURCHASE), serial, before, t.visit, first)
            positives.append((*who, *what, t.source, t.position, event))
        self.number += 1
        now = max((t.at_ms for t in takes), default=0)
        slates = np.full((len(visits), 20), MISSING, np.int32) if served is None else served
        return TickBatch(
            self.number,
            now - MINUTE_MS,
            now,
            Positives(**_columns(Positives, positives)),
            Visits(**_columns(Visits, visits), served=slates),
            retractions or no_retractions(),
        )

    def take_back(self, user: int, item: int) -> Retractions:
        serial = self.histories.retract(self.last[user], item, 0)
        row = self.histories.row(serial)
        assert row is not None
        return Retractions(**_columns(Retractions, [(user, item, row.at_ms, row.visit, self.last[user], serial)]))


def _columns(kind: type, rows: list[tuple[int, ...]]) -> dict[str, np.ndarray]:
    from stream_rec.learn.batch import COLUMN_TYPES

    names = [name for name in kind.__dataclass_fields__ if name != "served"]  # type: ignore[attr-defined]
    return {name: np.array([row[i] for row in rows], COLUMN_TYPES[name]) for i, name in enumerate(names)}


def stream(seed: int, n_ticks: int = 12, per_tick: int = 40) -> list[list[Take]]:
    """Users who come back for the same things: user u likes items u, u+1, u+2 and a popular one."""
    rng = np.random.default_rng(seed)
    visit, at_ms, out = 0, 0, []
    open_visit: dict[int, tuple[int, int]] = {}
    for _ in range(n_ticks):
        takes = []
        for _ in range(per_tick):
            at_ms += 5 * MINUTE_MS
            user = int(rng.integers(0, 12))
            last = open_visit.get(user)
            if last is None or at_ms - last[1] > 30 * MINUTE_MS:
                visit += 1
                last = (visit, at_ms)
            open_visit[user] = (last[0], at_ms)
            item = 25 if rng.random() < 0.2 else (user + int(rng.integers(0, 3))) % 20
            takes.append(Take(user, item, at_ms, last[0], stand_in=int(user == 11)))
        out.append(takes)
    return out
