"""The simulated shop does what its description says, the same way every time."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest

from stream_rec.events import Record
from stream_rec.simulate import Shop, ShopPlan
from stream_rec.simulate_taste import DAY_MS, HOUR_MS, examined_prob
from stream_rec.simulate_wire import MINUTE_MS, mangled
from stream_rec.stream.front import Front
from stream_rec.stream.privacy import Pseudonymiser, Sealer

SMALL = ShopPlan(days=8.0, n_users=300, n_items=400, visits_per_day=250.0, outage_day=5.0, outage_hours=12.0)
STEP_MS = 2 * HOUR_MS


def slate(items: list[str], name: str = "d1") -> dict[str, Any]:
    return {"decision_id": name, "slots": [{"item_id": item, "position": p} for p, item in enumerate(items)]}


def fixed(shop: Shop) -> dict[str, Any]:
    return slate(shop.items.item_ids[:20])


def run(shop: Shop, policy: str = "fixed", step_ms: int = STEP_MS) -> list[Record]:
    """Every record of a shop whose visitors are shown one slate, their best slates, or none."""
    out = shop.catalogue()
    now_ms = shop.start_ms

    def shown(user_id: str | None) -> Mapping[str, Any] | None:
        if policy == "none":
            return None
        if policy == "best" and user_id is not None:
            return slate(shop.best_slate(user_id, 20, now_ms))
        return fixed(shop)

    while not shop.done:
        now_ms += step_ms
        out += shop.step(now_ms, shown)
    return out


def events(records: list[Record], event_type: str | None = None) -> list[dict[str, Any]]:
    """Readable events, each once."""
    found: dict[str, dict[str, Any]] = {}
    for record in records:
        if record.topic != "events" or record.value is None:
            continue
        try:
            event = msgspec.json.decode(record.value)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        if isinstance(event, dict) and isinstance(event["event_at"], int) and "page_ping" not in event["event_type"]:
            found[event["event_id"]] = event
    return [e for e in found.values() if event_type in (None, e["event_type"])]


@pytest.fixture(scope="module")
def a_run() -> tuple[Shop, list[Record]]:
    shop = Shop(3, SMALL)
    return shop, run(shop)


def test_the_same_seed_and_slates_give_the_same_bytes(a_run: tuple[Shop, list[Record]]) -> None:
    assert run(Shop(3, SMALL)) == a_run[1]


def test_another_seed_gives_other_people_and_items(a_run: tuple[Shop, list[Record]]) -> None:
    assert run(Shop(4, SMALL))[:50] != a_run[1][:50]


def test_the_bytes_do_not_depend_on_how_often_it_is_stepped(a_run: tuple[Shop, list[Record]]) -> None:
    assert run(Shop(3, SMALL), step_ms=7 * HOUR_MS + 1234) == a_run[1]


def test_offsets_have_no_gap_and_time_never_runs_back_in_a_partition(a_run: tuple[Shop, list[Record]]) -> None:
    partitions: dict[tuple[str, int], list[Record]] = {}
    for record in a_run[1]:
        partitions.setdefault((record.topic, record.partition), []).append(record)
    assert sorted(partitions) == [("events", 0), ("events", 1), ("items", 0)]
    for records in partitions.values():
        assert [r.offset for r in records] == list(range(len(records)))
        assert all(a.timestamp_ms <= b.timestamp_ms for a, b in pairwise(records))


def test_a_key_always_goes_to_the_same_partition(a_run: tuple[Shop, list[Record]]) -> None:
    seen: dict[bytes | None, int] = {}
    assert all(seen.setdefault(r.key, r.partition) == r.partition for r in a_run[1] if r.topic == "events")


def test_every_step_hands_over_its_own_slice_of_time() -> None:
    shop = Shop(3, SMALL)
    shop.catalogue()
    for n in range(1, 30):
        until_ms = shop.start_ms + n * STEP_MS
        times = [r.timestamp_ms for r in shop.step(until_ms, lambda user_id: None)]
        assert all(until_ms - STEP_MS <= t < until_ms for t in times)


def test_a_slate_is_asked_for_in_order_of_time_and_named_by_its_impression() -> None:
    shop, asked = Shop(3, SMALL), []
    shop.catalogue()

    def shown(user_id: str | None) -> dict[str, Any]:
        asked.append(user_id)
        return slate(shop.items.item_ids[:20], f"d{len(asked) - 1}")

    impressions = events(shop.step(shop.end_ms, shown), "impression")
    assert len(impressions) > 500
    assert all(asked[int(i["decision_id"][1:])] == i.get("user_id") for i in impressions)


def test_most_visits_start_at_a_slate_and_the_organic_share_can_be_set() -> None:
    def share(organic_share: float) -> float:
        shop = Shop(3, ShopPlan(days=3.0, n_users=300, n_items=200, organic_share=organic_share))
        told = events(run(shop), None)
        n_slate = len({e["session_id"] for e in told if e["event_type"] == "impression"})
        n_organic = len({e["session_id"] for e in told if e["event_type"] == "view_item"} - {
            e["session_id"] for e in told if e["event_type"] == "impression"
        })  # fmt: skip
        return n_organic / (n_slate + n_organic)

    assert share(0.3) == pytest.approx(0.3, abs=0.03)
    assert share(0.7) == pytest.approx(0.7, abs=0.03)


def test_without_slates_everybody_browses() -> None:
    told = {e["event_type"] for e in events(run(Shop(3, SMALL), "none"))}
    assert "view_item" in told
    assert not {"impression", "click"} & told


def test_when_people_come_does_not_depend_on_the_slates(a_run: tuple[Shop, list[Record]]) -> None:
    def first_events(records: list[Record]) -> set[tuple[str, int]]:
        return {(e.get("user_id", "-"), e["event_at"]) for e in events(records, "impression")}

    assert first_events(run(Shop(3, SMALL), "best")) == first_events(a_run[1])


def test_better_slates_are_clicked_more() -> None:
    best, same = Shop(3, SMALL), Shop(3, SMALL)
    run(best, "best")
    run(same, "fixed")
    assert best.counts["impression"] == same.counts["impression"]
    assert best.counts["click"] > 5 * same.counts["click"]


def test_positions_are_clicked_as_often_as_they_are_examined() -> None:
    shop = Shop(5, ShopPlan(days=4.0, n_users=200, n_items=200, visits_per_day=1500.0, dirty_share=0.0))
    rng = np.random.default_rng(0)
    shop.catalogue()

    def shown(user_id: str | None) -> dict[str, Any] | None:
        best = shop.best_slate(user_id, 8, shop.start_ms) if user_id else []
        return slate([best[i] for i in rng.permutation(len(best))])

    n_clicks = np.bincount([e["position"] for e in events(shop.step(shop.end_ms, shown), "click")], minlength=8)
    expected = examined_prob(np.arange(8))
    np.testing.assert_allclose(n_clicks / n_clicks.sum(), expected / expected.sum(), atol=0.02)


def test_clicks_come_as_often_as_their_true_probability_says() -> None:
    shop = Shop(
        6, ShopPlan(days=4.0, n_users=200, n_items=200, visits_per_day=1500.0, dirty_share=0.0, arriving_share=0.0)
    )
    shop.catalogue()
    expected = 0.0

    def shown(user_id: str | None) -> dict[str, Any] | None:
        nonlocal expected
        if user_id is None:
            return None
        items = shop.best_slate(user_id, 8, now_ms)
        probs = [shop.true_click_prob(user_id, item, now_ms) for item in items]
        expected += float(np.dot(probs, examined_prob(np.arange(8))))
        return slate(items)

    for n in range(96):
        now_ms = shop.start_ms + n * HOUR_MS
        shop.step(now_ms + HOUR_MS, shown)
    assert shop.counts["click"] == pytest.approx(expected, rel=0.05)


def test_an_anonymous_visit_has_a_session_and_no_user(a_run: tuple[Shop, list[Record]]) -> None:
    told = events(a_run[1], "impression")
    anonymous = [e for e in told if "user_id" not in e]
    assert len(anonymous) / len(told) == pytest.approx(SMALL.anonymous_share, abs=0.03)
    assert all(e["session_id"] for e in anonymous)


def test_purchases_come_at_once_and_days_later(a_run: tuple[Shop, list[Record]]) -> None:
    told = events(a_run[1])
    carted = {(e.get("user_id"), e["item_id"]): e["event_at"] for e in told if e["event_type"] == "add_to_cart"}
    waits = [
        e["event_at"] - carted[e.get("user_id"), line["item_id"]]
        for e in told
        if e["event_type"] == "purchase"
        for line in e["items"]
    ]
    assert sum(w < 30 * MINUTE_MS for w in waits) > 50
    assert sum(w > DAY_MS for w in waits) > 20


def test_nobody_can_pay_during_the_outage_while_clicks_go_on(a_run: tuple[Shop, list[Record]]) -> None:
    fails_ms = SMALL.start_ms + int(SMALL.outage_day * DAY_MS)
    back_ms = fails_ms + int(SMALL.outage_hours * HOUR_MS)
    inside = [e["event_type"] for e in events(a_run[1]) if fails_ms <= e["event_at"] < back_ms]
    assert "purchase" not in inside
    assert "add_to_cart" in inside


def test_a_refund_names_an_order_and_an_item_of_it(a_run: tuple[Shop, list[Record]]) -> None:
    bought = {(e["order_id"], line["item_id"]) for e in events(a_run[1], "purchase") for line in e["items"]}
    refunds = events(a_run[1], "refund")
    assert len(refunds) >= 5
    assert all((e["order_id"], e["item_id"]) in bought for e in refunds)


def test_nothing_is_chosen_before_it_is_listed_or_after_it_is_gone(a_run: tuple[Shop, list[Record]]) -> None:
    on_sale: dict[bytes | None, list[tuple[int, bool]]] = {}
    for r in a_run[1]:
        if r.topic == "items":
            stocked = r.value is not None and msgspec.json.decode(r.value)["in_stock"]
            on_sale.setdefault(r.key, []).append((r.timestamp_ms, stocked))
    visits = {e["session_id"]: e["event_at"] for e in reversed(events(a_run[1]))}
    for e in events(a_run[1], "view_item"):
        past = [stocked for at_ms, stocked in on_sale[e["item_id"].encode()] if at_ms <= e["event_at"]]
        assert past, "viewed before it was listed"
        ended = [at for at, stocked in on_sale[e["item_id"].encode()] if not stocked and at <= visits[e["session_id"]]]
        began = [at for at, stocked in on_sale[e["item_id"].encode()] if stocked and at <= e["event_at"]]
        assert not ended or max(began) >= max(ended)


def test_items_arrive_sell_out_and_are_delisted_during_the_run(a_run: tuple[Shop, list[Record]]) -> None:
    shop, told = a_run
    later = [r for r in told if r.topic == "items" and r.timestamp_ms > shop.start_ms]
    opening = {r.key for r in told if r.topic == "items" and r.timestamp_ms == shop.start_ms}
    assert len({r.key for r in later if r.value is not None} - opening) == len(shop.items.item_ids) - len(opening) > 40
    assert any(r.value is None for r in later)
    assert any(r.value is not None and b'"in_stock":false' in r.value for r in later)


def test_dirt_is_sent_as_often_as_it_is_counted(a_run: tuple[Shop, list[Record]]) -> None:
    shop, told = a_run
    said = sum(n for word, n in shop.counts.items() if word not in ("out_of_order", "duplicate", "late", "malformed"))
    n_events = sum(r.topic == "events" for r in told)
    assert n_events == said + shop.counts["duplicate"] + shop.counts["malformed"]
    dirty = sum(shop.counts[word] for word in ("out_of_order", "duplicate", "late", "malformed"))
    assert dirty / said == pytest.approx(SMALL.dirty_share, abs=0.004)
    n_late = sum(r.timestamp_ms - e["event_at"] > 20 * MINUTE_MS for r, e in zip_clean(told))
    assert n_late == shop.counts["late"]


def zip_clean(records: list[Record]) -> list[tuple[Record, dict[str, Any]]]:
    return [(r, told[0]) for r in records if (told := events([r]))]


def test_a_shop_without_dirt_sends_only_clean_events() -> None:
    shop = Shop(3, ShopPlan(days=1.0, n_users=100, n_items=100, visits_per_day=300.0, dirty_share=0.0))
    told = [r for r in run(shop) if r.topic == "events"]
    assert all(r.timestamp_ms == e["event_at"] for r, e in zip_clean(told))
    assert len(events(told)) == len(told)


def test_titles_are_distinct_and_made_of_words(a_run: tuple[Shop, list[Record]]) -> None:
    titles = a_run[0].items.titles
    assert len(set(titles)) == len(titles)
    assert all(len(title.split()) >= 3 for title in titles)


def test_the_true_probability_is_zero_for_what_is_not_on_sale() -> None:
    shop = Shop(3, SMALL)
    assert shop.true_click_prob("u000001", shop.items.item_ids[0], shop.start_ms) == 0.0
    shop.catalogue()
    listed = shop.best_slate("u000001", 1, shop.start_ms)[0]
    assert 0.0 < shop.true_click_prob("u000001", listed, shop.start_ms) < 1.0


def test_the_worker_accepts_every_clean_event_and_gives_every_mangled_one_a_reason(
    a_run: tuple[Shop, list[Record]],
) -> None:
    shop, told = a_run
    batch = Front(Pseudonymiser(b"a key"), Sealer(b"a key")).read(told)
    refused = [verdict for verdict in batch.verdicts if verdict is not None]
    assert len(refused) == shop.counts["malformed"] > 0
    assert not batch.repaired
    assert batch.unknown_fields == 0


@pytest.mark.parametrize(
    ("defect", "outcome"),
    list(enumerate([*["dead_lettered"] * 4, "ignored", "dead_lettered"])),
)
def test_every_defect_is_turned_away(a_run: tuple[Shop, list[Record]], defect: int, outcome: str) -> None:
    clean = next(r for r in a_run[1] if r.topic == "events")
    assert clean.value is not None
    broken = clean._replace(value=mangled(clean.value, (defect + 0.5) / 6))
    (verdict,) = Front(Pseudonymiser(b"a key"), Sealer(b"a key")).read([broken]).verdicts
    assert verdict is not None
    assert verdict[0] == outcome
