"""A simulated shop that reacts to what it is recommended: same seed and same slates, same bytes.

People with drifting tastes come at all hours. Most visits start at a slate: the person looks down the positions and
clicks what attracts. The others (`organic_share`) choose from the whole catalogue by searching or browsing. Carts
become purchases at once or days later, some come back as refunds, some are reviewed; payments fail for a while; items
arrive, sell out, return and are delisted; a part of the visits has no user id; some records are dirty.

When people come, and their luck, does not depend on the slates. So two policies can be compared on the same visits.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from stream_rec.events import Record
from stream_rec.simulate_catalogue import assortment
from stream_rec.simulate_taste import DAY_MS, HOUR_MS, Floats, Taste
from stream_rec.simulate_visits import N_LUCK, Slates, Visitors
from stream_rec.simulate_wire import Outbox

BY_HOUR = np.array([2, 1, 1, 1, 1, 2, 4, 7, 9, 10, 10, 11, 12, 11, 10, 10, 10, 11, 13, 15, 16, 14, 9, 5], dtype=float)
"""How visits spread over the hours of a day."""
NEVER = 2.0
"""Share of the run after which nothing happens any more."""


@dataclass(frozen=True)
class ShopPlan:
    """How big the shop is and what happens in it. The defaults make about 150,000 events."""

    start_ms: int = 1_767_571_200_000
    """Opening, ms since the epoch (a Monday, 2026-01-05)."""
    days: float = 30.0
    n_users: int = 2_500
    n_items: int = 2_000
    visits_per_day: float = 1_700.0
    organic_share: float = 0.3
    """Share of visits that choose from the whole catalogue instead of the slate."""
    anonymous_share: float = 0.15
    """Share of visits without a user id."""
    arriving_share: float = 0.15
    """Share of the items that is listed only after the opening."""
    dirty_share: float = 0.02
    """Share of events that are out of order, doubled, late or accompanied by a mangled copy."""
    n_partitions: int = 2
    outage_day: float = 18.4
    """When payments start to fail, in days after the opening."""
    outage_hours: float = 12.0


class Shop:
    """The simulated shop: `catalogue()` once, then `step()` until `done`.

    >>> shop = Shop(7, ShopPlan(days=0.5, n_users=50, n_items=100, visits_per_day=100))
    >>> len(shop.catalogue())
    78
    >>> len(shop.step(shop.end_ms, lambda user_id: None)), shop.counts["view_item"]
    (162, 62)
    """

    def __init__(self, seed: int, plan: ShopPlan | None = None) -> None:
        self.plan = plan = plan or ShopPlan()
        self.start_ms = plan.start_ms
        self._n_hours = max(1, round(plan.days * 24))
        self.end_ms = plan.start_ms + self._n_hours * HOUR_MS
        """The last visit starts before this."""
        self.items = assortment(seed, plan.n_items)
        self._taste = Taste(seed, plan.n_users, self.items, days=plan.days)
        self._outbox = Outbox(seed, n_partitions=plan.n_partitions, dirty_share=plan.dirty_share)
        fails_ms = self.start_ms + int(plan.outage_day * DAY_MS)
        outage_ms = (fails_ms, fails_ms + int(plan.outage_hours * HOUR_MS))
        self._visitors = Visitors(self._taste, self._outbox, start_ms=self.start_ms, outage_ms=outage_ms)
        self._row = {item_id: row for row, item_id in enumerate(self.items.item_ids)}
        rng = np.random.default_rng([seed, 3])
        self._activity = np.cumsum(rng.lognormal(0, 0.9, plan.n_users))
        self._changes = _planned_changes(plan, rng, self.end_ms)
        self._arrivals = np.random.default_rng([seed, 5])
        self._hour = 0
        self._coming: list[tuple[int, int, bool, bool, Floats]] = []

    @property
    def counts(self) -> Counter[str]:
        """Events said so far by type, and dirt by word (out_of_order, duplicate, late, malformed)."""
        return self._outbox.counts

    @property
    def done(self) -> bool:
        """Whether the last visit is over and everything it led to has been handed over."""
        return self._hour >= self._n_hours and not (self._coming or len(self._visitors) or len(self._outbox))

    def catalogue(self) -> list[Record]:
        """The item records of the opening assortment; to be read before the first event."""
        self._catch_up(self.start_ms + 1)
        return self._outbox.arrived(self.start_ms + 1)

    def step(self, until_ms: int, slates: Slates) -> list[Record]:
        """Everything that arrives from the last `until_ms` to before this one, in order of arrival.

        `slates` is asked once for each visit that starts at a slate, in order of time. After `end_ms` nobody comes
        any more; what was under way (later purchases, refunds, reviews) still arrives, for some weeks.
        """
        while self._hour < self._n_hours and self.start_ms + self._hour * HOUR_MS < until_ms:
            self._plan_hour()
        n_due = 0
        for at_ms, user, anonymous, organic, luck in self._coming:
            if at_ms >= until_ms:
                break
            n_due += 1
            self._catch_up(at_ms)
            visit = self._visitors.open(user, at_ms, luck, anonymous=anonymous)
            self._visitors.carry_out(visit, None if organic else slates)
        del self._coming[:n_due]
        self._catch_up(until_ms)
        return self._outbox.arrived(until_ms)

    def true_click_prob(self, user_id: str, item_id: str, at_ms: int) -> float:
        """Probability that this user clicks this item once examined; 0 when it is not on sale.

        Tastes are those of `at_ms`; what is on sale and what the user has seen and bought, those of the last step.
        """
        return float(self._taste.click_probs(int(user_id[1:]), at_ms - self.start_ms, [self._row[item_id]])[0])

    def best_slate(self, user_id: str, n_slots: int, at_ms: int) -> list[str]:
        """The `n_slots` items this user is most likely to click, best first: what no recommender can beat."""
        logits = self._taste.logits(int(user_id[1:]), at_ms - self.start_ms)
        return [self.items.item_ids[row] for row in np.argsort(-logits, kind="stable")[:n_slots]]

    def _plan_hour(self) -> None:
        """Draw the visits of the next hour; the customer base grows from 60 % to all over the run."""
        plan, rng = self.plan, self._arrivals
        opens_ms = self.start_ms + self._hour * HOUR_MS
        n = int(rng.poisson(plan.visits_per_day * BY_HOUR[self._hour % 24] / BY_HOUR.sum()))
        joined = max(1, int(plan.n_users * (0.6 + 0.4 * self._hour / self._n_hours)))
        at = np.sort(rng.integers(0, HOUR_MS, n)) + opens_ms
        users = np.searchsorted(self._activity[: joined - 1], rng.random(n) * self._activity[joined - 1], side="right")
        anonymous = (rng.random(n) < plan.anonymous_share).tolist()
        organic = (rng.random(n) < plan.organic_share).tolist()
        self._coming += zip(at.tolist(), users.tolist(), anonymous, organic, rng.random((n, N_LUCK)), strict=True)
        self._hour += 1

    def _catch_up(self, until_ms: int) -> None:
        """What happens without anybody coming in, in order of time: the assortment changes, orders are followed up."""
        while self._changes and self._changes[-1][0] < until_ms:
            at_ms, row, change = self._changes.pop()
            self._visitors.follow_up(at_ms)
            taste, item_id = self._taste, self.items.item_ids[row]
            if change == "list":
                taste.listed_at_ms[row] = at_ms - self.start_ms
            if change == "reprice":
                self.items.price[row] = round(0.8 * self.items.price[row], 2)
            else:
                taste.put_on_sale(row, change in ("list", "return"))
            if change == "delist":
                self._outbox.item(at_ms, item_id, None)
            else:
                in_stock = taste.is_on_sale(row)
                self._outbox.item(at_ms, item_id, self.items.record(row, in_stock=in_stock, updated_at_ms=at_ms))
        self._visitors.follow_up(until_ms)


def _planned_changes(plan: ShopPlan, rng: np.random.Generator, end_ms: int) -> list[tuple[int, int, str]]:
    """(time, item, change) for the whole run, latest first, so that the next is popped from the end."""
    n, span_ms = plan.n_items, end_ms - plan.start_ms
    comes = np.where(rng.random(n) < plan.arriving_share, rng.uniform(0.02, 0.95, n), 0.0)
    goes = np.where(rng.random(n) < 0.05, rng.uniform(0.2, 1.0, n), NEVER)
    sells_out = np.where(rng.random(n) < 0.1, rng.uniform(0.05, 0.9, n), NEVER)
    returns = sells_out + rng.uniform(0.02, 0.15, n)
    repriced = np.where(rng.random(n) < 0.1, rng.uniform(0.05, 0.95, n), NEVER)
    happens = {"sell_out": sells_out, "return": returns, "reprice": repriced}
    changes: list[tuple[int, int, str]] = []
    for row in range(n):
        changes.append((plan.start_ms + int(comes[row] * span_ms), row, "list"))
        if comes[row] < goes[row] < 1.0:
            changes.append((plan.start_ms + int(goes[row] * span_ms), row, "delist"))
        for change, when in happens.items():
            if comes[row] < when[row] < min(1.0, goes[row]):
                changes.append((plan.start_ms + int(when[row] * span_ms), row, change))
    return sorted(changes, reverse=True)
