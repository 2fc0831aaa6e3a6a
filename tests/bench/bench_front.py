"""What the front costs an event, beside four bare decoders in the same run: `python -m tests.bench.bench_front`.

Prints microseconds of CPU an event (best of seven interleaved rounds over 20,000 seeded events of about 300
bytes, 5,000 users, a session each) and ratios; every round starts with empty caches.
"""

from __future__ import annotations

import gc
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import orjson
import pydantic

from stream_rec.codec import StrictEvent
from stream_rec.events import Record, Topic
from stream_rec.stream.front import Front
from stream_rec.stream.privacy import Pseudonymiser, Sealer

N_EVENTS, TICK, ROUNDS = 20_000, 1_024, 7
AT_MS = 1_700_000_000_000


class PydanticItem(pydantic.BaseModel):
    """An item as a pydantic model."""

    item_id: str
    position: int | None = None
    price: float | None = None
    quantity: float | None = None


class PydanticEvent(pydantic.BaseModel):
    """An event as a pydantic model."""

    event_id: str
    event_type: str
    event_at: str | int
    user_id: str | None = None
    session_id: str | None = None
    items: list[PydanticItem] = []
    decision_id: str | None = None
    value: float | None = None
    currency: str | None = None


def events(n: int, *, extra: bool = False, rfc3339: bool = True) -> list[Record]:
    """`n` click events of 5,000 users and 3,000 items; `extra` adds an unknown field."""
    draw = random.Random(7)
    out = []
    for i in range(n):
        second, user, item = i % 60, draw.randrange(5_000), draw.randrange(3_000)
        body: dict[str, Any] = {
            "event_id": f"4f0c2f6e-8b1d-4c07-9a55-{i:012x}",
            "event_type": "click",
            "event_at": f"2024-03-05T10:11:{second:02d}.345Z" if rfc3339 else AT_MS + i,
            "user_id": f"customer-{user:07d}",
            "session_id": f"s-{user:010x}",
            "items": [{"item_id": f"SKU-{item:06d}", "position": i % 20, "price": 12.5, "quantity": 1}],
            "decision_id": f"d{draw.getrandbits(64):016x}",
            "value": 12.5,
            "currency": "EUR",
        }
        if extra:
            body["page"] = "/p/1"
        out.append(Record(Topic.EVENTS, i % 4, i, AT_MS, None, msgspec.json.encode(body)))
    return out


def us_per_event(rows: dict[str, Callable[[], object]], n: int) -> dict[str, float]:
    """Microseconds of CPU an event by row, best of `ROUNDS`; rounds take turns, so that a busy machine hits all."""
    best = dict.fromkeys(rows, float("inf"))
    for _ in range(ROUNDS):
        for name, work in rows.items():
            gc.collect()
            start = time.process_time()
            work()
            best[name] = min(best[name], (time.process_time() - start) / n * 1e6)
    return best


def decoding(decode: Callable[[bytes], object], records: Sequence[Record]) -> Callable[[], object]:
    """Decode every value and keep the results of a tick, as the front does."""
    values = [r.value or b"" for r in records]

    def work() -> None:
        for i in range(0, len(values), TICK):
            _ = [decode(v) for v in values[i : i + TICK]]

    return work


def fronting(records: Sequence[Record]) -> Callable[[], object]:
    """Read every tick with a front whose caches start empty."""

    def work() -> None:
        front = Front(Pseudonymiser(b"bench"), Sealer(b"bench"))
        for i in range(0, len(records), TICK):
            front.read(records[i : i + TICK])

    return work


def main() -> None:
    """Print the table."""
    plain = events(N_EVENTS)
    rows = {
        "msgspec, typed": decoding(msgspec.json.Decoder(StrictEvent).decode, plain),
        "orjson, dict": decoding(orjson.loads, plain),
        "stdlib json, dict": decoding(json.loads, plain),
        "pydantic model": decoding(PydanticEvent.model_validate_json, plain),
        "front": fronting(plain),
        "front, epoch ms": fronting(events(N_EVENTS, rfc3339=False)),
        "front, an unknown field": fronting(events(N_EVENTS, extra=True)),
    }
    measured = us_per_event(rows, N_EVENTS)
    size = sum(len(r.value or b"") for r in plain) / N_EVENTS
    sys.stdout.write(f"{size:.0f} bytes an event\n")
    for name, us in measured.items():
        sys.stdout.write(f"{name:26s} {us:6.2f} us  x{us / measured['msgspec, typed']:.1f} of the bare decode\n")


if __name__ == "__main__":
    main()
