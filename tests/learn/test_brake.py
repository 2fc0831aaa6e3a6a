"""The brake: silent through nights, weekends and holidays of a shop; on when the stream looks like no shop."""

from __future__ import annotations

import csv
import gzip
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from stream_rec.component import digest
from stream_rec.learn.brake import DAY_MS, HOUR_MS, Brake, BrakeLimits, Braking, Counts
from stream_rec.learn.usual import interval, usual_range
from stream_rec.simulate import BY_HOUR
from stream_rec.stream.sampling import hash_one
from tests.learn import shop_counts
from tests.learn.shop_counts import LOOKS, START_MS, Event

RETAIL = Path(os.environ.get("STREAM_REC_DATA", "../shared/data")) / "online-retail"
SPOILT_FROM_MS = START_MS + int(8.3 * DAY_MS)


def states(ticks: Iterable[tuple[int, Counts]], brake: Brake | None = None) -> Iterator[tuple[int, Braking]]:
    brake = brake or Brake()
    return ((at_ms, brake.update(at_ms, counts)) for at_ms, counts in ticks)


def first_brake(ticks: Iterable[tuple[int, Counts]]) -> tuple[int, Braking]:
    return next((at_ms, state) for at_ms, state in states(ticks) if state.braking)


def no_purchases(event: Event) -> Event | None:
    return None if event["event_type"] == "purchase" else event


def other_items(event: Event) -> Event:
    """Every action names another item than the one that was meant."""
    item = f"SKU{10_000 + hash_one(0, int(event['event_id'][1:].split('-')[0], 10)) % 400}"
    if event["event_type"] == "purchase":
        return {**event, "items": [{"item_id": item}]}
    return {**event, "item_id": item} if event["event_type"] in (*LOOKS, "add_to_cart") else event


def looks_and_purchases_swapped(event: Event) -> Event:
    kind = event["event_type"]
    return {**event, "event_type": {"view_item": "purchase", "purchase": "view_item"}.get(kind, kind)}


def even(hours: Iterable[int], **hourly: float) -> Iterator[tuple[int, Counts]]:
    """A shop that brings the same at every of these hours since START_MS, in six ticks."""
    counts = {name: type(getattr(Counts(), name))(value / 6) for name, value in hourly.items() if name != "n_items"}
    for hour in hours:
        for part in range(6):
            yield START_MS + hour * HOUR_MS + part * HOUR_MS // 6, Counts(**counts, n_items=int(hourly["n_items"]))


USUAL = {
    "events": 600.0, "joinable": 300.0, "joined": 120.0, "looks": 300.0, "purchases": 30.0, "visits": 60.0,
    "recall": 18.0, "n_items": 1_000.0,
}  # fmt: skip


# ---- silent


def test_days_and_nights_of_the_simulated_shop_do_not_brake() -> None:
    assert [state for _, state in states(shop_counts.ticks()) if state.braking] == []


def test_a_small_shop_with_empty_nights_and_weekends_does_not_brake() -> None:
    """Visits by the hour of a weekday, Poisson; nobody from 22 to 7 h and at weekends; eight weeks."""
    rng, found = np.random.default_rng(0), []
    brake = Brake()
    for hour in range(56 * 24):
        of_day = hour % 24
        if hour // 24 % 7 >= 5 or not 7 <= of_day < 22:
            continue
        n = int(rng.poisson(2.0 * BY_HOUR[of_day]))
        looks, purchases = int(rng.poisson(3.0 * n)), int(rng.poisson(0.3 * n))
        joined = int(rng.binomial(looks, 0.4))
        recall = float(rng.binomial(n, 0.3))
        counts = Counts(looks + purchases, looks, joined, looks, purchases, n, recall, int(rng.poisson(0.1)), 500)
        found.append(brake.update(START_MS + hour * HOUR_MS, counts).braking)
    assert not any(found)
    assert brake.n_closed.min() >= 8


@pytest.mark.data
def test_nine_months_of_a_real_shop_do_not_brake() -> None:
    """Closed at nights, on Saturdays and over Christmas; a minute can bring 705 lines."""
    if not RETAIL.is_dir():
        pytest.skip("the research data is not there (set STREAM_REC_DATA)")
    brake, minutes, seen = Brake(), dict[str, Counter[str]](), set[str]()
    with gzip.open(next(RETAIL.glob("*.csv.gz")), "rt", encoding="utf-8", errors="replace") as lines:
        for line in csv.DictReader(lines):
            minute = minutes.setdefault(line["InvoiceDate"], Counter())
            minute["events"] += 1
            minute["purchases"] += not line["InvoiceNo"].startswith("C")
            minute["items_changed"] += line["StockCode"] not in seen
            seen.add(line["StockCode"])
            minute["n_items"] = len(seen)
    states = [
        brake.update(int(datetime.fromisoformat(minute).replace(tzinfo=UTC).timestamp()) * 1_000, Counts(**counts))
        for minute, counts in minutes.items()
    ]
    assert len(states) > 10_000
    assert not any(state.braking for state in states)


def test_nothing_is_judged_in_the_first_two_days() -> None:
    ticks = [*even(range(20), **USUAL), *even(range(20, 47), **{**USUAL, "purchases": 0.0, "joined": 0.0})]
    assert not any(state.braking for _, state in states(ticks))


def test_more_recall_than_usual_is_no_reason_to_brake() -> None:
    ticks = [*even(range(80), **USUAL), *even(range(80, 110), **{**USUAL, "recall": 60.0})]
    assert not any(state.braking for _, state in states(ticks))


# ---- on


