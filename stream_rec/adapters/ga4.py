"""Google Analytics 4: rows of the BigQuery export and Measurement Protocol payloads.

The user is `user_id`, else the device (`user_pseudo_id`, `client_id`). A GA4 session number is unique for a device
only, so the session id is device and number together. GA4 has no event id, so none is made up here; a custom
parameter `event_id` or `decision_id` is taken. An item's `index` counts from 0.
"""

from __future__ import annotations

from typing import Any

from stream_rec.adapters.shape import as_object, as_objects, as_type, category_path, first, said, take

TYPES = {
    "view_search_results": "search",
    "search": "search",
    "view_item_list": "impression",
    "select_item": "click",
    "view_item": "view_item",
    "add_to_cart": "add_to_cart",
    "remove_from_cart": "remove_from_cart",
    "add_to_wishlist": "add_to_wishlist",
    "share": "share",
    "purchase": "purchase",
    "refund": "refund",
}
"""GA4 event name to ours; others stay as they are and are ignored."""

_ITEM = {
    "item_id": ("item_id",),
    "position": ("index", "item_list_index"),
    "price": ("price",),
    "quantity": ("quantity",),
    "title": ("item_name",),
    "brand": ("item_brand",),
}
_LEVELS = ("item_category", "item_category2", "item_category3", "item_category4", "item_category5")
_VALUES = ("string_value", "int_value", "double_value", "float_value")


def ga4(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The events of a payload, or the one event of an exported row.

    >>> ga4({"client_id": "1.2", "events": [{"name": "search", "params": {"search_term": "mug"}}]})
    [{'event_type': 'search', 'user_id': '1.2', 'query': 'mug'}]
    """
    if isinstance(record.get("events"), list):
        return [
            _event(event.get("name"), as_object(event.get("params")), {}, record | event)
            for event in as_objects(record["events"])
        ]
    params = {p["key"]: _value(p.get("value")) for p in as_objects(record.get("event_params")) if _has_key(p)}
    return [_event(record.get("event_name"), params, as_object(record.get("ecommerce")), record)]


def _event(name: Any, params: dict[str, Any], commerce: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    items = as_objects(params.get("items") or record.get("items"))
    device = first(record, "user_pseudo_id", "client_id", "app_instance_id")
    session = first(params, "ga_session_id", "session_id")
    return said(
        event_id=params.get("event_id"),
        event_type=as_type(name, TYPES),
        event_at=_ms(first(record, "event_timestamp", "timestamp_micros")),
        user_id=first(record, "user_id") or device,
        session_id=None if session is None else f"{device}.{session}",
        order_id=first(params, "transaction_id") or first(commerce, "transaction_id"),
        items=[_item(item) for item in items] or None,
        query=first(params, "search_term"),
        decision_id=first(params, "decision_id"),
        value=first(params, "value") or first(commerce, "purchase_revenue", "refund_value"),
        currency=first(params, "currency"),
    )


def _item(item: dict[str, Any]) -> dict[str, Any]:
    ours = take(item, _ITEM)
    path = category_path(item.get(level) for level in _LEVELS)
    return ours if path is None else ours | {"category": path}


def _value(value: Any) -> Any:
    return first(as_object(value), *_VALUES)


def _has_key(param: dict[str, Any]) -> bool:
    return isinstance(param.get("key"), str)


def _ms(micros: Any) -> Any:
    """Milliseconds of a GA4 time in microseconds; what is no whole number is passed on for validation."""
    if isinstance(micros, str) and micros.isascii() and micros.isdigit() and len(micros) <= 20:
        micros = int(micros)
    return micros // 1000 if isinstance(micros, int) and not isinstance(micros, bool) else micros
