"""The words of the stream: what arrives, what it means, what leaves. Standard library only."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

MISSING = -1
"""Row number that means "none" in every integer column of the state."""


class Kind(IntEnum):
    """Event types, named as in GA4 e-commerce; the numbers are stored in columns and never change."""

    SEARCH = 0
    IMPRESSION = 1
    CLICK = 2
    VIEW_ITEM = 3
    ADD_TO_CART = 4
    REMOVE_FROM_CART = 5
    ADD_TO_WISHLIST = 6
    SHARE = 7
    REVIEW = 8
    PURCHASE = 9
    REFUND = 10


class Topic:
    """Logical topic names; a transport maps them to real ones."""

    EVENTS = "events"
    ITEMS = "items"
    CONTROL = "control"
    SLATES = "slates"
    VERSIONS = "versions"
    LEDGER = "ledger"
    DEAD_LETTERS = "dead-letters"
    METRICS = "metrics"


INPUT_RANK = {Topic.CONTROL: 0, Topic.ITEMS: 1, Topic.EVENTS: 3}
"""Order of input topics at equal record time (2 is kept for `trends`)."""


class Record(NamedTuple):
    """One record as the transport gave it."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    """Append time on Kafka; the record's own time in a file."""
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


class Line(NamedTuple):
    """One item of an event, validated and without raw ids.

    An event that lists several items becomes as many lines, in order; one that names none (a search) is one line
    with an empty `item_id`.
    """

    record: int
    """Index of the record in its tick."""
    kind: int
    at_ms: int
    """Event time, UTC."""
    user: bytes | None
    """16 bytes: the user key; the session's stands in for a missing user, the order's for both (then `stand_in`)."""
    stand_in: int
    """0 a real user, 1 a session, 2 an order (`anonymous`: only popularity and co-occurrence learn), 3 none."""
    session: int
    """63-bit keyed digest of the session id; 0 = none."""
    order: int
    """63-bit keyed digest of the order id; 0 = none."""
    event: int
    """63-bit digest of the event id."""
    item_id: str
    position: int
    """0-based; MISSING when not said."""
    price: float
    """NaN when not said."""
    quantity: float
    rating: float
    """NaN when not said."""
    decision_id: str
    """Empty when not said."""
    query: str
    """Scrubbed; empty when not said."""


class Item(NamedTuple):
    """A catalogue record."""

    item_id: str
    title: str
    description: str
    category: str
    brand: str
    price: float
    """NaN when not said."""
    in_stock: bool
    updated_at_ms: int
    """MISSING when not said."""


class Output(NamedTuple):
    """One record for an output topic; `value` None is a tombstone."""

    topic: str
    key: bytes
    value: bytes | None
