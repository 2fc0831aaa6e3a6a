"""Ranking metrics of every model, scored before learning: recall@k = hits / min(k, targets) and NDCG@k, by slice.

Kept twice: sums since the last report, and a timeline of at most 256 bins of equally many positives (merged pairwise
when full), from which the first tenth, the last tenth and the whole are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from stream_rec.component import Component

Rows = npt.NDArray[np.int32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

K = 20
TASKS = ("next_visit", "next_item")
NEXT_VISIT, NEXT_ITEM = 0, 1
MODELS = (
    "served",
    "ranker",
    "learner",
    "linear",
    "frozen_text",
    "popular_7d",
    "popular_decayed",
    "cooccurrence",
    "item_knn",
    "repeat",
    "own_then_popular_7d",
)
TOWER_MODELS = ("linear", "frozen_text")
"""Measured beside the text tower only: the ranker alone, and the encoder alone."""
USER_SLICES = ("known", "new", "anonymous")
TARGET_SLICES = ("new_items", "head", "tail")
SLICES = ("all", *USER_SLICES, *TARGET_SLICES)
GROUPS = 1 + len(TARGET_SLICES)
"""Groups of targets: all of them, then those of each target slice."""
MEASURES = ("n", f"recall@{K}", f"ndcg@{K}")
N_BINS = 256
FIRST_BIN = 256

GAIN = 1.0 / np.log2(np.arange(K) + 2.0)
"""Discount of each place of a list, float64 [K]."""
IDEAL = np.concatenate([[0.0], np.cumsum(GAIN)])
"""Best DCG with n targets, n = 0..K."""

SHAPE = (len(TASKS), len(MODELS), len(SLICES), len(MEASURES))


class Prequential(Component):
    """Sums of the metrics over an interval and over the run.

    Args:
        left_out: models that this run does not have.
    """

    half = "learned"
    columns = ("interval", "bins", "bin_positives")
    scalars = ("n_bins", "bin_size")
    fixed = ("left_out",)

    def __init__(self, left_out: Sequence[str] = ()) -> None:
        self.left_out = tuple(left_out)
        self.interval = np.zeros(SHAPE, np.float64)
        self.bins = np.zeros((N_BINS, *SHAPE), np.float64)
        self.bin_positives = np.zeros(N_BINS, np.int64)
        self.n_bins, self.bin_size = 1, FIRST_BIN

    def add(self, task: int, user_slice: Ints, n_targets: Ints, hits: Doubles, *, dcg: Doubles) -> None:
        """Count E scored examples.

        Args:
            task: NEXT_VISIT or NEXT_ITEM.
            user_slice: place in USER_SLICES, [E].
            n_targets: targets by group, [E, GROUPS].
            hits: targets found in each model's list, [E, MODELS, GROUPS].
            dcg: their discounted gains, the same shape.
        """
        if not len(user_slice):
            return
        capped = np.minimum(n_targets, K)
        there = n_targets > 0
        recall = hits / np.maximum(capped, 1)[:, None, :]
        ndcg = dcg / np.maximum(IDEAL[capped], GAIN[0])[:, None, :]
        ones = np.broadcast_to(there[:, None, :], hits.shape).astype(np.float64)
        values = np.stack([ones, recall * ones, ndcg * ones], axis=3)
        out = np.zeros(SHAPE[1:], np.float64)
        out[:, 0] = values[:, :, 0].sum(axis=0)
        for place in range(len(USER_SLICES)):
            out[:, 1 + place] = values[user_slice == place, :, 0].sum(axis=0)
        out[:, 1 + len(USER_SLICES) :] = values[:, :, 1:].sum(axis=0)
        self.interval[task] += out
        self.bins[self.n_bins - 1, task] += out

    def advance(self, n_positives: int) -> None:
        """Say how many positives the stream gave since the last call; opens a new bin when the last one is full."""
        self.bin_positives[self.n_bins - 1] += n_positives
        if self.bin_positives[self.n_bins - 1] < self.bin_size:
            return
        if self.n_bins == N_BINS:
            self._merge()
        self.n_bins += 1

    def take_interval(self) -> dict[str, Any]:
        """The metrics since the last call, as {task: {model: {slice: {n, recall@20, ndcg@20}}}}."""
        out = as_table(self.interval, self.left_out)
        self.interval = np.zeros(SHAPE, np.float64)
        return out

    def summary(self) -> dict[str, Any]:
        """`first_tenth`, `last_tenth` (by positives, whole bins) and `whole`, each a table as of `take_interval`."""
        counts = self.bin_positives[: self.n_bins]
        done, tenth = np.cumsum(counts), counts.sum() / 10.0
        first = int(np.searchsorted(done, tenth)) + 1
        last = int(np.searchsorted(done, counts.sum() - tenth, side="right"))
        used = self.bins[: self.n_bins]
        return {
            "first_tenth": as_table(used[:first].sum(axis=0), self.left_out),
            "last_tenth": as_table(used[min(last, self.n_bins - 1) :].sum(axis=0), self.left_out),
            "whole": as_table(used.sum(axis=0), self.left_out),
        }

    def _merge(self) -> None:
        half = N_BINS // 2
        for name in ("bins", "bin_positives"):
            column = getattr(self, name)
            column[:half] = column[0::2] + column[1::2]
            column[half:] = 0
        self.n_bins, self.bin_size = half, 2 * self.bin_size


def as_table(sums: Doubles, left_out: Sequence[str] = ()) -> dict[str, Any]:
    """Sums [tasks, models, slices, measures] as nested dicts of means; slices without an example are left out."""
    out: dict[str, Any] = {}
    for t, task in enumerate(TASKS):
        for m, model in enumerate(MODELS):
            for s, name in enumerate(SLICES):
                n = sums[t, m, s, 0]
                if n and not (task == "next_item" and model == "served") and model not in left_out:
                    means = {key: round(float(sums[t, m, s, i] / n), 6) for i, key in enumerate(MEASURES) if i}
                    out.setdefault(task, {}).setdefault(model, {})[name] = {"n": int(n), **means}
    return out


def rank_in(lists: Rows, item: Rows) -> Ints:
    """Place of an item in each of its lists, MISSING (-1) where it is not there.

    Args:
        lists: [E, M, K].
        item: [E].

    >>> rank_in(np.array([[[4, 7], [1, 2]]], np.int32), np.array([7], np.int32)).tolist()
    [[1, -1]]
    """
    match = lists == item[:, None, None]
    return np.where(match.any(axis=2), match.argmax(axis=2), -1).astype(np.int64)


class Reach(Component):
    """How much of the catalogue each model's lists show: coverage and concentration over the run.

    Args:
        capacity: item rows.
    """

    half = "learned"
    columns = ("shown",)
    scalars = ("n_rows",)
    fixed = ("capacity",)

    def __init__(self, capacity: int) -> None:
        self.capacity, self.n_rows = capacity, 0
        self.shown = np.zeros((capacity, len(MODELS)), np.int64)

    def used(self) -> int:
        """Rows up to the highest item shown."""
        return self.n_rows

    def add(self, lists: Rows) -> None:
        """Count lists [E, M, K] of item rows."""
        for model in range(lists.shape[1]):
            held = lists[:, model][lists[:, model] >= 0]
            if len(held):
                self.n_rows = max(self.n_rows, int(held.max()) + 1)
                self.shown[: self.n_rows, model] += np.bincount(held, minlength=self.n_rows)

    def forget_items(self, rows: Rows) -> None:
        """Start again for item rows that were given to other items."""
        self.shown[rows] = 0

    def table(self, n_items: int) -> dict[str, dict[str, float]]:
        """Coverage (share of items ever shown) and Gini index of the times shown, by model."""
        out = {}
        for model, name in enumerate(MODELS):
            shown = self.shown[:n_items, model]
            if shown.sum():
                out[name] = {"coverage": round(float((shown > 0).mean()), 6), "gini": round(gini(shown), 6)}
        return out


def gini(counts: Ints) -> float:
    """Gini index, 0 = all equal, towards 1 = one item has everything.

    >>> gini(np.array([1, 1, 1, 1])), gini(np.array([0, 0, 0, 1]))
    (0.0, 0.75)
    """
    n, total = len(counts), float(counts.sum())
    if not total:
        return 0.0
    ranked = np.sort(counts).astype(np.float64)
    return float((2.0 * np.arange(1, n + 1) - n - 1.0) @ ranked / (n * total))
