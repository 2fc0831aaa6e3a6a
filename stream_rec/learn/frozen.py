"""A version that stands still: the statistics it is served with, copied at one tick, and a scorer over them.

What a slate is scored by is one parameter set and one statistics tick. A copy of both gives the same scores anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stream_rec.events import MISSING
from stream_rec.learn import frozen_queries
from stream_rec.learn.frozen_queries import FrozenQueries
from stream_rec.learn.learner import Learner
from stream_rec.learn.scoring import Catalogue, Scorer
from stream_rec.model import ranker
from stream_rec.model.cooccurrence import Cooccurrence
from stream_rec.model.features import HALF_LIVES_MS, Statistics, profiles
from stream_rec.model.popularity import DecayedPopularity, ItemCounts, RecentPopularity
from stream_rec.stream.items import ItemTable
from stream_rec.stream.queries import Queries, normal

if TYPE_CHECKING:
    from stream_rec.model.encoder import Encoder

Array = npt.NDArray[Any]
Columns = dict[str, Any]
"""Name to array, or to list of str; under "" a dict of JSON values."""

PAIRS = ("together", "after", "near")
COUNTS = ("counts", "exposures")
ADAPTER = "adapter."
ROWS = 128
"""Rows of a pair table that are looked at in one go."""


class Taken(NamedTuple):
    """One thing that a user did with an item."""

    item_id: str
    at_ms: int
    visit: str
    """Tells visits apart; empty: a pause of the visit gap begins a new one."""


class Asked(NamedTuple):
    """One user to score."""

    history: Sequence[Taken]
    """In any order; equal times stay in the given one."""
    candidates: Sequence[str]
    """Empty: everything that could be shown."""
    as_of_ms: int
    visit: str = ""
    """The visit that is open; empty: the last one, while the pause since it is shorter than the visit gap."""
    query: str = ""
    """What the user searches for; empty: nothing."""


class Spare:
    """Memory that large copies are made into, again and again: the first touch of fresh memory costs far more."""

    def __init__(self) -> None:
        self._held: dict[str, Array] = {}

    def copy(self, name: str, column: Array) -> Array:
        """A copy, good until the next one of this name."""
        held = self._held.get(name)
        if held is None or held.dtype != column.dtype or held.size < column.size:
            held = self._held[name] = np.empty(column.size, column.dtype)
        out = held[: column.size].reshape(column.shape)
        np.copyto(out, column)
        return out

    def warm(self, learner: Learner) -> None:
        """Touch what the next copies of the pairs will take."""
        for name, column in _pair_columns(learner):
            held = self._held.get(name)
            if held is None or held.size < column.size:
                self._held[name] = np.full(column.size, 0, column.dtype)


def _pair_columns(learner: Learner) -> list[tuple[str, Array]]:
    out: list[tuple[str, Array]] = []
    for name in PAIRS:
        pairs: Cooccurrence = getattr(learner, name)
        parts = ("dense",) if pairs.exact else ("neighbour", "strength")
        out += [(f"{name}.{part}", getattr(pairs, part)) for part in parts]
    return out


def copied(learner: Learner, items: ItemTable, queries: Queries, spare: Spare) -> Columns:
    """Copies of everything that a slate's scores are read from, but the weights. The state must not change meanwhile.

    Args:
        learner: of the tick.
        items: the catalogue.
        queries: the table of queries.
        spare: the copies of pairs lie in it.
    """
    n, tower = len(items.ids), learner.tower
    out: Columns = {"item_ids": list(items.ids), "servable": items.servable()}
    out |= frozen_queries.copied(learner, items.titles, queries)
    out |= {"counts": learner.counts.in_visits[:n].copy(), "exposures": learner.exposures.in_visits[:n].copy()}
    out |= {"mass": learner.decayed.mass[:n].copy(), "recent": learner.recent.counts[:n].copy()}
    said: dict[str, Any] = {
        "n_neighbours": learner.settings.n_neighbours,
        "history_rows": learner.settings.history_rows,
        "new_item_bonus": learner.settings.new_item_bonus,
        "visit_gap_ms": learner.settings.visit_gap_ms,
        "exact": {},
        "partners": None,
    }
    for name, column in _pair_columns(learner):
        exact = name.endswith(".dense")
        said["exact"][name.partition(".")[0]] = exact
        out[name] = spare.copy(name, column[:n, :n] if exact else column[:n])
    if tower is not None:
        said |= {"text": tower.plan.text, "ids": tower.plan.ids, "encoder": tower.encoder.made_as()}
        out |= {"texts": tower.texts.table.copy()}
        out |= {"alike.row": tower.neighbours.row.copy(), "alike.cosine": tower.neighbours.cosine.copy()}
    return {**out, "": said}


def compacted(columns: Columns, max_bytes: int) -> Columns:
    """Pairs as lists of partners, and digests in place of queries.

    Of each item only the strongest partners stay where all would take more than `max_bytes`. The answer's `partners`
    says how many an item kept at most; None: all.
    """
    lists = {name: _lists(columns, name) for name in PAIRS}
    n_rows = max(1, sum(len(starts) - 1 for starts, _, _ in lists.values()))
    limit = None
    if sum(8 * len(partner) for _, partner, _ in lists.values()) > max_bytes:
        limit = max(1, max_bytes // (8 * n_rows))
        lists = {name: _strongest(*parts, limit) for name, parts in lists.items()}
    out = {name: value for name, value in columns.items() if name.partition(".")[0] not in (*PAIRS, "queries")}
    out |= frozen_queries.compacted(columns)
    for name, (starts, partner, strength) in lists.items():
        out |= {f"{name}.starts": starts, f"{name}.partner": partner, f"{name}.strength": strength}
    return {**out, "": {**columns[""], "partners": limit}}


def _lists(columns: Columns, name: str) -> tuple[Array, Array, Array]:
    """(starts [n + 1], partners, strengths) of a pair table, partners in the order in which they stand.

    Some rows at a time, so that nobody waits long for the interpreter.
    """
    dense = columns.get(f"{name}.dense")
    strength = columns[f"{name}.strength"] if dense is None else dense
    sizes, partners = [np.zeros(1, np.int64)], [np.zeros(0, np.int32)]
    strengths = [np.zeros(0, np.float32)]
    for low in range(0, len(strength), ROWS):
        some = strength[low : low + ROWS]
        there = some > 0
        flat = np.flatnonzero(there)
        sizes.append(there.sum(axis=1))
        strengths.append(some[there])
        partners.append(
            (flat % some.shape[1]).astype(np.int32)
            if dense is not None
            else columns[f"{name}.neighbour"][low : low + ROWS][there]
        )
    return np.cumsum(np.concatenate(sizes)), np.concatenate(partners), np.concatenate(strengths)


def _starts(row: Array, n: int) -> Array:
    return np.searchsorted(row, np.arange(n + 1)).astype(np.int64)


def _strongest(starts: Array, partner: Array, strength: Array, limit: int) -> tuple[Array, Array, Array]:
    row = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    order = np.lexsort((np.arange(len(row)), -strength, row))
    rank = np.arange(len(row)) - starts[row]
    kept = np.sort(order[rank < limit])
    return _starts(row[kept], len(starts) - 1), partner[kept], strength[kept]


class FrozenScorer:
    """Scores users by a version's weights and the statistics copied with it. Pure.

    Args:
        weights: tensors of the version's file.
        columns: of `compacted`.
        encoder: loads the encoder that the tower was made with, for the first query; see `encoder_in`.
    """

    def __init__(
        self, weights: Mapping[str, Array], columns: Columns, encoder: Callable[[], Encoder] | None = None
    ) -> None:
        said, n = columns[""], len(columns["item_ids"])
        self.item_ids: list[str] = columns["item_ids"]
        self._rows = {item_id: row for row, item_id in enumerate(self.item_ids) if item_id}
        self._servable = columns["servable"].astype(np.bool_)
        self._gap_ms, self._weights = int(said["visit_gap_ms"]), weights["ranker"]
        held = {name: ItemCounts(n) for name in COUNTS}
        for name, counts in held.items():
            counts.in_visits[:] = columns[name]
        decayed, recent = DecayedPopularity(n, HALF_LIVES_MS), RecentPopularity(n, capacity=1)
        decayed.mass[:], recent.counts[:] = columns["mass"], columns["recent"]
        pairs = {name: _pairs(columns, name, n) for name in PAIRS}
        tower = _tower(weights, columns) if "texts" in columns else None
        statistics = Statistics(
            held["counts"], decayed, recent, pairs["together"], pairs["after"], held["exposures"], pairs["near"],
            tower.neighbours if tower is not None else None,
        )  # fmt: skip
        bonus = said.get("new_item_bonus", 0.0)
        self._scorer = Scorer(statistics, tower, history_rows=said["history_rows"], new_item_bonus=bonus)
        self._history_rows = int(said["history_rows"])
        vectors = np.zeros((n, 0), np.float32) if tower is None else tower.vectors("champion")[:n]
        embed = None if tower is None else _embedder(weights, encoder)
        self._queries = FrozenQueries(weights, columns, vectors, embed) if "titles" in columns else None

    def rank(self, asked: Sequence[Asked], k: int) -> list[list[tuple[str, float | None]]]:
        """The best `k` of each user's candidates, best first; an item that is not known has no score and goes last."""
        logits = self.logits(asked)
        return [self._best(one, row, k) for one, row in zip(asked, logits, strict=True)]

    def logits(self, asked: Sequence[Asked]) -> npt.NDArray[np.float32]:
        """Logits of the version over all item rows, float32 [B, n]: joint ones, or those for the user's query.

        Raises:
            ValueError: a query needs the encoder, and there is none; or the version was logged before it knew queries.
        """
        out = self._joint(asked)
        searching = [b for b, one in enumerate(asked) if normal(one.query)]
        if searching:
            if self._queries is None:
                raise ValueError("this version was logged without what answers queries; ask a newer one, or no query")
            out[searching] = self._queries.logits(out[searching], [asked[b].query for b in searching])
        return out

    def _joint(self, asked: Sequence[Asked]) -> npt.NDArray[np.float32]:
        item, at_ms, visit, open_visit = self._histories(asked)
        now_ms = np.array([one.as_of_ms for one in asked], np.int64)
        rows = profiles(_History(item, at_ms, visit), open_visit, now_ms)
        universe = np.arange(len(self.item_ids), dtype=np.int32)
        x = self._scorer.inputs(rows, self._scorer.statistics.shared(universe), universe, Catalogue(len(universe)))
        task = np.full(len(asked), ranker.VISIT, np.int64)
        task[rows.owner[rows.in_visit]] = ranker.CONTINUE
        return self._scorer.logits("champion", x, rows, self._weights, task=task, universe=universe)

    def _best(self, one: Asked, logits: Array, k: int) -> list[tuple[str, float | None]]:
        if not one.candidates:
            rows = np.flatnonzero(self._servable)
            best = rows[np.argsort(-logits[rows], kind="stable")[:k]]
            return [(self.item_ids[row], float(logits[row])) for row in best.tolist()]
        found = [(item_id, self._rows.get(item_id, MISSING)) for item_id in dict.fromkeys(one.candidates)]
        known = [(item_id, float(logits[row])) for item_id, row in found if row != MISSING]
        known.sort(key=lambda pair: -pair[1])
        unknown: list[tuple[str, float | None]] = [(item_id, None) for item_id, row in found if row == MISSING]
        return [*known, *unknown][:k]

    def _histories(self, asked: Sequence[Asked]) -> tuple[Array, Array, Array, Array]:
        """Item rows, times and visits [B, L], newest first, and the open visit [B]; MISSING where there is none."""
        told = [self._told(one) for one in asked]
        width = max((len(rows) for rows, _ in told), default=0)
        out = np.full((3, len(told), width), MISSING, np.int64)
        for b, (rows, _) in enumerate(told):
            if rows:
                out[:, b, : len(rows)] = np.array(rows, np.int64).T
        return out[0].astype(np.int32), out[1], out[2], np.array([opened for _, opened in told], np.int64)

    def _told(self, one: Asked) -> tuple[list[tuple[int, int, int]], int]:
        """(item row, time, visit) of a user's known items as of the time asked for, newest first; the open visit."""
        known = [taken for taken in one.history if taken.at_ms <= one.as_of_ms and taken.item_id in self._rows]
        known.sort(key=lambda taken: taken.at_ms)
        rows: list[tuple[int, int, int]] = []
        names: dict[str, int] = {}
        last_ms = None
        for taken in known:
            pause = last_ms is None or taken.at_ms - last_ms > self._gap_ms
            name = taken.visit or (f"\0{len(rows)}" if pause or not names else next(reversed(names)))
            visit = names.setdefault(name, len(names))
            rows.append((self._rows[taken.item_id], taken.at_ms, visit))
            last_ms = taken.at_ms
        if one.visit:
            opened = names.get(one.visit, MISSING)
        else:
            still = last_ms is not None and one.as_of_ms - last_ms <= self._gap_ms
            opened = rows[-1][2] if still else MISSING
        return rows[::-1][: self._history_rows], opened


