"""A shop whose truth is known: slates drawn slot by slot with stated propensities, shown, clicked and bought."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np

START_MS = 1_767_571_200_000
MINUTE_MS = 60_000
DAY_MS = 24 * 60 * MINUTE_MS
CLICK, PURCHASE = 0.2, 0.8
"""What the settings say by default."""


@dataclass(frozen=True)
class Shop:
    """Clicks and purchases depend on the item alone; what the shop believes of them is another thing."""

    click_prob: np.ndarray
    buy_prob: np.ndarray
    """Of a click."""
    believed: np.ndarray
    n_slots: int
    budget: float
    """Chance that a slot is drawn uniformly of what is left, instead of the best believed."""

    @classmethod
    def of(cls, seed: int, *, n_items: int = 8, n_slots: int = 3, budget: float = 0.5) -> Shop:
        rng = np.random.default_rng(seed)
        return cls(rng.beta(2, 5, n_items), rng.beta(2, 5, n_items), rng.beta(2, 5, n_items), n_slots, budget)

    @property
    def worth(self) -> np.ndarray:
        return np.asarray(self.click_prob * (CLICK + PURCHASE * self.buy_prob))

    def draw(self, rng: np.random.Generator, explored_share: float) -> tuple[list[int], list[float], list[bool]]:
        """Items, propensities and whether each was another than the best of what was left."""
        left, items, chances, explored = list(range(len(self.believed))), [], [], []
        for _ in range(self.n_slots):
            best = max(left, key=lambda i: self.believed[i])
            item = int(rng.choice(left)) if rng.random() < explored_share else best
            uniform = explored_share / len(left)
            chances.append(uniform + (1 - explored_share if item == best else 0.0))
            items.append(item)
            explored.append(item != best)
            left.remove(item)
        return items, chances, explored

    def true_value(self, explored_share: float) -> float:
        """Reward a slate of the policy that draws uniformly with this share and is greedy else, over all slates."""
        value, n_items = 0.0, len(self.believed)
        for items in permutations(range(n_items), self.n_slots):
            chance, left = 1.0, set(range(n_items))
            for item in items:
                best = max(left, key=lambda i: self.believed[i])
                chance *= explored_share / len(left) + (1 - explored_share if item == best else 0.0)
                left.remove(item)
            value += chance * float(self.worth[list(items)].sum())
        return value


def log_of(shop: Shop, n: int, seed: int, *, n_users: int = 300) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Slates and events of `n` decisions; the first ends long before the last, so that all windows close."""
    rng = np.random.default_rng([seed, 1])
    slates, events = [], []
    for k in range(n):
        items, chances, explored = shop.draw(rng, shop.budget)
        user, at_ms, decision = f"u{k % n_users}", START_MS + k * MINUTE_MS, f"d{seed}x{k}"
        slates.append(slate_of(decision, k % n_users, at_ms, items, chances, explored, n_items=len(shop.believed)))
        shown = [{"item_id": f"i{item}", "position": place} for place, item in enumerate(items)]
        events.append(event("impression", user, at_ms, decision_id=decision, items=shown))
        for item in items:
            if rng.random() < shop.click_prob[item]:
                events.append(event("click", user, at_ms + 2_000, decision_id=decision, item_id=f"i{item}"))
                if rng.random() < shop.buy_prob[item]:
                    events.append(
                        event(
                            "purchase", user, at_ms + 9_000, decision_id=decision, item_id=f"i{item}", order_id=decision
                        )
                    )
    events.append(event("view_item", "last", START_MS + n * MINUTE_MS + 30 * DAY_MS, item_id="i0"))
    return slates, events


def event(kind: str, user: str, at_ms: int, **fields: Any) -> dict[str, Any]:
    return {"event_type": kind, "user_id": user, "event_at": at_ms, **fields}


def slate_of(
    decision: str, user: int, at_ms: int, items: list[int], chances: list[float], explored: list[bool], *, n_items: int
) -> dict[str, Any]:
    slots = [
        {
            "item_id": f"i{item}", "position": place, "score": 0.0, "utility": 0.1, "propensity": chance,
            "deterministic": False, "explored": other, "reasons": [],
        }
        for place, (item, chance, other) in enumerate(zip(items, chances, explored, strict=True))
    ]  # fmt: skip
    return {
        "user_key": f"{user:032x}", "decision_id": decision, "event_at": at_ms, "valid_until": at_ms + DAY_MS,
        "watermark": at_ms, "cause": "touched", "key_id": "k", "model_version": f"v{at_ms // (600 * MINUTE_MS) % 2}",
        "statistics_tick": 1, "policy": "epsilon", "budget": 0.5, "slots": slots,
        "candidates": {"n": n_items, "sources": [], "digest": "", "admitted": n_items},
    }  # fmt: skip


def written(folder: Path, slates: list[Any], events: list[Any]) -> tuple[Path, Path]:
    """Both as files; a text is written as it is."""
    paths = folder / "slates.jsonl", folder / "events.jsonl"
    for path, records in zip(paths, (slates, events), strict=True):
        lines = (record if isinstance(record, str) else json.dumps(record) for record in records)
        path.write_text("".join(f"{line}\n" for line in lines))
    return paths
