"""UCI Online Retail: every invoice line of a gift shop (Chen, Sain & Guo 2012, CC BY 4.0).

A line becomes one event: a `purchase`; for an invoice number that starts with `C` (a cancellation) a `refund` of the
positive quantity. A cancellation never names the invoice it cancels, so its `order_id` is its own number and the
refund falls to the customer's latest purchase of the item. Other letters (`A`: bad-debt adjustments) have the event
type `adjustment`, lines of codes that are no products (postage, fees) `service`: a replay ignores and counts both.
All else is passed on for the replay to repair or refuse: `17850.0` as customer, prices and quantities of zero or less.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from stream_rec.adapters.shape import said
from stream_rec.io.loaders import Event, Fields, Table, need_columns, number

COLUMNS = ("InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID")

NO_PRODUCTS = frozenset({"POST", "DOT", "C2", "D", "M", "B", "S", "BANK CHARGES", "AMAZONFEE", "CRUK"})
"""Codes (in capitals) of postage, carriage, discounts, manual entries, debts, samples, fees and donations."""


class OnlineRetail:
    """Loader of the dataset; see the module for the rules.

    An item's title is its first usable description: the first that is not empty on a line that sold it (a purchase
    with a price above zero), because stock notes ("damaged") stand on lines without a price. The price is that
    line's. An item without one is left out, and so are codes that are no products.
    """

    def __init__(self) -> None:
        self._items: dict[str, dict[str, Any]] = {}

    def table(self, header: Sequence[str]) -> Table:
        """All files have the one header."""
        need_columns(header, COLUMNS, "online-retail")
        return Table(header, self._event)

    def items(self) -> Iterator[dict[str, Any]]:
        """One record a code that was ever sold."""
        yield from self._items.values()

    def _event(self, row: Fields) -> Event:
        invoice, item_id = row["InvoiceNo"], row["StockCode"]
        price, quantity = number(row["UnitPrice"]), number(row["Quantity"])
        kind = _kind(invoice, item_id)
        if kind == "refund" and not isinstance(quantity, str):
            quantity = abs(quantity)
        if kind == "purchase" and item_id not in self._items:
            self._learn(item_id, row["Description"].strip(), price)
        return said(
            event_type=kind,
            event_at=utc(row["InvoiceDate"]),
            user_id=row["CustomerID"],
            order_id=invoice,
            item_id=item_id,
            price=price,
            quantity=quantity,
            currency="GBP",
        )

    def _learn(self, item_id: str, title: str, price: int | float | str) -> None:
        if not title or isinstance(price, str) or price <= 0 or not item_id.strip():
            return
        self._items[item_id] = {"item_id": item_id, "title": title, "price": price, "source": "online-retail"}


def _kind(invoice: str, item_id: str) -> str:
    letter = invoice.strip()[:1].upper()
    if letter.isalpha() and letter != "C":
        return "adjustment"
    if item_id.strip().upper() in NO_PRODUCTS:
        return "service"
    return "refund" if letter == "C" else "purchase"


def utc(text: str) -> str:
    """RFC 3339 of the file's time, taken as UTC; as it is when it cannot be read.

    Copies of the dataset write `2010-12-01 08:26:00` or `12/1/2010 8:26`.

    >>> utc("2010-12-01 08:26:00"), utc("12/1/2010 8:26"), utc("soon")
    ('2010-12-01T08:26:00Z', '2010-12-01T08:26:00Z', 'soon')
    """
    text = text.strip()
    if len(text) == 19 and text[4] == "-" and text[10] == " ":
        return f"{text[:10]}T{text[11:]}Z"
    try:
        return datetime.strptime(text, "%m/%d/%Y %H:%M").isoformat() + "Z"
    except ValueError:
        return text
