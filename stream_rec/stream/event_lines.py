"""A typed event to lines without raw ids: the hot path of the front.

The caches below hold only results of pure functions and are emptied when full, so they change speed and nothing else.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Set
from typing import TypeVar

from stream_rec.codec import Event, EventItem
from stream_rec.errors import BadRecord
from stream_rec.events import MISSING, Item, Kind, Line, Record
from stream_rec.stream import quality
from stream_rec.stream.catalogue import carried
from stream_rec.stream.fields import MAX_ITEMS, text_of
from stream_rec.stream.privacy import Pseudonym, Pseudonymiser, scrub
from stream_rec.stream.quality import MAX_ID, MAX_NUMBER, MAX_POSITION

MAX_CACHED = 1 << 16
"""Ids that each cache holds before it starts anew."""
MIN_SCRUBBED_ID = 6
"""Characters from which a user, session or order id is also taken out of the query that it comes with."""
MAX_RATING = 1e6

USER, SESSION, ORDER, NOBODY = range(4)
"""Who a line's `user` is: values of `Line.stand_in`."""

_IMPRESSION, _SEARCH = int(Kind.IMPRESSION), int(Kind.SEARCH)
_NAN = math.nan
_KINDS: dict[str, int] = {kind.name.lower(): int(kind) for kind in Kind}
_USUAL = frozenset((None, "EUR", "USD", "GBP"))
"""Currencies that need no look."""
_T = TypeVar("_T")
_new_line = tuple.__new__

_Head = tuple[int, int, int, bytes | None, int, int, int, int]


class EventLines:
    """Makes lines of events.

    Args:
        pseudonymiser: turns raw ids into keyed digests.
        not_products: item ids that name no product (postage, fees); their lines are left out.
    """

    def __init__(self, pseudonymiser: Pseudonymiser, *, not_products: Set[str] = frozenset()) -> None:
        self._names = pseudonymiser
        self._event = pseudonymiser.event
        self._not_products = not_products
        # Ids that need no repair, by their text. Bare values, because all else in an entry is cold memory to touch.
        self._users: dict[str, bytes] = {}
        self._sessions: dict[str, int] = {}
        self._orders: dict[str, int] = {}
        self._items: dict[str, tuple[str, tuple[str, ...]]] = {}

    def lines(
        self, index: int, record: Record, event: Event, *, nth: int, words: list[str]
    ) -> tuple[list[Line], list[Item]]:
        """The lines of one event and the catalogue items it carries.

        Args:
            index: the record's place in its tick.
            record: where the event came from.
            event: the typed event.
            nth: 0-based place of the event among those of its record.
            words: gets one word a repair.

        Raises:
            BadRecord: the event cannot be used.
            Ignored: the event is not for us.
        """
        kind = _KINDS.get(event.event_type)
        if kind is None:
            kind = quality.kind_of(event.event_type, words)
        at_ms = event.event_at
        if type(at_ms) is not int or not quality.MIN_AT_MS <= at_ms <= quality.MAX_AT_MS:
            at_ms = quality.time_ms(at_ms, words)
        digest = self._digest(record, event.event_id, nth, words)
        user, stand_in, session, order = self._who(event, words)
        rating, decision_id, query = event.rating, event.decision_id, ""
        if rating is None:
            rating = _NAN
        elif not -MAX_RATING < rating < MAX_RATING:
            words.append("rating_dropped")
            rating = _NAN
        if event.currency not in _USUAL:
            _judge_currency(event.currency or "", words)
        if decision_id and not (len(decision_id) <= MAX_ID and decision_id.isascii() and decision_id.isalnum()):
            decision_id = _decision(decision_id, words)
        if event.query is not None:
            query = _query(event, words)
        head = (index, kind, at_ms, user, stand_in, session, order, digest)
        tail = (rating, decision_id or "", query)
        things = event.items
        if not things:
            if event.item_id is not None:
                things = [_single(event)]
            elif kind != _SEARCH:
                raise BadRecord("missing_item", "validate")
            elif not query:
                raise quality.Ignored("empty_query")
            else:
                return [_new_line(Line, (*head, "", MISSING, _NAN, 1.0, *tail))], []
        return self._item_lines(head, things, tail, words)

    def forget_ids(self) -> None:
        """Drop the raw ids of people, sessions and orders that are remembered for speed."""
        for cache in (self._users, self._sessions, self._orders):
            cache.clear()

    def _item_lines(
        self, head: _Head, things: list[EventItem], tail: tuple[float, str, str], words: list[str]
    ) -> tuple[list[Line], list[Item]]:
        if len(things) > MAX_ITEMS:
            raise BadRecord("too_many_items", "validate")
        index, kind, at_ms, user, stand_in, session, order, digest = head
        rating, decision_id, query = tail
        in_order = kind == _IMPRESSION and _say_no_position(things)
        if in_order:
            words.append("position_from_order")
        out: list[Line] = []
        about: list[Item] = []
        not_products = self._not_products
        for place, thing in enumerate(things):
            item_id = thing.item_id
            # Looking at the id itself (as `_is_plain`) costs less than looking it up: a cache of all is cold memory.
            if (
                item_id is None
                or not item_id.isprintable()
                or " " in item_id
                or "." in item_id
                or not 0 < len(item_id) <= MAX_ID
            ):
                item_id = self._item_id(item_id, words)
            if not_products and item_id in not_products:
                words.append("not_a_product")
                continue
            position, price, quantity = thing.position, thing.price, thing.quantity
            if position is None:
                position = place if in_order else MISSING
            elif not 0 <= position < MAX_POSITION:
                position = quality.position_of(position, words)
            if price is None or not 0 < price < MAX_NUMBER:
                price = _NAN if price is None else quality.price_of(kind, price, words)
            if quantity is None or not 0 < quantity < MAX_NUMBER:
                quantity = 1.0 if quantity is None else quality.quantity_of(kind, quantity, words)
            # One flat tuple: this line runs once an item of an event, and unpacking with * costs as much as the rest.
            values = (index, kind, at_ms, user, stand_in, session, order, digest, item_id, position, price, quantity,
                      rating, decision_id, query)  # fmt: skip
            out.append(_new_line(Line, values))
            if thing.title or thing.category or thing.brand:
                about.append(carried(item_id, thing, price, at_ms, words))
        if not out:
            raise quality.Ignored("not_a_product")
        return out, about

    def _who(self, event: Event, words: list[str]) -> tuple[bytes | None, int, int, int]:
        """(user, stand-in, session, order) as a line has them."""
        user, session, order = b"", 0, 0
        if (raw := event.user_id) is not None:
            user = self._users.get(raw) or self._user(raw, words)
        if (raw := event.session_id) is not None:
            session = self._sessions.get(raw) or self._named(
                self._sessions, raw, name=self._names.session, reason="bad_session_id", words=words
            )
        if (raw := event.order_id) is not None:
            order = self._orders.get(raw) or self._named(
                self._orders, raw, name=self._names.order, reason="bad_order_id", words=words
            )
        if user:
            return user, USER, session, order
        if session:
            return self._names.session(_clean(event.session_id)).stand_in, SESSION, session, order
        if order:
            return self._names.order(_clean(event.order_id)).stand_in, ORDER, session, order
        return None, NOBODY, 0, 0

    def _user(self, raw: str, words: list[str]) -> bytes:
        """The key of a user whose id is not in the cache; empty for a blank id."""
        clean = raw if _is_plain(raw) else quality.clean_id(raw, "bad_user_id", words)
        if not clean:
            return b""
        key = self._names.user_key(clean)
        if clean == raw:
            _keep(self._users, raw, key)
        return key

    def _named(
        self, cache: dict[str, int], raw: str, *, name: Callable[[str], Pseudonym], reason: str, words: list[str]
    ) -> int:
        """The number of a session or order whose id is not in the cache; 0 for a blank id."""
        clean = raw if _is_plain(raw) else quality.clean_id(raw, reason, words)
        if not clean:
            return 0
        number = name(clean).number
        if clean == raw:
            _keep(cache, raw, number)
        return number

    def _item_id(self, raw: str | None, words: list[str]) -> str:
        if raw is None:
            raise BadRecord("missing_item", "validate")
        known = self._items.get(raw)
        if known is None:
            repairs: list[str] = []
            item_id = quality.clean_id(raw, "bad_item_id", repairs)
            if not item_id:
                raise BadRecord("bad_item_id", "validate")
            known = (item_id, tuple(repairs))
            _keep(self._items, raw, known)
        if known[1]:
            words += known[1]
        return known[0]

    def _digest(self, record: Record, event_id: str | None, nth: int, words: list[str]) -> int:
        text = event_id.strip() if event_id else ""
        if not text:
            words.append("event_id_derived")
            # No id can hold a NUL from here, so a derived id never meets a given one by design.
            text = f"\0{record.topic}\0{record.partition}\0{record.offset}\0{nth}"
        elif len(text) > quality.MAX_EVENT_ID or "\0" in text:
            raise BadRecord("bad_event_id", "validate")
        return self._event(text)


