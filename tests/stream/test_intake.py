"""One tick's records folded into the facts: what each record comes to, and in which order its lines go on."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from stream_rec.events import MISSING, Kind, Record, Topic
from stream_rec.stream.accounting import Accounting
from stream_rec.stream.attribution import Joiner
from stream_rec.stream.dedupe import Dedupe
from stream_rec.stream.front import Adapter, Front
from stream_rec.stream.histories import Histories
from stream_rec.stream.intake import Facts, Intake, Taken
from stream_rec.stream.items import ItemTable
from stream_rec.stream.judging import Rules
from stream_rec.stream.privacy import Pseudonymiser, Sealer
from stream_rec.stream.sampling import Reservoir
from stream_rec.stream.tick import Tick
from stream_rec.stream.users import Users
from stream_rec.stream.watermark import Watermarks
from stream_rec.stream.window import SlidingWindow

NOW_MS = 1_767_600_000_000
KEY = b"intake"


def several(obj: dict[str, Any]) -> list[dict[str, Any]]:
    """A foreign format: a record that holds a list of events."""
    events: list[dict[str, Any]] = obj["events"]
    return events


class Shop:
    """An intake that is given ticks of plain dicts."""

    def __init__(self, adapter: Adapter | None = None, not_products: frozenset[str] = frozenset()) -> None:
        self.facts = Facts(
            Accounting(), Dedupe(1_000), Watermarks(max_partitions=2), Users(100), Histories(200), ItemTable(100),
            Joiner(), SlidingWindow(100), Reservoir(50, seed=1),
        )  # fmt: skip
        front = Front(Pseudonymiser(KEY), Sealer(KEY), adapter, not_products=not_products)
        self.intake = Intake(front, self.facts, Rules())
        self.offset = 0

    def tick(self, *said: dict[str, Any] | Record) -> Taken:
        """Fold one tick of events, an hour after the newest may be."""
        records = [self._record(each) for each in said]
        return self.intake.read(Tick(number=1, ranges=(), cut_at_ms=NOW_MS), records)

    def _record(self, said: dict[str, Any] | Record) -> Record:
        self.offset += 1
        if isinstance(said, Record):
            return said
        if "events" not in said:
            said = {"event_id": f"e{self.offset}", "event_at": NOW_MS, **said}
        return Record(Topic.EVENTS, 0, self.offset, NOW_MS, None, json.dumps(said).encode())

    def live_purchases(self) -> list[tuple[int, str]]:
        """(user row, item) of the window's content."""
        window, ids = self.facts.window, self.facts.items.ids
        return [(int(window.user[row]), ids[window.item[row]]) for row in window.rows()]


def bought(user: str, order: str, *items: str, **more: Any) -> dict[str, Any]:
    things = [{"item_id": item} for item in items]
    return {"event_type": "purchase", "user_id": user, "order_id": order, "items": things, **more}


def refund(order: str, *items: str, **more: Any) -> dict[str, Any]:
    return {"event_type": "refund", "order_id": order, "items": [{"item_id": item} for item in items], **more}


def item(item_id: str, updated_at: int) -> Record:
    value = json.dumps({"title": f"At {updated_at}", "updated_at": updated_at}).encode()
    return Record(Topic.ITEMS, 0, 0, 0, item_id.encode(), value)


def click(event_id: str, item_id: str, at_ms: int = NOW_MS) -> dict[str, Any]:
    return {"event_id": event_id, "event_type": "click", "event_at": at_ms, "user_id": "u", "item_id": item_id}


# ---- lines


def test_lines_keep_the_order_of_the_records_and_of_the_items_in_each() -> None:
    taken = Shop().tick(bought("u", "o", "b", "a"), click("c", "d"), bought("v", "p", "c"))
    assert [line.item_id for line in taken.lines.source] == ["b", "a", "d", "c"]
    assert taken.lines.kind.tolist() == [Kind.PURCHASE, Kind.PURCHASE, Kind.CLICK, Kind.PURCHASE]
    assert taken.lines.serial.tolist() == [0, 1, 2, 3]


def test_every_line_points_at_what_its_user_did_just_before_it() -> None:
    taken = Shop().tick(click("1", "a"), bought("v", "p", "b"), click("2", "c"))
    assert taken.lines.before.tolist() == [MISSING, MISSING, 0]


def test_lines_of_what_is_no_product_are_left_out() -> None:
    shop = Shop(not_products=frozenset({"postage"}))
    taken = shop.tick(bought("u", "o", "a", "postage"), bought("u", "p", "postage"))
    assert [line.item_id for line in taken.lines.source] == ["a"]
    assert taken.verdicts == {("accepted", "plain"): 1, ("ignored", "not_a_product"): 1}
    assert shop.facts.items.find("postage") == MISSING


# ---- verdicts


