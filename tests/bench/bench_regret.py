"""What the bandit alone costs and finds, without the shop around it, and VowpalWabbit's: tuned alike, then fresh seeds.

    python -m tests.bench.bench_regret [--seeds 10] [--rounds 4000] [--entrants greedy igw ... vw-squarecb vw-bag]

*World.* In each round one of 200 users meets 50 candidates out of the items that are there, and one slot shows one of
them. 12 features tell of a candidate: 8 products of the user's and the item's taste, 3 attributes of the item, how
active the user is. The chance of a click is logistic in them and in a worth of the item that no feature tells; it is
known, so regret is exact: 1 - sum of the chances of what was shown over that of the best candidates, all rounds from
the first on. A third of the items arrives during the run. `drifting`: half way all weights are drawn anew. Clicks come
after every 50 rounds, as ticks bring them. All entrants meet the same rounds with the same luck.

*Entrants.* Ours: the belief of `explore.posterior`, slates of `explore.slate`, items on trial and the loss budget, as
the pipeline has them, but that policies without a bound go on when it is spent. A round is a minute of event time. The
alarm of drift is left out: half-lives are constant.
VW: the same features, an indicator of the item in some configurations (ours has a residual for it), costs of -1 for a
click and 0 for none with the range said to VW, and the propensities of the draws. What is not swept is as VW has it.

*Tuning.* Everybody but uniform (which has nothing to tune) has 12 configurations, tried on 2 seeds of their own in each
world; the one with the least mean regret goes to the fresh seeds. *Tried*: items with 10 impressions, *found*: those of
the items that arrived during the run. *Lost*: realised loss by the belief's own account as a share of its value, and in
how many runs it stayed within the budget. Needs the extra `bench` for VW. One BLAS thread.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from itertools import product
from typing import Any, Protocol

import numpy as np
from threadpoolctl import threadpool_limits

from stream_rec.explore.budget import LossBudget
from stream_rec.explore.forgetting import HalfLives
from stream_rec.explore.policy import policy_of
from stream_rec.explore.posterior import HeadRules, Posterior
from stream_rec.explore.slate import DrawRules, Offer, draw, slate_seeds

N_USERS, N_ITEMS, N_CANDIDATES, BATCH = 200, 300, 50, 50
N_TASTES, N_ATTRIBUTES = 8, 3
N_FEATURES = N_TASTES + N_ATTRIBUTES + 1
ARRIVING, BASE, TOLD, UNTOLD = 1 / 3, -2.6, 0.9, 0.4
"""Share of the items that arrive late; log odds of the average candidate, and what features and the item alone add."""
TRIED, ROUND_MS = 10, 60_000
TUNING_SEEDS, FIRST_SEED = (1_000, 1_001), 100

Config = dict[str, Any]
NEVER = 1e9
LIVES = (NEVER, 8_000, 4_000, 2_800, 2_000, 1_400, 1_000, 700, 500, 350, 250, 175)
OWN = [{"half_life_rounds": h, "budget": b} for h, b in product((NEVER, 4_000, 1_000, 500, 250, 125), (0.02, 0.05))]
BARE = {"ignore": "i"}
"""VW without the indicator of the item."""
GRIDS: dict[str, list[Config]] = {
    "greedy": [{"half_life_rounds": h} for h in LIVES],
    "igw": OWN,
    "epsilon": OWN,
    "softmax": OWN,
    "thompson": OWN,
    "uniform": [{}],
    "vw-squarecb": [
        *({"learning_rate": r, "gamma_scale": 10_000, **BARE} for r in (0.5, 1, 2, 4, 8)),
        *({"learning_rate": r, "gamma_scale": 100_000, **BARE} for r in (2, 4, 8)),
        *({"learning_rate": r, "gamma_scale": 1_000, **BARE} for r in (1, 4)),
        *({"learning_rate": r, "gamma_scale": 10_000} for r in (0.5, 2)),
    ],
    "vw-bag": [
        *({"learning_rate": r, "bag": n, **BARE} for r, n in product((1, 2, 4), (5, 10))),
        *({"learning_rate": r, "bag": 10, **BARE} for r in (0.5, 8)),
        *({"learning_rate": r, "bag": 20, **BARE} for r in (2, 4)),
        *({"learning_rate": 2, "bag": n} for n in (5, 10)),
    ],
}


@dataclass(frozen=True)
class World:
    """T rounds with M candidates each."""

    x: np.ndarray
    """float64 [T, M, N_FEATURES]."""
    items: np.ndarray
    """int [T, M]."""
    chance: np.ndarray
    """float64 [T, M], of a click."""
    clicked: np.ndarray
    """float64 [T, M], whether this candidate would be clicked, 0 or 1."""
    lines: list[list[str]]
    """The candidates of each round in VW's words."""
    is_new: np.ndarray
    """bool [N_ITEMS], arrived during the run."""


