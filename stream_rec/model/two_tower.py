"""The tower as the learner of the loop sees it: three parameter sets, one table of text embeddings."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from stream_rec.component import Component
from stream_rec.model import tower, tower_learning
from stream_rec.model.adapter_round import CUT, READY, TRIAL, AdapterRound
from stream_rec.model.carry import Carry
from stream_rec.model.features import Profiles
from stream_rec.model.item_texts import Embedder, ItemTexts
from stream_rec.model.micro_batch import Examples
from stream_rec.model.previous import Previous
from stream_rec.model.text_neighbours import TextNeighbours
from stream_rec.model.tower import Recent, Tensors, TowerWeights, Vectors
from stream_rec.model.tower_learning import Moments, Part, Rates

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]

ON_TRIAL = "on trial"
"""The learner with the text embeddings of the adapter that is being tried."""
MANY = 1 << 30
TEXTS = "texts"
"""The text embeddings themselves, widened."""


class TowerPlan(NamedTuple):
    """How the tower learns."""

    rates: Rates = Rates()
    steps: int = 2
    """Steps a micro-batch."""
    text: bool = True
    """Whether texts count; without them residuals start from small random values."""
    ids: bool = True
    """Whether id residuals count."""
    min_examples: int = 192
    """Examples of a micro-batch at least; fewer are kept for the next tick."""
    seed: int = 0


class TwoTower:
    """See the module docstring.

    Args:
        embedder: of the texts.
        plan: how it learns.
        rounds: the adapter's slow rounds; None: the encoder stays as it is.
    """

    def __init__(self, embedder: Embedder, plan: TowerPlan | None = None, rounds: AdapterRound | None = None) -> None:
        torch.set_num_threads(1)
        self._embedder: Embedder = rounds or embedder
        self.plan, self.rounds = plan or TowerPlan(), rounds
        ids, seed = self.plan.ids, None if self.plan.text else self.plan.seed
        self.texts, self.neighbours = ItemTexts(embedder.dim), TextNeighbours()
        self.learner, self.challenger, self.champion = (TowerWeights(embedder.dim, seed) for _ in range(3))
        self.moments, self.carry = Moments(self.learner, self.plan.rates), Carry()
        self._vectors = {name: Vectors(getattr(self, name), ids=ids) for name in ("learner", "champion")}
        self._vectors |= {ON_TRIAL: Vectors(self.learner, ids=ids), TEXTS: Vectors(None)}
        self._text_of: Callable[[int], str] = str
        self.previous = Previous(embedder.dim)

    def components(self) -> dict[str, Component]:
        """Everything that is state, by name."""
        return {
            "item_texts": self.texts,
            "text_neighbours": self.neighbours,
            "tower_learner": self.learner,
            "tower_challenger": self.challenger,
            "tower_champion": self.champion,
            "tower_moments": self.moments,
            "tower_carry": self.carry,
            **self.previous.components(),
            **(self.rounds.components() if self.rounds is not None else {}),
        }

    def tell(
        self, rows: Sequence[int], n_items: int, text_of: Callable[[int], str], *, quota: int, n_records: int = MANY
    ) -> None:
        """Take new texts and embed up to `quota` of those that wait; an adapter's round goes on by `n_records`."""
        self.texts.tell(rows if self.plan.text else (), n_items)
        for weights in (self.learner, self.champion):
            weights.reserve(len(self.texts.table))
        self._text_of = text_of
        changed = self.texts.embed(quota, text_of, self._embedder)
        self.previous.tell(changed, n_items)
        if self.rounds is not None:
            self.rounds.advance(changed, n_items, text_of, n_records=n_records)
            self._vectors[ON_TRIAL].drop()
        if len(changed):
            self.neighbours.renew(changed, self.texts.table)
            for vectors in self._vectors.values():
                vectors.drop(changed)

    def logits(self, which: str, rows: Profiles, task: Ints, universe: Rows) -> Floats:
        """Logits float32 [B, U] of one parameter set: `learner`, `champion`, or the learner ON_TRIAL. Pure.

        Args:
            which: the parameter set.
            rows: users.
            task: of each user, [B].
            universe: item rows, rising.
        """
        with torch.no_grad():
            texts = self.rounds.candidate if which == ON_TRIAL and self.rounds is not None else self.texts
            vectors = torch.from_numpy(self._vectors[which].table(texts.table))
            p = (self.champion if which == "champion" else self.learner).parameters()
            user = torch.zeros(len(task), self.texts.dim)
            for one in np.unique(task).tolist():
                some = np.flatnonzero(task == one)
                recent = Recent(rows.recent[some], rows.recent_here[some])
                user[torch.from_numpy(some)] = tower.users(p, vectors, recent, one)
            out: Floats = tower.logits(p, vectors, user, torch.from_numpy(task.copy()), universe).numpy()
        return out

    @property
    def encoder(self) -> Any:
        """What embeds the texts, below any adapter."""
        return self.rounds.encoder if self.rounds is not None else self._embedder

    @property
    def dim(self) -> int:
        """Width of a text embedding."""
        return self.texts.dim

    def embed(self, texts: Sequence[str]) -> Floats:
        """Unit vectors float32 [n, D] of a few texts, such as a tick's queries, under the adapter that serves."""
        return self._embedder.embed(texts, few=True)

    def adapter_name(self) -> str:
        """Stands for the adapter that serves; empty for the base."""
        value = self.rounds.served.value if self.rounds is not None else np.zeros(0, np.float32)
        return f"{zlib.crc32(value.tobytes()):08x}" if len(value) else ""

    def vectors(self, which: str) -> Floats:
        """Item vectors of the `champion`, the `learner` or the TEXTS alone, float32 [rows, D]; not to be changed."""
        return self._vectors[which].table(self.texts.table)

    def frozen(self, rows: Profiles, universe: Rows) -> Floats:
        """Scores of the encoder alone: cosine with a recency-weighted mean of what was taken, [B, U]."""
        table, item, n = self.vectors(TEXTS), rows.recent, len(universe)
        weight = np.where(item >= 0, 0.9 ** np.arange(item.shape[1]), 0).astype(np.float32)
        user = np.einsum("bl,bld->bd", weight, table[np.maximum(item, 0)])
        whole = n and int(universe[-1]) == n - 1
        out: Floats = user @ (table[:n] if whole else table[universe]).T
        return out

    @property
    def on_trial(self) -> bool:
        """Whether an adapter is to be compared with the served one."""
        return self.rounds is not None and self.rounds.phase == TRIAL

    @property
    def ready(self) -> bool:
        """Whether an adapter has won and waits for its version."""
        return self.rounds is not None and self.rounds.phase == READY

    def count(self, n_examples: int) -> None:
        """Say how many examples the stream gave."""
        if self.rounds is not None:
            self.rounds.count(n_examples)

    def steps_with(self, n_examples: int) -> bool:
        """Whether so many fresh examples are enough for a step."""
        return bool(self.plan.steps) and len(self.carry.task) + n_examples >= self.plan.min_examples

    def train(
        self,
        batches: Sequence[Examples],
        base: Sequence[Floats],
        popularity: Doubles,
        *,
        replayed: tuple[Sequence[Examples], Sequence[Floats]] = ((), ()),
    ) -> None:
        """Learn from the examples of a tick in the plan's steps, or keep them until enough have come together.

        Args:
            batches: examples with their profiles and targets.
            base: logits [B, U] of everything but the tower, one a batch.
            popularity: decayed counts of the item rows, float64.
            replayed: earlier examples with their logits, for a step only: they are not kept, and no adapter sees them.
        """
        if not self.plan.steps:
            return
        parts = [part for part in _merged(batches, base) if len(part.user)]
        if self.carry.takes(parts, self.plan.min_examples):
            return
        parts = self.carry.give(parts)
        texts = self.vectors(TEXTS)
        again = [part for part in _merged(*replayed) if len(part.user)] if parts else []
        for _ in range(self.plan.steps if parts else 0):
            gradients, n = tower_learning.gradients(self.learner, texts, [*parts, *again], ids=self.plan.ids)
            self.moments.step(self.learner, gradients, n)
        if parts:
            self._vectors["learner"].drop()
            self._vectors[ON_TRIAL].drop()
        if parts and self.rounds is not None:
            held = np.zeros(len(texts), np.float64)
            held[: len(popularity)] = popularity[: len(held)]
            self.rounds.learn(self.learner, texts, parts, popularity=held, text_of=self._text_of)

    def tensors(self, which: str) -> Tensors:
        """What a version's file says of the `champion` or the `challenger`."""
        weights = self.champion if which == "champion" else self.challenger
        adapter = self.rounds.tensors(challenger=which == "challenger") if self.rounds is not None else {}
        return weights.tensors() | adapter

    def cut(self) -> None:
        """Freeze the learner as the challenger."""
        self.challenger.copy_from(self.learner)
        self.send_adapter()

    def send_adapter(self) -> None:
        """Let an adapter that has won go with the challenger as it is."""
        if self.rounds is not None:
            self.rounds.cut()

    def renew(self) -> None:
        """Make what is derived from the parameters and tables anew: they were replaced."""
        for vectors in self._vectors.values():
            vectors.drop()

    def promote(self) -> None:
        """Let the challenger serve, with the adapter that was waiting for it."""
        self.champion.copy_from(self.challenger)
        if self.rounds is not None and self.rounds.phase == CUT:
            self.texts.table = self.rounds.adopt().table.copy()
            self.texts.reserve(len(self.champion.bias))
            for vectors in self._vectors.values():
                vectors.drop()
        self.champion.reserve(len(self.texts.table))
        self._vectors["champion"].drop()

    def reset(self) -> None:
        """Let the learner start again from the champion."""
        self.learner.copy_from(self.champion)
        self.moments.restart(self.learner)
        self._vectors["learner"].drop()
        self._vectors[ON_TRIAL].drop()

    def forget_items(self, rows: Rows) -> None:
        """Start again for item rows that were given to other items."""
        for part in (
            self.texts,
            self.neighbours,
            self.learner,
            self.challenger,
            self.champion,
            self.moments,
            self.carry,
            self.previous,
        ):
            part.forget_items(rows)
        if self.rounds is not None:
            self.rounds.forget_items(rows)
        for vectors in self._vectors.values():
            vectors.drop(rows)

    def withdraw(self) -> None:
        """The challenger will not serve; an adapter that went with it waits for the next one."""
        if self.rounds is not None and self.rounds.phase == CUT:
            self.rounds.progress.phase = READY

    def keep_previous(self) -> None:
        """Keep the champion, which the challenger is about to follow."""
        changes = self.rounds is not None and self.rounds.phase == CUT
        adapter = self.rounds.served.value if self.rounds is not None and changes else None
        self.previous.keep(self.champion, self.texts, adapter)

    def restore_previous(self) -> None:
        """Let the champion before this one serve again, under its own adapter; a round that was going on is over."""
        kept = self.previous
        self.champion.copy_from(kept.weights)
        self.withdraw()
        if self.rounds is not None and kept.adapter.changed:
            self.rounds.served.value = kept.adapter.value.copy()
            self.rounds.judge(promote=False)
            waiting = dict.fromkeys([*kept.texts.waiting.tolist(), *self.texts.waiting.tolist()])
            self.texts.table, self.texts.waiting = kept.texts.table.copy(), np.array(list(waiting), np.int32)
        self.texts.reserve(len(self.champion.bias))
        self.champion.reserve(len(self.texts.table))
        for vectors in self._vectors.values():
            vectors.drop()

    def sample(self, n: int = 512) -> tuple[Floats, Floats] | None:
        """Vectors of the challenger and text embeddings as served, of up to `n` items spread over the catalogue.

        Returns:
            float32 [n, D] twice; None where fewer than two items have an embedded text.
        """
        rows = np.flatnonzero(self.texts.table.any(axis=1))
        rows = rows[:: max(1, len(rows) // n)][:n]
        if len(rows) < 2:
            return None
        texts = self.rounds.candidate if self.rounds is not None and self.rounds.phase == CUT else self.texts
        made = texts.table[rows].astype(np.float32) @ self.challenger.maps[tower.ITEM]
        return made + self.challenger.residual[rows] * self.plan.ids, self.texts.table[rows].astype(np.float32)


def _merged(batches: Sequence[Examples], base: Sequence[Floats]) -> list[Part]:
    """One part a task: large products are cheaper than many small ones."""
    out = []
    for task in sorted({batch.task for batch in batches}):
        own = [(batch, logits) for batch, logits in zip(batches, base, strict=True) if batch.task == task]
        sizes = [len(batch.weight) for batch, _ in own]
        starts = np.cumsum([0, *sizes[:-1]])
        part = Part(
            task,
            Recent(*(np.concatenate([getattr(b.rows, name) for b, _ in own]) for name in ("recent", "recent_here"))),
            own[0][0].rivals.universe,
            np.concatenate([batch.user + start for (batch, _), start in zip(own, starts, strict=True)]),
            np.concatenate([batch.column for batch, _ in own]),
            np.concatenate([batch.share for batch, _ in own]),
            np.concatenate([batch.weight for batch, _ in own]),
            np.concatenate([logits for _, logits in own]),
        )
        out.append(part)
    return out
