"""The text encoder: any Hugging Face AutoModel in a local folder, with a small adapter on its top layers.

y = W x + (alpha / rank) B A x on the adapted projections (LoRA, Hu et al. 2021); everything else is frozen, so what
lies below the adapter is a pure function of the text and can be kept (`trunk_cache`). A text's vector has the same bits
alone or among others, and whether its trunk was kept or computed: batches have one shape each, and trunk states always
go through float16.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES

from stream_rec.model.bodies import Body, Dropout, PackedBody, Plan, States, can_pack
from stream_rec.model.trunk_cache import TrunkCache, get_all

Floats = npt.NDArray[np.float32]
Adapter = dict[str, Floats]
"""Parameters of an adapter by peft's name, as in its adapter_model.safetensors."""

SLAB = 4_096
"""Texts whose states are held at once."""

transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]


class Encoder:
    """Texts to unit vectors, under the base or under an adapter.

    Args:
        folder: config.json, tokenizer and model.safetensors.
        revision: stands for these files.
        max_tokens: tokens of a text that are read.
        seed: of nothing but what a model draws when it is loaded.
        plan: pooling, adapter, dtype and device.
        cache: keeps trunk states; None computes them each time.

    Raises:
        SettingsError: the architecture does not say which modules to adapt.
        ValueError: `plan` asks for more adapted layers than there are.
    """

    def __init__(
        self,
        folder: str,
        *,
        revision: str,
        max_tokens: int = 32,
        seed: int = 0,
        plan: Plan | None = None,
        cache: TrunkCache | None = None,
    ) -> None:
        torch.set_num_threads(1)
        self.revision, self.max_tokens, self.plan = revision, max_tokens, plan or Plan()
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = _load(folder, seed).to(self.plan.device)
        self.dim = int(model.config.hidden_size)
        n_layers = int(model.config.num_hidden_layers)
        if not 1 <= self.plan.adapter_layers <= n_layers:
            raise ValueError(f"the encoder has {n_layers} layers, {self.plan.adapter_layers} cannot be adapted")
        self._pad = _pad_of(self._tokenizer)
        self.pooling = self.plan.pooling or ("last" if _decodes(model) else "mean")
        self._body = self._body_of(model)
        self.cache = cache if self._body.has_trunk else None
        if self.cache is not None:
            self.cache.bind(self._trunk_name(n_layers), self.dim)

    def made_as(self) -> dict[str, Any]:
        """What makes the same encoder again from the same files: `revision`, `max_tokens`, `plan`; JSON values."""
        plan = self.plan._replace(pooling=self.pooling)
        return {"revision": self.revision, "max_tokens": self.max_tokens, "plan": plan._asdict()}

    @property
    def n_adapter_layers(self) -> int:
        """Top layers that an adapter changes."""
        return self.plan.adapter_layers

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of an adapter's parameters, by name."""
        return dict(self._body.shapes)

    @property
    def is_packed(self) -> bool:
        """Whether the top layers run without padding."""
        return self._body.has_trunk

    def embed(
        self, texts: Sequence[str], adapter: Mapping[str, npt.NDArray[Any]] | None = None, *, few: bool = False
    ) -> Floats:
        """Unit vectors float32 [n, dim]; a text's vector does not depend on the other texts of the call.

        Args:
            texts: equal ones are computed once.
            adapter: of `shapes`; None: the frozen base.
            few: in small batches, sooner done for a handful; their last bits are others.
        """
        place = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        distinct = list(place)
        tensors = None if adapter is None else self.tensors(adapter)
        out = np.zeros((len(distinct), self.dim), np.float32)
        for low in range(0, len(distinct), SLAB):
            some = distinct[low : low + SLAB]
            out[low : low + len(some)] = self._body.fixed(self._states(some, few=few), tensors, few=few)
        norm = np.sqrt(np.einsum("nd,nd->n", out, out, dtype=np.float64, optimize=False))
        out /= np.maximum(norm, 1e-12).astype(np.float32)[:, None]
        vectors: Floats = out[[place[text] for text in texts]]
        return vectors

    def forward(
        self, texts: Sequence[str], adapter: Mapping[str, torch.Tensor], dropout: Dropout | None = None
    ) -> torch.Tensor:
        """Unit vectors float32 [n, dim] with gradients into `adapter`, which stays apart from the weights.

        Args:
            texts: at least one; equal ones are computed once.
            adapter: float32 tensors of `shapes`.
            dropout: makes what each adapted layer's adapter sees is multiplied with.
        """
        place = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        vectors = self._body.free(self._states(list(place)), adapter, dropout)
        unit = torch.nn.functional.normalize(vectors, dim=1)
        return unit[[place[text] for text in texts]] if len(place) < len(texts) else unit

    def initial_adapter(self, seed: int) -> Adapter:
        """An adapter that changes nothing yet: A uniform in +-1 / sqrt(inputs), B zero."""
        draw = np.random.Generator(np.random.PCG64(seed))
        return {
            name: draw.uniform(-1, 1, shape).astype(np.float32) / np.float32(np.sqrt(shape[1]))
            if ".lora_A." in name
            else np.zeros(shape, np.float32)
            for name, shape in sorted(self._body.shapes.items())
        }

    def adapter_config(self) -> dict[str, Any]:
        """What adapter_config.json has to say, in peft's words."""
        return {
            "peft_type": "LORA",
            "task_type": None,
            "base_model_name_or_path": None,
            "revision": self.revision,
            "inference_mode": True,
            "r": self.plan.rank,
            "lora_alpha": self.plan.alpha,
            "lora_dropout": 0.0,
            "bias": "none",
            "target_modules": list(self._body.targets),
            "layers_to_transform": self._body.layers,
            "fan_in_fan_out": self._body.is_turned,
        }

    def tensors(self, adapter: Mapping[str, npt.NDArray[Any]]) -> dict[str, torch.Tensor]:
        """An adapter as float32 tensors on the device.

        Raises:
            ValueError: it is none of this encoder.
        """
        if {name: tuple(value.shape) for name, value in adapter.items()} != self._body.shapes:
            raise ValueError("this adapter has other names or shapes than the encoder's")
        return {
            # A copy at an address of torch's own: products can tell how their operands are aligned.
            name: torch.tensor(np.asarray(value, np.float32), device=self.plan.device)
            for name, value in adapter.items()
        }

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, cut at `max_tokens`; at least one a text."""
        if not texts:
            return []
        ids = self._tokenizer(list(texts), truncation=True, max_length=self.max_tokens)["input_ids"]
        return [list(row) or [self._pad] for row in ids]

    def _states(self, texts: list[str], *, few: bool = False) -> list[States]:
        kept = get_all(self.cache, [_kept_as(text, few=few) for text in texts])
        missing = [text for text, states in zip(texts, kept, strict=True) if states is None]
        made = self._made(missing, few=few)
        return [next(made) if states is None else states for states in kept]

    def _made(self, texts: list[str], *, few: bool) -> Iterator[States]:
        for text, states in zip(texts, self._body.trunk(self.tokens(texts), few=few), strict=True):
            if self.cache is not None:
                self.cache.put(_kept_as(text, few=few), states)
            yield states

    def _body_of(self, model: Any) -> Body:
        if can_pack(model, self.plan):
            return PackedBody(model, self.plan, self.pooling)
        from stream_rec.model.plain import PlainBody

        return PlainBody(model, self.plan, self.pooling, pad=self._pad)

    def _trunk_name(self, n_layers: int) -> str:
        """Everything that a trunk state depends on besides the text; other instructions give other last bits."""
        return "|".join(
            str(part)
            for part in (
                self.revision,
                n_layers - self.plan.adapter_layers,
                self.max_tokens,
                self.plan.dtype,
                self.plan.device,
                torch.__version__,
                torch.backends.cpu.get_cpu_capability(),
            )
        )


def _kept_as(text: str, *, few: bool) -> str:
    """A text's name in the cache: states of small batches stand apart from those of large ones."""
    return f"few\0{text}" if few else text


def _load(folder: str, seed: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.AutoModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
        )
    return model.eval().requires_grad_(False)


def _decodes(model: Any) -> bool:
    kind = model.config.model_type
    return bool(getattr(model.config, "is_decoder", False)) or (
        kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    )


def _pad_of(tokenizer: Any) -> int:
    """The id that fills rows up; decoders often have none, and under the mask any will do."""
    known = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    return int(next(each for each in known if each is not None))
