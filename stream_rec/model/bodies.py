"""How a base model is run: its frozen trunk, and the top layers that an adapter may change.

`PackedBody` runs BERT and its kin on packed tokens, `PlainBody` any other Hugging Face model as it is, padded, all of
its layers each time. Both answer the same questions, so nothing above knows which one runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from transformers.activations import ACT2FN

from stream_rec.model import packed
from stream_rec.model.packed import CHUNK, FEW, PROJECTIONS, Low, PackedLayer, Places, grids_of, places_of, spans

Floats = npt.NDArray[np.float32]
States = npt.NDArray[Any]
Tensors = Mapping[str, torch.Tensor]
Shapes = dict[str, tuple[int, ...]]
Dropout = Callable[[torch.Size], torch.Tensor]
"""Makes what an adapter's input is multiplied with: zero, or above one."""

FIRST_PLACE = {"bert": 0, "roberta": 2, "xlm-roberta": 2, "camembert": 2}
"""Model types that can be packed, and the position of a text's first token."""


class Plan(NamedTuple):
    """How a base model is read and adapted."""

    pooling: str | None = None
    """`mean`, `first` (CLS) or `last` token; None takes what fits the architecture."""
    adapter_layers: int = 1
    """Top layers with an adapter; the layers below are the trunk."""
    rank: int = 8
    alpha: int = 16
    targets: tuple[str, ...] | None = None
    """Modules to adapt; None: query and value, or what peft takes for the architecture."""
    dtype: str = "float32"
    """Of the products: float32, or bfloat16 where the hardware has it. Adapters stay float32."""
    device: str = "cpu"


class Body(Protocol):
    """A base model with room for an adapter."""

    shapes: Shapes
    """Of the adapter's parameters, by peft's name."""
    targets: tuple[str, ...]
    """Modules that are adapted, in peft's words."""
    layers: list[int] | None
    """Layers that have these; None: the modules are named in full."""
    is_turned: bool
    """Whether the adapted weights are stored [inputs, outputs]."""
    has_trunk: bool
    """Whether `trunk` does work that is worth keeping."""

    def trunk(self, ids: Sequence[Sequence[int]], *, few: bool = False) -> list[States]:
        """What the frozen part makes of each text, [tokens, ...]; no text depends on another."""
        ...

    def fixed(self, states: Sequence[States], adapter: Tensors | None, *, few: bool = False) -> Floats:
        """Vectors [n, H], not normalised, in batches of fixed shape, small for `few`; no text depends on another."""
        ...

    def free(self, states: Sequence[States], adapter: Tensors, dropout: Dropout | None) -> torch.Tensor:
        """Vectors [n, H], not normalised, with gradients into `adapter`."""
        ...


def can_pack(model: Any, plan: Plan) -> bool:
    """Whether a Hugging Face model is one that `PackedBody` runs exactly."""
    told = model.config
    return (
        told.model_type in FIRST_PLACE
        and not getattr(told, "is_decoder", False)
        and getattr(told, "position_embedding_type", "absolute") in ("absolute", None)
        and set(plan.targets or ()) <= set(PROJECTIONS)
    )


