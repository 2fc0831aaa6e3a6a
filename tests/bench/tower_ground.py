"""What the benches of the text tower share: a public stream cut to its first lines, a replay of it, and its figures.

`replayed` runs one replay with MiniLM in a folder that is thrown away afterwards, and keeps what `summary.json` says,
what the catalogue's embeddings cost, and every visit that was scored.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from time import process_time
from typing import Any
from unittest import mock

import numpy as np

from stream_rec import assemble, config, replay
from stream_rec.learn.pending import Closed, PendingVisits
from stream_rec.model.item_texts import ItemTexts

FILES = {
    "online-retail": ("online-retail/online_retail_2010-12_2011-08.csv.gz",),
    "rees46": ("rees46-oct2019-slice/2019-Oct_first17435.csv.gz",),
    "movielens-100k": ("movielens-100k/ml-100k.inter.gz", "movielens-100k/ml-100k.item.gz"),
}
Sets = Mapping[str, object]
RECALL, NDCG = "recall@20", "ndcg@20"


@dataclass
class Outcome:
    """What a replay came to."""

    summary: dict[str, Any]
    embed_cpu_s: float
    """CPU seconds of the catalogue's first embeddings."""
    visits: list[Closed] = field(default_factory=list)

    @property
    def whole(self) -> dict[str, Any]:
        """{task: {model: {slice: {n, recall@20, ndcg@20}}}} over the run."""
        table: dict[str, Any] = self.summary["metrics"]["whole"]
        return table

    def mean(self, model: str, part: str = "all", measure: str = RECALL, task: str = "next_item") -> float:
        """One figure of the whole run; 0 where nothing was measured."""
        return float(self.whole[task].get(model, {}).get(part, {}).get(measure, 0.0))

    def later(self, model: str, part: str, measure: str = RECALL) -> float:
        """A next-item figure of the run after its first tenth of the positives."""
        whole, first = (self.summary["metrics"][name]["next_item"][model] for name in ("whole", "first_tenth"))
        n, early = whole[part]["n"], first.get(part, {"n": 0, measure: 0.0})
        left = n - early["n"]
        return float((whole[part][measure] * n - early[measure] * early["n"]) / left) if left else 0.0

    @property
    def rate(self) -> float:
        """Events a CPU second of everything: embeddings, metrics, slates, the run folder."""
        return self.consumed / float(self.summary["cpu_s"])

    @property
    def steady_rate(self) -> float:
        """The same without the catalogue's first embeddings."""
        return self.consumed / (float(self.summary["cpu_s"]) - self.embed_cpu_s)

    @property
    def consumed(self) -> int:
        """Records taken, items included."""
        return int(self.summary["consumed"])


def imported(dataset: str, folder: Path, n_lines: int) -> tuple[Path, Path]:
    """The first `n_lines` (0: all) events of a dataset and its whole catalogue, as files."""
    home = Path(os.environ.get("STREAM_REC_DATA", "../shared/data"))
    files = [home / name for name in FILES[dataset]]
    if not all(file.exists() for file in files):
        sys.exit(f"no {files[0]}: set STREAM_REC_DATA")
    whole, events, items = folder / "whole.jsonl", folder / "events.jsonl", folder / "items.jsonl"
    assemble.import_dataset(dataset, files, whole, items_out=items, column_map={})
    with whole.open("rb") as lines, events.open("wb") as first:
        first.writelines(islice(lines, n_lines or None))
    return events, items


def replayed(events: Path, items: Path, sets: Sets, chosen: Sequence[str] = ()) -> Outcome:
    """One replay from nothing; `chosen` are `section.key=value` texts that win over `sets`."""
    with tempfile.TemporaryDirectory() as folder, _closed_visits() as visits, _embed_cpu_s() as embed_cpu_s:
        values = {
            "model.encoder": "minilm",
            "registry.enabled": "false",
            "run.dir": f"{folder}/run",
            "privacy.key": "bench",
            "learn.sample_one_in": 1,
            **sets,
        }
        settings = config.load(None, [*(f"{name}={value}" for name, value in values.items()), *chosen], {})
        summary = replay.run_replay(settings, events=events, items=items)
    return Outcome(summary, embed_cpu_s[0] if embed_cpu_s else 0.0, visits)


@contextmanager
def _closed_visits() -> Iterator[list[Closed]]:
    seen: list[Closed] = []
    plain = PendingVisits.close

    def close(pool: PendingVisits, watermark_ms: int) -> Closed:
        seen.append(plain(pool, watermark_ms))
        return seen[-1]

    with mock.patch.object(PendingVisits, "close", close):
        yield seen


@contextmanager
def _embed_cpu_s() -> Iterator[list[float]]:
    """CPU seconds of each tick that embedded something; the first holds the catalogue."""
    spent: list[float] = []
    plain = ItemTexts.embed

    def embed(*args: Any) -> Any:
        begun = process_time()
        changed = plain(*args)
        if len(changed):
            spent.append(process_time() - begun)
        return changed

    with mock.patch.object(ItemTexts, "embed", embed):
        yield spent


def interval(
    user_key: np.ndarray, ours: np.ndarray, theirs: np.ndarray, *, n_resamples: int = 2_000, seed: int = 0
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Difference and ratio of two models' mean recalls on the same visits: (value, 2.5 %, 97.5 %) each.

    Users are resampled, not visits (percentile bootstrap), with PCG64(seed).
    """
    _, user = np.unique(user_key, return_inverse=True)
    sums = np.stack([np.bincount(user, weights) for weights in (np.ones(len(user)), ours, theirs)], axis=1)
    rng = np.random.Generator(np.random.PCG64(seed))
    drawn = np.stack(
        [np.bincount(rng.integers(0, len(sums), len(sums)), minlength=len(sums)) @ sums for _ in range(n_resamples)]
    )
    whole = sums.sum(axis=0)
    difference = np.quantile((drawn[:, 1] - drawn[:, 2]) / drawn[:, 0], (0.025, 0.975))
    ratio = np.quantile(drawn[:, 1] / np.maximum(drawn[:, 2], 1e-12), (0.025, 0.975))
    return (
        (float((whole[1] - whole[2]) / whole[0]), float(difference[0]), float(difference[1])),
        (float(whole[1] / max(whole[2], 1e-12)), float(ratio[0]), float(ratio[1])),
    )
