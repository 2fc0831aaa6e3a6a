"""Segment: `track` calls of the e-commerce specification, version 2.

The user is `userId`, else `anonymousId`. Positions count from 1 there. Calls other than `track` (`page`, `identify`)
have no type of ours and are ignored. A cancelled order is a refund.
"""

from __future__ import annotations

from typing import Any

from stream_rec.adapters.shape import Names, as_object, as_objects, as_type, first, from_one, said, take

TYPES = {
    "products searched": "search",
    "product list viewed": "impression",
    "product clicked": "click",
    "product viewed": "view_item",
    "product added": "add_to_cart",
    "product removed": "remove_from_cart",
    "product added to wishlist": "add_to_wishlist",
    "product shared": "share",
    "product reviewed": "review",
    "order completed": "purchase",
    "order refunded": "refund",
    "order cancelled": "refund",
}
"""Segment event name, in lower case, to ours."""

_ITEM: Names = {
    "item_id": ("product_id", "productId", "id", "sku"),
    "position": ("position",),
    "price": ("price",),
    "quantity": ("quantity",),
    "title": ("name",),
    "category": ("category",),
    "brand": ("brand",),
}


def segment(call: dict[str, Any]) -> list[dict[str, Any]]:
    """The event of a call.

    >>> segment({"type": "track", "event": "Product Viewed", "userId": "u", "properties": {"product_id": "a"}})
    [{'event_type': 'view_item', 'user_id': 'u', 'items': [{'item_id': 'a'}]}]
    """
    properties = as_object(call.get("properties"))
    products = as_objects(properties.get("products"))
    is_track = call.get("type", "track") == "track"
    kind = as_type(call.get("event") if is_track else call.get("type"), TYPES if is_track else {})
    if not products and kind != "search":
        products = [properties] if take(properties, {"item_id": _ITEM["item_id"]}) else []
    return [
        said(
            event_id=first(call, "messageId"),
            event_type=kind,
            event_at=first(call, "timestamp", "originalTimestamp", "sentAt"),
            user_id=first(call, "userId", "anonymousId"),
            session_id=first(properties, "session_id", "sessionId")
            or first(as_object(call.get("context")), "sessionId"),
            order_id=first(properties, "order_id", "orderId"),
            items=from_one([take(product, _ITEM) for product in products]) or None,
            query=first(properties, "query"),
            decision_id=first(properties, "decision_id", "decisionId"),
            value=first(properties, "total", "revenue", "value"),
            currency=first(properties, "currency"),
            rating=first(properties, "rating"),
        )
    ]
