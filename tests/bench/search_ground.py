"""What the bench of search shares: judged pairs as a stream of searches, simulated clicks, one pass, and Spearman."""

from __future__ import annotations

import csv
import gzip
import os
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import process_time
from typing import NamedTuple

import numpy as np

from stream_rec.io import encoders
from stream_rec.model import lexical, search_adapter
from stream_rec.model.adapter import AdapterRates, AdapterTrainer
from stream_rec.model.bodies import Plan
from stream_rec.model.encoder import Encoder
from stream_rec.model.lexical import Lexicon
from stream_rec.model.search_adapter import Shown, paired
from stream_rec.model.search_clicks import NAMES, ClickModel
from stream_rec.model.trunk_cache import TrunkCache
from stream_rec.stream.sampling import hash_one

FILE = "home-depot-search/pairs.csv.gz"
TOWER, FROZEN = NAMES.index("tower"), NAMES.index("frozen")
NO_ADAPTER = tuple(name for name in NAMES if name != "tower")
HELD_OUT_ONE_IN = 5
CLICK_RATE = 0.05
"""Of the click models, whose micro-batches are large here."""


class Pairs(NamedTuple):
    """Judged pairs, those of one query beside each other."""

    queries: list[str]
    titles: list[str]
    query: np.ndarray
    """Of each pair, int64 [n]."""
    title: np.ndarray
    """int32 [n]."""
    relevance: np.ndarray
    """Mean of human judgements, 1 to 3, [n]."""
    clicked: np.ndarray
    """SIMULATED, [n]."""
    held_out: np.ndarray
    """Of each query, [queries]."""

    def of(self, queries: np.ndarray) -> np.ndarray:
        """Pairs of some queries, in the order of these."""
        starts = np.searchsorted(self.query, np.arange(len(self.queries) + 1))
        return np.concatenate([np.arange(starts[q], starts[q + 1]) for q in queries])


class Variant(NamedTuple):
    """How the adapter learns."""

    layers: int = 3
    rank: int = 8
    rate: float = 1e-3
    loss: str = "click"
    """`click`: cosine alone; `joint`: what the joint logit leaves; `in_batch`."""
    searches: int = 32
    """A micro-batch."""


@dataclass
class Run:
    """One pass over the stream."""

    trainer: AdapterTrainer
    joint: ClickModel
    without: ClickModel
    """The joint logit without the adapter's cosine."""
    log_loss: list[tuple[int, float, float]] = field(default_factory=list)
    """Shown items, and the loss of `joint` and `without` before each step."""
    cpu_s: float = 0.0


def click_prob(relevance: np.ndarray) -> np.ndarray:
    """(2^g - 1) / 2^2 of the grade g = relevance - 1, the user of expected reciprocal rank (Chapelle et al. 2009)."""
    return (2.0 ** (relevance - 1) - 1) / 4


def pairs(seed: int, n_searches: int = 0) -> Pairs:
    """The dataset with clicks drawn by `seed`; with `n_searches` only so many queries, drawn by `seed` too."""
    home = Path(os.environ.get("STREAM_REC_DATA", "../shared/data"))
    if not (home / FILE).exists():
        sys.exit(f"no {home / FILE}: set STREAM_REC_DATA")
    with gzip.open(home / FILE, "rt", encoding="utf-8", newline="") as lines:
        told = [(r["search_term"], r["product_title"], float(r["relevance"])) for r in csv.DictReader(lines)]
    draw = np.random.Generator(np.random.PCG64(seed))
    words = sorted({query for query, _, _ in told})
    kept = set(draw.permutation(len(words))[: n_searches or None].tolist())
    place = {words[i]: k for k, i in enumerate(sorted(kept))}
    told = sorted((row for row in told if row[0] in place), key=lambda row: place[row[0]])
    titles = {title: k for k, title in enumerate(dict.fromkeys(title for _, title, _ in told))}
    relevance = np.array([row[2] for row in told])
    return Pairs(
        list(place),
        list(titles),
        np.array([place[row[0]] for row in told]),
        np.array([titles[row[1]] for row in told], np.int32),
        relevance,
        draw.random(len(told)) < click_prob(relevance),
        np.array([hash_one(seed, zlib.crc32(query.encode())) % HELD_OUT_ONE_IN == 0 for query in place]),
    )


def lexical_features(data: Pairs) -> np.ndarray:
    """float32 [n, lexical.NAMES], with the whole catalogue told."""
    lexicon = Lexicon()
    lexicon.tell(range(len(data.titles)), data.titles)
    out = np.zeros((len(data.query), len(lexical.NAMES)), np.float32)
    ends = np.searchsorted(data.query, np.arange(len(data.queries) + 1))
    for q, query in enumerate(data.queries):
        own = slice(ends[q], ends[q + 1])
        out[own] = lexicon.match(query, data.title[own])
    return out


def encoder_of(variant: Variant, trunk: str | None) -> Encoder:
    found = encoders.find("minilm")
    plan = Plan(pooling=found.pooling, adapter_layers=variant.layers, rank=variant.rank, alpha=2 * variant.rank)
    path = None if trunk is None else f"{trunk}{variant.layers}"
    return Encoder(found.folder, revision=found.revision, plan=plan, cache=TrunkCache(path, max_bytes=3 << 29))


