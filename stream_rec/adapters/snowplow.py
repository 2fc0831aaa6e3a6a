"""Snowplow: enriched events as JSON (analytics SDK form) with the e-commerce action and its entities.

The user is `user_id`, else the browser (`domain_userid`, `network_userid`). Positions count from 1 there. Event
and entity names end in the major version of their schema, which is not looked at. Events that are neither an
e-commerce action nor a site search (page views, pings) have no type of ours and are ignored.
"""

from __future__ import annotations

from typing import Any

from stream_rec.adapters.shape import Names, as_object, as_objects, as_type, first, from_one, said, take

TYPES = {
    "list_view": "impression",
    "list_click": "click",
    "product_view": "view_item",
    "add_to_cart": "add_to_cart",
    "remove_from_cart": "remove_from_cart",
    "transaction": "purchase",
    "refund": "refund",
}
"""Type of an e-commerce action to ours."""

_VENDOR = "com_snowplowanalytics_snowplow_"
_ACTION = f"unstruct_event_{_VENDOR}ecommerce_snowplow_ecommerce_action"
_SEARCH = f"unstruct_event_{_VENDOR}site_search"
_ENTITY = f"contexts_{_VENDOR}ecommerce_"
_DECISION = "decision_id"

_ITEM: Names = {
    "item_id": ("id",),
    "position": ("position",),
    "price": ("price",),
    "quantity": ("quantity",),
    "title": ("name",),
    "category": ("category",),
    "brand": ("brand",),
}


def snowplow(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The event of an enriched record.

    >>> snowplow({"event_name": "page_view", "user_id": "u", "derived_tstamp": "2023-05-01T12:00:00.123Z"})
    [{'event_type': 'page_view', 'event_at': '2023-05-01T12:00:00.123Z', 'user_id': 'u'}]
    """
    action, search = as_object(_part(record, _ACTION)), as_object(_part(record, _SEARCH))
    products = as_objects(_part(record, _ENTITY + "product"))
    order = as_object(_part(record, _ENTITY + "transaction")) or as_object(_part(record, _ENTITY + "refund"))
    return [
        said(
            event_id=first(record, "event_id"),
            event_type=_kind(record, action, search),
            event_at=_utc(first(record, "derived_tstamp", "dvce_created_tstamp", "collector_tstamp")),
            user_id=first(record, "user_id", "domain_userid", "network_userid"),
            session_id=first(record, "domain_sessionid"),
            order_id=first(order, "transaction_id"),
            items=from_one([take(product, _ITEM) for product in products]) or None,
            query=_terms(search.get("terms")),
            decision_id=first(action, _DECISION) or first(record, _DECISION),
            value=first(order, "revenue", "refund_amount"),
            currency=first(order, "currency") or first(as_object(products), "currency"),
        )
    ]


def _kind(record: dict[str, Any], action: dict[str, Any], search: dict[str, Any]) -> Any:
    if action:
        return as_type(action.get("type"), TYPES)
    return "search" if search else as_type(first(record, "event_name", "event"), {})


def _part(record: dict[str, Any], name: str) -> Any:
    """The event or entity of this name, whatever the version at its end."""
    found = [key for key in record if key.startswith(name) and key[len(name) :].lstrip("_").isdigit()]
    return record[max(found)] if found else None


def _terms(terms: Any) -> str | None:
    if isinstance(terms, str):
        return terms
    return " ".join(term for term in terms if isinstance(term, str)) or None if isinstance(terms, list) else None


def _utc(text: Any) -> Any:
    """Snowplow times are UTC, in some forms without saying so."""
    if isinstance(text, str) and len(text) in (19, 23) and text[10:11] in " T":
        return f"{text[:10]}T{text[11:]}Z"
    return text
