"""What exploration costs and finds in the whole loop: the simulated shop under each policy, on several seeds.

    python -m tests.bench.bench_explore [--seeds 10] [--days 8] [--policies greedy igw ...] [--set NAME=VALUE ...]

Regret is exact, for the shop knows the chance of a click: 1 - sum of the chances of the items that were shown over that
of the best slates there were, of all visits from the middle of the run on. A third of the items arrives during the run;
*found* is the share of these with 20 impressions at its end. *Lost* is the realised loss of utility as the pipeline
accounts it, by its own belief, and *kept* in how many of the runs it stayed within the budget. Tastes change during the
run for half of the users. Mean and standard deviation over the seeds; the last column pairs seeds with greedy's.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from stream_rec import assemble, config
from stream_rec.demo_run import Shopfront
from stream_rec.events import Topic
from stream_rec.fold import Identity
from stream_rec.loop import Loop
from stream_rec.simulate import Shop, ShopPlan

KEY = "the key of the benches"
MAX_RECORDS = 128
SLICE_MS = 600_000
N_SLOTS, BUDGET, TRIED = 20, 0.02, 20
SETS = (
    f"privacy.key={KEY}",
    "model.encoder=none",
    "registry.enabled=false",
    f"tick.max_records={MAX_RECORDS}",
    "slate.refresh_users_per_tick=16",
    "learn.sample_one_in=16",
    "learn.light_cut_examples=2000",
    "explore.start=on",
    f"explore.exploration_budget={BUDGET}",
)


class Watched(Shopfront):
    """A shopfront that knows what the best slate would have been."""

    def __init__(self, shop: Shop) -> None:
        super().__init__(KEY.encode())
        self.shop, self.shown, self.best = shop, 0.0, 0.0
        self.now_ms, self.from_ms = shop.start_ms, (shop.start_ms + shop.end_ms) // 2

    def slate(self, user_id: str | None) -> Mapping[str, Any] | None:
        """The slate to show, whose chances are noted."""
        slate = super().slate(user_id)
        if slate is not None and user_id is not None and self.now_ms >= self.from_ms:
            at = (user_id, self.now_ms)
            self.shown += self._chances([slot["item_id"] for slot in slate["slots"]], *at)
            self.best += self._chances(self.shop.best_slate(user_id, N_SLOTS, self.now_ms), *at)
        return slate

    def _chances(self, items: list[str], user_id: str, at_ms: int) -> float:
        return sum(self.shop.true_click_prob(user_id, item, at_ms) for item in items)


def run(policy: str, seed: int, days: float, sets: list[str]) -> dict[str, float]:
    """Figures of one run."""
    plan = ShopPlan(
        days=days, n_users=600, n_items=800, visits_per_day=600, organic_share=0.2, arriving_share=0.33,
        n_partitions=1, outage_day=days + 1,
    )  # fmt: skip
    shop = Shop(seed, plan)
    with tempfile.TemporaryDirectory() as folder:
        asked = [*SETS, f"run.dir={folder}", f"run.seed={seed}", f"explore.policy={policy}", *sets]
        settings = config.load(None, asked, {})
        front, broker = Watched(shop), assemble.memory_broker(1)
        ports = assemble.memory_ports(settings, broker)
        loop = Loop(
            lambda: assemble.pipeline_of(settings), ports, Identity("s", "b", "bench", {}), max_records=MAX_RECORDS
        )
        loop.on_commit = lambda _tick, effects: front.receive(effects)
        loop.recover()
        opening = shop.catalogue()
        broker.extend(opening)
        for now_ms in range(shop.start_ms + SLICE_MS, shop.end_ms + SLICE_MS, SLICE_MS):
            front.at(now_ms - SLICE_MS)
            front.now_ms = now_ms - SLICE_MS
            broker.extend(shop.step(now_ms, front.slate))
            while loop.gather()[0] >= MAX_RECORDS:
                loop.step()
        assemble.close(ports)
    return figures(loop.pipeline, front, {record.key.decode() for record in opening if record.topic == Topic.ITEMS})


def figures(pipeline: Any, front: Watched, opened_with: set[str]) -> dict[str, float]:
    """What a run came to."""
    items, exploration = pipeline.facts.items, pipeline.learner.exploration
    tried = exploration.trials.n_shown[: items.n] >= TRIED
    listed = items.named[: items.n]
    new = np.array([item_id not in opened_with for item_id in items.ids]) & listed
    shares, joined = exploration.budget.shares(), pipeline.facts.joiner.counts()
    return {
        "regret": 1.0 - front.shown / front.best,
        "clicks": joined["clicked"] / max(joined["matured"], 1),
        "tried": float(tried[listed].mean()),
        "found": float(tried[new].mean()),
        "explored": shares["explored"],
        "lost": shares["loss"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--days", type=float, default=8.0)
    parser.add_argument("--policies", nargs="+", default=["greedy", "igw", "epsilon", "softmax", "thompson", "uniform"])
    parser.add_argument("--set", dest="sets", action="append", default=[], metavar="NAME=VALUE")
    told = parser.parse_args()
    heads = (
        "policy",
        "regret",
        "clicked",
        "items tried",
        "new found",
        "explored",
        "lost (kept)",
        "less greedy's regret",
    )
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|", flush=True)
    greedy: np.ndarray | None = None
    for policy in told.policies:
        rows = [run(policy, seed, told.days, told.sets) for seed in range(told.seeds)]
        cells = {name: np.array([row[name] for row in rows]) for name in rows[0]}
        greedy = cells["regret"] if policy == "greedy" else greedy
        said = [f"{100 * cell.mean():.1f} ± {100 * cell.std(ddof=1):.1f} %" for cell in cells.values()]
        said[-1] += f" ({int((cells['lost'] <= BUDGET).sum())} of {told.seeds})"
        less = "-" if greedy is None else cells["regret"] - greedy
        if not isinstance(less, str):
            less = f"{100 * less.mean():+.2f} ± {100 * less.std(ddof=1) / np.sqrt(len(less)):.2f}"
        print(f"| {policy} | {' | '.join(said)} | {less} |", flush=True)


if __name__ == "__main__":
    main()