def cosines(
    encoder: Encoder, data: Pairs, some: np.ndarray, adapter: Mapping[str, np.ndarray] | None = None
) -> np.ndarray:
    """Of pairs `some`, float32."""
    queries, query = np.unique(data.query[some], return_inverse=True)
    titles, title = np.unique(data.title[some], return_inverse=True)
    texts = [data.queries[q] for q in queries] + [data.titles[t] for t in titles]
    vectors = encoder.embed(texts, adapter)
    return paired(vectors[query], vectors[len(queries) + title])


def one_pass(data: Pairs, x: np.ndarray, encoder: Encoder, variant: Variant, *, seed: int) -> Run:
    """Test, then train, on every search that is not held out, once.

    Args:
        data: the stream.
        x: features of all pairs; the column of the tower is filled in.
        encoder: of the variant's plan.
        variant: how.
        seed: of the order and the adapter's start.
    """
    run = Run(
        AdapterTrainer(encoder, AdapterRates(rate=variant.rate), seed=seed),
        ClickModel(NAMES, CLICK_RATE),
        ClickModel(NO_ADAPTER, CLICK_RATE),
    )
    alone = ClickModel(["tower"], CLICK_RATE)
    begun = process_time()
    for some, shown in searches(data, variant.searches, seed=seed):
        x[some, TOWER] = x[some, FROZEN]  # a guess where the line only asks for the others
        line = (
            run.joint.line(x[some], "tower") if variant.loss == "joint" else alone.line(x[some, TOWER, None], "tower")
        )
        loss = (
            search_adapter.in_batch_loss(shown, np.zeros(len(some), np.float32))
            if variant.loss == "in_batch"
            else search_adapter.click_loss(shown, line)
        )
        x[some, TOWER], _ = search_adapter.step(run.trainer, shown, loss)
        alone.learn(x[some, TOWER, None], shown.clicked)
        told = run.joint.learn(x[some], shown.clicked), run.without.learn(np.delete(x[some], TOWER, 1), shown.clicked)
        run.log_loss.append((len(some), *told))
    run.cpu_s = process_time() - begun
    return run


def searches(data: Pairs, n: int, *, seed: int) -> Iterator[tuple[np.ndarray, Shown]]:
    """Micro-batches of `n` searches in an order drawn by `seed`, with the pairs that they are."""
    order = np.random.Generator(np.random.PCG64([seed, 1])).permutation(np.flatnonzero(~data.held_out))
    for low in range(0, len(order), n):
        queries = order[low : low + n]
        some = data.of(queries)
        _, search = np.unique(data.query[some], return_inverse=True)
        words = [data.queries[q] for q in np.unique(data.query[some])]
        yield some, Shown(words, [data.titles[t] for t in data.title[some]], search, data.clicked[some])


def ranks(values: np.ndarray) -> np.ndarray:
    """Average ranks, from 0."""
    _, place, n = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(n) - (n + 1) / 2)[place]


def spearman(left: np.ndarray, right: np.ndarray) -> float:
    """Spearman's rank correlation, ties at their mean rank.

    >>> spearman(np.array([1.0, 2.0, 3.0]), np.array([3.0, 5.0, 9.0]))
    1.0
    """
    return float(np.corrcoef(ranks(left), ranks(right))[0, 1])


def within(score: np.ndarray, relevance: np.ndarray, query: np.ndarray) -> float:
    """Mean over queries of Spearman within a query, where both vary."""
    groups = np.split(np.arange(len(query)), np.flatnonzero(np.diff(query)) + 1)
    judged = [own for own in groups if len(own) > 2 and np.ptp(relevance[own]) > 0]
    found = [spearman(score[own], relevance[own]) if np.ptp(score[own]) > 0 else 0.0 for own in judged]
    return float(np.mean(found))


def interval(
    left: np.ndarray, right: np.ndarray, relevance: np.ndarray, query: np.ndarray, *, n_resamples: int = 500
) -> tuple[float, float, float]:
    """Difference of two scores' Spearman with 2.5 % and 97.5 %: queries resampled with PCG64(0)."""
    draw = np.random.Generator(np.random.PCG64(0))
    groups = np.split(np.arange(len(query)), np.flatnonzero(np.diff(query)) + 1)
    drawn = []
    for _ in range(n_resamples):
        some = np.concatenate([groups[i] for i in draw.integers(0, len(groups), len(groups))])
        drawn.append(spearman(left[some], relevance[some]) - spearman(right[some], relevance[some]))
    low, high = np.quantile(drawn, (0.025, 0.975))
    return spearman(left, relevance) - spearman(right, relevance), float(low), float(high)


def mean_loss(told: Sequence[tuple[int, float, float]], which: int) -> float:
    """Log loss an item, by micro-batch size."""
    sizes = np.array([row[0] for row in told])
    return float(np.sum(sizes * np.array([row[which] for row in told])) / sizes.sum())