class PackedBody:
    """A BERT-like model on packed tokens.

    Args:
        model: BertModel or kin, frozen.
        plan: how it is adapted.
        pooling: `mean`, `first` or `last`.
    """

    has_trunk = True
    is_turned = False

    def __init__(self, model: Any, plan: Plan, pooling: str) -> None:
        told, layers = model.config, model.encoder.layer
        dtype, activation = getattr(torch, plan.dtype), ACT2FN[told.hidden_act]
        self._layers = [PackedLayer(layer, told.num_attention_heads, activation, dtype) for layer in layers]
        self._embeddings, self._dtype, self._pooling = model.embeddings, dtype, pooling
        self._device, self._first_place = torch.device(plan.device), FIRST_PLACE[told.model_type]
        self._n_lower, self._scale = len(layers) - plan.adapter_layers, plan.alpha / plan.rank
        self.targets = tuple(name for name in PROJECTIONS if name in (plan.targets or ("query", "value")))
        self.layers: list[int] | None = list(range(self._n_lower, len(layers)))
        width = told.hidden_size
        self.shapes: Shapes = {
            _name(layer, target, part): (plan.rank, width) if part == "A" else (width, plan.rank)
            for layer in self.layers
            for target in self.targets
            for part in "AB"
        }

    @torch.no_grad()
    def trunk(self, ids: Sequence[Sequence[int]], *, few: bool = False) -> list[States]:
        """States below the adapter, float16 [tokens, H] of each text: computed in fixed batches, always rounded."""
        lengths = np.array([len(row) for row in ids], np.int64)
        out: list[States] = [np.zeros((0, 0), np.float16)] * len(ids)
        for span in spans(lengths, FEW if few else CHUNK):
            own = lengths[span.chosen]
            places = places_of(own, span.n_texts, span.width, self._device)
            token = packed.gather([np.array(ids[i], np.int64) for i in span.chosen.tolist()], span.n_tokens)
            x = self._embed(token, places)
            for layer in self._layers[: self._n_lower]:
                x = layer.finish(x, layer.project(x, layer.joined), places)
            halves = x[: int(own.sum())].to(torch.float16).cpu().numpy()
            for i, rows in zip(span.chosen.tolist(), np.split(halves, np.cumsum(own)[:-1]), strict=True):
                out[i] = rows
        return out

    @torch.no_grad()
    def fixed(self, states: Sequence[States], adapter: Tensors | None, *, few: bool = False) -> Floats:
        """See `Body.fixed`; the adapter is merged into the weights first."""
        layers = self._layers[self._n_lower :]
        merged = [
            layer.joined if adapter is None else layer.merged(self._lora(adapter, self._n_lower + i), self._scale)
            for i, layer in enumerate(layers)
        ]
        lengths = np.array([len(rows) for rows in states], np.int64)
        out = np.zeros((len(states), self._layers[0].joined.shape[1]), np.float32)
        for span in spans(lengths, FEW if few else CHUNK):
            places = places_of(lengths[span.chosen], span.n_texts, span.width, self._device)
            x = self._load([states[i] for i in span.chosen.tolist()], span.n_tokens)
            for layer, weight in zip(layers, merged, strict=True):
                x = layer.finish(x, layer.project(x, weight), places)
            out[span.chosen] = packed.pool(x, places, self._pooling)[: len(span.chosen)].cpu().numpy()
        return out

    def free(self, states: Sequence[States], adapter: Tensors, dropout: Dropout | None) -> torch.Tensor:
        """See `Body.free`; the adapter stays apart from the weights."""
        lengths = np.array([len(rows) for rows in states], np.int64)
        order = np.argsort(lengths, kind="stable")
        grids = grids_of(lengths[order], self._device)
        x = self._load([states[i] for i in order.tolist()], None)
        for i in range(self._n_lower, len(self._layers)):
            layer, lora = self._layers[i], self._lora(adapter, i)
            keep = None if dropout is None else dropout(x.shape).to(x)
            x = layer.finish(x, layer.project_apart(x, lora, self._scale, keep), *grids)
        parts = torch.split(x, [len(grid.text) for grid in grids])
        pooled = torch.cat([packed.pool(part, grid, self._pooling) for part, grid in zip(parts, grids, strict=True)])
        return pooled[torch.from_numpy(np.argsort(order)).to(self._device)]

    def _embed(self, token: npt.NDArray[np.int64], places: Places) -> torch.Tensor:
        at = torch.full((1, len(token)), self._first_place, device=self._device)
        at[0, : len(places.place)] += places.place
        ids = torch.from_numpy(token)[None].to(self._device)
        out: torch.Tensor = self._embeddings(input_ids=ids, position_ids=at)[0]
        return out.to(self._dtype)

    def _load(self, states: Sequence[States], n_tokens: int | None) -> torch.Tensor:
        return torch.from_numpy(packed.gather(states, n_tokens)).to(self._device).to(self._dtype)

    def _lora(self, adapter: Tensors, layer: int) -> dict[str, Low]:
        return {t: (adapter[_name(layer, t, "A")], adapter[_name(layer, t, "B")]) for t in self.targets}


def _name(layer: int, target: str, part: str) -> str:
    """As peft writes it in adapter_model.safetensors."""
    return f"base_model.model.encoder.layer.{layer}.attention.self.{target}.lora_{part}.weight"
