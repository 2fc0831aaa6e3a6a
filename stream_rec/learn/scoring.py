"""Scores users over the catalogue: the lists of every model for the metrics, and the slates of the champion. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from stream_rec.events import MISSING
from stream_rec.learn.batch import HistoryReader
from stream_rec.learn.candidates import union
from stream_rec.learn.prequential import MODELS, K
from stream_rec.model import lists, ranker
from stream_rec.model.features import OWN, SHARED, TOGETHER, Inputs, Profiles, Statistics, inputs, profiles
from stream_rec.model.micro_batch import Rivals
from stream_rec.stream.decisions import UNSAID

Rows = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Small = npt.NDArray[np.int8]
Halves = npt.NDArray[np.float16]
Mask = npt.NDArray[np.bool_]

BOUGHT_BEFORE, BOUGHT_TOGETHER, IN_THIS_VISIT, POPULAR, MATCHES, TAKEN_FOR_IT, TRIED = 1, 2, 4, 8, 16, 32, 64
"""Bits of a slot's reasons; MATCHES and TAKEN_FOR_IT of slates for queries, TRIED of slots that explore."""
POPULAR_RANK = 100
FAR = 1_000.0
"""What the heads see is cut here: far beyond what any logit should be, and well within 16 bits."""
ON_TRIAL = "on trial"
"""The learner with the text embeddings of the adapter that is being tried."""


class Ranked(NamedTuple):
    """Slates of B users, best first."""

    items: Rows
    """[B, K], padded with MISSING."""
    scores: Floats
    """[B, K], -inf where padded."""
    reasons: Small
    """[B, K] bits: bought before, bought together with it, goes with this visit, popular this week; for a query also:
    matches it, others took it for it."""
    scored: Halves
    """What the heads see of each slot, as of `heads.SCORED`, [B, K, N_SCORED]; UNSAID where padded."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Which items there are at a tick.

    Args:
        n_items: item rows in use.
        servable: rows that may be shown, [n_items]; None = all.
        born: history serial at which a row came into use, [n_items]; None = from the start.
        known: rows that may be scored at all, as candidates or negatives, [n_items]; None = all.
        beside: rows that stand behind the best of every ranking where they are not among them; None = none.
    """

    n_items: int
    servable: Mask | None = None
    born: Ints | None = None
    known: Mask | None = None
    beside: Rows | None = None

    @property
    def nothing_known(self) -> bool:
        """Whether there is no item to compare a target with."""
        return self.known is not None and not self.known.any()


class Tower(Protocol):
    """What scoring asks of the text tower; see `stream_rec.model.two_tower`."""

    def logits(self, which: str, rows: Profiles, task: Ints, universe: Rows) -> Floats:
        """Logits [B, U] of the `champion` or the `learner`; `task` [B] is that of each user."""
        ...

    def frozen(self, rows: Profiles, universe: Rows) -> Floats:
        """Scores [B, U] of the encoder alone."""
        ...


