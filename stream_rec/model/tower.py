"""The text tower: item and user vectors whose product joins the ranker's logit, and the parameters behind them.

item i:  v_i = E_i W_item + r_i                       E text embedding, r id residual (zero at first)
user:    u = normalize(sum_l a_l v_l + v_1 W_last) W_user    over the last 20 items, a = softmax(v . q + place + here)
logit:   exp(log_tau) u . v_i + b_i                   all but W_item, r and b once for each task; 0 where u is

The maps start as identity (W_item, W_user) and zero (W_last): before any learning the tower is the frozen encoder.
Two-tower with sampled or full softmax after Yi et al. 2019; what was measured is in the README's ablation table.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from stream_rec.component import Component
from stream_rec.model.item_texts import grown

Rows = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Tensors = dict[str, npt.NDArray[Any]]

N_TASKS = 2
RECENT = 20
"""Newest items of a history that make a user."""
BLOCK = 256
"""Item vectors are made in aligned blocks of this many rows: a product's last bits depend on its shape."""

ITEM, USER, LAST = 0, 1, 1 + N_TASKS
N_MAPS = 1 + 2 * N_TASKS
START_TAU = (1.0, 10.0)
"""By task. What is taken in a visit tells far more of its next item than earlier visits tell of the next one."""
PLACE_SLOPE = -0.15
START_SPREAD = 0.05


class Recent(NamedTuple):
    """The newest items of B users."""

    item: Rows
    """[B, RECENT], newest first, padded with MISSING."""
    here: Mask
    """Taken in the open visit, [B, RECENT]."""


class TowerWeights(Component):
    """One parameter set.

    Columns: `maps` float32 [N_MAPS, D, D] (W_item, W_user and W_last of each task), `query` [tasks, D], `place`
    [tasks, RECENT], `here` [tasks], `log_tau` [tasks], `residual` [rows, D], `bias` [rows].

    Args:
        dim: width D of a text embedding.
        seed: of the residuals' start; None starts them at zero.
    """

    half = "learned"
    columns = ("maps", "query", "place", "here", "log_tau", "residual", "bias")
    fixed = ("dim", "seed")

    def __init__(self, dim: int, seed: int | None = None) -> None:
        self.dim, self.seed = dim, seed
        self.maps = np.zeros((N_MAPS, dim, dim), np.float32)
        self.maps[: 1 + N_TASKS] = np.eye(dim, dtype=np.float32)
        self.query = np.zeros((N_TASKS, dim), np.float32)
        self.place = np.tile(PLACE_SLOPE * np.arange(RECENT, dtype=np.float32), (N_TASKS, 1))
        self.here = np.zeros(N_TASKS, np.float32)
        self.log_tau = np.log(START_TAU).astype(np.float32)
        self.residual = np.zeros((0, dim), np.float32)
        self.bias = np.zeros(0, np.float32)

    def reserve(self, n_items: int) -> None:
        """Make room for `n_items` rows."""
        held = len(self.bias)
        if n_items > held:
            self.residual, self.bias = grown(self.residual, n_items), grown(self.bias, n_items)
            if self.seed is not None:
                shape = (len(self.bias), self.dim)
                drawn = np.random.Generator(np.random.PCG64(self.seed)).normal(0.0, START_SPREAD, shape)
                self.residual[held:] = drawn[held:]

    def copy_from(self, other: TowerWeights) -> None:
        """Take the values of another set."""
        for name in self.columns:
            setattr(self, name, getattr(other, name).copy())

    def forget_items(self, rows: Rows) -> None:
        """Start again for item rows that were given to other items."""
        held = rows[rows < len(self.bias)]
        self.residual[held] = 0
        self.bias[held] = 0

    def tensors(self) -> Tensors:
        """Copies of all values, for a version's file."""
        return {f"tower.{name}": getattr(self, name).copy() for name in self.columns}

    def parameters(self, *, learning: bool = False) -> Parameters:
        """The values as tensors that share the columns' memory."""
        values = (torch.from_numpy(getattr(self, name)) for name in self.columns)
        return Parameters(*(value.requires_grad_() if learning else value for value in values))


