"""Examples of small ticks, kept with the logits they were compared under until a micro-batch is full."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from stream_rec.component import Component
from stream_rec.model.features import RECENT
from stream_rec.model.tower import N_TASKS, Recent
from stream_rec.model.tower_learning import Part

Rows = npt.NDArray[np.int32]

ABSENT = -1e4
"""Logit of an item that was not there when an example was kept."""


class Carry(Component):
    """Users [B] with targets [T] of all tasks, each compared over the first items of the catalogue.

    Columns: `task`, `weight` [B], `recent`, `here` [B, RECENT], `base` float32 [B, U]; `user`, `item`, `share` [T].
    """

    half = "learned"
    columns = ("task", "weight", "recent", "here", "base", "user", "item", "share")

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self.task, self.weight = np.zeros(0, np.int8), np.zeros(0, np.float32)
        self.recent, self.here = np.zeros((0, RECENT), np.int32), np.zeros((0, RECENT), np.bool_)
        self.base = np.zeros((0, 0), np.float32)
        self.user, self.item = np.zeros(0, np.int64), np.zeros(0, np.int32)
        self.share = np.zeros(0, np.float32)

    def takes(self, parts: Sequence[Part], enough: int) -> bool:
        """Keep the examples of a tick, unless there are `enough` now or they cannot be kept; whether they were kept.

        Only examples over the whole catalogue can: others are compared over items of their own.
        """
        n = len(self.task) + sum(len(part.weight) for part in parts)
        if n >= enough or any(int(p.universe[-1]) != len(p.universe) - 1 for p in parts):
            return False
        for part in parts:
            self._add(part)
        return True

    def give(self, parts: Sequence[Part]) -> list[Part]:
        """The kept examples together with those of this tick, a part a task; nothing is kept afterwards."""
        if not len(self.task):
            return list(parts)
        if all(int(p.universe[-1]) == len(p.universe) - 1 for p in parts):
            for part in parts:
                self._add(part)
            parts = ()
        out = [*parts, *(self._part(task) for task in range(N_TASKS) if (self.task == task).any())]
        self._clear()
        return out

    def _add(self, part: Part) -> None:
        assert part.base is not None
        width = max(self.base.shape[1], part.base.shape[1])
        self.user = np.concatenate([self.user, part.user + len(self.task)])
        self.item = np.concatenate([self.item, part.universe[part.column]])
        self.share = np.concatenate([self.share, part.share])
        self.task = np.concatenate([self.task, np.full(len(part.weight), part.task, np.int8)])
        self.weight = np.concatenate([self.weight, part.weight])
        self.recent = np.concatenate([self.recent, part.recent.item])
        self.here = np.concatenate([self.here, part.recent.here])
        self.base = np.concatenate([_widened(self.base, width), _widened(part.base, width)])

    def _part(self, task: int) -> Part:
        chosen = np.flatnonzero(self.task == task)
        place = np.full(len(self.task), -1, np.int64)
        place[chosen] = np.arange(len(chosen))
        targets = np.flatnonzero(place[self.user] >= 0)
        return Part(
            task,
            Recent(self.recent[chosen], self.here[chosen]),
            np.arange(self.base.shape[1], dtype=np.int32),
            place[self.user[targets]],
            self.item[targets].astype(np.int64),
            self.share[targets],
            self.weight[chosen],
            self.base[chosen],
        )

    def forget_items(self, rows: Rows) -> None:
        """Leave out what names item rows that were given to other items."""
        self.recent[np.isin(self.recent, rows)] = -1
        self.base[:, rows[rows < self.base.shape[1]]] = ABSENT
        self.share[np.isin(self.item, rows)] = 0


def _widened(base: npt.NDArray[np.float32], width: int) -> npt.NDArray[np.float32]:
    out = np.full((len(base), width), ABSENT, np.float32)
    out[:, : base.shape[1]] = base
    return out
