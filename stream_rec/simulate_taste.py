"""Who likes what in the simulated shop, and when: the ground truth that no recommender sees.

A click on an examined item has the probability `sigmoid(logit)` with

    logit = BASE + favourite category + style of the item . style of the person + appeal of the item now + own history

Styles of people turn slowly, favourite categories change once for about half of them, categories have seasons, new
items are curiosities for some days, things that are used up are bought again and others are not. Whether an item is
examined depends on its position alone (the position-based click model; Craswell et al. 2008).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_rec.simulate_catalogue import CATEGORIES, N_STYLES, Assortment

Floats = NDArray[np.float64]

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
BASE = -5.8
FAVOURITES = np.array([3.4, 2.6, 1.8])
ELSEWHERE = -0.8
NOVELTY = 1.2
NOVELTY_MS = 4 * DAY_MS
SEASON = 0.6
EXAMINED_SLOPE = 0.6
MAX_OWN = 40
"""Items a person's own history remembers."""


def examined_prob(position: int | NDArray[Any]) -> Any:
    """Probability that a 0-based position of a slate is looked at.

    >>> [round(float(examined_prob(p)), 2) for p in (0, 1, 9, 19)]
    [1.0, 0.66, 0.25, 0.17]
    """
    return (1.0 + np.asarray(position)) ** -EXAMINED_SLOPE


class Taste:
    """Logits of every person for every item at any time; times are ms since the shop opened."""

    def __init__(self, seed: int, n_users: int, items: Assortment, *, days: float) -> None:
        rng = np.random.default_rng([seed, 2])
        n_categories = len(CATEGORIES)
        self.items = items
        self.favourites = rng.integers(0, n_categories, (n_users, 2, len(FAVOURITES)), dtype=np.int8)
        self.shift_at_ms = rng.uniform(0, 2 * days * DAY_MS, n_users)
        self.styles = rng.normal(0, 0.45, (n_users, 2, N_STYLES))
        self.turn_per_ms = 2 * np.pi / (rng.uniform(40, 160, n_users) * DAY_MS)
        self.season_ms = rng.uniform(14, 40, n_categories) * DAY_MS
        self.season_phase = rng.uniform(0, 2 * np.pi, n_categories)
        self.listed_at_ms = np.full(len(items.item_ids), np.inf)
        """When each item came; infinite until it does. Items of the opening assortment are no curiosities."""
        self._barred = np.full(len(items.item_ids), -np.inf)
        """Added to every logit: 0 for what is on sale."""
        self._own: dict[int, dict[int, tuple[bool, int]]] = {}
        self._appeal: Floats = items.appeal
        self._appeal_hour = -1

    def put_on_sale(self, row: int, on_sale: bool) -> None:
        """From now on the item can, or cannot, be chosen."""
        self._barred[row] = 0.0 if on_sale else -np.inf

    def is_on_sale(self, row: int) -> bool:
        """Whether the item can be chosen now."""
        return bool(self._barred[row] == 0.0)

    def logits(self, user: int, at_ms: int, rows: list[int] | None = None) -> Floats:
        """Logit of a click on each of `rows` (all items when None) once examined; -inf for what is not on sale."""
        items, appeal, by_category = self.items, self._appeal_at(at_ms), self._category_taste(user, at_ms)
        own = self._own.get(user)
        if rows is None:
            out: Floats = appeal + self._barred
            out += by_category[items.category]
            out += items.style @ self._style(user, at_ms)
            for item, (bought, when) in own.items() if own else ():
                out[item] += self._own_term(item, bought, at_ms - when)
            return out
        index = np.array(rows, dtype=np.int64)
        out = appeal[index] + self._barred[index] + by_category[items.category[index]]
        out += items.style[index] @ self._style(user, at_ms)
        if own and not own.keys().isdisjoint(rows):
            for place, item in enumerate(rows):
                if (seen := own.get(item)) is not None:
                    out[place] += self._own_term(item, seen[0], at_ms - seen[1])
        return out

    def click_probs(self, user: int, at_ms: int, rows: list[int] | None = None) -> Floats:
        """Probability of a click on each of `rows` once examined."""
        clicks: Floats = 1.0 / (1.0 + np.exp(-self.logits(user, at_ms, rows)))
        return clicks

    def remember(self, user: int, item: int, at_ms: int, *, bought: bool) -> None:
        """The person looked at or bought an item; only the last MAX_OWN items count."""
        own = self._own.setdefault(user, {})
        before = own.pop(item, None)
        own[item] = (True, before[1]) if before is not None and before[0] and not bought else (bought, at_ms)
        if len(own) > MAX_OWN:
            del own[next(iter(own))]

    def _own_term(self, item: int, bought: bool, age_ms: int) -> float:
        """Seen: thinking about it for some days. Bought: not again, or again once it is used up."""
        if not bought:
            return 0.8 if age_ms < 3 * DAY_MS else 0.0
        if not self.items.used_up[item]:
            return -3.0
        return -1.5 if age_ms < 4 * DAY_MS else 2.5

    def _style(self, user: int, at_ms: int) -> Floats:
        angle = self.turn_per_ms[user] * at_ms
        first, second = self.styles[user]
        turned: Floats = first * math.cos(angle) + second * math.sin(angle)
        return turned

    def _category_taste(self, user: int, at_ms: int) -> Floats:
        out = np.full(len(CATEGORIES), ELSEWHERE)
        out[self.favourites[user, int(at_ms >= self.shift_at_ms[user])]] = FAVOURITES
        return out

    def _appeal_at(self, at_ms: int) -> Floats:
        """Appeal of every item in this hour; kept until the next, since it is the same for everybody."""
        hour = at_ms // HOUR_MS
        if hour != self._appeal_hour:
            season = SEASON * np.sin(2 * np.pi * hour * HOUR_MS / self.season_ms + self.season_phase)
            age_ms = np.clip(hour * HOUR_MS - self.listed_at_ms, 0, None)
            novelty = np.where(self.listed_at_ms > 0, NOVELTY * np.exp(-age_ms / NOVELTY_MS), 0.0)
            self._appeal = BASE + self.items.appeal + season[self.items.category] + novelty
            self._appeal_hour = hour
        return self._appeal
