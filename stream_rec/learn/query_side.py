"""Queries as the learner of the loop sees them: read the tick's pairs, count them, learn from them, rank for a query.

A pair is a user, the query that led them on and the item they took. It is read as of before the tick, like every
example: the user's logit without the query, what the texts say, and how often the item was taken for the query so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stream_rec.component import Component
from stream_rec.learn.batch import HistoryReader
from stream_rec.learn.learner import Learner
from stream_rec.learn.scoring import MATCHES, TAKEN_FOR_IT, Catalogue, Ranked
from stream_rec.model import lists, query_ranker, ranker
from stream_rec.model.features import Inputs, Profiles
from stream_rec.model.lexical import NAMES as LEXICAL
from stream_rec.model.lexical import Lexicon
from stream_rec.model.query_ranker import Asked
from stream_rec.model.query_tables import QueryTexts
from stream_rec.stream.decisions import N_SCORED, UNSAID
from stream_rec.stream.queries import Queries
from stream_rec.stream.sampling import hash_one

Rows = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

SEED = 13
WORDS = 1 << 17
"""Counters of the words of titles."""
HITS = 20
N_MATCHING = 256
"""Best matches of a query that are candidates where the catalogue is too large to be scored whole."""
RARE, GRAMS = LEXICAL.index("rare_share"), LEXICAL.index("gram_share")
LIKE = 0.5
"""Share of a query's words, the rare ones heavier, from which a title is said to match it."""


class Users(NamedTuple):
    """Users with a query each, [B]."""

    pointer: Ints
    """Newest history row that counts."""
    visit: Ints
    """Open visit, MISSING for none."""
    now_ms: Ints
    query: Rows

    def pick(self, users: npt.NDArray[np.intp]) -> Users:
        """Some of them."""
        return Users(self.pointer[users], self.visit[users], self.now_ms[users], self.query[users])


class Pairs(NamedTuple):
    """What was taken because of a search."""

    users: Users
    """As of before each was taken, [P]."""
    item: Rows


@dataclass(slots=True)
class _Read:
    """A tick's pairs with their features."""

    asked: Asked
    target: Ints
    log_share: Floats | None


class SearchFigures(Component):
    """Since the last metrics line and since the start: pairs, and how many had their item among the best HITS."""

    half = "learned"
    columns = ("sums", "taken")

    def __init__(self) -> None:
        self.sums = np.zeros(3, np.float64)
        """Pairs, hits of the learner, hits of BM25 alone."""
        self.taken = np.zeros(3, np.float64)

    def take_interval(self) -> dict[str, Any]:
        """Figures since the last call."""
        since, self.taken = self.sums - self.taken, self.sums.copy()
        return _said(since)

    def summary(self) -> dict[str, Any]:
        """Figures since the start."""
        return _said(self.sums)


def _said(sums: npt.NDArray[np.float64]) -> dict[str, Any]:
    n, learner, bm25 = (int(each) for each in sums)
    return {"n": n, **({"recall@20": round(learner / n, 6), "bm25_recall@20": round(bm25 / n, 6)} if n else {})}


