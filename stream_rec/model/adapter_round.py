"""The slow round: an adapter of the encoder learns for a while, then embeds the catalogue anew, then is tried.

idle -> learn (micro-batches) -> embed (a quota of texts a tick, into a second table) -> trial -> ready -> cut -> idle

The new embeddings stand beside the served ones until a version takes them. The encoder never gets a gradient against
stale negatives, which makes it collapse: its loss is a softmax over the micro-batch's own targets, every row freshly
encoded, corrected by how likely each is to be there (logQ, Yi et al. 2019), and an anchor pulls each vector towards the
one that is served.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from stream_rec.component import Component
from stream_rec.model import tower
from stream_rec.model.adapter import AdapterRates, AdapterTrainer
from stream_rec.model.encoder import Adapter, Encoder
from stream_rec.model.item_texts import ItemTexts
from stream_rec.model.tower import ITEM, TowerWeights
from stream_rec.model.tower_learning import Part

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int32]

IDLE, LEARN, EMBED, TRIAL, READY, CUT = "idle", "learn", "embed", "trial", "ready", "cut"
"""READY: it has won and waits for a challenger to be cut; CUT: it serves when that challenger does."""


LEAST_TEXTS = 24
"""Texts embedded in the smallest tick: about one batch of each length."""
LATEST = 0.2
"""Weight of the latest micro-batch in the gain."""


class RoundPlan(NamedTuple):
    """How long the parts of a round are."""

    every_examples: int = 20_000
    """Examples of the stream from the end of one round to the beginning of the next."""
    steps: int = 40
    """Micro-batches of a round."""
    max_texts: int = 128
    """Distinct targets of a micro-batch; more are left out, the last ones first."""
    texts_per_tick: int = 192
    """Texts embedded a tick when the catalogue is embedded anew."""
    patience: int = 10
    """Micro-batches without a better adapter after which a round stops: early stopping on the latest visits."""
    anchor: float = 0.1
    """Weight of the pull towards the served vectors."""
    rates: AdapterRates = AdapterRates(rate=1e-3)


class Progress(Component):
    """Where the round is."""

    half = "learned"
    columns = ("best",)
    scalars = ("phase", "n_since", "n_steps", "n_rounds", "n_adopted", "gain", "best_gain", "n_since_best")

    def __init__(self) -> None:
        self.phase = IDLE
        self.n_since = self.n_steps = self.n_rounds = self.n_adopted = 0
        self.gain = 0.0
        """How much lower the adapter's loss is than the served vectors', on micro-batches before it learns from them,
        weighted towards the latest."""
        self.best_gain = 0.0
        self.n_since_best = 0
        self.best = np.zeros(0, np.float32)
        """The adapter as it was at the best gain."""


class Served(Component):
    """The adapter behind the served table: its parameters in one vector; empty for the frozen base."""

    half = "learned"
    columns = ("value",)

    def __init__(self) -> None:
        self.value = np.zeros(0, np.float32)


class AdapterRound:
    """See the module docstring.

    Args:
        encoder: the base.
        plan: lengths.
        seed: of the first adapter and of dropout.
    """

    def __init__(self, encoder: Encoder, plan: RoundPlan | None = None, *, seed: int = 0) -> None:
        self.encoder, self.plan = encoder, plan or RoundPlan()
        self.trainer = AdapterTrainer(encoder, self.plan.rates, seed=seed)
        self.candidate = ItemTexts(encoder.dim)
        self.progress, self.served = Progress(), Served()

    @property
    def phase(self) -> str:
        """IDLE, LEARN, EMBED, TRIAL, READY or CUT."""
        return self.progress.phase

    def components(self) -> dict[str, Component]:
        """Everything that is state, by name."""
        return {
            "adapter_trainer": self.trainer,
            "adapter_texts": self.candidate,
            "adapter_round": self.progress,
            "adapter_served": self.served,
        }

    def embed(
        self, texts: Sequence[str], adapter: dict[str, npt.NDArray[Any]] | None = None, *, few: bool = False
    ) -> Floats:
        """Vectors under the served adapter: what the served table is made of."""
        del adapter
        return self.encoder.embed(texts, self._named(self.served.value) if len(self.served.value) else None, few=few)

    @property
    def dim(self) -> int:
        """Width of a vector."""
        return self.encoder.dim

    def count(self, n_examples: int) -> None:
        """Say how many examples the stream gave; begins a round when it is time."""
        p = self.progress
        p.n_since += n_examples
        if p.phase == IDLE and p.n_since >= self.plan.every_examples:
            p.phase, p.n_since, p.n_steps = LEARN, 0, 0
            p.gain = p.best_gain = 0.0
            p.n_since_best, p.best = 0, self.trainer.value.copy()
            p.n_rounds += 1

    def learn(
        self, weights: TowerWeights, table: Floats, parts: Sequence[Part], *, popularity: Doubles,
        text_of: Callable[[int], str],
    ) -> None:  # fmt: skip
        """One micro-batch of the adapter, if it is learning.

        Args:
            weights: the tower's learner, as it is.
            table: served text embeddings of all rows, [rows, D].
            parts: examples.
            popularity: decayed counts of all item rows, for the correction.
            text_of: the text of a row.
        """
        if self.phase != LEARN:
            return
        for part in parts[-1:]:  # the tasks stand in order, the one of the open visit last
            self._step(weights, table, part, popularity, text_of)
        p = self.progress
        p.n_steps += 1
        if p.n_steps >= self.plan.steps or p.n_since_best >= self.plan.patience:
            self.trainer.start(self._named(p.best))
            p.phase = EMBED if p.best_gain > 0.0 else IDLE
            self.candidate = ItemTexts(self.encoder.dim)
            self.candidate.tell(np.flatnonzero(table.any(axis=1)).tolist(), len(table))

    def _step(
        self, weights: TowerWeights, table: Floats, part: Part, popularity: Doubles, text_of: Callable[[int], str]
    ) -> None:
        target = part.universe[part.column]
        items = np.unique(target[table[target].any(axis=1)])[: self.plan.max_texts]
        use = np.isin(target, items)
        if len(items) < 2 or not use.any():
            return
        expected = popularity[items] + 0.5
        there = 1.0 - (1.0 - expected / max(float(popularity.sum()), 1.0) - 1e-9) ** len(part.weight)
        correction = torch.from_numpy(np.log(np.maximum(there, 1e-9)).astype(np.float32))
        p = weights.parameters()
        served = torch.from_numpy(table)
        rows = torch.from_numpy(items.astype(np.int64))
        with torch.no_grad():
            vectors = served @ p.maps[ITEM] + p.residual
            user = tower.users(p, vectors, part.recent, part.task)[torch.from_numpy(part.user[use])]
            user = user * torch.exp(p.log_tau[part.task])
        place = torch.from_numpy(np.searchsorted(items, target[use]))

        def told(vectors: torch.Tensor) -> torch.Tensor:
            logits = user @ (vectors @ p.maps[ITEM] + p.residual[rows]).T + p.bias[rows] - correction
            return torch.nn.functional.cross_entropy(logits, place)

        def loss(fresh: torch.Tensor) -> torch.Tensor:
            alone = told(fresh)
            with torch.no_grad():
                self._gained(float(told(served[rows]) - alone))
            return alone + self.plan.anchor * (1.0 - (fresh * served[rows]).sum(1)).mean()

        self.trainer.step([text_of(row) for row in items.tolist()], loss)

    def _gained(self, gain: float) -> None:
        """Take what the adapter gained on a micro-batch that it has not learned from yet."""
        p = self.progress
        p.gain += LATEST * (gain - p.gain)
        p.n_since_best += 1
        if p.gain > p.best_gain:
            p.best_gain, p.n_since_best, p.best = p.gain, 0, self.trainer.value.copy()

    def advance(self, told: Rows, n_items: int, text_of: Callable[[int], str], *, n_records: int) -> None:
        """Embed a quota of texts under the new adapter, fewer in a tick of few records, so that small ticks stay short.

        Args:
            told: rows whose text changed in this tick.
            n_items: rows there are.
            text_of: the text of a row.
            n_records: of the tick.
        """
        if self.phase not in (EMBED, TRIAL, READY, CUT):
            return
        self.candidate.tell(told.tolist(), n_items)
        adapter = self.trainer.adapter()
        quota = min(self.plan.texts_per_tick, max(LEAST_TEXTS, n_records // 2))
        self.candidate.embed(quota, text_of, _Under(self.encoder, adapter))
        if self.phase == EMBED and not len(self.candidate.waiting):
            self.progress.phase = TRIAL

    def judge(self, promote: bool) -> None:
        """Take the verdict on the adapter on trial: it waits for its version, or the round is over."""
        self.progress.phase = READY if promote else IDLE
        if not promote:
            self.trainer.start(self._named(self.served.value) if len(self.served.value) else self._first())

    def cut(self) -> None:
        """A challenger is cut: an adapter that has won goes with it."""
        if self.phase == READY:
            self.progress.phase = CUT

    def adopt(self) -> ItemTexts:
        """The adapter serves from now on; returns the table made under it."""
        self.served.value = self.trainer.value.copy()
        self.progress.phase, self.progress.n_since = IDLE, 0
        self.progress.n_adopted += 1
        return self.candidate

    def forget_items(self, rows: Rows) -> None:
        """Start again for item rows that were given to other items."""
        self.candidate.forget_items(rows)

    def tensors(self, *, challenger: bool) -> dict[str, npt.NDArray[Any]]:
        """The adapter of the champion or the challenger, by peft's names; empty for the base."""
        value = self.trainer.value if challenger and self.phase == CUT else self.served.value
        return {f"adapter.{name}": part for name, part in self._named(value).items()} if len(value) else {}

    def _first(self) -> Adapter:
        return self.encoder.initial_adapter(self.trainer.seed)

    def _named(self, vector: Floats) -> Adapter:
        return {name: part.copy() for name, part in self.trainer.named(vector).items()}


class _Under:
    """The encoder under one adapter."""

    def __init__(self, encoder: Encoder, adapter: Adapter) -> None:
        self._encoder, self._adapter = encoder, adapter
        self.dim = encoder.dim

    def embed(
        self, texts: Sequence[str], adapter: dict[str, npt.NDArray[Any]] | None = None, *, few: bool = False
    ) -> Floats:
        """Vectors under it."""
        del adapter
        return self._encoder.embed(texts, self._adapter, few=few)