class Scorer:
    """Reads statistics and histories; changes neither.

    Args:
        statistics: the live ones.
        tower: joins the ranker's logit; None: the ranker alone.
        history_rows: newest rows of a history that count.
        full_items: up to this many items a user is scored over all of them.
        pool_items: above that, over this many popular ones, the user's own and their partners.
        new_item_bonus: nats that the tower gives to an item never taken when it ranks for a user with a history; the
            softmax that it learns by knows of none. Trained on what is taken, the mean new item is rightly held to be
            unlikely; which of them fits a user, its text knows.
    """

    def __init__(
        self,
        statistics: Statistics,
        tower: Tower | None = None,
        *,
        history_rows: int = 256,
        full_items: int = 20_000,
        pool_items: int = 4_096,
        new_item_bonus: float = 0.0,
    ) -> None:
        self.statistics, self.tower, self.history_rows = statistics, tower, history_rows
        self.new_item_bonus = np.float32(new_item_bonus)
        self.full_items, self.pool_items = full_items, pool_items

    def profiles(
        self, histories: HistoryReader, pointer: Ints, this_visit: Ints, *, now_ms: Ints, catalogue: Catalogue
    ) -> Profiles:
        """Profiles as of history pointers [B]."""
        gathered = histories.gather(pointer, self.history_rows, catalogue.born)
        return profiles(gathered, this_visit, now_ms)

    def universe(self, catalogue: Catalogue, rows: Profiles | None = None) -> Rows:
        """Item rows to score, rising: all, or above `full_items` a capped union."""
        n, known = catalogue.n_items, None if catalogue.nothing_known else catalogue.known
        if n <= self.full_items:
            return np.arange(n, dtype=np.int32) if known is None else np.flatnonzero(known).astype(np.int32)
        found = union(self.statistics, rows, n_items=n, n_popular=self.pool_items, known=known)
        return found if catalogue.beside is None else np.union1d(found, catalogue.beside).astype(np.int32)

    def rivals(self, catalogue: Catalogue, universe: Rows, target: Rows, draw: int) -> Rivals:
        """What examples learn to tell their targets from: the whole catalogue, or above `full_items` a sample of it.

        Half of the draws are uniform, half by decayed popularity, all with replacement; the targets are there too, with
        the same chance in the correction, so that popular ones are not pushed down for being sampled more often.

        Args:
            catalogue: what is there.
            universe: what the same users are scored over.
            target: item rows [T].
            draw: seed.
        """
        known = np.arange(catalogue.n_items) if catalogue.known is None else np.flatnonzero(catalogue.known)
        if len(known) <= self.full_items:
            return Rivals(universe)
        mass = self.statistics.decayed.mass[known, 1] + 1e-9
        share = 0.5 / len(known) + 0.5 * mass / mass.sum()
        rng = np.random.Generator(np.random.PCG64(draw))
        drawn = rng.choice(len(known), self.pool_items, p=share)
        chosen = np.union1d(drawn, np.flatnonzero(np.isin(known, target)))
        log_share = np.log(-np.expm1(self.pool_items * np.log1p(-share[chosen])))
        return Rivals(known[chosen].astype(np.int32), log_share.astype(np.float32))

    def inputs(self, rows: Profiles, shared: Floats, universe: Rows, catalogue: Catalogue) -> Inputs:
        """Features of some profiles."""
        return inputs(self.statistics, rows, shared, universe=universe, n_items=catalogue.n_items)

    def logits(
        self, which: str, x: Inputs, rows: Profiles, weights: Floats, *, task: int | Ints, universe: Rows
    ) -> Floats:
        """The joint logit [B, U] of a parameter set, `champion` or `learner`, whose ranker has `weights`."""
        tasks = np.broadcast_to(np.asarray(task, np.int64), rows.n_users)
        out = ranker.score(x, weights, tasks)
        if self.tower is not None:
            out += self.tower.logits(which, rows, tasks, universe)
            told = (rows.recent >= 0).any(axis=1)
            out += self.new_item_bonus * np.outer(told, self.statistics.counts.in_visits[universe] == 0)
        return out

    def rank(self, rows: Profiles, weights: Floats, catalogue: Catalogue, *, k: int) -> Ranked:
        """The k best items of each user under the champion, whose ranker has `weights` [tasks, kinds, features].

        Users with something in their open visit are ranked by the `continue` weights, others by `visit`.
        """
        universe = self.universe(catalogue, rows)
        allowed = None if catalogue.servable is None else catalogue.servable[universe]
        x = self.inputs(rows, self.statistics.shared(universe), universe, catalogue)
        task = np.full(rows.n_users, ranker.VISIT, np.int64)
        task[rows.owner[rows.in_visit]] = ranker.CONTINUE
        logits = self.logits("champion", x, rows, weights, task=task, universe=universe)
        items, scores = lists.top(logits, k, universe, allowed)
        if catalogue.beside is not None:
            items, scores = _with(items, scores, logits, universe, catalogue.beside)
        column = np.where(items >= 0, np.minimum(np.searchsorted(universe, items), len(universe) - 1), 0)
        total = _log_total(logits if allowed is None else logits[:, allowed])
        scored = _scored(x, column, scores, scores - total[:, None])
        return Ranked(items, scores, self.reasons(rows, x, universe, items), scored)

    def reasons(self, rows: Profiles, x: Inputs, universe: Rows, items: Rows) -> Small:
        """Why each of the items [B, K] is there, as far as users and statistics say; bits."""
        there = items >= 0
        column = np.where(there, np.minimum(np.searchsorted(universe, items), len(universe) - 1), 0)
        user = np.broadcast_to(np.arange(len(items))[:, None], items.shape)
        out = np.zeros(items.shape, np.int8)
        width = np.int64(universe[-1]) + 2 if len(universe) else 1
        own = rows.owner[rows.before] * width + rows.item[rows.before]
        out |= np.where(np.isin(user * width + items, own), BOUGHT_BEFORE, 0).astype(np.int8)
        for feature, bit in zip(x.together[:2], (BOUGHT_TOGETHER, IN_THIS_VISIT), strict=True):
            if feature is not None:
                out |= np.where(feature[user, column] > 0, bit, 0).astype(np.int8)
        recent = self.statistics.recent.counts[universe]
        if len(recent):
            bar = max(1, int(np.sort(recent)[-min(POPULAR_RANK, len(recent))]))
            out |= np.where(recent[column] >= bar, POPULAR, 0).astype(np.int8)
        return np.where(there, out, 0).astype(np.int8)