def world(seed: int, n_rounds: int, *, drifting: bool) -> World:
    """The stationary and the drifting world of a seed are the same until half way."""
    rng = np.random.default_rng(seed)
    users, items = rng.normal(size=(N_USERS, N_TASTES)), rng.normal(size=(N_ITEMS, N_TASTES))
    attributes, active = rng.normal(size=(N_ITEMS, N_ATTRIBUTES)), rng.normal(size=N_USERS)
    untold = UNTOLD * rng.normal(size=N_ITEMS)
    weights = rng.normal(size=(2, N_FEATURES))
    weights *= TOLD / np.linalg.norm(weights, axis=1, keepdims=True)
    arrival = np.where(np.arange(N_ITEMS) < N_ITEMS * (1 - ARRIVING), 0.0, rng.random(N_ITEMS) * 0.8 * n_rounds)
    lot = rng.random((n_rounds, N_ITEMS)) + (arrival > np.arange(n_rounds)[:, None])
    shown = np.argsort(lot, axis=1)[:, :N_CANDIDATES]
    who = rng.integers(0, N_USERS, n_rounds)
    x = np.empty((n_rounds, N_CANDIDATES, N_FEATURES))
    x[:, :, :N_TASTES] = users[who][:, None] * items[shown]
    x[:, :, N_TASTES:-1] = attributes[shown]
    x[:, :, -1] = active[who][:, None]
    phase = ((np.arange(n_rounds) >= n_rounds // 2) & drifting).astype(int)
    chance = 1 / (1 + np.exp(-(BASE + np.einsum("tmd,td->tm", x, weights[phase]) + untold[shown])))
    clicked = (rng.random(chance.shape) < chance).astype(float)
    return World(x, shown, chance, clicked, lines_of(x, shown), arrival > 0)


def lines_of(x: np.ndarray, items: np.ndarray) -> list[list[str]]:
    """Candidates as VW reads them."""
    form = "|i item%d |f " + " ".join(f"{name}:%.4f" for name in "abcdefghijkl"[:N_FEATURES])
    rows = np.concatenate([items[:, :, None], x], axis=2).tolist()
    return [[form % tuple(row) for row in one] for one in rows]


class Entrant(Protocol):
    """Sees the rounds of a batch, chooses, and then learns what came of it."""

    def choose(self, rounds: slice) -> np.ndarray:
        """The candidate of each round, int [BATCH]."""

    def learn(self, rounds: slice, column: np.ndarray) -> None:
        """From the clicks on what was chosen."""


class Own:
    """The modules of `stream_rec.explore`, driven as the pipeline does."""

    def __init__(self, name: str, config: Config, seen: World, seed: int) -> None:
        life_ms = int(config.get("half_life_rounds", NEVER) * ROUND_MS)
        self._world, self._seed = seen, seed
        self._head = Posterior(HeadRules(N_FEATURES, N_ITEMS), HalfLives(life_ms, life_ms, 0))
        self._rules = DrawRules(
            seed=seed, n_slots=1, policy=name, budget=config.get("budget", 0.02), diversity="none",
            max_explored=1, first_explorable=0,
        )  # fmt: skip
        self._n_shown, self.accounts = np.zeros(N_ITEMS, int), LossBudget(self._rules.budget)
        self._is_bounded = policy_of(name).is_bounded

    def choose(self, rounds: slice) -> np.ndarray:
        x, items = self._world.x[rounds], self._world.items[rounds]
        belief = self._head.predict(x.reshape(-1, N_FEATURES), items.ravel())
        mean, spread = belief.mean.reshape(items.shape), belief.spread.reshape(items.shape)
        seeds = slate_seeds(self._seed, rounds.start // BATCH, [str(k) for k in range(len(x))], "touched")
        trial = self._n_shown[items] < TRIED
        offer = Offer(mean, np.ones(items.shape, np.bool_), seeds, spread, trial=trial)
        # What is not bounded would be stopped by its accounts nearly at once; it runs without them.
        slates = draw(offer, self._rules, safe=self._is_bounded and self.accounts.is_spent())
        self.accounts.add(slates)
        return slates.column[:, 0].astype(np.intp)

    def learn(self, rounds: slice, column: np.ndarray) -> None:
        row, world = np.arange(len(column)), self._world
        items = world.items[rounds][row, column]
        at_ms = np.arange(rounds.start, rounds.stop) * ROUND_MS
        self._head.observe(world.x[rounds][row, column], items, world.clicked[rounds][row, column], at_ms)
        np.add.at(self._n_shown, items, 1)


class Rival:
    """VowpalWabbit's contextual bandit with action-dependent features."""

    def __init__(self, name: str, config: Config, seen: World, seed: int) -> None:
        import vowpalwabbit

        rule = "--squarecb" if name == "vw-squarecb" else ""
        # Without its range VW takes costs for lying in [0, 1], where ours are not.
        costs = "--cb_min_cost -1 --cb_max_cost 0" if rule else ""
        told = " ".join(f"--{key} {value}" for key, value in config.items())
        asked = f"--cb_explore_adf {rule} {costs} {told} --random_seed {seed + 1} --quiet"
        self._vw, self._world = vowpalwabbit.Workspace(asked), seen
        self._rng, self._p = np.random.default_rng((seed, 7)), np.zeros(BATCH)

    def choose(self, rounds: slice) -> np.ndarray:
        p = np.asarray([self._vw.predict(lines) for lines in self._world.lines[rounds]])
        reached = p.cumsum(1)
        column = (reached <= (self._rng.random(len(p)) * reached[:, -1])[:, None]).sum(1)
        self._p = p[np.arange(len(p)), column]
        return np.asarray(column)

    def learn(self, rounds: slice, column: np.ndarray) -> None:
        clicked = self._world.clicked[rounds]
        for k, lines in enumerate(self._world.lines[rounds]):
            at = int(column[k])
            label = f"0:{-clicked[k, at]:g}:{self._p[k]:.8g} "
            self._vw.learn([*lines[:at], label + lines[at], *lines[at + 1 :]])


def run(name: str, config: Config, seen: World, seed: int) -> dict[str, float]:
    """Figures of one run."""
    entrant: Any = (Rival if name.startswith("vw-") else Own)(name, config, seen, seed)
    n_rounds = len(seen.x) // BATCH * BATCH
    column = np.zeros(n_rounds, np.intp)
    for start in range(0, n_rounds, BATCH):
        rounds = slice(start, start + BATCH)
        column[rounds] = entrant.choose(rounds)
        entrant.learn(rounds, column[rounds])
    row = np.arange(n_rounds)
    n_shown = np.bincount(seen.items[row, column], minlength=N_ITEMS)
    lost = entrant.accounts.shares()["loss"] if isinstance(entrant, Own) else np.nan
    return {
        "regret": float(1 - seen.chance[row, column].sum() / seen.chance[:n_rounds].max(1).sum()),
        "tried": float((n_shown >= TRIED).mean()),
        "found": float((n_shown[seen.is_new] >= TRIED).mean()),
        "lost": float(lost),
        "kept": float(lost <= config.get("budget", 0.0)),
    }


def tuned(name: str, worlds: dict[int, World]) -> Config:
    """The configuration with the least mean regret."""
    grid = GRIDS[name]
    if len(grid) == 1:
        return grid[0]
    regret = [np.mean([run(name, config, seen, seed)["regret"] for seed, seen in worlds.items()]) for config in grid]
    told = ", ".join(f"{said(config)}: {100 * r:.1f}" for config, r in zip(grid, regret, strict=True))
    print(f"tuning {name}: {told}", file=sys.stderr, flush=True)
    return grid[int(np.argmin(regret))]


def said(config: Config) -> str:
    """For people."""
    told = (f"{key.replace('_', ' ')} {'endless' if value == NEVER else value}" for key, value in config.items())
    return ", ".join(told) or "-"


def line(name: str, config: Config, rows: list[dict[str, float]], greedy: np.ndarray | None) -> str:
    """A row of the table."""
    cells = {key: 100 * np.array([row[key] for row in rows]) for key in rows[0]}
    told = [f"{cells[key].mean():.1f} ± {cells[key].std(ddof=1):.1f} %" for key in ("regret", "tried", "found")]
    less = cells["regret"] - (cells["regret"] if greedy is None else greedy)
    beside = "-" if greedy is None else f"{less.mean():+.1f} ± {less.std(ddof=1) / np.sqrt(len(less)):.1f}"
    account = "-"
    if "budget" in config:
        lost, n_kept = cells["lost"], round(cells["kept"].sum() / 100)
        account = f"{lost.mean():.1f} %, at most {lost.max():.1f} %; {n_kept} of {len(rows)}"
    return f"| {name} | {said(config)} | {told[0]} | {beside} | {told[1]} | {told[2]} | {account} |"


def table(drifting: bool, told: argparse.Namespace) -> None:
    """Tune, run on fresh seeds, print."""
    tuning, fresh = (
        {seed: world(seed, told.rounds, drifting=drifting) for seed in seeds}
        for seeds in (TUNING_SEEDS, range(FIRST_SEED, FIRST_SEED + told.seeds))
    )
    print(f"\n{'Drifting' if drifting else 'Stationary'}, {told.rounds:,} rounds\n")
    heads = ("entrant", "tuned to", "regret", "less greedy's", "items tried", "new found", "lost, within budget")
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|", flush=True)
    greedy: np.ndarray | None = None
    for name in told.entrants:
        began = time.process_time()
        config = tuned(name, tuning)
        rows = [run(name, config, seen, seed) for seed, seen in fresh.items()]
        print(line(name, config, rows, greedy), flush=True)
        if name == "greedy":
            greedy = 100 * np.array([row["regret"] for row in rows])
        print(f"{name}: {time.process_time() - began:.0f} CPU seconds", file=sys.stderr, flush=True)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=4_000)
    parser.add_argument("--entrants", nargs="+", default=list(GRIDS), choices=list(GRIDS))
    parser.add_argument("--worlds", nargs="+", default=["stationary", "drifting"], choices=["stationary", "drifting"])
    told = parser.parse_args()
    with threadpool_limits(1):
        for name in told.worlds:
            table(name == "drifting", told)


if __name__ == "__main__":
    sys.exit(main())
