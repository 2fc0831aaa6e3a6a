"""Recall@20 at the next visit on a public stream: the joint logit, the linear ranker and every simple list of a run.

    STREAM_REC_DATA=../shared/data python -m tests.bench.bench_next_visit [--dataset online-retail] [--lines 0]
        [--encoder minilm] [--one-in N] [--valid-days D] [--seed 0] [--set section.key=value ...]

Replays the file through the loop with MiniLM (`--encoder none`: statistics alone) and prints, for known, new and
anonymous customers, every model scored at the visit's first event, as a ratio to the strongest simple list, and the
slate that was really in force. Then, paired on the same visits, `learner` (what learns) and `ranker` (what serves)
against `linear` (the same run's statistics alone) and against the strongest list: difference and ratio with 95 %
intervals that resample users. `--valid-days 30` keeps slates in force for a month: the file has about one tick a day,
so that the round-robin needs longer than the default week to come back to a customer. Takes about five minutes.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from stream_rec.learn.prequential import MODELS, USER_SLICES, K
from tests.bench.tower_ground import FILES, RECALL, Outcome, imported, interval, replayed

LISTS = ("popular_7d", "popular_decayed", "cooccurrence", "item_knn", "repeat", "own_then_popular_7d")
LEARNED = ("learner", "ranker", "served", "linear", "frozen_text")
DAY_MS = 86_400_000


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", choices=sorted(FILES), default="online-retail")
    parser.add_argument("--lines", type=int, default=0, help="events replayed; 0: all")
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--one-in", type=int, default=1, help="score one visit in so many")
    parser.add_argument("--valid-days", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", dest="sets", action="append", default=[], metavar="section.key=value")
    chosen = parser.parse_args()
    sets = {
        "model.encoder": chosen.encoder,
        "run.seed": chosen.seed,
        "learn.sample_one_in": chosen.one_in,
        "slate.valid_ms": chosen.valid_days * DAY_MS,
    }
    with tempfile.TemporaryDirectory() as folder:
        events, items = imported(chosen.dataset, Path(folder), chosen.lines)
        outcome = replayed(events, items, sets, chosen.sets)
    print(f"{chosen.dataset}, {chosen.lines or 'all'} lines, {chosen.encoder}, {' '.join(chosen.sets) or 'defaults'}")
    for part in USER_SLICES:
        if part in outcome.whole["next_visit"]["ranker"]:
            tell(outcome, part)
    s = outcome.summary
    print(f"\n{outcome.consumed:,} records, {outcome.rate:,.0f} a CPU second, {s['cpu_s']:.0f} s of CPU")


def tell(outcome: Outcome, part: str) -> None:
    """One kind of customer: every model's recall, then what differs on the same visits."""
    table = outcome.whole["next_visit"]
    best = max(LISTS, key=lambda name: table[name][part][RECALL])
    bar = table[best][part][RECALL]
    print(f"\n{part} customers, {table['ranker'][part]['n']} visits; strongest list: {best} {bar:.4f}")
    for model in (*LEARNED, *LISTS):
        if model in table:
            recall = table[model][part][RECALL]
            print(f"  {model:22s} {recall:.4f}  {recall / bar:.3f} x")
    user_key, recalls = _recalls(outcome, USER_SLICES.index(part))
    for ours in ("learner", "ranker"):
        for theirs in ("linear", best):
            if theirs in table:
                a, b = recalls[:, MODELS.index(ours)], recalls[:, MODELS.index(theirs)]
                difference, ratio = interval(user_key, a, b)
                print(
                    f"  {ours} - {theirs}: {difference[0]:+.4f} [{difference[1]:+.4f}, {difference[2]:+.4f}]; "
                    f"{ratio[0]:.3f} x [{ratio[1]:.3f}, {ratio[2]:.3f}]"
                )


def _recalls(outcome: Outcome, user_slice: int) -> tuple[np.ndarray, np.ndarray]:
    """Users [E] and recalls [E, MODELS] of the scored visits of one kind of customer."""
    keys, recalls = [], []
    for closed in outcome.visits:
        mine = closed.user_slice == user_slice
        keys.append(closed.user_key[mine])
        recalls.append(closed.hits[mine, :, 0] / np.minimum(closed.n_targets[mine, :1], K))
    return np.concatenate(keys), np.concatenate(recalls)


if __name__ == "__main__":
    main()
