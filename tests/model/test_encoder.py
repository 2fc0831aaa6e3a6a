"""The encoder: the same bits for a text whatever stands beside it, and the same numbers as peft's own model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
import transformers

from stream_rec.io import adapter_files
from stream_rec.model.adapter import AdapterTrainer
from stream_rec.model.bodies import Plan
from stream_rec.model.encoder import Adapter, Encoder
from stream_rec.model.trunk_cache import TrunkCache
from tests.model.tiny import LAYERS, WIDTH, tiny_encoder_folder, titles

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

TEXTS = titles(100)
KINDS = ("bert", "roberta", "distilbert", "gpt2")
Make = Callable[..., Encoder]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("encoders")
    return {kind: tiny_encoder_folder(home / kind, kind=kind) for kind in KINDS}


def moved(encoder: Encoder, seed: int = 5) -> Adapter:
    """An adapter that changes something."""
    draw = np.random.Generator(np.random.PCG64(seed))
    start = encoder.initial_adapter(seed)
    return {name: value + draw.normal(0, 0.1, value.shape).astype(np.float32) for name, value in start.items()}


def peft_vectors(folder: str, adapter_folder: Path | None, texts: list[str]) -> np.ndarray:
    """What plain transformers and peft make of the texts, padded together."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    if adapter_folder is not None:
        model = peft.PeftModel.from_pretrained(model, str(adapter_folder)).eval()
    told = tokenizer(texts, truncation=True, max_length=32, padding=True, return_tensors="pt")
    told.pop("token_type_ids", None)
    with torch.inference_mode():
        hidden = model(**told).last_hidden_state
    mask = told["attention_mask"]
    if "gpt2" in folder:
        out = hidden[torch.arange(len(texts)), mask.sum(1) - 1]
    else:
        out = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    return torch.nn.functional.normalize(out, dim=1).numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_a_texts_bits_do_not_depend_on_the_texts_beside_it(folders: dict[str, str], kind: str) -> None:
    encoder = Encoder(folders[kind], revision="r")
    adapter = moved(encoder)
    whole = encoder.embed(TEXTS, adapter)
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(TEXTS))
    shuffled = encoder.embed([TEXTS[i] for i in order], adapter)
    assert np.array_equal(shuffled, whole[order])
    for low in range(0, 21, 7):
        assert np.array_equal(encoder.embed(TEXTS[low : low + 7], adapter), whole[low : low + 7])
    for i in (0, 1, 12, 60):
        assert np.array_equal(encoder.embed([TEXTS[i]], adapter)[0], whole[i])


@pytest.mark.parametrize("where", ["memory", "file"])
def test_hit_miss_and_rebuilt_cache_give_the_same_bits(folders: dict[str, str], tmp_path: Path, where: str) -> None:
    path = None if where == "memory" else str(tmp_path / "trunk")
    bare = Encoder(folders["bert"], revision="r").embed(TEXTS)
    cache = TrunkCache(path, max_bytes=1 << 20)
    cached = Encoder(folders["bert"], revision="r", cache=cache)
    missed = cached.embed(TEXTS[40:])
    assert cache.n_hits == 0
    mixed = cached.embed(TEXTS)
    assert cache.n_hits == 60
    again = Encoder(folders["bert"], revision="r", cache=TrunkCache(path, max_bytes=1 << 20))
    rebuilt = again.embed(TEXTS)
    assert again.cache is not None
    assert again.cache.n_hits == (0 if where == "memory" else len(TEXTS))
    assert np.array_equal(missed, bare[40:])
    assert np.array_equal(mixed, bare)
    assert np.array_equal(rebuilt, bare)