def test_each_record_has_the_verdict_word_of_what_became_of_it() -> None:
    shop = Shop()
    taken = shop.tick(
        click("1", "a"), click("1", "a"), click("2", "b", NOW_MS - 12 * 60_000), click("3", "c", NOW_MS + 6 * 60_000),
        {"event_type": "page_ping"},
    )  # fmt: skip
    assert taken.verdicts == {
        ("accepted", "plain"): 1,
        ("duplicate", "event_id"): 1,
        ("late", "beyond_allowed_lateness"): 1,
        ("dead_lettered", "in_future"): 1,
        ("ignored", "unknown_type"): 1,
    }
    assert [line.item_id for line in taken.lines.source] == ["a"]
    assert len(taken.dead_letters) == 1


def test_an_older_item_update_is_accepted_and_said_to_be_one() -> None:
    taken = Shop().tick(item("a", 1_700_000_000), item("a", 1_600_000_000), item("b", 1_600_000_000))
    assert taken.verdicts == {("accepted", "plain"): 2, ("accepted", "older_item_update"): 1}


# ---- records of several events


def test_a_record_of_several_events_is_accepted_with_those_of_them_that_count() -> None:
    shop = Shop(several)
    shop.tick({"events": [click("1", "a")]})
    far = NOW_MS + 6 * 60_000
    taken = shop.tick({"events": [click("1", "a"), click("2", "b"), click("3", "c", far), click("4", "d")]})
    assert [line.item_id for line in taken.lines.source] == ["b", "d"]
    assert taken.verdicts == {("accepted", "plain"): 1}
    assert not taken.dead_letters


def test_a_record_of_which_no_event_counts_has_the_verdict_of_the_first() -> None:
    shop = Shop(several)
    shop.tick({"events": [click("1", "a")]})
    taken = shop.tick({"events": [click("1", "a"), click("2", "c", NOW_MS + 6 * 60_000)]})
    assert taken.verdicts == {("duplicate", "event_id"): 1}
    assert not len(taken.lines.source)


def test_the_text_of_an_item_that_only_a_dropped_event_names_is_not_taken() -> None:
    shop = Shop(several)
    shop.tick({"events": [click("1", "a")]})
    again = {**click("1", ""), "items": [{"item_id": "x", "title": "X"}]}
    shop.tick({"events": [again, {**click("2", ""), "items": [{"item_id": "y", "title": "Y"}]}]})
    assert [shop.facts.items.find(item_id) != MISSING for item_id in "xy"] == [False, True]


# ---- refunds


@pytest.mark.parametrize("who", [{}, {"session_id": "back office"}, {"user_id": "clerk"}])
def test_a_refund_takes_back_the_line_of_its_order_whoever_sends_it(who: dict[str, str]) -> None:
    shop = Shop()
    shop.tick(bought("u", "o", "a", "b"), bought("v", "p", "a"))
    taken = shop.tick(refund("o", "a", **who))
    assert shop.live_purchases() == [(0, "b"), (1, "a")]
    assert taken.verdicts == {("accepted", "plain"): 1}
    assert [row[:3] for row in taken.retracted] == [(0, 0, NOW_MS)]


def test_the_learner_can_read_the_buyer_s_visit_as_of_the_refund() -> None:
    shop = Shop()
    shop.tick(bought("u", "o", "a"), {"event_type": "click", "user_id": "u", "item_id": "b"})
    taken = shop.tick(refund("o", "a"), {"event_type": "click", "user_id": "u", "item_id": "c"})
    pointer = np.array([taken.retracted[0][4]])
    assert shop.facts.histories.gather(pointer, 10).item.tolist() == [[shop.facts.items.find("b"), MISSING]]


def test_a_refund_finds_a_purchase_earlier_in_its_own_tick_and_none_later_in_it() -> None:
    shop = Shop()
    taken = shop.tick(bought("u", "o", "a"), refund("o", "a"), refund("p", "b"), bought("u", "p", "b"))
    assert shop.live_purchases() == [(0, "b")]
    assert taken.verdicts["accepted", "refund_unmatched"] == 1


def test_a_refund_of_an_unknown_order_takes_the_user_s_latest_purchase_of_the_item() -> None:
    shop = Shop()
    shop.tick(bought("u", "o", "a"), bought("v", "p", "a"))
    shop.tick(refund("unknown", "a", user_id="u"))
    assert shop.live_purchases() == [(1, "a")]


def test_a_refund_is_unmatched_only_when_none_of_its_lines_was_bought() -> None:
    shop = Shop()
    shop.tick(bought("u", "o", "a", "b"))
    taken = shop.tick(refund("o", "a", "never"), refund("o", "never", "ever"), refund("o", "b"))
    assert taken.verdicts == {
        ("accepted", "refund_partly_unmatched"): 1,
        ("accepted", "refund_unmatched"): 1,
        ("accepted", "plain"): 1,
    }


def test_a_buyer_who_is_gone_is_not_mistaken_for_who_has_the_row_now() -> None:
    shop = Shop()
    shop.tick(bought("u", "o", "a"))
    shop.facts.users.forget(0)
    shop.tick(bought("v", "p", "a"))
    taken = shop.tick(refund("o", "a"))
    assert [(row[1], row[4]) for row in taken.retracted] == [(MISSING, 0)]
    assert shop.facts.histories.row(1).live  # type: ignore[union-attr]
