"""What the log comes to, computed a second time: the whole log at once, with dicts, lists and the json module.

Written from the description of the product and not from its code; shares nothing with `stream_rec.stream`. Only the
words of the settings and of the wire format are the same.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

MINUTE_MS = 60_000
POSITIVE = ("click", "view_item", "add_to_cart", "purchase", "review")
TYPES = (*POSITIVE, "search", "impression", "remove_from_cart", "add_to_wishlist", "share", "refund")
JOIN_WINDOW_MS = {
    **dict.fromkeys(("click", "view_item"), 30 * MINUTE_MS),
    **dict.fromkeys(("add_to_cart", "add_to_wishlist", "share"), 6 * 60 * MINUTE_MS),
    **dict.fromkeys(("purchase", "review"), 7 * 24 * 60 * MINUTE_MS),
}
RANK = {"control": 0, "items": 1, "events": 3}
FIRST_MS, LAST_MS = 631_152_000_000, 4_102_444_800_000
LOOK_BACK = 16
"""Exposures of one user that an action without a decision is compared with."""

User = str
"""Hex of the 16-byte key."""


def hkdf(key: bytes, purpose: str) -> bytes:
    """HKDF-SHA256 with no salt, one block (RFC 5869)."""
    secret = hmac.new(bytes(32), key, hashlib.sha256).digest()
    return hmac.new(secret, b"stream_rec " + purpose.encode() + b"\x01", hashlib.sha256).digest()


@dataclass
class Event:
    """An event that counts."""

    type: str
    at_ms: int
    user: User | None
    order: str
    items: list[dict[str, Any]]
    decision: str
    rating: float


@dataclass
class Act:
    """A positive event of one item."""

    item: str
    at_ms: int
    type: str
    order: str
    live: bool = True


@dataclass
class Exposure:
    """A list that was shown."""

    user: User
    at_ms: int
    items: list[str]


@dataclass
class Batch:
    """The result, growing tick by tick."""

    key: bytes
    partitions: Sequence[int] = ()
    """Those of the events topic that are known from the start: each of them must have spoken."""
    bound_ms: int = MINUTE_MS
    lateness_ms: int = 10 * MINUTE_MS
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    seen: set[str] = field(default_factory=set)
    newest_ms: dict[int, int] = field(default_factory=dict)
    watermark_ms: int = -(2**62)
    histories: dict[User, list[Act]] = field(default_factory=dict)
    positives: list[tuple[User | None, Act]] = field(default_factory=list)
    items: dict[str, dict[str, Any]] = field(default_factory=dict)
    joins: Counter[str] = field(default_factory=Counter)
    decisions: dict[str, tuple[str, list[str]]] = field(default_factory=dict)
    of_user: dict[str, list[str]] = field(default_factory=dict)
    exposures: dict[tuple[str, str], Exposure] = field(default_factory=dict)
    shown_to: dict[User, list[Exposure]] = field(default_factory=dict)
    high: dict[str, int] = field(default_factory=dict)

    # ---- a tick

    def tick(self, ranges: Sequence[Sequence[Any]], cut_at_ms: int, log: Any, slates: Iterable[dict[str, Any]]) -> None:
        """Take one tick: its ranges of `log[topic, partition]`, the clock, and the slates it published afterwards."""
        taken = self._taken(self._in_order(ranges, log), cut_at_ms)
        for event in taken:
            for said in event.items:
                self._carried(said)
        for event in taken:
            if event.type == "impression":
                self._impression(event)
        for event in taken:
            for said in event.items:
                self._join(event, said["item_id"])
        for event in taken:
            self._remember(event)
        if self.newest_ms and self.newest_ms.keys() >= set(self.partitions):
            self.watermark_ms = max(self.watermark_ms, min(self.newest_ms.values()) - self.bound_ms)
        for slate in slates:
            self._publish(slate)

    def _taken(self, records: Sequence[tuple[str, Any]], cut_at_ms: int) -> list[Event]:
        """The events that count; item records are taken before the first of them."""
        for topic, record in records:
            if topic == "items":
                self._item(record)
            elif topic == "control":
                self.outcomes["accepted", "plain"] += 1
        judged = [self._judged(record, cut_at_ms) for topic, record in records if topic == "events"]
        return [event for event in judged if event is not None]

    def _in_order(self, ranges: Sequence[Sequence[Any]], log: Any) -> list[tuple[str, Any]]:
        keyed = []
        for topic, partition, first, after, _count, _digest in ranges:
            high = self.high.get(f"{topic}/{partition}", 0)
            for offset in range(first, after):
                record = log[topic, partition][offset]
                high = max(high, record.timestamp_ms)
                keyed.append((high, RANK[topic], partition, offset, topic, record))
            self.high[f"{topic}/{partition}"] = high
        return [(topic, record) for *_, topic, record in sorted(keyed, key=lambda k: k[:4])]

    # ---- records

    def _item(self, record: Any) -> None:
        self.outcomes["accepted", self._told(record)] += 1

    def _told(self, record: Any) -> str:
        """Take a catalogue record; returns the reason it is counted under."""
        item_id = record.key.decode()
        if record.value is None:
            self.items.setdefault(item_id, {"title": "", "stock": True, "named": True})["listed"] = False
            return "plain"
        said = json.loads(record.value)
        held = self.items.get(item_id)
        if held is not None and -1 != said.get("updated_at", -1) < held.get("updated_at", -1):
            return "older_item_update"
        self.items[item_id] = {
            "title": said["title"], "stock": said.get("in_stock", True), "listed": True, "named": True,
            "updated_at": said.get("updated_at", -1),
        }  # fmt: skip
        return "plain"

    def _carried(self, said: dict[str, Any]) -> None:
        held = self.items.setdefault(said["item_id"], {"title": "", "stock": True, "listed": True, "named": False})
        if not held["named"] and said.get("title"):
            held["title"] = said["title"]

    def _judged(self, record: Any, cut_at_ms: int) -> Event | None:
        """The event, if it counts; counts the record either way."""
        verdict, event = self._read(record, cut_at_ms)
        if event is not None and verdict == ("accepted", "plain"):
            event_id = event["event_id"]
            at_ms, partition = event["event_at"], record.partition
            if event_id in self.seen:
                verdict = ("duplicate", "event_id")
            else:
                self.seen.add(event_id)
                newest = self.newest_ms.get(partition, -(2**62))
                if at_ms < newest - self.bound_ms - self.lateness_ms:
                    verdict = ("late", "beyond_allowed_lateness")
                self.newest_ms[partition] = max(newest, at_ms)
        if verdict[0] == "accepted" and event is not None and event["event_type"] in ("impression", "refund"):
            verdict = ("accepted", "to be said")
        if verdict != ("accepted", "to be said"):
            self.outcomes[verdict] += 1
        return self._typed(event) if event is not None and verdict[0] == "accepted" else None

    def _read(self, record: Any, cut_at_ms: int) -> tuple[tuple[str, str], dict[str, Any] | None]:
        try:
            text = record.value.decode()
        except UnicodeDecodeError:
            return ("dead_lettered", "not_utf8"), None
        try:
            event = json.loads(text, parse_constant=_refuse)
        except ArithmeticError:
            return ("dead_lettered", "not_finite"), None
        except ValueError:
            return ("dead_lettered", "not_json"), None
        if not isinstance(event, dict):
            return ("dead_lettered", "not_an_object"), None
        at_ms = event["event_at"]
        if not isinstance(at_ms, int):
            return ("dead_lettered", "bad_event_at"), None
        if event["event_type"] not in TYPES:
            return ("ignored", "unknown_type"), None
        at_ms = at_ms * 1000 if at_ms < 10**11 else at_ms
        if not FIRST_MS <= at_ms <= LAST_MS:
            return ("dead_lettered", "event_at_out_of_range"), None
        said = event.get("items") or ([event] if "item_id" in event else [])
        if event["event_type"] == "purchase" and any(s.get("quantity", 1) <= 0 for s in said):
            return ("dead_lettered", "bad_quantity"), None
        if at_ms > cut_at_ms + 5 * MINUTE_MS:
            return ("dead_lettered", "in_future"), None
        return ("accepted", "plain"), event

    def _typed(self, event: dict[str, Any]) -> Event:
        said = event.get("items") or ([event] if "item_id" in event else [])
        return Event(
            event["event_type"], event["event_at"], self._user(event), event.get("order_id", ""), said,
            event.get("decision_id", ""), event.get("rating", math.nan),
        )  # fmt: skip

    def _user(self, event: dict[str, Any]) -> User | None:
        if user_id := event.get("user_id", "").strip():
            return hmac.new(self.key, user_id.encode(), hashlib.sha256).hexdigest()[:32]
        for purpose in ("session", "order"):
            if raw := event.get(f"{purpose}_id"):
                keyed = hashlib.blake2b(raw.encode(), digest_size=24, key=hkdf(self.key, purpose))
                return keyed.digest()[:16].hex()
        return None

    # ---- what users did

    def _remember(self, event: Event) -> None:
        if event.type == "refund":
            self._refund(event)
        if event.type not in POSITIVE or (event.type == "review" and not event.rating >= 4):
            return
        for said in event.items:
            act = Act(said["item_id"], event.at_ms, event.type, event.order)
            self.positives.append((event.user, act))
            if event.user is not None:
                self.histories.setdefault(event.user, []).append(act)

    def _refund(self, event: Event) -> None:
        matched = []
        for said in event.items:
            bought = [
                (user, act)
                for user, act in self.positives
                if act.live and act.type == "purchase" and act.item == said["item_id"]
            ]
            same_order = [act for _, act in bought if event.order and act.order == event.order]
            own = [act for user, act in bought if user is not None and user == event.user]
            if found := same_order or own:
                found[-1].live = False
            matched.append(bool(found))
        word = "plain" if all(matched) else "refund_partly_unmatched" if any(matched) else "refund_unmatched"
        self.outcomes["accepted", word] += 1

    def window(self, capacity: int, length_ms: int) -> list[tuple[str, str, int, str]]:
        """(user, item, at_ms, type) of the newest `capacity` live positives within `length_ms` of the watermark."""
        since_ms = self.watermark_ms - length_ms
        live = [(u or "", a.item, a.at_ms, a.type) for u, a in self.positives if a.live and a.at_ms >= since_ms]
        return sorted(sorted(live, key=lambda row: row[2])[-capacity:])

    # ---- what slates led to

    def _publish(self, slate: dict[str, Any]) -> None:
        user, decision = slate["user_key"], slate["decision_id"]
        # Slates for queries do not take the place of the others: those of a user together, those for all by query.
        query = slate.get("query")
        held = self.of_user.setdefault(user if not query else f"{user}?{query if user == '*' else ''}", [])
        held.append(decision)
        if len(held) > 2:
            del self.decisions[held.pop(0)]
        self.decisions[decision] = user, [slot["item_id"] for slot in slate["slots"]]

    def _impression(self, event: Event) -> None:
        word, key = self._exposure_key(event)
        if not word:
            assert event.user is not None
            held = self.exposures.get(key)
            shown = [said["item_id"] for said in event.items]
            if held is not None and abs(event.at_ms - held.at_ms) <= JOIN_WINDOW_MS["click"]:
                word = "repeated"
                held.at_ms = min(held.at_ms, event.at_ms)
                held.items += [item for item in shown if item not in held.items]
            else:
                word = "exposed"
                self.exposures[key] = Exposure(event.user, event.at_ms, shown)
                self.shown_to.setdefault(event.user, []).append(self.exposures[key])
        self.joins[word] += 1
        self.outcomes["accepted", f"impression_{word}"] += 1

    def _exposure_key(self, event: Event) -> tuple[str, tuple[str, str]]:
        if event.user is None:
            return "no_user", ("", "")
        own, shared = (event.decision, ""), (event.decision, event.user)
        if event.decision in self.decisions:
            return "", shared if self.decisions[event.decision][0] == "*" else own
        for key in (own, shared):
            if key in self.exposures:
                return "", key
        return "unknown_decision", own

    def _join(self, event: Event, item: str) -> None:
        window_ms = JOIN_WINDOW_MS.get(event.type)
        if window_ms is None or event.user is None:
            return
        self.joins[self._how(event, item, window_ms)] += 1

    def _how(self, event: Event, item: str, window_ms: int) -> str:
        if event.decision:
            shown = self.exposures.get((event.decision, "")) or self.exposures.get((event.decision, event.user or ""))
            if shown is not None and item in shown.items:
                return "exact" if event.at_ms - shown.at_ms <= window_ms else "implied"
            if item in self.decisions.get(event.decision, ("", []))[1]:
                return "implied"
        for exposure in self._walk_back(event, window_ms):
            if item in exposure.items and 0 <= event.at_ms - exposure.at_ms <= window_ms:
                return "weak"
        return "none"

    def _walk_back(self, event: Event, window_ms: int) -> Iterator[Exposure]:
        for exposure in self.shown_to.get(event.user or "", [])[::-1][:LOOK_BACK]:
            yield exposure
            if event.at_ms - exposure.at_ms > window_ms + self.bound_ms + self.lateness_ms:
                return


def _refuse(word: str) -> float:
    raise ArithmeticError(word)
