"""Any Hugging Face model as it is, with peft's own adapter: slower than packed, but for every architecture.

Texts are padded to the right in batches of ROWS and of a length that their own length decides. All layers run each
time: a trunk of unknown make is not cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.func import functional_call

from stream_rec.errors import SettingsError
from stream_rec.model.bodies import Dropout, Floats, Plan, Shapes, States, Tensors
from stream_rec.model.packed import LENGTH_STEP

ROWS, FEW_ROWS = 16, 2
"""Texts of a fixed batch."""
USUAL = (
    "query",
    "value",
    "q_proj",
    "v_proj",
    "q_lin",
    "v_lin",
    "q",
    "v",
    "c_attn",
    "query_key_value",
    "qkv_proj",
    "Wqkv",
)
"""What is adapted when nothing is named: query and value, under the names that architectures give them."""
DEFAULT = "default"
"""peft's name of the one adapter."""


class PlainBody:
    """A Hugging Face model under peft.

    Args:
        model: any AutoModel, frozen.
        plan: how it is adapted.
        pooling: `mean`, `first` or `last`.
        pad: token id that fills rows up.

    Raises:
        SettingsError: the top layers have none of the modules to adapt.
    """

    has_trunk = False

    def __init__(self, model: Any, plan: Plan, pooling: str, *, pad: int) -> None:
        self._pooling, self._pad, self._device = pooling, pad, torch.device(plan.device)
        self._peft = _adapted(model.to(getattr(torch, plan.dtype)), plan)
        self.targets = tuple(sorted(self._peft.peft_config[DEFAULT].target_modules))
        self.layers: list[int] | None = None
        self.is_turned = bool(self._peft.peft_config[DEFAULT].fan_in_fan_out)
        own = {n: p for n, p in self._peft.named_parameters() if ".lora_" in n}
        self._inner = {name.replace(f".{DEFAULT}.", "."): name for name in own}
        self.shapes: Shapes = {short: tuple(own[name].shape) for short, name in self._inner.items()}
        self._drops = [_Drop(module) for module in _dropouts(self._peft)]

    def trunk(self, ids: Sequence[Sequence[int]], *, few: bool = False) -> list[States]:
        """The token ids themselves, int64 [tokens]."""
        del few
        return [np.array(row, np.int64) for row in ids]

    @torch.no_grad()
    def fixed(self, states: Sequence[States], adapter: Tensors | None, *, few: bool = False) -> Floats:
        """See `bodies.Body.fixed`."""
        size = FEW_ROWS if few else ROWS
        width = np.array([-(-len(row) // LENGTH_STEP) * LENGTH_STEP for row in states], np.int64)
        out: list[npt.NDArray[Any] | None] = [None] * len(states)
        for wide in np.unique(width).tolist():
            rows = np.flatnonzero(width == wide)
            for low in range(0, len(rows), size):
                some = rows[low : low + size].tolist()
                made = self._run([states[i] for i in some], (size, wide), adapter).cpu().numpy()
                for i, vector in zip(some, made, strict=False):
                    out[i] = vector
        return np.array(out, np.float32)

    def free(self, states: Sequence[States], adapter: Tensors, dropout: Dropout | None) -> torch.Tensor:
        """See `bodies.Body.free`."""
        for drop in self._drops:
            drop.make = dropout
        try:
            return self._run(states, (len(states), max(map(len, states))), adapter)
        finally:
            for drop in self._drops:
                drop.make = None

    def _run(self, states: Sequence[States], shape: tuple[int, int], adapter: Tensors | None) -> torch.Tensor:
        token, mask = np.full(shape, self._pad, np.int64), np.zeros(shape, np.int64)
        mask[:, 0] = 1
        for row, ids in enumerate(states):
            token[row, : len(ids)], mask[row, : len(ids)] = ids, 1
        told = {
            "input_ids": torch.from_numpy(token).to(self._device),
            "attention_mask": torch.from_numpy(mask).to(self._device),
        }
        if adapter is None:
            with self._peft.disable_adapter():
                hidden = self._peft(**told).last_hidden_state
        else:
            values = {self._inner[name]: value.to(self._device) for name, value in adapter.items()}
            hidden = functional_call(self._peft, values, (), told).last_hidden_state
        return _pooled(hidden.float(), told["attention_mask"], self._pooling)


class _Drop(torch.nn.Module):
    """Stands where peft has its dropout, and draws from a seeded generator instead of the global one."""

    def __init__(self, place: torch.nn.ModuleDict) -> None:
        super().__init__()
        self.make: Dropout | None = None
        place[DEFAULT] = self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if self.make is None else x * self.make(x.shape).to(x)


def _dropouts(model: torch.nn.Module) -> list[torch.nn.ModuleDict]:
    return [
        m for name, m in model.named_modules() if name.endswith(".lora_dropout") and isinstance(m, torch.nn.ModuleDict)
    ]


def _adapted(model: Any, plan: Plan) -> Any:
    # peft takes seconds to import, and a packed model needs none of it.
    from peft import LoraConfig, get_peft_model

    kind = model.config.model_type
    wanted = set(plan.targets or USUAL)
    names = [name for name in _upper(model, plan.adapter_layers) if name.rpartition(".")[2] in wanted]
    if not names:
        raise SettingsError(
            f"model.adapter_targets={','.join(sorted(wanted))!r}: the top layers of this {kind} have no such modules; "
            "name the linear modules to adapt, for example "
            + ",".join(sorted({name.rpartition(".")[2] for name in _upper(model, 1)}))
        )
    turned = type(model.get_submodule(names[0])).__name__ == "Conv1D"
    config = LoraConfig(r=plan.rank, lora_alpha=plan.alpha, target_modules=names, fan_in_fan_out=turned)
    # What peft draws for the adapter is never used.
    with torch.random.fork_rng(devices=[]):
        return get_peft_model(model, config).eval()


def _upper(model: Any, n_layers: int) -> list[str]:
    """Full names of the weighted modules inside the top layers."""
    depth = model.config.num_hidden_layers
    stack = next(n for n, m in model.named_modules() if isinstance(m, torch.nn.ModuleList) and len(m) == depth)
    tops = tuple(f"{stack}.{layer}." for layer in range(depth - n_layers, depth))
    inside = [(name, module) for name, module in model.named_modules() if name.startswith(tops)]
    return [name for name, module in inside if getattr(getattr(module, "weight", None), "ndim", 0) == 2]


def _pooled(hidden: torch.Tensor, mask: torch.Tensor, pooling: str) -> torch.Tensor:
    if pooling == "first":
        return hidden[:, 0]
    if pooling == "last":
        return hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(1) - 1]
    weight = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weight).sum(1) / weight.sum(1)