def _with(items: Rows, scores: Floats, logits: Floats, universe: Rows, beside: Rows) -> tuple[Rows, Floats]:
    """The best with some rows behind them, [B, K + n]; MISSING where one is among the best or not scored."""
    beside = beside[np.isin(beside, universe)]
    among = (items[:, :, None] == beside).any(axis=1)
    more = np.where(among, MISSING, beside).astype(np.int32)
    logit = np.where(among, -np.inf, logits[:, np.searchsorted(universe, beside)]).astype(np.float32)
    return np.concatenate([items, more], axis=1), np.concatenate([scores, logit], axis=1)


def _log_total(logits: Floats) -> Floats:
    """Log of the sum of exponentials of each row, float32 [B]; of an empty row 0."""
    if not logits.shape[1]:
        return np.zeros(len(logits), np.float32)
    top = logits.max(axis=1)
    return np.asarray(top + np.log(np.exp(logits - top[:, None]).sum(axis=1)))


def _scored(x: Inputs, column: Ints, logit: Floats, log_share: Floats) -> Halves:
    """What the heads see of the chosen items, [B, K, N_SCORED]; UNSAID where `logit` is -inf.

    Args:
        x: features over the universe.
        column: place of each chosen item in it, [B, K].
        logit: joint logit of each, [B, K].
        log_share: the same less the log total of what could be shown, [B, K].
    """
    width = max(len(x.shared), 1)
    held, wanted = x.owner * width + x.column, np.arange(len(column))[:, None] * width + column
    at = np.minimum(np.searchsorted(held, wanted), max(len(held) - 1, 0))
    own = np.zeros(column.shape, np.float32)
    if len(held):
        own = np.where(held[at] == wanted, x.values[at, OWN.index("own_visits")], 0.0)
    popular = x.shared[column, SHARED.index("popular_7d")] if len(x.shared) else own
    out = np.clip(np.stack([log_share, logit, popular, own], axis=2), -FAR, FAR)
    return np.asarray(np.where(np.isfinite(logit)[:, :, None], out, UNSAID).astype(np.float16))


@dataclass(frozen=True, slots=True)
class Baselines:
    """The lists that are the same for everyone at a tick."""

    popular: Rows
    """Twice K of the last seven days' most taken."""
    decayed: Rows

    @classmethod
    def of(cls, statistics: Statistics, universe: Rows, allowed: Mask | None) -> Baselines:
        """Read them from the statistics."""
        recent = statistics.recent.counts[universe].astype(np.float64)
        mass = statistics.decayed.mass[universe, 1]
        return cls(lists.most(recent, 2 * K, universe, allowed), lists.most(mass, K, universe, allowed))


def all_lists(x: Inputs, rows: Profiles, scores: Mapping[str, Floats], *, common: Baselines, view: View) -> Rows:
    """The lists of every model but `served` for B users, int32 [B, MODELS, K].

    Args:
        x: features.
        rows: profiles.
        scores: of the models that are learned or scored over the universe, by name, each [B, U].
        common: lists that are the same for everyone.
        view: what may be shown.
    """
    out = np.full((rows.n_users, len(MODELS), K), MISSING, np.int32)
    place = {name: i for i, name in enumerate(MODELS)}
    for name, score in scores.items():
        out[:, place[name]] = lists.top(score, K, view.universe, view.allowed)[0]
    out[:, place["popular_7d"]] = common.popular[:K]
    out[:, place["popular_decayed"]] = common.decayed
    for name, score in _pair_scores(x).items():
        items, found = lists.top(score, K, view.universe, view.allowed)
        out[:, place[name]] = np.where(found > 0, items, MISSING)
    own = lists.repeat(rows, K, view.servable)
    out[:, place["repeat"]] = own
    out[:, place["own_then_popular_7d"]] = lists.fill(own, common.popular)
    return out


def _pair_scores(x: Inputs) -> dict[str, Floats]:
    """Scores by co-occurrence alone: in whole visits, and among what was taken last (item-kNN)."""
    out = {}
    whole = [np.expm1(feature) for feature in x.together[:2] if feature is not None]
    if whole:
        out["cooccurrence"] = sum(whole[1:], whole[0])
    near = x.together[TOGETHER.index("near_last")]
    if near is not None:
        out["item_knn"] = near
    return out


@dataclass(frozen=True, slots=True)
class View:
    """A universe and what of it may be shown."""

    universe: Rows
    allowed: Mask | None
    """Over the universe."""
    servable: Mask | None
    """Over all item rows."""

    @classmethod
    def of(cls, universe: Rows, catalogue: Catalogue) -> View:
        """Restrict the catalogue's stock filter to the universe."""
        servable = catalogue.servable
        return cls(universe, None if servable is None else servable[universe], servable)
