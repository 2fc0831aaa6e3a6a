"""A seeded stream of clean events with spoiled ones mixed in at random, as lines of a file.

Each way of spoiling says what must become of the record: an outcome, a reason of a dead letter, or nothing in
particular (`any`: repaired or refused, but never a crash).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

START_MS = 1_767_225_600_000
STEP_MS = 400
N_ACTIVE, ERA = 40, 8_000
"""Users active at a time, and events after which others take their place."""
N_ITEMS = 300
KINDS = ("view_item",) * 9 + ("click",) * 4 + ("add_to_cart",) * 2 + ("purchase", "search", "impression")
HUGE_BYTES = 10_000_000

Spoil = Callable[[Random, dict[str, Any]], bytes]


@dataclass
class Mix:
    """What was written, by line."""

    fates: list[str] = field(default_factory=list)
    """`clean`, or what must become of the spoiled record."""
    at_ms: list[int] = field(default_factory=list)
    """Event time that a reader who can read the record finds."""


def event(draw: Random, n: int) -> dict[str, Any]:
    """The n-th clean event; times rise but for 20 seconds of disorder."""
    kind, user = draw.choice(KINDS), n // ERA * N_ACTIVE + draw.randrange(N_ACTIVE)
    body: dict[str, Any] = {
        "event_id": f"e-{n:08d}",
        "event_type": kind,
        "event_at": START_MS + n * STEP_MS - draw.randrange(20_000),
        "user_id": f"customer-{user:06d}",
        "session_id": f"s-{user:06d}-{n // ERA}",
    }
    if kind == "search":
        return body | {"query": "red mug"}
    n_items = 5 if kind == "impression" else 1
    items = [{"item_id": f"sku-{int(draw.random() ** 2 * N_ITEMS):05d}", "price": 9.5} for _ in range(n_items)]
    return body | {"items": items, "currency": "EUR"}


# ---- ways of spoiling


def truncated(draw: Random, body: dict[str, Any]) -> bytes:
    raw = dumped(body)
    return raw[: draw.randrange(1, len(raw) - 1)]


def not_finite(draw: Random, body: dict[str, Any]) -> bytes:
    word = draw.choice(("NaN", "Infinity", "-Infinity", "1e400", "-1e999"))
    return dumped(body | {"value": "?"}).replace(b'"?"', word.encode())


def too_deep(draw: Random, body: dict[str, Any]) -> bytes:
    depth, (left, right) = draw.randrange(40, 20_000), draw.choice((("[", "]"), ('{"a":', "}")))
    return dumped(body | {"extra": "?"}).replace(b'"?"', (left * depth + "1" + right * depth).encode())


def not_utf8(draw: Random, body: dict[str, Any]) -> bytes:
    bad = draw.choice((b"\xff", b"\xc3\x28", b"\xe2\x82", b"\xed\xa0\x80", b"\xf8\x88\x80\x80"))
    return dumped(body).replace(b"customer-", b"customer-" + bad)


def too_large(draw: Random, body: dict[str, Any]) -> bytes:
    return dumped(body | {"query": draw.choice("ax") * HUGE_BYTES})


def out_of_range(draw: Random, body: dict[str, Any]) -> bytes:
    at = draw.choice((0, 1, "1970-01-01T00:00:00Z", "1970-06-01", "2100-01-02T00:00:00Z", 4_133_894_400_000, 1e29))
    return dumped(body | {"event_at": at})


def in_future(draw: Random, body: dict[str, Any]) -> bytes:
    at = draw.choice(("2099-12-31T23:59:59Z", 4_102_358_400_000, 4_102_358_400))
    return dumped(body | {"event_at": at})


def unknown_type(draw: Random, body: dict[str, Any]) -> bytes:
    return dumped(
        body | {"event_type": draw.choice(("page_view", "user_engagement", "x" * 300, "\u00e9v\u00e9nement"))}
    )


def not_an_object(draw: Random, body: dict[str, Any]) -> bytes:
    return draw.choice((b"1", b'"text"', b"null", b"true", b"[]", b"[" + dumped(body) + b"]"))


def no_item(draw: Random, body: dict[str, Any]) -> bytes:
    gone = {key: value for key, value in body.items() if key not in ("items", "query")}
    return dumped(gone | {"event_type": "click"} | draw.choice(({}, {"items": []}, {"items": None})))


def no_time(draw: Random, body: dict[str, Any]) -> bytes:
    return dumped({key: value for key, value in body.items() if key != "event_at"})


def wrong_types(draw: Random, body: dict[str, Any]) -> bytes:
    """Any field but the time gets a value of any type: the record may still be read."""
    values = (None, True, -1, 2**70, 10**400, 0.5, 1e300, "", " ", "\x00", [], {}, [[1]], {"a": {"b": []}}, "x" * 3_000)
    one = draw.choice(("event_id", "event_type", "user_id", "session_id", "order_id", "items", "query", "currency"))
    other = draw.choice(("rating", "value", "decision_id"))
    return dumped(body | {one: draw.choice(values), other: draw.choice(values)})


def wrong_item(draw: Random, body: dict[str, Any]) -> bytes:
    values = (None, True, -1, 2**70, 0, 1e300, "", "12,5", " 7.0 ", "\x07", [], {}, "y" * 3_000)
    name = draw.choice(("item_id", "position", "price", "quantity", "title"))
    thing = {"item_id": "sku-00001", name: draw.choice(values)}
    return dumped(body | {"items": draw.choice(([thing], thing, [thing] * 30, [thing, 1, None]))})


def flipped(draw: Random, body: dict[str, Any]) -> bytes:
    """Some bytes replaced, though not those of the time: one within a day of the others is a time to believe."""
    raw = bytearray(dumped(body))
    first = raw.index(b"event_at")
    for _ in range(draw.randrange(1, 6)):
        at = draw.randrange(len(raw) - 30)
        raw[at if at < first else at + 30] = draw.choice(b'\x00"{}[],:\\0 \x80\xffe-')
    return bytes(raw).replace(b"\n", b" ")


SPOILS: tuple[tuple[Spoil, str, int], ...] = (
    (truncated, "not_json", 30),
    (not_finite, "not_finite", 25),
    (too_deep, "too_deep", 2),
    (not_utf8, "not_utf8", 25),
    (out_of_range, "event_at_out_of_range", 25),
    (in_future, "in_future", 25),
    (unknown_type, "ignored", 20),
    (not_an_object, "not_an_object", 10),
    (no_item, "missing_item", 10),
    (no_time, "missing_event_at", 10),
    (wrong_types, "any", 40),
    (wrong_item, "any", 30),
    (flipped, "any", 40),
)
"""Way, fate, and how often."""
_WEIGHTS = [way[2] for way in SPOILS]


def dumped(body: dict[str, Any]) -> bytes:
    """Compact JSON."""
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def write(path: Path, *, seed: int, n_clean: int, n_spoiled: int, n_huge: int = 3) -> Mix:
    """Write the stream to `path`, a record a line.

    Beside the ways of `SPOILS`, a tenth of the spoiled are copies of clean records that came before, a tenth are fresh
    records that come too late, and a tenth come as late as the disorder allows and must be accepted.
    """
    draw, mix = Random(seed), Mix()
    fates = ["clean"] * n_clean + ["any"] * (n_spoiled - n_huge) + ["too_large"] * n_huge
    draw.shuffle(fates)
    earlier: list[bytes] = []
    with path.open("wb") as file:
        for n, fate in enumerate(fates):
            body = event(draw, n)
            raw = dumped(body)
            if fate == "clean":
                earlier = [*earlier[-200:], raw] if n % 50 == 0 else earlier
            elif fate == "too_large":
                raw = too_large(draw, body)
            else:
                raw, fate = _spoiled(draw, body, earlier)
            mix.fates.append(fate)
            mix.at_ms.append(body["event_at"])
            file.write(raw + b"\n")
    return mix


def _spoiled(draw: Random, body: dict[str, Any], earlier: list[bytes]) -> tuple[bytes, str]:
    """The record and its fate; moves the time of a reordered one in `body`."""
    dice = draw.random()
    if dice < 0.1 and earlier:
        return draw.choice(earlier), "duplicate"
    if dice < 0.3:
        too_late = dice < 0.2
        body["event_at"] -= 20 * 60_000 + draw.randrange(86_400_000) if too_late else draw.randrange(30_000)
        return dumped(body), "late" if too_late else "accepted"
    way, fate, _ = draw.choices(SPOILS, _WEIGHTS)[0]
    return way(draw, body), fate