@pytest.mark.parametrize(
    ("spoil", "figure", "within_hours"),
    [
        (no_purchases, "purchase_share", 24),
        (other_items, "join_rate", 8),
        (looks_and_purchases_swapped, "purchase_share", 12),
    ],
)
def test_a_spoilt_shop_brakes_and_says_why(spoil: shop_counts.Spoil, figure: str, within_hours: int) -> None:
    at_ms, state = first_brake(shop_counts.ticks(spoil))
    assert SPOILT_FROM_MS < at_ms <= SPOILT_FROM_MS + within_hours * HOUR_MS
    assert any(reason.startswith(f"{figure}: ") and "usual" in reason for reason in state.reasons)


def test_failing_payments_brake_as_purchases_vanish_and_let_go_afterwards() -> None:
    plan = replace(shop_counts.PLAN, days=8.0, outage_day=5.3, outage_hours=24.0)
    fails_ms = START_MS + int(5.3 * DAY_MS)
    found = list(states(shop_counts.ticks(plan=plan)))
    braked = [at_ms for at_ms, state in found if state.braking]
    assert fails_ms < braked[0] < fails_ms + 24 * HOUR_MS
    assert not found[-1][1].braking


@pytest.mark.parametrize(
    ("spoilt", "figure"),
    [
        ({"recall": 3.0}, "recall"),
        ({"joined": 6.0}, "join_rate"),
        ({"purchases": 0.0}, "purchase_share"),
        ({"purchases": 300.0}, "purchase_share"),
        ({"events": 6_000.0}, "events_per_hour"),
        ({"items_changed": 100.0}, "catalogue_churn_per_day"),
    ],
)
def test_each_figure_brakes_within_a_day_and_names_usual_and_value(spoilt: dict[str, float], figure: str) -> None:
    ticks = [*even(range(80), **USUAL), *even(range(80, 104), **{**USUAL, **spoilt})]
    at_ms, state = first_brake(ticks)
    assert at_ms >= START_MS + 80 * HOUR_MS
    assert [reason.split(":")[0] for reason in state.reasons] == [figure]
    assert "usual" in state.reasons[0]
    assert "allowed" in state.reasons[0]


def test_a_day_with_hardly_any_events_brakes() -> None:
    few = {name: value / 50 if name != "n_items" else value for name, value in USUAL.items()}
    ticks = [*even(range(96), **USUAL), *even(range(96, 122), **few | {"events": 6.0})]
    at_ms, state = first_brake(ticks)
    assert at_ms == START_MS + 120 * HOUR_MS
    assert state.reasons[0].startswith("events_per_day: 144, usual 14400 to 14400, allowed 720")


# ---- and off


def test_it_lets_go_after_a_healthy_stretch_and_not_before() -> None:
    brake = Brake()
    bad = {**USUAL, "joined": 0.0}
    ticks = [*even(range(80), **USUAL), *even(range(80, 90), **bad), *even(range(90, 110), **USUAL)]
    on = [at_ms for at_ms, state in states(ticks, brake) if state.braking]
    assert START_MS + 90 * HOUR_MS + brake.limits.release_ms <= on[-1] < START_MS + 100 * HOUR_MS


def test_what_came_while_it_braked_does_not_become_usual() -> None:
    brake = Brake()
    ticks = [*even(range(80), **USUAL), *even(range(80, 400), **{**USUAL, "joined": 0.0})]
    assert list(states(ticks, brake))[-1][1].braking
    used = int(brake.n_closed[0])
    assert brake.hits[0, :used].min() > 0


def test_a_shop_that_changed_for_good_is_accepted_by_word() -> None:
    brake, changed = Brake(), {**USUAL, "purchases": 300.0}
    assert list(states([*even(range(80), **USUAL), *even(range(80, 100), **changed)], brake))[-1][1].braking
    brake.accept()
    assert not any(state.braking for _, state in states(even(range(100, 200), **changed), brake))


# ---- state


@pytest.mark.parametrize("stopped_at", [0, 1, 100, 477, 500, 560])
def test_a_restored_brake_goes_on_as_if_never_stopped(stopped_at: int) -> None:
    """Stopped in the warm-up, in mid-bin, while braking and after it."""
    bad = {**USUAL, "joined": 0.0, "items_changed": 60.0}
    ticks = [*even(range(80), **USUAL), *even(range(80, 90), **bad), *even(range(90, 150), **USUAL)]
    one, two = Brake(), Brake()
    for _ in states(ticks[:stopped_at], one):
        pass
    two.restore(one.snapshot())
    assert list(states(ticks[stopped_at:], one)) == list(states(ticks[stopped_at:], two))
    assert digest(one.snapshot()) == digest(two.snapshot())


def test_everything_it_holds_is_declared() -> None:
    brake = Brake()
    assert set(vars(brake)) == {*brake.columns, *brake.scalars, *brake.derived, *brake.fixed}


def test_its_memory_does_not_grow_with_the_stream() -> None:
    brake = Brake(BrakeLimits(bin_information=4.0), n_bins=8, n_hours=8, n_days=4)
    before = brake.n_bytes()
    for _ in states(even(range(200), **USUAL), brake):
        pass
    assert brake.n_bytes() == before
    assert brake.n_closed.min() > 8


# ---- shares


def test_the_range_of_a_share_near_one_stays_below_one() -> None:
    usual = usual_range(np.full(10, 999.0), np.full(10, 1_000.0), 2.0)
    assert 0.99 < usual.least < usual.low <= usual.high < usual.most < 1.0


def test_few_trials_leave_a_share_open() -> None:
    low, high = interval(0.0, 5.0)
    assert low == 0.0
    assert high > 0.7
    assert interval(0.0, 0.0) == (0.0, 1.0)
