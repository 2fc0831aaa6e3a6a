"""What a decision costs: one over 1,000 candidates, and batches of slates over a catalogue, end to end.

Run: `python -m tests.bench.bench_slates [--seconds 3] [--updates 1000000] [--rivals]`

- *decision*: belief (mean and spread of u) over 1,000 candidates from d features, the best 50 by upper bound admitted,
  10 slots with diversity, policy and propensities. Wall clock, p50 and p99.
- *slates*: for batches of 64 users the score of 5,000 items (user . item in 384 dimensions), the best 50, belief,
  20 slots, and the encoded record. CPU seconds of the process.
- *updates*: observations into the head in micro-batches of 1,024 under forgetting, with collinear features.
- *rivals*: mabwiser's LinTS draws the expectation of all 1,000 candidates once, enough for 10 slots (an arm is a
  candidate with a matrix of its own); VowpalWabbit's squarecb predicts 10 times, each without those chosen before (the
  figure of one prediction is a tenth). Same candidates, same number of features. They need the extra `bench`.

Prints a Markdown table. One BLAS thread.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from threadpoolctl import threadpool_limits

from stream_rec.explore.admission import admit
from stream_rec.explore.forgetting import HalfLives
from stream_rec.explore.policy import WORDS, Known
from stream_rec.explore.posterior import DAY_MS, HeadRules, Posterior
from stream_rec.explore.slate import DrawRules, Offer, Slates, draw, slate_seeds

N_CANDIDATES, N_ITEMS, N_ADMITTED, WIDTH, BATCH = 1_000, 5_000, 50, 384, 64
BONUS = 1.0
"""Spreads above the mean that an upper bound lies."""


def head_of(d: int, rng: np.random.Generator) -> Posterior:
    head = Posterior(HeadRules(n_features=d), HalfLives(14 * DAY_MS, DAY_MS, DAY_MS))
    x = rng.normal(size=(20_000, d))
    clicked = rng.random(20_000) < np.clip(0.05 + 0.01 * x[:, 0], 0, 1)
    head.observe(x, rng.integers(0, N_ITEMS, 20_000), clicked, np.zeros(20_000, np.int64))
    return head


def unit(rng: np.random.Generator, n: int) -> np.ndarray:
    vectors = rng.normal(size=(n, WIDTH)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def timed_ms(work: Callable[[int], Any], seconds: float) -> np.ndarray:
    """Milliseconds of each call, after a tenth of the time to warm up: wall clock, and CPU of this thread; [n, 2]."""
    out, k, until = [], 0, time.perf_counter() + seconds
    while time.perf_counter() < until or k < 5:
        began, began_cpu = time.perf_counter(), time.thread_time()
        work(k)
        out.append(((time.perf_counter() - began) * 1e3, (time.thread_time() - began_cpu) * 1e3))
        k += 1
    return np.array(out[len(out) // 10 :])


def decision(d: int, policy: str, rng: np.random.Generator) -> Callable[[int], Slates]:
    head, items, vectors = head_of(d, rng), np.arange(N_CANDIDATES), unit(rng, N_CANDIDATES)
    x, rules = rng.normal(size=(64, N_CANDIDATES, d)), DrawRules(n_slots=10, policy=policy)
    offered = np.ones((1, N_CANDIDATES), np.bool_)

    def one(k: int) -> Slates:
        belief = head.predict(x[k % 64], items)
        best = admit((belief.mean + BONUS * belief.spread)[None], offered, N_ADMITTED)
        seeds = slate_seeds(0, k, ["user"], "touched")
        offer = Offer(belief.mean[best], best >= 0, seeds, belief.spread[best], vectors[best])
        return draw(offer, rules)

    return one


def encoded(tick: int, keys: list[str], items: np.ndarray, scores: np.ndarray, slates: Slates) -> list[bytes]:
    shown = np.take_along_axis(items, slates.column.astype(np.intp), 1).tolist()
    score = np.take_along_axis(scores, slates.column.astype(np.intp), 1).round(6).tolist()
    value, p = slates.value.round(6).tolist(), slates.propensity.tolist()
    known, explored = slates.known.tolist(), slates.explored.tolist()
    out = []
    for b, key in enumerate(keys):
        slots = []
        for k, item in enumerate(shown[b]):
            slot = {"item_id": f"item-{item}", "position": k, "score": score[b][k], "utility": value[b][k]}
            if known[b][k] == Known.DETERMINISTIC:
                slot["deterministic"] = True
            else:
                slot["propensity"], slot["propensity_known"] = p[b][k], WORDS[known[b][k]]
            slot["explored"] = explored[b][k]
            slots.append(slot)
        out.append(msgspec.json.encode({"user_key": key, "tick": tick, "policy": "igw", "slots": slots}))
    return out


def batch(d: int, policy: str, rng: np.random.Generator) -> Callable[[int], list[bytes]]:
    head, table, users = head_of(d, rng), unit(rng, N_ITEMS), unit(rng, 4 * BATCH)
    own, rules = rng.normal(size=(N_ITEMS, d)), DrawRules(policy=policy)
    keys = [f"{k:032x}" for k in range(BATCH)]

    def one(tick: int) -> list[bytes]:
        start = (tick % 4) * BATCH
        scores = users[start : start + BATCH] @ table.T
        best = np.argpartition(-scores, N_ADMITTED, axis=1)[:, :N_ADMITTED]
        score = np.take_along_axis(scores, best, 1).astype(np.float64)
        order = np.argsort(-score, axis=1)
        best, score = np.take_along_axis(best, order, 1), np.take_along_axis(score, order, 1)
        x = own[best]
        x[:, :, 0] = score
        belief = head.predict(x.reshape(-1, d), best.ravel())
        utility, spread = belief.mean.reshape(best.shape), belief.spread.reshape(best.shape)
        seeds = slate_seeds(0, tick, keys, "touched")
        slates = draw(Offer(utility, np.ones(best.shape, np.bool_), seeds, spread, table[best]), rules)
        return encoded(tick, keys, best, score, slates)

    return one


def per_cpu_s(work: Callable[[int], list[bytes]], seconds: float) -> float:
    work(0)
    n, k, began = 0, 1, time.process_time()
    while time.process_time() - began < seconds:
        n += len(work(k))
        k += 1
    return n / (time.process_time() - began)


def updates(d: int, n: int, rng: np.random.Generator) -> tuple[float, float, float]:
    """Observations a CPU second, smallest and largest eigenvalue of the precision at the end."""
    head = Posterior(HeadRules(n_features=d), HalfLives(DAY_MS, DAY_MS // 4, DAY_MS))
    block = rng.normal(size=(1_024, d))
    block[:, 1] = block[:, 0] + 1e-7 * block[:, 1]
    block[:, 2] = 1.0
    items, clicked = rng.integers(0, N_ITEMS, 1_024), (rng.random(1_024) < 0.05).astype(float)
    began = time.process_time()
    for k in range(n // 1_024 + 1):
        head.observe(block, items, clicked, np.full(1_024, k * 600_000))
    spent = time.process_time() - began
    eigen = 1.0 / np.linalg.svd(head._root, compute_uv=False) ** 2
    return n / spent, float(eigen.min()), float(eigen.max())


def lin_ts(d: int, seconds: float, rng: np.random.Generator) -> np.ndarray:
    from mabwiser.mab import MAB, LearningPolicy

    mab = MAB(list(range(N_CANDIDATES)), LearningPolicy.LinTS(alpha=0.3), seed=1)
    arms, x = np.tile(np.arange(N_CANDIDATES), 2), rng.normal(size=(2 * N_CANDIDATES, d))
    mab.fit(arms, (rng.random(len(arms)) < 0.05).astype(float), x)
    return timed_ms(lambda k: mab.predict_expectations(x[k % 64 : k % 64 + 1]), seconds)


def squarecb(d: int, seconds: float, rng: np.random.Generator) -> np.ndarray:
    import vowpalwabbit

    told = "--cb_explore_adf --squarecb --quiet"
    vw = vowpalwabbit.Workspace(told)
    x = rng.normal(size=(4, N_CANDIDATES, d)).round(4)
    lines = [["|f " + " ".join(f"{j}:{v}" for j, v in enumerate(row)) for row in one] for one in x]
    for one in lines:
        vw.learn(["0:-1:0.001 " + one[0], *one[1:]])

    def slate(k: int) -> None:
        left = list(lines[k % 4])
        for _ in range(10):
            p = vw.predict(left)
            left.pop(int(np.argmax(p)))

    out = timed_ms(slate, seconds)
    vw.finish()
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--updates", type=int, default=1_000_000)
    parser.add_argument("--features", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--policies", nargs="+", default=["igw"])
    parser.add_argument("--rivals", action="store_true")
    told = parser.parse_args()
    print("| what | features | figure |\n|---|---|---|")
    with threadpool_limits(1):
        for d in told.features:
            rng = np.random.default_rng(told.seed)
            own_ms = 0.0
            for policy in told.policies:
                ms = timed_ms(decision(d, policy, rng), told.seconds)
                own_ms = own_ms or float(np.median(ms[:, 0]))
                print(
                    f"| decision, 1,000 candidates, 10 slots, {policy} | {d} | p50 {np.median(ms[:, 0]):.2f} ms, "
                    f"p99 {np.quantile(ms[:, 0], 0.99):.2f} ms; CPU p50 {np.median(ms[:, 1]):.2f} ms |",
                    flush=True,
                )
                rate = per_cpu_s(batch(d, policy, rng), told.seconds)
                print(f"| slates, 5,000 items, 20 slots, {policy} | {d} | {rate:,.0f} a CPU second |", flush=True)
            rate, low, high = updates(d, told.updates, rng)
            print(f"| {told.updates:,} updates | {d} | {rate:,.0f} a CPU second, eigenvalues {low:.3g} to {high:.3g} |",
                  flush=True)  # fmt: skip
            for name, rival in (("mabwiser LinTS", lin_ts), ("VW squarecb", squarecb)) if told.rivals else ():
                ms = np.median(rival(d, told.seconds, rng)[:, 0])
                print(f"| decision, 1,000 candidates, 10 slots, {name} | {d} | p50 {ms:.2f} ms, {ms / own_ms:.1f} x |",
                      flush=True)  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
