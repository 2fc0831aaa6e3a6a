"""How searches teach the encoder: the cosine of a query and a title under an adapter, learned from what was clicked.

Every row of a loss is freshly encoded, never one of a stored table: a gradient against stale negatives lets the
encoder collapse. Two losses: `click_loss` is logistic over what was shown, with the slope and the rest of the joint
logit as constants; `in_batch_loss` is a softmax over all titles of the micro-batch, corrected by logQ (Yi et al. 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

from stream_rec.model.adapter import AdapterTrainer
from stream_rec.model.search_clicks import Line

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

SHARPNESS = 20.0
"""A cosine becomes a logit of the in-batch softmax by this factor."""


class Shown(NamedTuple):
    """A micro-batch of searches with the items that each showed."""

    queries: Sequence[str]
    titles: Sequence[str]
    """Of the items shown, [n]."""
    search: Ints
    """Place of an item's query, [n]."""
    clicked: Mask
    """[n]."""

    @property
    def texts(self) -> list[str]:
        """Queries, then titles: what is encoded."""
        return [*self.queries, *self.titles]


Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Of unit vectors of queries [searches, D] and titles [n, D], a scalar."""


class Embeds(Protocol):
    """An encoder."""

    def embed(self, texts: Sequence[str], adapter: Mapping[str, npt.NDArray[Any]] | None = None) -> Floats:
        """Unit vectors float32 [n, dim]."""
        ...


def cosines(encoder: Embeds, shown: Shown, adapter: Mapping[str, npt.NDArray[Any]] | None = None) -> Floats:
    """Cosine of each shown title with its query, float32 [n]; None: under the base. Pure."""
    vectors = encoder.embed(shown.texts, adapter)
    n = len(shown.queries)
    return paired(vectors[:n][shown.search], vectors[n:])


def paired(left: Floats, right: Floats) -> Floats:
    """Product of each row with the row beside it, float32 [n]; equal rows give equal bits in any company."""
    return np.asarray(np.einsum("nd,nd->n", left, right, dtype=np.float64, optimize=False), np.float32)


def step(trainer: AdapterTrainer, shown: Shown, loss: Loss) -> tuple[Floats, float]:
    """Learn from one micro-batch.

    Args:
        trainer: of the adapter.
        shown: at least one item.
        loss: for example `click_loss(...)`.

    Returns:
        The cosines float32 [n] as before the step, and the loss.
    """
    before = np.zeros(len(shown.titles), np.float32)

    def told(vectors: torch.Tensor) -> torch.Tensor:
        query, title = vectors[: len(shown.queries)], vectors[len(shown.queries) :]
        before[:] = paired(query.detach().cpu().numpy()[shown.search], title.detach().cpu().numpy())
        return loss(query, title)

    value = trainer.step(shown.texts, told)
    return before, value


def click_loss(shown: Shown, line: Line) -> Loss:
    """Mean logistic loss of the clicks, with logit = slope * cosine + rest.

    Args:
        shown: what was shown.
        line: of `ClickModel.line(x, "tower")`: a model of the cosine alone, or the joint one.
    """

    def loss(query: torch.Tensor, title: torch.Tensor) -> torch.Tensor:
        cosine = (query[torch.from_numpy(shown.search).to(query.device)] * title).sum(1)
        logit = line.slope * cosine + torch.from_numpy(line.rest).to(query)
        clicked = torch.from_numpy(shown.clicked).to(query)
        return torch.nn.functional.binary_cross_entropy_with_logits(logit, clicked)

    return loss


def in_batch_loss(shown: Shown, log_q: Floats) -> Loss:
    """Mean over clicked items of minus log softmax among all titles of the micro-batch; zero without a click.

    Other clicked titles of the same query are left out of the sum.

    Args:
        shown: what was shown.
        log_q: logarithm of each title's chance to be in a micro-batch, [n].
    """
    clicked = np.flatnonzero(shown.clicked)
    own = shown.search[clicked]
    same = (own[:, None] == shown.search[None, :]) & shown.clicked[None, :]
    same[np.arange(len(clicked)), clicked] = False

    def loss(query: torch.Tensor, title: torch.Tensor) -> torch.Tensor:
        device = query.device
        logit = SHARPNESS * query[torch.from_numpy(own).to(device)] @ title.T - torch.from_numpy(log_q).to(query)
        logit = logit.masked_fill(torch.from_numpy(same).to(device), -torch.inf)
        if not len(clicked):
            return (query.sum() + title.sum()) * 0
        return torch.nn.functional.cross_entropy(logit, torch.from_numpy(clicked).to(device))

    return loss
