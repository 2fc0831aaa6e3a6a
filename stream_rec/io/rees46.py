"""REES46 / Open CDP events of a multi-category shop: view, cart, purchase.

`view` becomes `view_item`, `cart` `add_to_cart`; a type that is not known is passed on, and the replay ignores and
counts it. A line that was cut is passed on raw.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from stream_rec.adapters.shape import said
from stream_rec.io.loaders import Event, Fields, Table, need_columns, number

COLUMNS = ("event_time", "event_type", "product_id", "category_id", "category_code", "brand", "price", "user_id")

_TYPES = {"view": "view_item", "cart": "add_to_cart"}


class Rees46:
    """Loader of the dataset.

    An item's title is its brand and the last two levels of its category path in words (`aqua environment water
    heater`), as of the first line that says either; an item of which neither is ever said is left out of the
    catalogue.
    """

    def __init__(self) -> None:
        self._items: dict[str, dict[str, Any]] = {}

    def table(self, header: Sequence[str]) -> Table:
        """All files have the one header."""
        need_columns(header, (*COLUMNS, "user_session"), "rees46")
        return Table(header, self._event)

    def items(self) -> Iterator[dict[str, Any]]:
        """One record a product with a brand or a category path."""
        yield from self._items.values()

    def _event(self, row: Fields) -> Event:
        item_id, price = row["product_id"], number(row["price"])
        if item_id not in self._items and (row["brand"] or row["category_code"]):
            self._items[item_id] = _item(row, price)
        return said(
            event_type=_TYPES.get(row["event_type"], row["event_type"]),
            event_at=row["event_time"].removesuffix(" UTC").replace(" ", "T") + "Z",
            user_id=row["user_id"],
            session_id=row["user_session"],
            item_id=item_id,
            price=price,
        )


def _item(row: Fields, price: int | float | str) -> dict[str, Any]:
    levels = [level.replace("_", " ") for level in row["category_code"].split(".") if level]
    title = " ".join(part for part in (row["brand"], *levels[-2:]) if part)
    return said(
        item_id=row["product_id"],
        title=title,
        category=" > ".join(levels),
        brand=row["brand"],
        price=price,
        source="rees46",
    )