class Parameters(NamedTuple):
    """A parameter set as tensors; see `TowerWeights`."""

    maps: torch.Tensor
    query: torch.Tensor
    place: torch.Tensor
    here: torch.Tensor
    log_tau: torch.Tensor
    residual: torch.Tensor
    bias: torch.Tensor


class Vectors:
    """Item vectors of one parameter set, made when they are needed and kept until the set changes.

    Args:
        weights: the parameter set; None: the text embeddings themselves.
        ids: whether id residuals count.
    """

    def __init__(self, weights: TowerWeights | None, *, ids: bool = True) -> None:
        self._weights, self._ids = weights, ids
        self._table: Floats = np.zeros((0, 0), np.float32)
        self._stale: Mask = np.zeros(0, np.bool_)

    def drop(self, rows: Rows | None = None) -> None:
        """Say that vectors are no longer right: those of `rows`, or all."""
        if rows is None:
            self._stale[:] = True
        else:
            self._stale[np.unique(rows[rows < len(self._stale) * BLOCK] // BLOCK)] = True

    def table(self, texts: npt.NDArray[np.float16]) -> Floats:
        """All vectors, float32 [rows, D]; not to be changed."""
        if len(self._table) != len(texts):
            self._table = np.zeros(texts.shape, np.float32)
            self._stale = np.ones(len(texts) // BLOCK, np.bool_)
        for block in np.flatnonzero(self._stale).tolist():
            rows = slice(block * BLOCK, (block + 1) * BLOCK)
            self._table[rows] = texts[rows]
            if self._weights is not None:
                self._table[rows] = self._table[rows] @ self._weights.maps[ITEM]
                if self._ids:
                    self._table[rows] += self._weights.residual[rows]
        self._stale[:] = False
        return self._table


def users(p: Parameters, vectors: torch.Tensor, recent: Recent, task: int) -> torch.Tensor:
    """User vectors [B, D], zero for users without a history.

    Args:
        p: parameters.
        vectors: item vectors of all rows, [rows, D].
        recent: what they took last.
        task: the task they are asked for.
    """
    item, here = torch.from_numpy(recent.item.astype(np.int64)), torch.from_numpy(recent.here.astype(np.float32))
    there = item >= 0
    x = vectors[item.clamp(min=0)]
    attention = x @ p.query[task] + p.place[task] + here * p.here[task]
    attention = torch.softmax(attention.masked_fill(~there, -1e4), dim=1) * there
    pooled = (attention.unsqueeze(2) * x).sum(1) + (x[:, 0] * there[:, :1]) @ p.maps[LAST + task]
    return torch.nn.functional.normalize(pooled, dim=1) @ p.maps[USER + task]


def logits(
    p: Parameters, vectors: torch.Tensor, user: torch.Tensor, task: torch.Tensor, universe: Rows
) -> torch.Tensor:
    """Logits [B, U].

    All are zero for users without a vector: the biases are what remains when histories have spoken, and statistics
    alone rank better for strangers.

    Args:
        p: parameters.
        vectors: item vectors of all rows, [rows, D].
        user: user vectors, [B, D].
        task: task of each user, int64 [B].
        universe: item rows, rising, [U].
    """
    warm = torch.exp(p.log_tau[task]).unsqueeze(1) * user
    n = len(universe)
    if n and int(universe[-1]) == n - 1:  # rising, so all of the first n: no copy is needed
        out = torch.addmm(p.bias[:n], warm, vectors[:n].T)
    else:
        rows = torch.from_numpy(universe.astype(np.int64))
        out = torch.addmm(p.bias[rows], warm, vectors[rows].T)
    strangers = ~user.any(dim=1, keepdim=True)
    return out.masked_fill(strangers, 0.0) if bool(strangers.any()) else out
