"""The layers of a BERT-like encoder on packed tokens: no padding in a linear layer, only attention sees rows.

Two ways to run them. *Fixed*: batches of CHUNK tokens and of one attention length each, whatever they hold, because
a product's last bits depend on its shape, and a text's vector must not depend on the texts beside it. *Free*: one batch
of any size, with gradients into the adapter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

Ints = npt.NDArray[np.int64]

CHUNK = 256
"""Tokens of a fixed batch: the fewest at which the products run at full speed on one core."""
FEW = 32
"""Tokens of a fixed batch where a handful of short texts is wanted at once: a sixth of the wait, slower for many."""
LENGTH_STEP = 8
QUERY, KEY, VALUE = "query", "key", "value"
PROJECTIONS = (QUERY, KEY, VALUE)

Low = tuple[torch.Tensor, torch.Tensor]
"""A [rank, H] and B [H, rank] of one projection; its weight grows by scale x B A."""
Lora = Mapping[str, Low]
"""By projection."""


class Places(NamedTuple):
    """Where each packed token stands: text and place in it, [tokens], in a grid [n_texts, width]."""

    text: torch.Tensor
    place: torch.Tensor
    n_texts: int
    width: int
    mask: torch.Tensor
    """True where a token is, [n_texts, 1, 1, width]; an empty text has its first place, so that no row is all False."""


class Span(NamedTuple):
    """A fixed batch: which texts, and its attention grid."""

    chosen: Ints
    n_texts: int
    width: int
    n_tokens: int


def places_of(lengths: Ints, n_texts: int, width: int, device: torch.device) -> Places:
    """Places of texts of `lengths` tokens, packed one after the other, in a grid with room for `n_texts`."""
    told = np.zeros(n_texts, np.int64)
    told[: len(lengths)] = lengths
    text = np.repeat(np.arange(n_texts), told)
    place = np.arange(len(text)) - np.repeat(np.cumsum(told) - told, told)
    mask = np.arange(width)[None] < np.maximum(told, 1)[:, None]
    texts, at, there = (torch.from_numpy(a).to(device) for a in (text, place, mask))
    return Places(texts, at, n_texts, width, there[:, None, None, :])


def spans(lengths: Ints, chunk: int = CHUNK) -> Iterator[Span]:
    """Cut texts of `lengths` [n], each above 0, into fixed batches of `chunk` tokens, or more for a longer text.

    The shape of the batch that a text falls into depends on its own length alone.

    >>> [(s.chosen.tolist(), s.n_texts, s.width, s.n_tokens) for s in spans(np.array([3, 30, 5]))]
    [([0, 2], 64, 8, 256), ([1], 10, 32, 256)]
    """
    order = np.argsort(lengths, kind="stable")
    width = -(-lengths[order] // LENGTH_STEP) * LENGTH_STEP
    total = np.cumsum(lengths[order])
    at = 0
    while at < len(order):
        wide = int(width[at])
        n_tokens = -(-wide // chunk) * chunk
        # No text of this width is shorter, except in the first step, where a short one is seldom.
        n_texts = n_tokens // max(wide - LENGTH_STEP + 1, LENGTH_STEP // 2)
        before = int(total[at - 1]) if at else 0
        full = int(np.searchsorted(total, before + n_tokens, side="right"))
        same = int(np.searchsorted(width, wide, side="right"))
        end = min(full, same, at + n_texts)
        yield Span(order[at:end], n_texts, wide, n_tokens)
        at = end


def grids_of(lengths: Ints, device: torch.device) -> list[Places]:
    """Grids for texts of rising `lengths`, one a width: short texts need not pay the attention of the longest.

    >>> [(grid.n_texts, grid.width) for grid in grids_of(np.array([3, 8, 9, 20]), torch.device("cpu"))]
    [(2, 8), (1, 16), (1, 24)]
    """
    width = -(-lengths // LENGTH_STEP) * LENGTH_STEP
    bounds = np.flatnonzero(np.diff(width)) + 1
    return [
        places_of(part, len(part), -(-int(part[-1]) // LENGTH_STEP) * LENGTH_STEP, device)
        for part in np.split(lengths, bounds)
    ]


class PackedLayer:
    """One frozen layer. Weights are copied: those of a mapped file may lie at any address, which products can tell.

    Args:
        source: a layer of Hugging Face's BertModel or a kin.
        n_heads: of attention.
        activation: of the feed-forward part.
        dtype: float32, or bfloat16.
    """

    def __init__(self, source: Any, n_heads: int, activation: Any, dtype: torch.dtype) -> None:
        own, out = source.attention.self, source.attention.output
        parts = [getattr(own, name) for name in PROJECTIONS]
        self.joined = torch.cat([part.weight.detach() for part in parts]).to(dtype)
        self._joined_bias = torch.cat([part.bias.detach() for part in parts]).to(dtype)
        self._attended, self._wide, self._narrow = (
            (part.weight.detach().to(dtype, copy=True), part.bias.detach().to(dtype, copy=True))
            for part in (out.dense, source.intermediate.dense, source.output.dense)
        )
        self._norms = [
            (part.weight.detach().to(dtype), part.bias.detach().to(dtype), part.eps)
            for part in (out.LayerNorm, source.output.LayerNorm)
        ]
        self._n_heads, self._activation = n_heads, activation

    def merged(self, lora: Lora, scale: float) -> torch.Tensor:
        """The joined projections with the adapter added, [3H, H]."""
        out, width = self.joined.float().clone(), self.joined.shape[1]
        for name, (a, b) in lora.items():
            at = PROJECTIONS.index(name) * width
            out[at : at + width] += scale * (b.float() @ a.float())
        return out.to(self.joined.dtype)

    def project(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Queries, keys and values [tokens, 3H] of states [tokens, H]."""
        return functional.linear(x, weight, self._joined_bias)

    def project_apart(self, x: torch.Tensor, lora: Lora, scale: float, keep: torch.Tensor | None) -> torch.Tensor:
        """The same with the adapter beside the frozen weights; `keep` [tokens, H] multiplies what the adapter sees."""
        parts = list(self.project(x, self.joined).chunk(3, dim=1))
        seen = x if keep is None else x * keep
        low = functional.linear(seen, torch.cat([a for a, _ in lora.values()]).to(x.dtype))
        for (name, (_, b)), z in zip(lora.items(), low.chunk(len(lora), dim=1), strict=True):
            at = PROJECTIONS.index(name)
            parts[at] = parts[at] + scale * functional.linear(z, b.to(x.dtype))
        return torch.cat(parts, dim=1)

    def finish(self, x: torch.Tensor, projected: torch.Tensor, *grids: Places) -> torch.Tensor:
        """States [tokens, H] above this layer; the tokens of each grid in turn, those beyond attend to nothing."""
        width = x.shape[1]
        sizes = [len(grid.text) for grid in grids]
        parts = torch.split(projected, [*sizes, len(x) - sum(sizes)])
        seen = [self._seen(part, grid) for part, grid in zip(parts, grids, strict=False)]
        if sum(sizes) < len(x):
            seen.append(x.new_zeros(len(x) - sum(sizes), width))
        flat = torch.cat(seen) if len(seen) > 1 else seen[0]
        (gain_1, shift_1, eps_1), (gain_2, shift_2, eps_2) = self._norms
        x = functional.layer_norm(functional.linear(flat, *self._attended) + x, (width,), gain_1, shift_1, eps_1)
        wide = self._activation(functional.linear(x, *self._wide))
        return functional.layer_norm(functional.linear(wide, *self._narrow) + x, (width,), gain_2, shift_2, eps_2)

    def _seen(self, projected: torch.Tensor, places: Places) -> torch.Tensor:
        """What the tokens of one grid attend to, [tokens, H]."""
        width = projected.shape[1] // 3
        grid = projected.new_zeros(places.n_texts, places.width, 3 * width)
        grid[places.text, places.place] = projected
        shape = (places.n_texts, places.width, 3, self._n_heads, width // self._n_heads)
        query, key, value = grid.view(shape).permute(2, 0, 3, 1, 4)
        seen = attend(query, key, value, places.mask).transpose(1, 2).reshape(places.n_texts, places.width, width)
        return seen[places.text, places.place]


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Scaled dot-product attention, [texts, heads, places, H / heads].

    In bfloat16 as plain products: torch's own has, on a CPU, a backward pass that takes most of a training step.
    """
    if query.dtype == torch.float32:
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    scores = (query @ key.transpose(-1, -2)) * query.shape[-1] ** -0.5
    return torch.softmax(scores.masked_fill(~mask, -1e4), dim=-1) @ value


def pool(x: torch.Tensor, places: Places, pooling: str) -> torch.Tensor:
    """Vectors float32 [n_texts, H] of packed states: `mean`, `first` or `last` token; zero for an empty text."""
    x = x[: len(places.text)].float()
    if pooling == "mean":
        n = torch.bincount(places.text, minlength=places.n_texts).clamp(min=1)
        return x.new_zeros(places.n_texts, x.shape[1]).index_add(0, places.text, x) / n[:, None]
    n_tokens = torch.bincount(places.text, minlength=places.n_texts)
    ends = torch.cumsum(n_tokens, 0)
    at = ends - n_tokens if pooling == "first" else ends - 1
    return x[at.clamp(0, max(len(x) - 1, 0))] * (n_tokens > 0)[:, None]


def gather(rows: Sequence[npt.NDArray[Any]], n_tokens: int | None = None) -> npt.NDArray[Any]:
    """Rows of texts one after the other, [tokens, ...], filled up with zeros to `n_tokens`."""
    joined = np.concatenate(rows)
    if n_tokens is None or len(joined) == n_tokens:
        return joined
    out = np.zeros((n_tokens, *joined.shape[1:]), joined.dtype)
    out[: len(joined)] = joined
    return out