@pytest.mark.parametrize("kind", KINDS)
def test_the_base_is_the_plain_model(folders: dict[str, str], kind: str) -> None:
    ours = Encoder(folders[kind], revision="r").embed(TEXTS)
    assert np.abs(ours - peft_vectors(folders[kind], None, TEXTS)).max() < (1e-3 if kind in KINDS[:2] else 1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_peft_loads_our_adapter_and_embeds_alike(folders: dict[str, str], tmp_path: Path, kind: str) -> None:
    encoder = Encoder(folders[kind], revision="r")
    adapter = moved(encoder)
    adapter_files.write(tmp_path, encoder.adapter_config(), adapter)
    theirs, ours = peft_vectors(folders[kind], tmp_path, TEXTS), encoder.embed(TEXTS, adapter)
    assert np.abs(ours - theirs).max() < 1e-3
    assert np.abs(ours - encoder.embed(TEXTS)).max() > 0.05


def test_an_adapter_is_read_back_as_written(folders: dict[str, str], tmp_path: Path) -> None:
    encoder = Encoder(folders["bert"], revision="r")
    adapter = moved(encoder)
    adapter_files.write(tmp_path, encoder.adapter_config(), adapter)
    config, read = adapter_files.read(tmp_path)
    assert config == encoder.adapter_config()
    assert read.keys() == adapter.keys()
    assert all(np.array_equal(read[name], adapter[name]) for name in adapter)


def test_an_adapters_names_and_shapes_are_pefts(folders: dict[str, str]) -> None:
    plan = Plan(adapter_layers=2, rank=4, targets=("query", "key", "value"))
    encoder = Encoder(folders["bert"], revision="r", plan=plan)
    config = peft.LoraConfig(r=4, target_modules=["query", "key", "value"], layers_to_transform=[0, 1])
    model = peft.get_peft_model(transformers.AutoModel.from_pretrained(folders["bert"]), config)
    theirs = {name: tuple(value.shape) for name, value in peft.get_peft_model_state_dict(model).items()}
    assert encoder.shapes == theirs


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_merged_is_unmerged(folders: dict[str, str], kind: str, layers: int) -> None:
    encoder = Encoder(folders[kind], revision="r", plan=Plan(adapter_layers=layers))
    adapter = moved(encoder)
    with torch.no_grad():
        apart = encoder.forward(TEXTS, encoder.tensors(adapter)).numpy()
    assert np.abs(encoder.embed(TEXTS, adapter) - apart).max() < 1e-4


def test_gradients_are_those_of_plain_peft(folders: dict[str, str], tmp_path: Path) -> None:
    encoder = Encoder(folders["bert"], revision="r")
    adapter = moved(encoder)
    adapter_files.write(tmp_path, encoder.adapter_config(), adapter)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders["bert"])
    base = transformers.AutoModel.from_pretrained(folders["bert"])
    model = peft.PeftModel.from_pretrained(base, str(tmp_path), is_trainable=True).eval()
    told = tokenizer(TEXTS, truncation=True, max_length=32, padding=True, return_tensors="pt")
    mask = told["attention_mask"][..., None]
    goal = torch.linspace(-1, 1, len(TEXTS) * WIDTH).reshape(len(TEXTS), WIDTH)
    hidden = model(input_ids=told["input_ids"], attention_mask=told["attention_mask"]).last_hidden_state
    (torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1) * goal).sum().backward()
    theirs = {n.replace(".default.", "."): p.grad for n, p in model.named_parameters() if p.requires_grad}
    ours = {name: value.requires_grad_() for name, value in encoder.tensors(adapter).items()}
    (encoder.forward(TEXTS, ours) * goal).sum().backward()
    assert theirs.keys() == ours.keys()
    for name, value in ours.items():
        assert value.grad is not None
        assert torch.allclose(value.grad, theirs[name], atol=5e-3, rtol=5e-3), name


def test_the_initial_adapter_changes_nothing(folders: dict[str, str]) -> None:
    encoder = Encoder(folders["bert"], revision="r")
    assert np.array_equal(encoder.embed(TEXTS, encoder.initial_adapter(3)), encoder.embed(TEXTS))


def test_equal_texts_get_equal_rows_and_no_text_an_empty_table(folders: dict[str, str]) -> None:
    encoder = Encoder(folders["bert"], revision="r")
    rows = encoder.embed(["a red jug", "", "a red jug"])
    assert np.array_equal(rows[0], rows[2])
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    assert encoder.embed([]).shape == (0, WIDTH)


def test_loading_leaves_the_global_generator_alone(folders: dict[str, str]) -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    encoder = Encoder(folders["gpt2"], revision="r", seed=9)
    encoder.forward(["a jug"], encoder.tensors(moved(encoder)))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_another_encoders_adapter_is_refused(folders: dict[str, str]) -> None:
    one, two = (Encoder(folders["bert"], revision="r", plan=Plan(adapter_layers=n)) for n in (1, 2))
    with pytest.raises(ValueError, match="other names or shapes"):
        one.embed(TEXTS, two.initial_adapter(0))
    with pytest.raises(ValueError, match=f"{LAYERS} layers"):
        Encoder(folders["bert"], revision="r", plan=Plan(adapter_layers=3))


def test_bfloat16_stays_close_and_keeps_the_bits_of_a_text(folders: dict[str, str]) -> None:
    exact = Encoder(folders["bert"], revision="r")
    coarse = Encoder(folders["bert"], revision="r", plan=Plan(dtype="bfloat16"))
    rows = coarse.embed(TEXTS)
    assert (rows * exact.embed(TEXTS)).sum(1).min() > 0.98
    assert np.array_equal(coarse.embed(TEXTS[3:4])[0], rows[3])


@pytest.mark.parametrize("pooling", ["first", "last"])
def test_other_poolings_are_those_of_the_plain_model(folders: dict[str, str], pooling: str) -> None:
    ours = Encoder(folders["bert"], revision="r", plan=Plan(pooling=pooling)).embed(TEXTS[:9])
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders["bert"])
    model = transformers.AutoModel.from_pretrained(folders["bert"]).eval()
    for text, row in zip(TEXTS[:9], ours, strict=True):
        told = tokenizer(text, truncation=True, max_length=32, return_tensors="pt")
        with torch.inference_mode():
            hidden = model(**told).last_hidden_state[0]
        alone = torch.nn.functional.normalize(hidden[0 if pooling == "first" else -1], dim=0).numpy()
        assert np.abs(row - alone).max() < 1e-3


def test_a_trainer_on_a_plain_model_learns(folders: dict[str, str]) -> None:
    trainer = AdapterTrainer(Encoder(folders["gpt2"], revision="r"))
    goal = torch.sin(torch.arange(float(WIDTH)))
    losses = [trainer.step(TEXTS[:10], lambda v: -(v @ goal).mean()) for _ in range(20)]
    assert losses[-1] < losses[0]
