"""What one would write first: a pydantic model per event and a joiner of plain dicts. Knows no bound but the ids'."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from datetime import datetime

import pydantic

from stream_rec.events import Record


class NaiveItem(pydantic.BaseModel):
    """An item of an event."""

    item_id: str
    position: int | None = None
    price: float | None = None
    quantity: float | None = None


class NaiveEvent(pydantic.BaseModel):
    """An event."""

    event_id: str
    event_type: str
    event_at: datetime
    user_id: str | None = None
    session_id: str | None = None
    order_id: str | None = None
    items: list[NaiveItem] = []
    query: str | None = None
    decision_id: str | None = None
    value: float | None = None
    currency: str | None = None
    rating: float | None = None


class NaiveShop:
    """Dedupe, histories, joins and a window by dicts and lists; no pseudonyms, watermarks, visits or refunds."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._exposures: dict[str, tuple[datetime, list[str]]] = {}
        self._histories: dict[str, deque[tuple[str, datetime]]] = {}
        self.window: deque[tuple[str, str, datetime, int | None]] = deque(maxlen=200_000)

    def read(self, records: Sequence[Record]) -> None:
        """Take one tick."""
        for record in records:
            event = NaiveEvent.model_validate_json(record.value or b"")
            if event.event_id in self._seen:
                continue
            self._seen.add(event.event_id)
            if event.event_type == "impression" and event.decision_id:
                self._exposures[event.decision_id] = (event.event_at, [item.item_id for item in event.items])
                continue
            user = event.user_id or event.session_id or ""
            history = self._histories.setdefault(user, deque(maxlen=256))
            for item in event.items:
                shown = self._exposures.get(event.decision_id or "")
                position = None
                if shown and item.item_id in shown[1] and (event.event_at - shown[0]).total_seconds() < 1800:
                    position = shown[1].index(item.item_id)
                history.append((item.item_id, event.event_at))
                self.window.append((user, item.item_id, event.event_at, position))
