"""The learning side of the pipeline: score, count, learn, cut, promote, rank. Test comes before learning, always.

A tick calls `test`, `mature`, `absorb` and `train` in this order (`step` does all four), then `cut` when due, then
`rank` for the slates. Between `test` and `train` the features of the tick are held; between ticks there is nothing
but the components.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from stream_rec.component import Component
from stream_rec.events import MISSING
from stream_rec.learn import evidence, training
from stream_rec.learn.adapter_trial import AdapterTrial
from stream_rec.learn.batch import HistoryReader, Positives, Retractions, TickBatch, Visits
from stream_rec.learn.examples import Takes, first_takes, followed, taken_back
from stream_rec.learn.exploration import Exploration, ExplorePlan
from stream_rec.learn.guard import GuardRules
from stream_rec.learn.impressions import HeadPlan, Impressions
from stream_rec.learn.oversight import LOSS, REWARD, Oversight
from stream_rec.learn.pending import PendingVisits
from stream_rec.learn.prequential import MODELS, NEXT_VISIT, TOWER_MODELS, K, Prequential, Reach
from stream_rec.learn.probe import Probe, Scored
from stream_rec.learn.promotion import Rules
from stream_rec.learn.scoring import Catalogue, Ranked, Scorer
from stream_rec.learn.skipped import Skipped
from stream_rec.learn.versions import Cut, Versions
from stream_rec.model.cooccurrence import Cooccurrence
from stream_rec.model.features import HALF_LIVES_MS, Statistics
from stream_rec.model.micro_batch import Examples
from stream_rec.model.popularity import DecayedPopularity, ItemCounts, RecentPopularity
from stream_rec.model.query_tables import QueryItems
from stream_rec.stream.sampling import in_sample

if TYPE_CHECKING:
    from stream_rec.model.two_tower import TwoTower

Rows = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

BLOCK = 64
HEAD_SHARE = 0.2
SERVED = MODELS.index("served")


@dataclass(frozen=True, slots=True)
class LearnSettings:
    """Constructor settings of the learner; all but the capacities change what is learned."""

    seed: int = 0
    item_capacity: int = 200_000
    recent_capacity: int = 1_000_000
    """Positives of the last seven days held at once."""
    max_pending_visits: int = 20_000
    visit_gap_ms: int = 1_800_000
    exact_items: int = 5_000
    n_neighbours: int = 200
    history_rows: int = 256
    sample_one_in: int = 4
    """Visits scored for the metrics; 1 = all."""
    max_visit_examples: int = 128
    """Visit examples a tick; more are thinned by hash."""
    max_next_examples: int = 64
    """Next-item examples a tick, scored and learned."""
    micro_batch: int = 16
    rate: float = 0.02
    examination_exponent: float = 1.0
    new_item_bonus: float = 0.0
    """See `Scorer`."""
    cut_examples: int = 10_000
    query_capacity: int = 20_000
    """Queries that items are counted for."""
    adapter_visits: int = 2_000
    """Organic next-item examples at which an adapter is judged."""
    gate: Rules = field(default_factory=Rules)
    """Its rivals are set by what is learned."""
    guard: GuardRules = field(default_factory=GuardRules)
    heads: HeadPlan = field(default_factory=HeadPlan)
    explore: ExplorePlan = field(default_factory=ExplorePlan)


@dataclass(slots=True)
class _Tick:
    """What `test` found and `absorb` and `train` need."""

    takes: Takes
    batches: list[Examples]
    replayed: list[Examples]
    rewards: Doubles | None = None
    """Recall of what was served, of each closed visit that began with a slate; None before `mature`."""


class Learner:
    """The facade. See the module docstring for the order of calls.

    Args:
        settings: constructor settings.
        tower: the text tower; None: the ranker alone.
    """

    def __init__(self, settings: LearnSettings | None = None, tower: TwoTower | None = None) -> None:
        self.settings = s = settings or LearnSettings()
        self.tower = tower
        self.counts = ItemCounts(s.item_capacity)
        self.decayed = DecayedPopularity(s.item_capacity, HALF_LIVES_MS)
        self.recent = RecentPopularity(s.item_capacity, s.recent_capacity)
        self.together = Cooccurrence(s.exact_items, s.n_neighbours)
        self.after = Cooccurrence(s.exact_items, s.n_neighbours, directed=True)
        self.near = Cooccurrence(s.exact_items, s.n_neighbours)
        self.exposures = ItemCounts(s.item_capacity)
        self.query_items = QueryItems(s.query_capacity)
        statistics = Statistics(
            self.counts, self.decayed, self.recent, self.together, self.after, self.exposures, self.near,
            tower.neighbours if tower else None,
        )  # fmt: skip
        self.scorer = Scorer(statistics, tower, history_rows=s.history_rows, new_item_bonus=s.new_item_bonus)
        self.pending = PendingVisits(s.max_pending_visits, s.visit_gap_ms)
        self.prequential = Prequential(() if tower else TOWER_MODELS)
        self.reach = Reach(s.item_capacity)
        self.versions = Versions(s.cut_examples, s.rate, rules=s.gate, guard_rules=s.guard, tower=tower)
        self.trial = AdapterTrial(s.seed, s.adapter_visits)
        self._probe = Probe(self.scorer, self.versions, self.prequential, self.trial, micro_batch=s.micro_batch)
        self.impressions = Impressions(self.versions.heads, s.heads)
        self.exploration = Exploration(s.explore, self.impressions)
        self.oversight, self.skipped = Oversight(), Skipped()
        self._tick: _Tick | None = None

    def components(self) -> dict[str, Component]:
        """Everything that is state, by name."""
        return {
            "item_counts": self.counts,
            "decayed_popularity": self.decayed,
            "recent_popularity": self.recent,
            "cooccurrence": self.together,
            "taken_after": self.after,
            "taken_near": self.near,
            "item_exposures": self.exposures,
            "query_items": self.query_items,
            "pending_visits": self.pending,
            "prequential": self.prequential,
            "reach": self.reach,
            **self.versions.components(),
            **self.oversight.components(),
            "skipped": self.skipped,
            **self.impressions.components(),
            **self.exploration.components(),
            "adapter_trial": self.trial.sums,
            "candidate_recall": self._probe.recall,
            **(self.tower.components() if self.tower else {}),
        }

    def tell(
        self, rows: Sequence[int], n_items: int, text_of: Callable[[int], str], *, quota: int, **more: int
    ) -> None:
        """Take what the catalogue says anew of item rows; see `TwoTower.tell`."""
        if self.tower is not None:
            self.tower.tell(rows, n_items, text_of, quota=quota, **more)

    def step(self, batch: TickBatch, histories: HistoryReader, catalogue: Catalogue) -> Rows:
        """A whole tick: test, mature, absorb, train. Returns the users whose visits closed, int32."""
        self.test(batch, histories, catalogue)
        closed = self.mature(batch.watermark_ms)
        self.absorb(batch, histories, catalogue)
        self.train()
        return closed

    def test(self, batch: TickBatch, histories: HistoryReader, catalogue: Catalogue) -> None:
        """Score the tick's visits and positives under statistics and weights of before the tick.

        Histories may already hold the tick's events: they are read as of the pointers in the batch.
        """
        s, p = self.settings, batch.positives
        takes = first_takes(p, histories, catalogue.born)
        share = 4 if batch.lagging else 1
        seed, exponent, n = s.seed, s.examination_exponent, batch.number
        of_visits, of_next = (training.Quota(most, share) for most in (s.max_visit_examples, s.max_next_examples))
        visits = training.wanted_visits(p, takes, quota=of_visits, seed=seed, exponent=exponent, tick=n)
        following = training.wanted_next(p, takes, quota=of_next, seed=seed, exponent=exponent, tick=n)
        groups = self._groups(catalogue.n_items)
        self._open(batch.visits, histories, catalogue)
        self._target(batch, takes, groups)
        batches = self._probe.read(visits, histories, catalogue)
        scored = Scored(p, groups, in_sample(p.user_key ^ p.visit, s.sample_one_in, s.seed))
        batches += self._probe.read(following, histories, catalogue, scored)
        again = self._probe.again(batch.replayed, batches, histories, catalogue)
        self.impressions.test(batch.shown, 1 / share)
        self._tick = _Tick(takes, batches, again)

    def absorb(self, batch: TickBatch, histories: HistoryReader, catalogue: Catalogue) -> None:
        """Count the tick's first takes, unless the brake is on, then take back what was retracted."""
        assert self._tick is not None, "absorb comes after test"
        if self.oversight.braking:
            self.skipped.add(batch.positives.serial)
        else:
            self._count(self._tick.takes, batch.positives, histories, catalogue)
        self.retract(batch.retractions, histories, catalogue)
        self.prequential.advance(len(batch.positives))

    def _count(self, takes: Takes, p: Positives, histories: HistoryReader, catalogue: Catalogue) -> None:
        item, at_ms = p.item[takes.fresh], p.at_ms[takes.fresh]
        self.counts.add(item)
        self.decayed.add(item, at_ms)
        self.recent.add(item, at_ms)
        self.together.add(takes.pair_a, takes.pair_b, catalogue.n_items)
        self.near.add(takes.near_a, takes.near_b, catalogue.n_items, weight=takes.near_weight)
        follow = followed(p, takes, histories, catalogue.born)
        self.after.add(follow.before, follow.after, catalogue.n_items, weight=follow.weight)
        self.exposures.add(follow.exposed)
        self.versions.count(len(p))

    def retract(self, retractions: Retractions, histories: HistoryReader, catalogue: Catalogue) -> None:
        """Take purchases out of every statistic; the weights are not unlearned."""
        retractions = self.skipped.counted(retractions)
        if not len(retractions):
            return
        back = taken_back(retractions, histories, catalogue.born)
        self.counts.add(back.item, -1)
        self.decayed.add(back.item, back.at_ms, -1)
        for item, at_ms in zip(back.item.tolist(), back.at_ms.tolist(), strict=True):
            self.recent.retract(item, at_ms)
        self.together.add(back.pair_a, back.pair_b, catalogue.n_items, sign=-1)
        self.after.add(back.before, back.after, catalogue.n_items, weight=back.weight, sign=-1)

    def mature(self, watermark_ms: int) -> Rows:
        """Close visits and windows as of the watermark; returns the users of the closed visits, int32."""
        if not self.oversight.braking:
            self.recent.evict(watermark_ms)
        closed = self.pending.close(watermark_ms)
        self.prequential.add(NEXT_VISIT, closed.user_slice, closed.n_targets, closed.hits, dcg=closed.dcg)
        rewards = evidence.rewards(closed)
        if self._tick is not None:
            self._tick.rewards = rewards
        if not self.oversight.braking:
            evidence.compare(self.versions.comparison, closed)
            evidence.watch(self.versions.guard, closed)
            if self.oversight.tell(REWARD, rewards):
                self.exploration.alarm(watermark_ms)
        if self.tower is not None and self.tower.rounds is not None:
            self.trial.judge(self.tower.rounds)
        return closed.user

    def train(self, max_steps: int | None = None) -> int:
        """Learn from the tick's examples in at most `max_steps` micro-batches; returns how many were used.

        While the brake is on none is.
        """
        assert self._tick is not None, "train comes after test"
        batches, replayed, self._tick = self._tick.batches[:max_steps], self._tick.replayed, None
        self.impressions.train(braking=self.oversight.braking)
        if self.oversight.braking:
            return 0
        losses = training.train(self.versions, batches, self.tower, self.decayed.mass[:, 1], replayed=replayed)
        self.oversight.tell(LOSS, losses)
        self.versions.progress.n_steps += len(losses)
        return len(losses)

    def matured(self) -> tuple[int, float]:
        """How many visits with a slate have closed in this tick, and the sum of the recall of what was served."""
        rewards = self._tick.rewards if self._tick is not None else None
        return (0, 0.0) if rewards is None else (len(rewards), float(rewards.sum()))

    def cut_due(self) -> bool:
        """Whether a challenger should be cut now."""
        return self.versions.cut_due()

    def cut(self) -> Cut:
        """Freeze and judge a challenger; store its tensors when the verdict is `promote`."""
        cut = self.versions.cut(self.impressions.metrics.of_challenger())
        self.impressions.metrics.restart()
        return cut

    def promote(self, version: str) -> bool:
        """Let the waiting challenger serve, once its weights are durable; False when it is not the one waiting."""
        return self.versions.promote(version)

    def forget_items(self, rows: Rows) -> None:
        """Start again for item rows that were given to other items."""
        if len(rows):
            counted = self.counts, self.decayed, self.recent, self.together, self.after, self.near, self.exposures
            for part in (*counted, self.query_items, self.pending, self.reach, self.exploration):
                part.forget_items(rows)
            if self.tower is not None:
                self.tower.forget_items(rows)

    def forget_users(self, user_key: Ints) -> None:
        """Take some users' visits out of what is being measured; counts and weights, which name nobody, stay.

        Args:
            user_key: as in `Positives`, [n].
        """
        self.pending.forget_users(user_key)
        self.versions.comparison.forget_users(user_key)
        self.versions.guard.forget_users(user_key)
        self.trial.sums.forget_users(user_key)

    def rank(
        self,
        pointer: Ints,
        open_visit: Ints,
        histories: HistoryReader,
        *,
        now_ms: int,
        catalogue: Catalogue,
        k: int = K,
    ) -> Ranked:
        """Slates of the champion for users, by their history pointers. Pure.

        Args:
            pointer: newest history row of each user, MISSING for none, [B].
            open_visit: serial of the user's visit if it is still open, else MISSING, [B].
            histories: where the pointers lead.
            now_ms: event time of the slates.
            catalogue: items and stock.
            k: slots.
        """
        weights, parts = self.versions.champion.value, []
        for low in range(0, max(len(pointer), 1), BLOCK):
            some = slice(low, low + BLOCK)
            now = np.full(len(pointer[some]), now_ms, np.int64)
            rows = self.scorer.profiles(histories, pointer[some], open_visit[some], now_ms=now, catalogue=catalogue)
            parts.append(self.scorer.rank(rows, weights, catalogue, k=k))
        return Ranked(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def star(self, histories: HistoryReader, *, now_ms: int, catalogue: Catalogue, k: int = K) -> Ranked:
        """The slate for users never seen, [1, k]."""
        nobody = np.full(1, MISSING, np.int64)
        return self.rank(nobody, nobody, histories, now_ms=now_ms, catalogue=catalogue, k=k)

    def metrics_interval(self) -> dict[str, Any]:
        """Metrics since the last call: {task: {model: {slice: {n, recall@20, ndcg@20}}}}."""
        return self.prequential.take_interval()

    def summary(self, n_items: int) -> dict[str, Any]:
        """Metrics of the run by tenth, coverage and Gini index by model, and the learner's counts."""
        progress = self.versions.progress
        return {
            "metrics": self.prequential.summary(),
            "heads": {"metrics": self.impressions.metrics.summary(), "counts": dict(self.impressions.counts.n)},
            "reach": self.reach.table(n_items),
            "candidates": self._probe.recall.table(),
            "n_versions": progress.n_promotions + 1,
            "n_cuts": progress.n_cuts,
            "n_rollbacks": progress.n_rollbacks,
            "n_examples": progress.n_examples,
            "n_steps": progress.n_steps,
            "champion": progress.champion,
            "pending_evicted": self.pending.n_evicted,
        }

    def _groups(self, n_items: int) -> Ints:
        """Target group of each item as of now: 1 new, 2 head (the most taken fifth of those ever taken), 3 tail."""
        counts = self.counts.in_visits[:n_items]
        taken = np.sort(counts[counts > 0])
        bar = taken[-max(1, int(HEAD_SHARE * len(taken)))] if len(taken) else 1
        return np.where(counts == 0, 1, np.where(counts >= bar, 2, 3))

    def _open(self, visits: Visits, histories: HistoryReader, catalogue: Catalogue) -> None:
        if not len(visits):
            return
        sampled = in_sample(visits.user_key ^ visits.visit, self.settings.sample_one_in, self.settings.seed)
        chosen = np.flatnonzero(sampled)
        found = np.zeros(len(visits), np.int64)
        found[visits.stand_in > 0] = 2
        parts = [np.zeros((0, len(MODELS), K), np.int32)]
        for low in range(0, len(chosen), BLOCK):
            some = chosen[low : low + BLOCK]
            rows = self.scorer.profiles(
                histories, visits.before[some], visits.visit[some], now_ms=visits.start_at_ms[some], catalogue=catalogue
            )
            found[some] = np.where(visits.stand_in[some] > 0, 2, np.where(rows.known, 0, 1))
            parts.append(self._probe.visit_lists(rows, catalogue))
            width = min(K, visits.served.shape[1])
            parts[-1][:, SERVED, :width] = visits.served[some, :width]
        lists = np.concatenate(parts)
        self.reach.add(lists)
        self.pending.open(visits, found, sampled, lists=lists)

    def _target(self, batch: TickBatch, takes: Takes, groups: Ints) -> None:
        p = batch.positives
        place = self.pending.place(p.visit)
        there = place >= 0
        self.pending.touch(place[there], p.at_ms[there])
        there &= takes.fresh
        self.pending.target(place[there], p.item[there], groups[p.item[there]], p.source[there] == 0)
