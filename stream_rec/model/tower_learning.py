"""How the tower learns: one softmax over the catalogue together with the ranker, Adam for maps, Adagrad for items.

Rates differ by kind, which matters more than anything else here: the few scalars move fast (0.03), the maps slowly
(1e-3), the id residuals by row-wise Adagrad. Text embeddings are constants of this step; the encoder has its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from stream_rec.component import Component
from stream_rec.model import tower
from stream_rec.model.item_texts import grown
from stream_rec.model.tower import ITEM, Parameters, Recent, TowerWeights

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]

MAPS = ("maps",)
SCALARS = ("query", "place", "here", "log_tau")
BETAS = (0.9, 0.999)
EPSILON = 1e-8
ADAGRAD_START = 1e-3
BIAS_START = 1.0
"""So large that the first targets do not throw an item's bias: it cost more at the next visit than it ever won."""


class Rates(NamedTuple):
    """Step sizes and their bounds."""

    maps: float = 1e-3
    scalars: float = 0.03
    residual: float = 0.005
    bias: float = 0.1
    clip: float = 1.0
    """Largest norm of the gradient of maps and scalars."""
    decay: float = 0.0
    """Pull of the maps towards their start, as a share of the step."""
    warm_up: int = 10
    """Steps over which the rates rise to their value."""


class Part(NamedTuple):
    """Examples of one task with the items they are compared over."""

    task: int
    recent: Recent
    universe: Rows
    user: Ints
    """User of each target, [T]."""
    column: Ints
    """Place of each target in the universe, [T]."""
    share: Floats
    """Weight of each target; a user's sum to one, [T]."""
    weight: Floats
    """Weight of each user's loss, [B]."""
    base: Floats | None
    """Logits of everything but the tower, [B, U]; None: the tower alone."""


class Moments(Component):
    """What the optimiser remembers of the learner's parameters.

    Args:
        weights: the set that learns.
        rates: step sizes.
    """

    half = "learned"
    columns = (*(f"{kind}_{name}" for name in (*MAPS, *SCALARS) for kind in ("mean", "square")), "residual", "bias")
    scalars = ("n_steps",)
    fixed = ("rates",)

    def __init__(self, weights: TowerWeights, rates: Rates) -> None:
        self.rates, self.n_steps = rates, 0
        self.restart(weights)

    def restart(self, weights: TowerWeights) -> None:
        """Forget everything."""
        self.n_steps = 0
        for name in (*MAPS, *SCALARS):
            setattr(self, f"mean_{name}", np.zeros_like(getattr(weights, name)))
            setattr(self, f"square_{name}", np.zeros_like(getattr(weights, name)))
        self.residual = np.full(len(weights.bias), ADAGRAD_START, np.float32)
        self.bias = np.full(len(weights.bias), BIAS_START, np.float32)

    def forget_items(self, rows: Rows) -> None:
        """Start again for item rows that were given to other items."""
        held = rows[rows < len(self.bias)]
        self.residual[held], self.bias[held] = ADAGRAD_START, BIAS_START

    def step(self, weights: TowerWeights, gradients: dict[str, Floats], n_examples: int) -> None:
        """One step; gradients are of the mean loss of `n_examples`."""
        r = self.rates
        self.n_steps += 1
        warm = min(1.0, self.n_steps / max(r.warm_up, 1))
        norm = np.sqrt(sum(float((gradients[name].astype(np.float64) ** 2).sum()) for name in (*MAPS, *SCALARS)))
        clip = min(1.0, r.clip / max(norm, 1e-12))
        for name in (*MAPS, *SCALARS):
            gradients[name] *= np.float32(clip)
            self._adam(name, getattr(weights, name), gradients[name], warm * (r.maps if name in MAPS else r.scalars))
        if r.decay:
            start = TowerWeights(weights.dim).maps
            weights.maps -= np.float32(warm * r.maps * r.decay) * (weights.maps - start)
        self._adagrad(weights, gradients, n_examples)

    def _adam(self, name: str, value: Floats, gradient: Floats, rate: float) -> None:
        """Adam (Kingma & Ba 2015), in place."""
        mean, square = (torch.from_numpy(getattr(self, f"{kind}_{name}")) for kind in ("mean", "square"))
        g = torch.from_numpy(gradient)
        mean.lerp_(g, 1 - BETAS[0])
        square.mul_(BETAS[1]).addcmul_(g, g, value=1 - BETAS[1])
        unbiased = (1 - BETAS[1] ** self.n_steps) ** 0.5 / (1 - BETAS[0] ** self.n_steps)
        torch.from_numpy(value).addcdiv_(mean, square.sqrt().add_(EPSILON), value=-rate * unbiased)

    def _adagrad(self, weights: TowerWeights, gradients: dict[str, Floats], n_examples: int) -> None:
        """Row-wise Adagrad (Gupta et al. 2014): one accumulator an item."""
        n, r = len(weights.bias), self.rates
        if len(self.bias) < n:
            self.residual = grown(self.residual, n, ADAGRAD_START)
            self.bias = grown(self.bias, n, BIAS_START)
        scale = np.float32(n_examples)
        g = gradients["residual"] * scale
        self.residual[:n] += np.einsum("nd,nd->n", g, g) / np.float32(weights.dim)
        weights.residual -= np.float32(r.residual) * g / (np.sqrt(self.residual[:n]) + np.float32(1e-3))[:, None]
        b = gradients["bias"] * scale
        self.bias[:n] += b * b
        weights.bias -= np.float32(r.bias) * b / (np.sqrt(self.bias[:n]) + np.float32(1e-3))


def gradients(
    weights: TowerWeights, texts: Floats, parts: Sequence[Part], *, ids: bool = True
) -> tuple[dict[str, Floats], int]:
    """Gradients of the mean listwise loss of all parts' examples, and how many examples there are.

    The loss of an example is minus the mean log-softmax of its targets over its part's universe.

    Args:
        weights: the learner.
        texts: text embeddings of all rows, [rows, D].
        parts: examples.
        ids: whether id residuals count and learn.
    """
    p = weights.parameters(learning=True)
    vectors = torch.from_numpy(texts) @ p.maps[ITEM]
    if ids:
        vectors = vectors + p.residual
    n = sum(int((part.weight > 0).sum()) for part in parts)
    total = torch.zeros(())
    for part in parts:
        total = total + _loss(p, vectors, part)
    (total / max(n, 1)).backward()  # type: ignore[no-untyped-call]
    out = {}
    for name in weights.columns:
        value: torch.Tensor = getattr(p, name)
        out[name] = np.zeros(value.shape, np.float32) if value.grad is None else value.grad.numpy()
    return out, n


def _loss(p: Parameters, vectors: torch.Tensor, part: Part) -> torch.Tensor:
    user = tower.users(p, vectors, part.recent, part.task)
    task = torch.full((len(user),), part.task, dtype=torch.long)
    logits = tower.logits(p, vectors, user, task, part.universe)
    if part.base is not None:
        logits = logits + torch.from_numpy(part.base)
    chosen = torch.log_softmax(logits, dim=1)[torch.from_numpy(part.user), torch.from_numpy(part.column)]
    per_target = torch.from_numpy(part.share * part.weight[part.user])
    return -(chosen * per_target).sum()
