"""Tiny random encoders in Hugging Face's files, made in code from a seed: nothing is downloaded or kept."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    GPT2Config,
    GPT2Model,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
)

WIDTH, LAYERS, HEADS = 32, 2, 2
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
WORDS = (
    "red",
    "blue",
    "green",
    "large",
    "small",
    "glass",
    "wood",
    "jug",
    "vase",
    "lamp",
    "chair",
    "bag",
    "star",
    "of",
    "12",
)
PIECES = (*"abcdefghijklmnopqrstuvwxyz0123456789", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz0123456789"))
VOCABULARY = {word: i for i, word in enumerate((*SPECIAL, *WORDS, *PIECES))}


def tiny_encoder_folder(folder: Path, *, seed: int = 0, kind: str = "bert", layers: int = LAYERS) -> str:
    """Write a model of 32 wide with a WordPiece tokenizer; returns the folder.

    Args:
        folder: made when it is not there.
        seed: of the weights.
        kind: `bert` or `roberta` (packed), `distilbert` or `gpt2` (run as they are).
        layers: of the model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _model(kind, layers)
        # As drawn, every text is nearly the same vector.
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.dim() == 2:
                    parameter.mul_(4.0 if "embeddings" not in name else 10.0)
    model.save_pretrained(folder, safe_serialization=True)
    _tokenizer().save(str(folder / "tokenizer.json"))
    told = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 64}
    named = {"pad_token": SPECIAL[0], "unk_token": SPECIAL[1], "cls_token": SPECIAL[2], "sep_token": SPECIAL[3]}
    (folder / "tokenizer_config.json").write_text(json.dumps(told | named))
    return str(folder)


def titles(n: int) -> list[str]:
    """`n` different titles of 1 to about 30 tokens, from words in and out of the vocabulary."""
    odd = ("mug", "kettle", "x9", "cushion")
    return [
        " ".join((*WORDS, *odd)[(i * 7 + k * (i % 5 + 1)) % (len(WORDS) + len(odd))] for k in range(i % 13)) + f" {i}"
        for i in range(n)
    ]


def _model(kind: str, layers: int) -> PreTrainedModel:
    n = len(VOCABULARY)
    if kind == "gpt2":
        return GPT2Model(GPT2Config(vocab_size=n, n_embd=WIDTH, n_layer=layers, n_head=HEADS, n_positions=64))
    if kind == "distilbert":
        sizes = {"dim": WIDTH, "n_layers": layers, "n_heads": HEADS, "hidden_dim": 2 * WIDTH}
        return DistilBertModel(DistilBertConfig(vocab_size=n, max_position_embeddings=64, pad_token_id=0, **sizes))
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": layers, "num_attention_heads": HEADS}
    told = {"vocab_size": n, "intermediate_size": 2 * WIDTH, "max_position_embeddings": 64, **sizes}
    if kind == "roberta":
        return RobertaModel(RobertaConfig(**told, pad_token_id=1), add_pooling_layer=False)
    return BertModel(BertConfig(**told, pad_token_id=0), add_pooling_layer=False)


def _tokenizer() -> Tokenizer:
    out = Tokenizer(models.WordPiece(VOCABULARY, unk_token=SPECIAL[1]))
    out.normalizer = normalizers.BertNormalizer(lowercase=True)
    out.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [(SPECIAL[2], VOCABULARY[SPECIAL[2]]), (SPECIAL[3], VOCABULARY[SPECIAL[3]])]
    out.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return out
