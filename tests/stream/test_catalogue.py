"""Item and control records."""

from __future__ import annotations

import math
from typing import Any

import pytest

from stream_rec.errors import BadRecord
from stream_rec.events import MISSING, Item
from stream_rec.stream.catalogue import control_of, item_of

AT_MS = 1_700_000_000_000


def item(**fields: Any) -> Item:
    return item_of(b"a1", {"title": "Red mug", **fields}, [])[0]


def test_a_full_item_keeps_everything() -> None:
    words: list[str] = []
    body = {"item_id": "a1", "title": " Red mug ", "description": "d", "category": "Home > Mugs", "brand": "b"}
    body |= {"price": 3.5, "in_stock": False, "updated_at": AT_MS, "source": "pim", "attributes": {"c": [1]}}
    assert item_of(b"a1", body, words) == (Item("a1", "Red mug", "d", "Home > Mugs", "b", 3.5, False, AT_MS), 0)
    assert words == []


def test_what_is_not_said_is_missing() -> None:
    got = item()
    assert (got.description, got.category, got.brand, got.in_stock, got.updated_at_ms) == ("", "", "", True, MISSING)
    assert math.isnan(got.price)


def test_without_a_key_the_body_names_the_item() -> None:
    assert item_of(None, {"item_id": 7, "title": "t"}, [])[0].item_id == "7"


def test_key_and_body_mean_the_same_after_repair() -> None:
    assert item_of(b" 17850.0", {"item_id": 17850, "title": "t"}, [])[0].item_id == "17850"


@pytest.mark.parametrize(
    ("key", "body", "reason"),
    [
        (b"a", {"item_id": "b"}, "item_id_mismatch"),
        (None, {"title": "t"}, "missing_item"),
        (b"", {"item_id": " "}, "missing_item"),
        (b"\xff", {}, "not_utf8"),
        (b"a", {"item_id": [1]}, "bad_item_id"),
        (b"a\x00", {}, "bad_item_id"),
        (b"a", {"updated_at": "soon"}, "bad_updated_at"),
        (b"a", {"updated_at": True}, "bad_updated_at"),
        (b"a", {"updated_at": 5}, "bad_updated_at"),
    ],
)
def test_an_unusable_item_has_a_reason(key: bytes | None, body: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRecord) as bad:
        item_of(key, body, [])
    assert bad.value.reason == reason


@pytest.mark.parametrize(
    ("said", "meant"), [("no", False), ("In stock", True), (0, False), (3, True), ("maybe", True), ([], True)]
)
def test_stock_is_read_in_other_forms(said: Any, meant: bool) -> None:
    words: list[str] = []
    assert item_of(b"a", {"title": "t", "in_stock": said}, words)[0].in_stock is meant
    assert words == ["boolean_form"]


@pytest.mark.parametrize("price", [0, -1, "abc", "nan", [], True, 10**400, 1e13])
def test_an_unusable_price_is_dropped_and_the_item_kept(price: Any) -> None:
    assert math.isnan(item(price=price).price)


def test_texts_lose_control_characters_and_length() -> None:
    words: list[str] = []
    got = item_of(b"a", {"title": "a\x00\nb" + "x" * 2000, "category": ["A", "B"], "brand": {"x": 1}}, words)[0]
    assert got.title.startswith("a bx")
    assert len(got.title) == 1000
    assert (got.category, got.brand) == ("A > B", "")
    assert words == ["text_form", "text_cut", "text_form", "text_dropped"]


def test_unknown_fields_are_counted() -> None:
    assert item_of(b"a", {"title": "t", "colour": 1, "size": 2}, [])[1] == 2


@pytest.mark.parametrize(
    ("body", "command"),
    [
        ({"command": "freeze"}, ("freeze", {})),
        (
            {"command": "promote", "version": "v1-a", "command_id": "c1"},
            ("promote", {"version": "v1-a", "command_id": "c1"}),
        ),
        ({"command": "rollback", "event_at": AT_MS}, ("rollback", {"event_at_ms": AT_MS})),
        ({"command": "explore", "explore": True}, ("explore", {"explore": True})),
        ({"command": "forget", "user_key": "0a" * 16}, ("forget", {"user_key": "0a" * 16})),
    ],
)
def test_commands_come_with_their_arguments(body: dict[str, Any], command: tuple[str, dict[str, Any]]) -> None:
    assert control_of(body, []) == command


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"command": ["freeze"]},
        {"command": "shutdown"},
        {"command": "promote"},
        {"command": "promote", "version": "v\n"},
        {"command": "rollback"},
        {"command": "rollback", "version": "v1", "event_at": AT_MS},
        {"command": "rollback", "event_at": [1]},
        {"command": "explore", "explore": "on"},
        {"command": "forget", "user_key": "ann@shop.example"},
    ],
)
def test_an_incomplete_command_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(BadRecord, match="bad_command"):
        control_of(body, [])
