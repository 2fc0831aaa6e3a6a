"""User Behavior Insights (UBI 1.x): event records and query records of a search engine.

The user is `user_id` if the shop adds one, else `client_id`. The object of an event is its item; `ordinal` counts
from 1. A query record (it has a `user_query` but no `action_name`) is a search. A `decision_id` of a slate
belongs into `event_attributes`; a `query_id` names the engine's own result list, which is not ours.
"""

from __future__ import annotations

from typing import Any

from stream_rec.adapters.shape import as_object, as_objects, as_type, category_path, first, from_one, said

TYPES = {
    "on_search": "search",
    "search": "search",
    "impression": "impression",
    "click": "click",
    "item_click": "click",
    "product_click": "click",
    "view": "view_item",
    "view_item": "view_item",
    "add_to_cart": "add_to_cart",
    "cart_add": "add_to_cart",
    "remove_from_cart": "remove_from_cart",
    "add_to_wishlist": "add_to_wishlist",
    "share": "share",
    "review": "review",
    "purchase": "purchase",
    "refund": "refund",
}
"""UBI action name to ours; others (hovers, filters, logins) stay as they are and are ignored."""


def ubi(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The event of a record.

    >>> ubi({"action_name": "click", "client_id": "c", "event_attributes": {"object": {"object_id": "a"}}})
    [{'event_type': 'click', 'user_id': 'c', 'items': [{'item_id': 'a'}]}]
    """
    attributes = as_object(record.get("event_attributes"))
    action = first(record, "action_name")
    is_query = action is None and first(record, "user_query") is not None
    kind = "search" if is_query else as_type(action, TYPES)
    ordinal = as_object(attributes.get("position")).get("ordinal")
    objects = [] if kind == "search" else as_objects(attributes.get("object"))
    message = first(record, "message") if kind == "search" else None
    return [
        said(
            event_id=first(record, "event_id") or (first(record, "query_id") if is_query else None),
            event_type=kind,
            event_at=first(record, "timestamp"),
            user_id=first(record, "user_id", "client_id"),
            session_id=first(record, "session_id") or first(attributes, "session_id"),
            order_id=first(attributes, "order_id", "transaction_id"),
            items=from_one([_item(thing, ordinal) for thing in objects]) or None,
            query=first(record, "user_query") or message,
            decision_id=first(attributes, "decision_id"),
            value=first(attributes, "value", "cost"),
            currency=first(attributes, "currency"),
            rating=first(attributes, "rating"),
        )
    ]


def _item(thing: dict[str, Any], ordinal: Any) -> dict[str, Any]:
    detail = as_object(thing.get("object_detail"))
    return said(
        item_id=first(thing, "object_id"),
        position=ordinal,
        price=first(detail, "price", "cost"),
        quantity=first(detail, "quantity"),
        title=first(thing, "name", "description") or first(detail, "name", "title"),
        category=category_path([first(detail, "category")]),
        brand=first(detail, "brand"),
    )
