"""The next item of a visit on a public stream: the joint logit against every simple list of the same run.

    STREAM_REC_DATA=../shared/data python -m tests.bench.bench_next_item [--dataset online-retail] [--lines 51200]
        [--seed 0] [--set section.key=value ...] [--rows full,ids,no_ids,one_step,no_adapter]

Replays the first lines of the import with MiniLM (defaults otherwise), the whole catalogue of the import as
candidates, and prints a Markdown table a row: every model's recall@20 and NDCG@20 on what was taken next, scored
before it was learned (test-then-train), of all items and of cold ones (never taken before), as ratios to the two
co-occurrence lists. Every visit is scored (`learn.sample_one_in=1`; with the default of 4 a worker is quicker). Events
a CPU second are of the whole replay: front, metrics, slates, run folder. Takes about a minute a row for 51,200 lines.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.bench.tower_ground import FILES, NDCG, Outcome, imported, replayed

ROWS: dict[str, dict[str, object]] = {
    "full": {},
    "ids": {"model.use_text": "false"},
    "no_ids": {"model.use_ids": "false"},
    "one_step": {"model.tower_steps": 1},
    "no_adapter": {"model.adapter_layers": 0},
    "one_step_no_adapter": {"model.tower_steps": 1, "model.adapter_layers": 0},
}
MODELS = ("learner", "ranker", "linear", "item_knn", "cooccurrence", "frozen_text", "popular_decayed", "popular_7d")


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", choices=sorted(FILES), default="online-retail")
    parser.add_argument("--lines", type=int, default=51_200, help="events replayed; 0: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", dest="sets", action="append", default=[], metavar="section.key=value")
    parser.add_argument("--rows", default="full,ids,no_ids,one_step,no_adapter")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        events, items = imported(chosen.dataset, Path(folder), chosen.lines)
        for row in chosen.rows.split(","):
            outcome = replayed(events, items, {"run.seed": chosen.seed, **ROWS[row]}, chosen.sets)
            told = " ".join(f"{name}={value}" for name, value in ROWS[row].items())
            print(f"\n{chosen.dataset}, row {row} {told} {' '.join(chosen.sets)} seed {chosen.seed}", flush=True)
            tell(outcome)


def tell(outcome: Outcome) -> None:
    """One row's tables."""
    s, table = outcome.summary, outcome.whole["next_item"]
    print(
        f"{outcome.consumed:,} records, {s['accepted']:,} accepted, {s['duplicate']:,} duplicates, "
        f"{s['late']:,} late, {s['dead_lettered']:,} dead letters, {s['ignored']:,} ignored; "
        f"{s['n_examples']:,} usable positives; {table['learner']['all']['n']:,} next items scored, "
        f"{table['learner'].get('new_items', {'n': 0})['n']:,} of them cold\n"
    )
    knn, pairs = (outcome.mean(name) for name in ("item_knn", "cooccurrence"))
    knn_n, pairs_n = (outcome.mean(name, measure=NDCG) for name in ("item_knn", "cooccurrence"))
    print("| model | R@20 | x item_knn | x cooc. | NDCG@20 | x item_knn | x cooc. | cold R@20 | head | tail |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in MODELS:
        recall, ndcg = outcome.mean(name), outcome.mean(name, measure=NDCG)
        slices = " | ".join(f"{outcome.mean(name, part):.4f}" for part in ("new_items", "head", "tail"))
        print(
            f"| {name} | {recall:.4f} | {recall / knn:.3f} | {recall / pairs:.3f} | {ndcg:.4f} | {ndcg / knn_n:.3f} | "
            f"{ndcg / pairs_n:.3f} | {slices} |"
        )
    if "new_items" in table["learner"]:
        cold, frozen = outcome.later("learner", "new_items"), outcome.later("frozen_text", "new_items")
        print(f"\nafter the first tenth, cold: learner {cold:.4f}, frozen text {frozen:.4f}")
    print(
        f"{outcome.rate:,.0f} events a CPU second of everything, {outcome.steady_rate:,.0f} without the first "
        f"embedding of the catalogue ({outcome.embed_cpu_s:.1f} s); {s['cpu_s']:.1f} CPU s, {s['wall_s']:.1f} s",
        flush=True,
    )


if __name__ == "__main__":
    main()
