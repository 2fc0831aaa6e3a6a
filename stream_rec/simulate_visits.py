"""What people do in the simulated shop: look, click, search, fill a cart, pay or not, send back, review."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np

from stream_rec.simulate_catalogue import Assortment
from stream_rec.simulate_taste import DAY_MS, HOUR_MS, Floats, Taste, examined_prob
from stream_rec.simulate_wire import MINUTE_MS, SECOND_MS, Outbox

Slates = Callable[[str | None], Mapping[str, Any] | None]
"""The slate in force for a raw user id (None: a visitor without one), as on the wire; None when there is none."""

N_LUCK = 160
"""Uniform draws a visit owns; its first MAX_SLOTS belong to the slots of the slate."""
MAX_SLOTS = 50
MAX_BROWSED = 8
SEARCH_WORDS = ("cheap", "new", "gift", "best")

CART_PROB = 0.22
WISHLIST_PROB = 0.06
SEARCH_PROB = 0.35
RELATED_AFTER_CLICK_PROB = 0.15
RELATED_AFTER_VIEW_PROB = 0.3
LEAVE_PROB = 0.65
PAY_NOW, PAY_LATER, TAKE_OUT = 0.45, 0.7, 0.8
"""Upper ends of what becomes of a cart: paid in minutes, paid within days, something taken out; else left behind."""
SENT_BACK, REVIEWED = 0.04, 0.12
"""Upper ends of what becomes of a bought item: sent back, reviewed; else nothing is heard."""


@dataclass(slots=True)
class Visit:
    """One person's session: who, under which ids, and the luck still unused. `at_ms` is the time of the next event."""

    user: int
    name: str | None
    session: str
    at_ms: int
    slot_luck: Floats
    luck: Iterator[float]
    weight: Floats | None = None
    """How much the person wants each item of the catalogue now; computed when first asked for."""


