"""How an adapter learns: AdamW on its few parameters, which are columns of one component and so of every checkpoint.

All parameters lie in one vector, in the order of their names. AdamW after Loshchilov and Hutter 2019, clipped by norm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from stream_rec.component import Component
from stream_rec.model.bodies import Dropout
from stream_rec.model.encoder import Adapter, Encoder
from stream_rec.stream.sampling import hash_one

Floats = npt.NDArray[np.float32]

BETAS = (0.9, 0.999)
EPSILON = 1e-8


class AdapterRates(NamedTuple):
    """How fast an adapter may move."""

    rate: float = 3e-4
    decay: float = 0.01
    """Pull towards zero, as a share of the rate."""
    warm_up: int = 10
    """Steps over which the rate rises to its value."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    accumulate: int = 1
    """Micro-batches whose mean gradient makes one step."""
    dropout: float = 0.0
    """Share of the adapter's input that is dropped, in [0, 1); nothing else is ever dropped."""


class AdapterTrainer(Component):
    """An adapter that learns.

    Columns, all float32 [parameters]: `value`, Adam's `mean` and `square`, and `gradient`, the sum of the micro-batches
    since the last step.

    Args:
        encoder: what it adapts.
        rates: step sizes.
        seed: of the first values and of dropout.
    """

    half = "learned"
    columns = ("value", "mean", "square", "gradient")
    scalars = ("n_steps", "n_micro_batches", "n_skipped")
    fixed = ("encoder", "rates", "seed", "layout")

    def __init__(self, encoder: Encoder, rates: AdapterRates | None = None, *, seed: int = 0) -> None:
        self.encoder, self.rates, self.seed = encoder, rates or AdapterRates(), seed
        self.layout = sorted(encoder.shapes.items())
        """Names and shapes in the order of the vector."""
        self.start(encoder.initial_adapter(seed))

    def start(self, adapter: Adapter) -> None:
        """Begin anew from an adapter, with no memory of earlier steps."""
        self.value = np.concatenate([np.ravel(adapter[name]) for name, _ in self.layout]).astype(np.float32)
        self.mean, self.square, self.gradient = (np.zeros_like(self.value) for _ in range(3))
        self.n_steps = self.n_micro_batches = self.n_skipped = 0

    def adapter(self) -> Adapter:
        """A copy of the parameters by name."""
        return {name: part.copy() for name, part in self.named(self.value).items()}

    def forward(self, texts: Sequence[str]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Unit vectors [n, dim] of texts under the adapter, and the parameters that gradients go into."""
        device = self.encoder.plan.device
        parameters = {
            name: torch.tensor(part, device=device).requires_grad_() for name, part in self.named(self.value).items()
        }
        return self.encoder.forward(texts, parameters, self._dropout()), parameters

    def step(self, texts: Sequence[str], loss: Callable[[torch.Tensor], torch.Tensor]) -> float:
        """Learn from one micro-batch; returns its loss.

        Args:
            texts: at least one.
            loss: of their unit vectors [n, dim], a scalar.
        """
        vectors, parameters = self.forward(texts)
        told = loss(vectors)
        made = torch.autograd.grad(told, list(parameters.values()))
        self.gradient += np.concatenate([part.cpu().numpy().ravel() for part in made])
        self.n_micro_batches += 1
        if self.n_micro_batches % self.rates.accumulate == 0:
            self._update(self.gradient / np.float32(self.rates.accumulate))
            self.gradient = np.zeros_like(self.gradient)
        return float(told.detach())

    def _update(self, gradient: Floats) -> None:
        """One AdamW step; a gradient that is no number is left out and counted."""
        norm = float(np.sqrt(np.sum(gradient.astype(np.float64) ** 2)))
        if not np.isfinite(norm):
            self.n_skipped += 1
            return
        gradient = gradient * np.float32(min(1.0, self.rates.clip / (norm + 1e-12)))
        self.n_steps += 1
        self.mean += np.float32(1 - BETAS[0]) * (gradient - self.mean)
        self.square += np.float32(1 - BETAS[1]) * (gradient * gradient - self.square)
        rate = self.rates.rate * min(1.0, self.n_steps / max(self.rates.warm_up, 1))
        mean, square = self.mean / (1 - BETAS[0] ** self.n_steps), self.square / (1 - BETAS[1] ** self.n_steps)
        moved = mean / (np.sqrt(square) + EPSILON) + self.rates.decay * self.value
        self.value = (self.value - rate * moved).astype(np.float32)

    def named(self, vector: Floats) -> Adapter:
        """Views into a vector by name."""
        ends = np.cumsum([int(np.prod(shape)) for _, shape in self.layout])
        return {
            name: part.reshape(shape)
            for (name, shape), part in zip(self.layout, np.split(vector, ends[:-1]), strict=True)
        }

    def _dropout(self) -> Dropout | None:
        share = self.rates.dropout
        if not share:
            return None
        generator = torch.Generator().manual_seed(hash_one(self.seed, self.n_micro_batches) >> 1)

        def keep(shape: torch.Size) -> torch.Tensor:
            return torch.empty(shape).bernoulli_(1 - share, generator=generator) / (1 - share)

        return keep
