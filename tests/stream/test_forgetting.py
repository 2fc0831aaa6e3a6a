"""Forgetting users in the facts: who is gone, who is spared, and what later records find of it."""

from __future__ import annotations

import pytest

from stream_rec.component import digest
from stream_rec.events import MISSING
from stream_rec.stream.forgetting import forget_users
from stream_rec.stream.privacy import Pseudonymiser
from tests.stream.test_intake import KEY, NOW_MS, Shop, bought, click, refund

NAMES = Pseudonymiser(KEY)


def keys_of(*users: str) -> list[bytes]:
    return [NAMES.user_key(user) for user in users]


def state_of(shop: Shop) -> dict[str, str]:
    facts = shop.facts
    tables = {name: getattr(facts, name) for name in facts.__dataclass_fields__ if name != "searches"} | {
        name: getattr(facts.searches, name) for name in ("queries", "searchers")
    }
    return {name: digest(table.snapshot()) for name, table in tables.items()}


def searched(user: str) -> dict[str, object]:
    return {"event_type": "search", "user_id": user, "query": "cup"}


def test_nobody_else_loses_anything() -> None:
    shop = Shop()
    shop.tick(bought("u", "o", "a"), bought("v", "p", "a"), bought("u", "q", "b"))
    assert forget_users(shop.facts, keys_of("u")) == [0]
    assert shop.live_purchases() == [(1, "a")]
    assert [shop.facts.histories.live[k] for k in range(3)] == [False, True, False]
    assert shop.facts.users.known_rows().tolist() == [1]


def test_a_session_that_stands_for_a_user_can_be_forgotten() -> None:
    shop = Shop()
    shop.tick({"event_type": "view_item", "session_id": "s", "item_id": "a"})
    assert forget_users(shop.facts, [NAMES.session("s").stand_in]) == [0]
    assert shop.live_purchases() == []


def test_to_forget_nobody_known_changes_nothing() -> None:
    shop = Shop()
    shop.tick(bought("u", "o", "a"))
    before = state_of(shop)
    assert forget_users(shop.facts, keys_of("v", "w")) == [MISSING, MISSING]
    assert state_of(shop) == before


def test_to_forget_several_at_once_equals_one_after_the_other() -> None:
    one, other = Shop(), Shop()
    for shop in (one, other):
        shop.tick(*[bought(f"u{n % 5}", f"o{n}", f"i{n % 3}") for n in range(20)])
    rows = forget_users(one.facts, keys_of("u3", "nobody", "u1"))
    assert rows == [row for user in ("u3", "nobody", "u1") for row in forget_users(other.facts, keys_of(user))]
    assert state_of(one) == state_of(other)
    assert one.facts.users.take_evicted() == []


@pytest.mark.parametrize("who", [{}, {"user_id": "u"}, {"user_id": "v"}])
def test_a_refund_finds_nothing_of_what_a_forgotten_user_bought(who: dict[str, str]) -> None:
    shop = Shop()
    shop.tick(bought("u", "o", "a"))
    forget_users(shop.facts, keys_of("u"))
    taken = shop.tick(bought("v", "p", "b"), refund("o", "a", **who))
    assert taken.verdicts["accepted", "refund_unmatched"] == 1
    assert taken.retracted == []


def test_who_comes_back_begins_a_first_visit_without_a_history() -> None:
    shop = Shop()
    shop.tick(bought("u", "o", "a"))
    forget_users(shop.facts, keys_of("u"))
    taken = shop.tick(click("c", "b", NOW_MS + 1))
    assert (taken.lines.before.tolist(), taken.lines.opens.tolist()) == ([MISSING], [True])
    assert shop.facts.users.n_visits[taken.lines.user].tolist() == [1]


def test_who_had_the_row_before_and_made_room_is_spared() -> None:
    """Nothing says any more whose examples those were, but not the one's who is forgotten."""
    shop = Shop()
    shop.tick(bought("old", "o", "a"))
    shop.tick(*[searched(f"s{n}") for n in range(99)])
    shop.tick(bought("u", "p", "b"))
    assert shop.live_purchases() == [(0, "a"), (0, "b")]
    assert forget_users(shop.facts, keys_of("u")) == [0]
    assert shop.live_purchases() == [(0, "a")]
    assert shop.facts.histories.live[:2].tolist() == [True, False]
