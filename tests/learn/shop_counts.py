"""The simulated shop as the brake sees it: what each tick brought, as it was or spoilt from some day on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from stream_rec.learn.brake import DAY_MS, HOUR_MS, Counts
from stream_rec.simulate import Shop, ShopPlan

Event = dict[str, Any]
Spoil = Callable[[Event], Event | None]

PLAN = ShopPlan(days=9.4, n_users=400, n_items=400, visits_per_day=1_200.0, outage_day=100.0)
START_MS = PLAN.start_ms
TICK_EVENTS = 100
JOINED_WITHIN_MS = 7 * DAY_MS
LOOKS = ("click", "view_item")


@cache
def events(plan: ShopPlan = PLAN) -> tuple[Event, ...]:
    """What people did in order of arrival, while they were shown what was taken most often."""
    shop, taken, out, n_slates = Shop(0, plan), Counter[str](), [], 0
    shop.catalogue()
    for hour in range(1, int(plan.days * 24) + 1):
        top = [item for item, _ in taken.most_common(20)]
        slots = [{"item_id": item, "position": place} for place, item in enumerate(top)]

        def slates(_user_id: str | None, slots: list[dict[str, Any]] = slots) -> dict[str, Any] | None:
            nonlocal n_slates
            n_slates += 1
            return {"decision_id": f"d{n_slates}", "slots": slots} if slots else None

        for record in shop.step(START_MS + hour * HOUR_MS, slates):
            try:
                event = json.loads(record.value or b"")
            except ValueError:
                continue
            if isinstance(event, dict) and isinstance(event.get("event_at"), int):
                out.append(event)
                taken.update(_items(event) if event["event_type"] in LOOKS else ())
    return tuple(out)


def ticks(spoil: Spoil | None = None, from_day: float = 8.3, plan: ShopPlan = PLAN) -> Iterator[tuple[int, Counts]]:
    """(watermark, counts) of every TICK_EVENTS events; `spoil` changes or drops (None) those from a day on."""
    shown: dict[tuple[str, str], int] = {}
    counts, watermark_ms = Counter[str](), 0
    for sent in events(plan):
        event: Event | None = sent
        if spoil is not None and sent["event_at"] >= START_MS + int(from_day * DAY_MS):
            event = spoil(sent)
        if event is None:
            continue
        at_ms, kind = event["event_at"], event["event_type"]
        who = str(event.get("user_id") or event.get("session_id"))
        watermark_ms = max(watermark_ms, at_ms)
        counts["events"] += 1
        for item in _items(event):
            if kind == "impression":
                shown[who, item] = at_ms
            elif kind in (*LOOKS, "add_to_cart", "purchase"):
                counts["joinable"] += 1
                counts["joined"] += at_ms - shown.get((who, item), -JOINED_WITHIN_MS) < JOINED_WITHIN_MS
        counts["looks"] += kind in LOOKS
        counts["purchases"] += kind == "purchase"
        if counts["events"] == TICK_EVENTS:
            yield watermark_ms, Counts(**counts, n_items=plan.n_items)
            counts.clear()


def _items(event: Event) -> list[str]:
    return [event["item_id"]] if "item_id" in event else [item["item_id"] for item in event.get("items", ())]
