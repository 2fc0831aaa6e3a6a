"""What each part of the joint logit is worth at the next item: a part taken out, or a setting changed, three seeds.

    STREAM_REC_DATA=../shared/data python -m tests.bench.bench_ablation [--dataset online-retail] [--lines 25600]
        [--seeds 0,1,2] [--rows full,no_text,...]

Rows are settings; where there is none, the bench takes the part out itself (`no_*_features`, `no_last_map`). Prints a
Markdown table of the learner's recall@20, NDCG@20 and recall of cold items: mean and, behind +-, half the distance
between the largest and the smallest seed. A seed changes which examples are learned and scored and, without texts,
where the residuals start. Takes about half a minute a row and seed.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from stream_rec.learn import scoring
from stream_rec.model import tower_learning
from stream_rec.model.features import TOGETHER, Inputs
from stream_rec.model.tower import LAST
from tests.bench.tower_ground import FILES, NDCG, Outcome, imported, replayed

TEXT_PAIRS = tuple(place for place, name in enumerate(TOGETHER) if name.startswith("text_"))


def _features(change: Callable[[Inputs], Inputs]) -> AbstractContextManager[Any]:
    plain = scoring.inputs
    return mock.patch.object(scoring, "inputs", lambda *args, **named: change(plain(*args, **named)))


def _without_pairs(x: Inputs) -> Inputs:
    return dataclasses.replace(x, together=(None,) * len(x.together))


def _without_text_pairs(x: Inputs) -> Inputs:
    return dataclasses.replace(x, together=tuple(None if i in TEXT_PAIRS else f for i, f in enumerate(x.together)))


def _without_statistics(x: Inputs) -> Inputs:
    return dataclasses.replace(_without_pairs(x), shared=np.zeros_like(x.shared), values=np.zeros_like(x.values))


def _no_last_map() -> AbstractContextManager[Any]:
    plain = tower_learning.gradients

    def gradients(*args: Any, **named: Any) -> Any:
        out, n = plain(*args, **named)
        out["maps"][LAST:] = 0.0
        return out, n

    return mock.patch.object(tower_learning, "gradients", gradients)


Row = tuple[dict[str, object], Callable[[], AbstractContextManager[Any]]]
ROWS: dict[str, Row] = {
    "full": ({}, nullcontext),
    "no_text": ({"model.use_text": "false"}, nullcontext),
    "no_ids": ({"model.use_ids": "false"}, nullcontext),
    "no_text_no_ids": ({"model.use_text": "false", "model.use_ids": "false"}, nullcontext),
    "no_tower": ({"model.encoder": "none"}, nullcontext),
    "no_pair_features": ({}, lambda: _features(_without_pairs)),
    "no_text_pair_features": ({}, lambda: _features(_without_text_pairs)),
    "no_statistics_features": ({}, lambda: _features(_without_statistics)),
    "no_last_map": ({}, _no_last_map),
    "no_adapter": ({"model.adapter_layers": 0}, nullcontext),
    "replay_window": ({"learn.replay": "window"}, nullcontext),
    "replay_reservoir": ({"learn.replay": "reservoir"}, nullcontext),
    "steps_1": ({"model.tower_steps": 1}, nullcontext),
    "steps_3": ({"model.tower_steps": 3}, nullcontext),
    "min_examples_64": ({"model.min_examples": 64}, nullcontext),
    "min_examples_512": ({"model.min_examples": 512}, nullcontext),
}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", choices=sorted(FILES), default="online-retail")
    parser.add_argument("--lines", type=int, default=25_600, help="events replayed; 0: all")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--rows", default=",".join(ROWS))
    chosen = parser.parse_args()
    print("| row | seeds | R@20 | NDCG@20 | cold R@20 | x item_knn | events a CPU second |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        events, items = imported(chosen.dataset, Path(folder), chosen.lines)
        for row in chosen.rows.split(","):
            sets, part_out = ROWS[row]
            outcomes = []
            for seed in chosen.seeds.split(","):
                with part_out():
                    outcomes.append(replayed(events, items, {**sets, "run.seed": seed}))
            print(_line(row, outcomes), flush=True)


def _line(row: str, outcomes: list[Outcome]) -> str:
    figures = [(o.mean("learner"), o.mean("learner", measure=NDCG), o.mean("learner", "new_items")) for o in outcomes]
    columns = np.array(figures).T
    told = " | ".join(f"{c.mean():.4f} +-{np.ptp(c) / 2:.4f}" for c in columns)
    knn = [o.mean("item_knn") for o in outcomes]
    ratio = f"{columns[0].mean() / np.mean(knn):.3f}" if min(knn) > 0 else ""
    rate = float(np.mean([o.steady_rate for o in outcomes]))
    return f"| {row} | {len(outcomes)} | {told} | {ratio} | {rate:,.0f} |"


if __name__ == "__main__":
    main()
