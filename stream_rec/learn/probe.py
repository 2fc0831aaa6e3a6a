"""Reads a tick's examples: their features for training, and every model's lists for the metrics, before learning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stream_rec.learn import training
from stream_rec.learn.adapter_trial import AdapterTrial
from stream_rec.learn.batch import HistoryReader, Positives
from stream_rec.learn.candidates import CandidateRecall
from stream_rec.learn.prequential import GAIN, GROUPS, NEXT_ITEM, K, Prequential, rank_in
from stream_rec.learn.scoring import ON_TRIAL, Baselines, Catalogue, Scorer, View, all_lists
from stream_rec.learn.versions import Versions
from stream_rec.model import ranker
from stream_rec.model.features import Inputs, Profiles
from stream_rec.model.lists import top
from stream_rec.model.micro_batch import Examples

Rows = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


BLOCK = 64
"""Examples scored at once for the metrics."""
SCANNED_ONE_IN, SCANNED_USERS = 16, 8
"""Of the ticks of a large catalogue one in so many scans it whole, for so many users."""


class Scored(NamedTuple):
    """What next-item metrics are measured on."""

    positives: Positives
    groups: Ints
    """Target group of each item."""
    sampled: Mask
    """Of the positives."""


class Probe:
    """Scores examples under statistics and weights as they are; changes the metrics only.

    Args:
        scorer: reads statistics and histories.
        versions: champion, learner and the ranker alone.
        prequential: where the next-item metrics go.
        trial: of the adapter, when there is one.
        micro_batch: examples of one training step.
    """

    def __init__(
        self, scorer: Scorer, versions: Versions, prequential: Prequential, trial: AdapterTrial, *, micro_batch: int
    ) -> None:
        self._scorer, self._versions, self._trial = scorer, versions, trial
        self._prequential, self._micro_batch = prequential, micro_batch
        self.recall = CandidateRecall()

    def visit_lists(self, rows: Profiles, catalogue: Catalogue) -> Rows:
        """Lists of every model but `served` at the first event of visits, int32 [B, MODELS, K]."""
        universe = self._scorer.universe(catalogue, rows)
        view, statistics = View.of(universe, catalogue), self._scorer.statistics
        x = self._scorer.inputs(rows, statistics.shared(universe), universe, catalogue)
        scores = self._scores(x, rows, ranker.VISIT, universe)
        return all_lists(x, rows, scores, common=Baselines.of(statistics, universe, view.allowed), view=view)

    def read(
        self, wanted: training.Wanted, histories: HistoryReader, catalogue: Catalogue,
        scored: Scored | None = None,
    ) -> list[Examples]:  # fmt: skip
        """Features of examples, a micro-batch each.

        Args:
            wanted: the examples.
            histories: where their pointers lead.
            catalogue: what targets are compared with.
            scored: what next-item metrics are measured on; None: nothing is.
        """
        out: list[Examples] = []
        size, statistics = self._micro_batch, self._scorer.statistics
        if not len(wanted):
            return out
        everyone = self._scorer.profiles(
            histories, wanted.pointer, wanted.visit, now_ms=wanted.now_ms, catalogue=catalogue
        )
        universe = self._scorer.universe(catalogue, everyone)
        shared = statistics.shared(universe)
        if len(universe) < catalogue.n_items > self._scorer.full_items and wanted.draw % SCANNED_ONE_IN == 0:
            self._scan(everyone.pick(np.arange(min(len(wanted), SCANNED_USERS))), wanted.task, catalogue, universe)
        rivals = self._scorer.rivals(catalogue, universe, wanted.item, wanted.draw)
        sampled = None if rivals.log_share is None else statistics.shared(rivals.universe)
        for low in range(0, 0 if catalogue.nothing_known else len(wanted), size):
            high = min(low + size, len(wanted))
            rows = everyone.pick(np.arange(low, high))
            x = self._scorer.inputs(rows, shared if sampled is None else sampled, rivals.universe, catalogue)
            out.append(training.examples(wanted, x, rivals, low=low, high=high, rows=rows))
        if scored is not None:
            self._measure(scored, wanted, everyone, (universe, shared), catalogue)
        return out

    def _measure(
        self, scored: Scored, wanted: training.Wanted, everyone: Profiles, over: tuple[Rows, Floats],
        catalogue: Catalogue,
    ) -> None:  # fmt: skip
        """Lists of every model for the sampled next items; an adapter on trial is tried on all that no slate caused."""
        (universe, shared), p, task = over, scored.positives, wanted.task
        view = View.of(universe, catalogue)
        common = Baselines.of(self._scorer.statistics, universe, view.allowed)
        for some in _blocks(scored.sampled[wanted.row]):
            rows, row = everyone.pick(some), wanted.row[some]
            x = self._scorer.inputs(rows, shared, universe, catalogue)
            lists = all_lists(x, rows, self._scores(x, rows, task, universe), common=common, view=view)
            self._score_next(scored, row, lists, rows.known)
        if self._versions.tower is None or not self._versions.tower.on_trial:
            return
        for some in _blocks(p.source[wanted.row] == 0):
            rows, row = everyone.pick(some), wanted.row[some]
            x = self._scorer.inputs(rows, shared, universe, catalogue)
            both = [
                self._scorer.logits(which, x, rows, self._versions.learner.value, task=task, universe=universe)
                for which in (ON_TRIAL, "learner")
            ]
            lists = np.stack([top(logits, K, view.universe, view.allowed)[0] for logits in both], axis=1)
            hit = (rank_in(lists, p.item[row]) >= 0).astype(np.float64)
            self._trial.add(p.user_key[row], hit[:, 0], hit[:, 1])

    def again(
        self, replayed: Sequence[training.Wanted], fresh: Sequence[Examples], histories: HistoryReader,
        catalogue: Catalogue,
    ) -> list[Examples]:  # fmt: skip
        """Features of earlier examples, if the tower takes a step in a tick that brings these fresh ones."""
        tower = self._versions.tower
        if tower is None or not tower.steps_with(sum(len(each.weight) for each in fresh)):
            return []
        return [each for wanted in replayed for each in self.read(wanted, histories, catalogue)]

    def _scan(self, rows: Profiles, task: int, catalogue: Catalogue, universe: Rows) -> None:
        """Measure what the candidates of some users lack of a scan of the whole catalogue."""
        known = np.arange(catalogue.n_items) if catalogue.known is None else np.flatnonzero(catalogue.known)
        every = known.astype(np.int32)
        x = self._scorer.inputs(rows, self._scorer.statistics.shared(every), every, catalogue)
        weights = self._versions.champion.value
        logits = self._scorer.logits("champion", x, rows, weights, task=task, universe=every)
        self.recall.add(top(logits, K, every, View.of(every, catalogue).allowed)[0], universe)

    def _scores(self, x: Inputs, rows: Profiles, task: int, universe: Rows) -> dict[str, Floats]:
        v, logits = self._versions, self._scorer.logits
        out = {
            "ranker": logits("champion", x, rows, v.champion.value, task=task, universe=universe),
            "learner": logits("learner", x, rows, v.learner.value, task=task, universe=universe),
        }
        if self._scorer.tower is not None and v.linear is not None:
            out["linear"] = ranker.score(x, v.linear.value[task])
            out["frozen_text"] = self._scorer.tower.frozen(rows, universe)
        return out

    def _score_next(self, scored: Scored, row: Ints, lists: Rows, known: Mask) -> None:
        p, groups = scored.positives, scored.groups
        rank = rank_in(lists, p.item[row])
        gain = np.where(rank >= 0, GAIN[rank], 0.0)
        member = np.zeros((len(row), GROUPS), np.int64)
        member[:, 0] = 1
        member[np.arange(len(row)), groups[p.item[row]]] = 1
        spread = member[:, None, :].astype(np.float64)
        user_slice = np.where(p.stand_in[row] > 0, 2, np.where(known, 0, 1))
        hits = (rank >= 0)[:, :, None] * spread
        self._prequential.add(NEXT_ITEM, user_slice, member, hits, dcg=gain[:, :, None] * spread)


def _blocks(chosen: Mask) -> Iterator[Ints]:
    """Places of the chosen, BLOCK at a time."""
    rows = np.flatnonzero(chosen)
    return (rows[low : low + BLOCK] for low in range(0, len(rows), BLOCK))