class Visitors:
    """Carries visits out and keeps what people still mean to do. Times are ms since the epoch."""

    def __init__(self, taste: Taste, outbox: Outbox, *, start_ms: int, outage_ms: tuple[int, int]) -> None:
        self._taste = taste
        self._items: Assortment = taste.items
        self._outbox = outbox
        self._start_ms = start_ms
        self._outage_ms = outage_ms
        self._row = {item_id: row for row, item_id in enumerate(self._items.item_ids)}
        n_categories = int(self._items.category.max()) + 1
        self._in_category = [np.flatnonzero(self._items.category == c) for c in range(n_categories)]
        self._intents: list[tuple[int, int, str, Visit, dict[str, Any]]] = []
        self._n_sessions = self._n_orders = self._n_intents = 0

    def __len__(self) -> int:
        return len(self._intents)

    def open(self, user: int, at_ms: int, luck: Floats, *, anonymous: bool) -> Visit:
        """Somebody comes in; `luck` [N_LUCK] in [0, 1) decides everything this visit leaves to chance."""
        name = None if anonymous else f"u{user:06d}"
        return Visit(user, name, self._session(), at_ms, luck[:MAX_SLOTS], cycle(luck[MAX_SLOTS:].tolist()))

    def carry_out(self, visit: Visit, slates: Slates | None) -> None:
        """One visit from its first look to its cart; without slates, or with an empty one, it browses."""
        slate = slates(visit.name) if slates is not None else None
        touched = self._look_down(visit, slate) if slate and slate.get("slots") else self._browse(visit)
        wanted: dict[int, float] = {}
        for row, decision_id in touched:
            self._taste.remember(visit.user, row, visit.at_ms - self._start_ms, bought=False)
            if next(visit.luck) < CART_PROB and row not in wanted:
                because = {"decision_id": decision_id} if decision_id else {}
                self._say(visit, "add_to_cart", {"item_id": self._items.item_ids[row], "quantity": 1, **because})
                wanted[row] = float(1 + int(3 * next(visit.luck))) if self._items.used_up[row] else 1.0
            elif next(visit.luck) < WISHLIST_PROB:
                self._say(visit, "add_to_wishlist", {"item_id": self._items.item_ids[row]})
        if wanted:
            self._decide(visit, wanted)

    def follow_up(self, until_ms: int) -> None:
        """Purchases, refunds and reviews whose time has come."""
        while self._intents and self._intents[0][0] < until_ms:
            at_ms, _serial, what, visit, fields = heapq.heappop(self._intents)
            # Without a user id only the session links a later purchase to the visit, so the old one goes on.
            if at_ms - visit.at_ms > 30 * MINUTE_MS and visit.name is not None:
                visit = Visit(visit.user, visit.name, self._session(), at_ms, visit.slot_luck, visit.luck)
            visit.at_ms = max(visit.at_ms, at_ms)
            if what == "pay":
                self._pay(visit, fields["wanted"])
            else:
                self._say(visit, what, fields)

    def _look_down(self, visit: Visit, slate: Mapping[str, Any]) -> list[tuple[int, str]]:
        """See a slate, click what attracts, look at related items; returns what was clicked or looked at."""
        n_shown = (8, 12, MAX_SLOTS)[int(3 * next(visit.luck))]
        known = self._row
        slots = [(s["item_id"], s["position"]) for s in slate["slots"][:n_shown] if s["item_id"] in known]
        decision_id = slate["decision_id"]
        shown = [{"item_id": item_id, "position": position} for item_id, position in slots]
        self._say(visit, "impression", {"decision_id": decision_id, "items": shown})
        rows = [known[item_id] for item_id, _position in slots]
        attracts = self._taste.click_probs(visit.user, visit.at_ms - self._start_ms, rows)
        examined = examined_prob(np.array([position for _item_id, position in slots], dtype=np.float64))
        touched: list[tuple[int, str]] = []
        for slot in np.flatnonzero(visit.slot_luck[: len(rows)] < attracts * examined).tolist():
            self._say(visit, "click", {**shown[slot], "decision_id": decision_id})
            touched.append((rows[slot], decision_id))
            if next(visit.luck) < RELATED_AFTER_CLICK_PROB:
                touched += self._related(visit, rows[slot])
        return touched

    def _browse(self, visit: Visit) -> list[tuple[int, str]]:
        """Choose from the whole catalogue, by search or by browsing; returns what was looked at."""
        touched: list[tuple[int, str]] = []
        while len(touched) < MAX_BROWSED and (row := _draw(self._wants(visit), next(visit.luck))) is not None:
            if next(visit.luck) < SEARCH_PROB:
                self._say(visit, "search", {"query": self._query(row, next(visit.luck))})
            self._say(visit, "view_item", {"item_id": self._items.item_ids[row]})
            touched.append((row, ""))
            if next(visit.luck) < RELATED_AFTER_VIEW_PROB:
                touched += self._related(visit, row)
            if next(visit.luck) < LEAVE_PROB:
                break
        return touched

    def _related(self, visit: Visit, row: int) -> list[tuple[int, str]]:
        """Look at one more item of the same category."""
        rows = self._in_category[self._items.category[row]]
        weight = self._wants(visit)[rows]
        weight[rows == row] = 0.0
        place = _draw(weight, next(visit.luck))
        if place is None:
            return []
        self._say(visit, "view_item", {"item_id": self._items.item_ids[rows[place]]})
        return [(int(rows[place]), "")]

    def _wants(self, visit: Visit) -> Floats:
        if visit.weight is None:
            visit.weight = np.exp(self._taste.logits(visit.user, visit.at_ms - self._start_ms))
        return visit.weight

    def _query(self, row: int, luck: float) -> str:
        noun = self._items.nouns[row]
        if luck < 0.4:
            return noun
        if luck < 0.8:
            return self._items.titles[row].split(",")[0].lower()
        return f"{SEARCH_WORDS[int(luck * 100) % len(SEARCH_WORDS)]} {noun}"

    def _decide(self, visit: Visit, wanted: dict[int, float]) -> None:
        """Buy now, buy within days, take something out, or leave the cart behind."""
        choice = next(visit.luck)
        if choice < PAY_NOW:
            self._intend(visit, "pay", _exponential(visit, 3 * MINUTE_MS), {"wanted": wanted})
        elif choice < PAY_LATER:
            self._intend(visit, "pay", 2 * HOUR_MS + _exponential(visit, 30 * HOUR_MS), {"wanted": wanted})
        elif choice < TAKE_OUT:
            self._say(visit, "remove_from_cart", {"item_id": self._items.item_ids[next(iter(wanted))]})

    def _pay(self, visit: Visit, wanted: dict[int, float]) -> None:
        """A purchase, unless payments are out: then half of the people come back when they work again."""
        fails_ms, back_ms = self._outage_ms
        if fails_ms <= visit.at_ms < back_ms:
            if next(visit.luck) < 0.5:
                self._intend(visit, "pay", back_ms - visit.at_ms + _exponential(visit, 4 * HOUR_MS), {"wanted": wanted})
            return
        order, prices, ids = f"o{self._n_orders:07d}", self._items.price, self._items.item_ids
        self._n_orders += 1
        lines = [{"item_id": ids[r], "price": float(prices[r]), "quantity": q} for r, q in wanted.items()]
        value = round(sum(float(prices[r]) * q for r, q in wanted.items()), 2)
        self._say(visit, "purchase", {"order_id": order, "items": lines, "value": value, "currency": "EUR"})
        for row in wanted:
            self._taste.remember(visit.user, row, visit.at_ms - self._start_ms, bought=True)
            self._afterwards(visit, row, order)

    def _afterwards(self, visit: Visit, row: int, order: str) -> None:
        """Send one bought item back, review it, or neither."""
        choice, item = next(visit.luck), {"item_id": self._items.item_ids[row]}
        in_ms = DAY_MS + _exponential(visit, 2 * DAY_MS)
        if choice < SENT_BACK:
            self._intend(visit, "refund", in_ms, {"order_id": order, **item})
        elif choice < REVIEWED:
            rating = 1 + int(5 * next(visit.luck) ** 0.4)
            self._intend(visit, "review", in_ms, {"rating": rating, **item})

    def _intend(self, visit: Visit, what: str, in_ms: int, fields: dict[str, Any]) -> None:
        heapq.heappush(self._intents, (visit.at_ms + in_ms, self._n_intents, what, visit, fields))
        self._n_intents += 1

    def _say(self, visit: Visit, event_type: str, fields: dict[str, Any]) -> None:
        """One event of this visit; the next comes some seconds later."""
        key, who = visit.session, {"session_id": visit.session}
        if visit.name is not None:
            key, who = visit.name, {"user_id": visit.name, **who}
        self._outbox.event(visit.at_ms, key.encode(), {"event_type": event_type, **who, **fields})
        visit.at_ms += 2 * SECOND_MS + int(next(visit.luck) * MINUTE_MS)

    def _session(self) -> str:
        self._n_sessions += 1
        return f"s{self._n_sessions:08d}"


def _draw(weight: Floats, luck: float) -> int | None:
    """The row that `luck` in [0, 1) falls on when rows are as wide as their weight; None when all are zero.

    >>> _draw(np.array([1.0, 0.0, 3.0]), 0.3), _draw(np.zeros(2), 0.3)
    (2, None)
    """
    total = np.cumsum(weight)
    if not total[-1] > 0.0:
        return None
    return int(min(np.searchsorted(total, luck * total[-1], side="right"), len(total) - 1))


def _exponential(visit: Visit, mean_ms: int) -> int:
    return int(-math.log1p(-next(visit.luck)) * mean_ms)