class _History(NamedTuple):
    item: Array
    at_ms: Array
    visit: Array


def _pairs(columns: Columns, name: str, n: int) -> Cooccurrence:
    starts, partner, strength = (columns[f"{name}.{part}"] for part in ("starts", "partner", "strength"))
    held, sizes = len(starts) - 1, np.diff(starts)
    row = np.repeat(np.arange(held), sizes)
    exact = bool(columns[""]["exact"][name])
    width = held if exact else max(1, int(sizes.max(initial=0)))
    out = Cooccurrence(n, width, directed=name == "after")
    if exact:
        out.dense = np.zeros((held, held), np.float32)
        out.dense[row, partner] = strength
        return out
    place = np.arange(len(row)) - starts[row]
    out.neighbour, out.strength = np.zeros((held, width), np.int32), np.zeros((held, width), np.float32)
    out.neighbour[row, place], out.strength[row, place] = partner, strength
    out.exact = False
    return out


class _NoTexts:
    """Stands for the encoder where every text is embedded already."""

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def embed(self, texts: Sequence[str], adapter: Mapping[str, Array] | None = None, *, few: bool = False) -> Array:
        raise NotImplementedError("a version that stands still embeds no new text")


def encoder_in(folder: str, columns: Columns) -> Encoder:
    """The encoder that the tower of a version was made with.

    Args:
        folder: its files.
        columns: of `compacted`, of a version with a tower.
    """
    from stream_rec.model.bodies import Plan
    from stream_rec.model.encoder import Encoder

    made = columns[""]["encoder"]
    return Encoder(folder, revision=made["revision"], max_tokens=made["max_tokens"], plan=Plan(**made["plan"]))


def _embedder(weights: Mapping[str, Array], encoder: Callable[[], Encoder] | None) -> frozen_queries.Embed:
    """Texts to vectors under the adapter that lies in the weights, by an encoder that is loaded when it is needed."""
    adapter = {name.removeprefix(ADAPTER): part for name, part in weights.items() if name.startswith(ADAPTER)}

    def embed(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        if encoder is None:
            raise ValueError("this version reads queries with a text encoder, and none was given")
        return encoder().embed(texts, adapter or None, few=True)

    return embed


def _tower(weights: Mapping[str, Array], columns: Columns) -> Any:
    from stream_rec.model.two_tower import TowerPlan, TwoTower

    said, texts = columns[""], columns["texts"]
    tower = TwoTower(_NoTexts(texts.shape[1]), TowerPlan(text=said["text"], ids=said["ids"]))
    for name in tower.champion.columns:
        setattr(tower.champion, name, weights[f"tower.{name}"].copy())
    tower.texts.table = texts
    tower.champion.reserve(len(texts))
    tower.neighbours.row, tower.neighbours.cosine = columns["alike.row"], columns["alike.cosine"]
    return tower