def _keep(cache: dict[str, _T], raw: str, value: _T) -> None:
    if len(cache) >= MAX_CACHED:
        cache.clear()
    cache[raw] = value


def _clean(raw: str | None) -> str:
    """An id that was found usable, cleaned again; its repairs are counted already."""
    return quality.clean_id(raw or "", "", [])


def _is_plain(raw: str) -> bool:
    """Whether `quality.clean_id` would return an id as it is, for most ids that are seen.

    Every blank but the space is unprintable, and a number with decimals has a dot.
    """
    return raw.isprintable() and " " not in raw and "." not in raw and 0 < len(raw) <= MAX_ID


def _single(event: Event) -> EventItem:
    return EventItem(item_id=event.item_id, position=event.position, price=event.price, quantity=event.quantity)


def _say_no_position(things: list[EventItem]) -> bool:
    return all(thing.position is None for thing in things)


def _judge_currency(currency: str, words: list[str]) -> None:
    if not (len(currency) == 3 and currency.isascii() and currency.isupper()):
        code = currency.strip()
        usable = len(code) == 3 and code.isascii() and code.isalpha()
        words.append("currency_case" if usable else "currency_dropped")


def _decision(raw: str, words: list[str]) -> str:
    text = raw.strip()
    if len(text) <= MAX_ID and text.isascii() and text.isprintable():
        return text
    words.append("decision_id_dropped")
    return ""


def _query(event: Event, words: list[str]) -> str:
    text = text_of(event.query, "query", words)
    clean = scrub(text)
    for raw in (event.user_id, event.session_id, event.order_id):
        if raw is not None and len(name := raw.strip()) >= MIN_SCRUBBED_ID and name.casefold() in clean.casefold():
            clean = re.sub(re.escape(name), "<user>", clean, flags=re.IGNORECASE)
    if clean != text:
        words.append("query_scrubbed")
    return clean
