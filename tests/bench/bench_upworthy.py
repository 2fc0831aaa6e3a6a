"""A headline bandit over text features against uniform choice, by replay of real arms (Upworthy Research Archive).

Run: `STREAM_REC_DATA=... python -m tests.bench.bench_upworthy [--one-in 4] [--features 64] [--prior 1]`

Each test is a choice between headlines that were shown at random. Arms of one test with the same headline are one arm.
A policy spends as many impressions as the smallest arm has, in ten batches; an arm answers with its own impressions,
drawn without replacement, so that no click is invented. One belief (`explore/posterior.py`) goes through all tests in
the order of their weeks: hashed words of the headline, and a residual for each arm. `no text` has the residual alone.
Words and their neighbours are hashed with a sign into the features (Weinberger et al., ICML 2009).

What is told: clicks in a thousand impressions; gain on uniform with an interval that resamples tests; the share of the
way from uniform to the best arm; and the same for the first batch, where only the text can help.

The archive's leaks (`significance`, `winner`, `first_place`, `ctr`) are not read. Needs pandas and pyarrow.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import zlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from stream_rec.explore.forgetting import HalfLives
from stream_rec.explore.policy import POLICIES, Slot
from stream_rec.explore.posterior import DAY_MS, HeadRules, Posterior

N_BATCHES, N_WORLDS, SEED = 10, 64, 0
ITEM_PRIOR = 400.0
"""Impressions that say as much of a headline as its words: click rates of one test differ by about 0.6 of 1.5 %."""
POLICY_BUDGET = 0.05
COLUMNS = ["clickability_test_id", "headline", "impressions", "clicks", "test_week"]


@dataclass(frozen=True)
class Test:
    """One test: its headlines with what they really got."""

    week: int
    headlines: tuple[str, ...]
    impressions: np.ndarray
    clicks: np.ndarray


def tests(one_in: int) -> list[Test]:
    try:
        import pandas as pd
    except ImportError:
        sys.exit("this bench reads parquet: pip install pandas pyarrow")
    path = Path(os.environ.get("STREAM_REC_DATA", "../shared/data")) / "upworthy-headlines"
    if not path.is_dir():
        sys.exit(f"there is no {path}; set STREAM_REC_DATA")
    rows = pd.concat([pd.read_parquet(file, columns=COLUMNS) for file in sorted(path.glob("*.parquet"))])
    arms = rows.dropna(subset=["headline"]).groupby(["test_week", "clickability_test_id", "headline"], sort=True)
    summed = arms[["impressions", "clicks"]].sum().reset_index()
    out = [
        Test(int(week), tuple(of["headline"]), of["impressions"].to_numpy(), of["clicks"].to_numpy())
        for (week, _), of in summed.groupby(["test_week", "clickability_test_id"], sort=True)
        if len(of) >= 2 and of["impressions"].min() >= 100 * N_BATCHES
    ]
    return out[::one_in]


def hashed(text: str, d: int) -> np.ndarray:
    """Signed counts of words and neighbours, of length one."""
    words = re.findall(r"[a-z0-9']+", text.lower())
    out = np.zeros(d)
    for token in words + [f"{a} {b}" for a, b in pairwise(words)]:
        digest = zlib.crc32(token.encode())
        out[(digest >> 1) % d] += 1.0 if digest & 1 else -1.0
    return out / max(float(np.linalg.norm(out)), 1e-12)


def chances(name: str, head: Posterior, x: np.ndarray, arms: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    belief = head.predict(x, arms)
    worlds = belief.mean + belief.spread * rng.normal(size=(1, N_WORLDS, len(arms))) if name == "thompson" else None
    slot = Slot(belief.mean[None], np.ones((1, len(arms)), np.bool_), np.array([POLICY_BUDGET]), worlds)
    return POLICIES[name].probabilities(slot)[0]


def replayed(name: str, all_tests: list[Test], d: int, *, prior: float, with_text: bool) -> np.ndarray:
    """Clicks and impressions of each test, whole and of the first batch, float64 [n, 4]."""
    rng, n_arms = np.random.default_rng(SEED), sum(len(t.headlines) for t in all_tests)
    rules = HeadRules(n_features=d if with_text else 1, n_items=n_arms, prior=prior, item_prior=ITEM_PRIOR)
    head = Posterior(rules, HalfLives(3_650 * DAY_MS, DAY_MS, 0))
    out, first_arm = np.zeros((len(all_tests), 4)), 0
    for row, test in enumerate(all_tests):
        arms = np.arange(first_arm, first_arm + len(test.headlines))
        first_arm += len(arms)
        x = np.array([hashed(text, d) for text in test.headlines]) if with_text else np.zeros((len(arms), 1))
        clicks, others = test.clicks.copy(), test.impressions - test.clicks
        size = int(test.impressions.min()) // N_BATCHES
        for batch in range(N_BATCHES):
            shown = rng.multinomial(size, chances(name, head, x, arms, rng))
            clicked = np.array([rng.hypergeometric(c, o, n) for c, o, n in zip(clicks, others, shown, strict=True)])
            clicks, others = clicks - clicked, others - (shown - clicked)
            out[row, :2] += clicked.sum(), size
            if batch == 0:
                out[row, 2:] = clicked.sum(), size
            learn(head, x, arms, shown, clicked, at_ms=test.week * DAY_MS)
    return out


def learn(
    head: Posterior, x: np.ndarray, arms: np.ndarray, shown: np.ndarray, clicked: np.ndarray, *, at_ms: int
) -> None:
    place = np.repeat(np.arange(len(arms)), shown)
    nth = np.concatenate([np.arange(n) for n in shown])
    head.observe(x[place], arms[place], (nth < clicked[place]).astype(float), np.full(len(place), at_ms))


def line(name: str, got: np.ndarray, all_tests: list[Test]) -> str:
    rate = np.array([t.clicks / t.impressions for t in all_tests], dtype=object)
    mean, best = (np.array([float(f(r)) for r in rate]) for f in (np.mean, np.max))
    cells: list[Any] = [name, f"{1000 * got[:, 0].sum() / got[:, 1].sum():.2f}"]
    for clicks, n in ((got[:, 0], got[:, 1]), (got[:, 2], got[:, 3])):
        expected, most = mean * n, best * n
        rng, draws = np.random.default_rng(SEED), []
        for _ in range(1_000):
            some = rng.integers(0, len(n), len(n))
            draws.append(clicks[some].sum() / expected[some].sum() - 1)
        low, high = np.quantile(draws, (0.025, 0.975))
        gain, way = clicks.sum() / expected.sum() - 1, (clicks - expected).sum() / (most - expected).sum()
        cells += [f"{gain:+.1%} ({low:+.1%} to {high:+.1%})", f"{way:.0%}"]
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--one-in", type=int, default=4, help="take every so many-th test")
    parser.add_argument("--features", type=int, default=64)
    parser.add_argument("--prior", type=float, default=1.0, help="impressions of belief that a word says nothing")
    asked = parser.parse_args()
    threadpool_limits(1)
    chosen = tests(asked.one_in)
    n = sum(int(t.impressions.min()) // N_BATCHES * N_BATCHES for t in chosen)
    print(f"{len(chosen):,} tests, {sum(len(t.headlines) for t in chosen):,} headlines, {n:,} impressions a policy\n")
    print("| policy | clicks a 1,000 | gain on uniform | of the way | first batch | of the way |")
    print("|---|---|---|---|---|---|")
    for name in ("uniform", "greedy", "igw", "thompson"):
        for with_text in (True, False) if name != "uniform" else (True,):
            label = name if with_text else f"{name}, no text"
            got = replayed(name, chosen, asked.features, prior=asked.prior, with_text=with_text)
            print(line(label, got, chosen), flush=True)


if __name__ == "__main__":
    main()