class QuerySide:
    """See the module docstring.

    Args:
        learner: whose users, versions and tower answer.
        queries: the texts of the query rows.
        seed: of the negatives where the catalogue is too large to be compared with whole.
    """

    def __init__(self, learner: Learner, queries: Queries, *, seed: int = 0) -> None:
        self._scorer, self._versions, self._tower = learner.scorer, learner.versions, learner.tower
        self._queries, self._seed = queries, seed
        self.lexicon = Lexicon(WORDS)
        self.texts = QueryTexts(queries.capacity, self._tower.dim if self._tower is not None else 0)
        self.items = learner.query_items
        self.figures = SearchFigures()
        self._read: _Read | None = None

    def components(self) -> dict[str, Component]:
        """Everything that is state, by name."""
        return {
            "lexicon": self.lexicon,
            "query_texts": self.texts,
            "search_figures": self.figures,
        }

    def test(self, pairs: Pairs, histories: HistoryReader, catalogue: Catalogue, *, number: int) -> None:
        """Read a tick's pairs and measure on them, before anything is learned; `number` is the tick's."""
        self._read = None
        use = np.flatnonzero(catalogue.known[pairs.item]) if catalogue.known is not None else np.arange(len(pairs.item))
        if not len(use):
            return
        users, item = pairs.users.pick(use), pairs.item[use]
        rows = self._profiles(users, histories, catalogue)
        universe = self._scorer.universe(catalogue, rows)
        rivals = self._scorer.rivals(catalogue, universe, item, hash_one(self._seed, SEED, number))
        asked, _ = self._asked("learner", rows, users.query, rivals.universe, catalogue)
        target = np.searchsorted(rivals.universe, item)
        self._measure(asked, target)
        self._read = _Read(asked, target, rivals.log_share)

    def learn(self, pairs: Pairs, *, braking: bool) -> None:
        """Take one step from what `test` read, and count what was taken for which query; nothing under the brake."""
        read, self._read = self._read, None
        if braking:
            return
        if read is not None:
            self._versions.query.learner.learn(read.asked, read.target, read.log_share)
        query = pairs.users.query
        self.items.add(query, self._queries.born[query], pairs.item)

    def rank(self, users: Users, histories: HistoryReader, *, catalogue: Catalogue, k: int) -> Ranked:
        """The k best items for each user and query under the champion.

        Changes nothing but that queries which have no vector yet get theirs.
        """
        rows = self._profiles(users, histories, catalogue)
        universe = self._scorer.universe(catalogue, rows)
        if len(universe) < catalogue.n_items and catalogue.n_items > self._scorer.full_items:
            universe = np.union1d(universe, self._candidates(np.unique(users.query), catalogue)).astype(np.int32)
        asked, x = self._asked("champion", rows, users.query, universe, catalogue)
        allowed = None if catalogue.servable is None else catalogue.servable[universe]
        told = query_ranker.logits(self._versions.query.champion, asked)
        items, scores = lists.top(told, k, universe, allowed)
        reasons = self._scorer.reasons(rows, x, universe, items) | _why(asked, universe, items)
        # The heads know the logit of a user without a query: what they would say of this one is not known.
        unsaid = np.full((*items.shape, N_SCORED), UNSAID, np.float16)
        return Ranked(items, scores, reasons.astype(np.int8), unsaid)

    def tell(self, rows: Sequence[int], titles: Sequence[str]) -> None:
        """Take new titles of item rows."""
        self.lexicon.tell(rows, titles)

    def forget_items(self, rows: Rows) -> None:
        """Start again for item rows that were given to other items."""
        if len(rows):
            self.lexicon.forget_items(rows)

    def forget_queries(self, rows: Sequence[int]) -> None:
        """Start again for query rows that hold another query or none."""
        if len(rows):
            self.texts.forget_queries(rows)
            self.items.forget_queries(rows)

    def _profiles(self, users: Users, histories: HistoryReader, catalogue: Catalogue) -> Profiles:
        return self._scorer.profiles(histories, users.pointer, users.visit, now_ms=users.now_ms, catalogue=catalogue)

    def _asked(
        self, which: str, rows: Profiles, query: Rows, universe: Rows, catalogue: Catalogue
    ) -> tuple[Asked, Inputs]:
        """What `query_ranker` reads under the `champion` or the `learner`, and the features of the users."""
        scorer = self._scorer
        x = scorer.inputs(rows, scorer.statistics.shared(universe), universe, catalogue)
        task = np.full(rows.n_users, ranker.VISIT, np.int64)
        task[rows.owner[rows.in_visit]] = ranker.CONTINUE
        weights = getattr(self._versions, which).value
        base = scorer.logits(which, x, rows, weights, task=task, universe=universe)
        distinct, of = np.unique(query, return_inverse=True)
        match = np.array([self._match(row, universe) for row in distinct.tolist()], np.float32)
        vectors = np.zeros((len(universe), 0), np.float32)
        if self._tower is not None:
            said, born = [self._queries.texts[row] for row in distinct.tolist()], self._queries.born[distinct]
            self.texts.make(distinct, born, said, self._tower.embed, under=self._tower.adapter_name())
            vectors = self._tower.vectors(which)[universe]
        return Asked(base, of, match, self.texts.vectors(distinct), vectors), x

    def _match(self, query: int, universe: Rows) -> Floats:
        lexical = self.lexicon.match(self._queries.texts[query], universe)
        return query_ranker.features(lexical, self.items.taken(query, int(self._queries.born[query]), universe))

    def _candidates(self, queries: Rows, catalogue: Catalogue) -> Rows:
        """Of each query the best matches among all items, and what was taken for it."""
        known = np.arange(catalogue.n_items) if catalogue.known is None else np.flatnonzero(catalogue.known)
        every, found = known.astype(np.int32), [np.zeros(0, np.int32)]
        for query in queries.tolist():
            found.append(self.items.items_of(query, int(self._queries.born[query])))
            match = self.lexicon.match(self._queries.texts[query], every)
            found.append(lists.most((match[:, RARE] + match[:, GRAMS]).astype(np.float64), N_MATCHING, every))
        return np.intersect1d(np.concatenate(found), every)

    def _measure(self, asked: Asked, target: Ints) -> None:
        """Count where the learner and BM25 alone have what was taken."""
        user = np.arange(len(target))
        told = query_ranker.logits(self._versions.query.learner, asked)
        bm25 = asked.match[asked.of, :, 0]
        hits = [
            np.count_nonzero((score > score[user, target][:, None]).sum(axis=1) < HITS)
            for score in (told, np.where(bm25 > 0, bm25, -1.0))
        ]
        missed = np.count_nonzero((bm25[user, target] <= 0) & ((bm25 > 0).sum(axis=1) < HITS))
        self.figures.sums += np.array([len(target), hits[0], hits[1] - missed], np.float64)


def _why(asked: Asked, universe: Rows, items: Rows) -> npt.NDArray[np.int8]:
    column = np.where(items >= 0, np.minimum(np.searchsorted(universe, items), max(len(universe) - 1, 0)), 0)
    told = asked.match[asked.of[:, None], column] if len(universe) else np.zeros((*items.shape, 6), np.float32)
    matches = told[:, :, RARE] >= LIKE
    out = np.where(matches, MATCHES, 0) | np.where(told[:, :, -1] > 0, TAKEN_FOR_IT, 0)
    return np.where(items >= 0, out, 0).astype(np.int8)
