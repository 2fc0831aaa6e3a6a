"""The front of the pipeline: a tick's records to lines, items and commands, or to a verdict each.

Nothing here is state: the same records give the same batch, whatever came before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import msgspec

from stream_rec.codec import StrictEvent
from stream_rec.errors import BadRecord
from stream_rec.events import Item, Line, Output, Record, Topic
from stream_rec.stream import quality, wire
from stream_rec.stream.catalogue import control_of, item_of, key_id
from stream_rec.stream.event_lines import EventLines
from stream_rec.stream.fields import event_of
from stream_rec.stream.privacy import Pseudonymiser, Sealer
from stream_rec.stream.quality import Ignored

Adapter = Callable[[dict[str, Any]], dict[str, Any] | list[dict[str, Any]]]
"""A foreign JSON object to one or several of our event objects; one that names none returns an empty list."""

DEAD_LETTERED = "dead_lettered"
IGNORED = "ignored"

_DEFECTS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


@dataclass(slots=True)
class FrontBatch:
    """What a tick's records are."""

    verdicts: list[tuple[str, str] | None]
    """One a record: None while it is in play, else (`dead_lettered` or `ignored`, reason)."""
    lines: list[Line] = field(default_factory=list)
    """In processing order; all lines of a record stand together, those of one event share its digest."""
    starts: list[int] = field(default_factory=list)
    """Place in `lines` of each event's first line."""
    repaired: dict[int, tuple[str, ...]] = field(default_factory=dict)
    """Record index to its repair words, for records in play, ascending; a word may occur more than once."""
    items: list[tuple[int, Item | str]] = field(default_factory=list)
    """(record index, item, or the item_id that a tombstone takes off sale)."""
    carried_items: list[tuple[int, Item]] = field(default_factory=list)
    """(record index, item whose text an event carries), `updated_at_ms` being the event's time."""
    controls: list[tuple[int, str, dict[str, Any]]] = field(default_factory=list)
    """(record index, command, its checked arguments); see `catalogue.control_of`."""
    unknown_fields: int = 0
    """Fields that the wire format does not name, over all records that could be read."""

    @property
    def n_repaired(self) -> int:
        """Records in play that were repaired."""
        return len(self.repaired)

    @property
    def repairs(self) -> Counter[str]:
        """Repair word to how often it was done, over records in play."""
        return Counter(word for words in self.repaired.values() for word in words)


class Front:
    """Reads records. It never raises for what a record holds.

    Args:
        pseudonymiser: turns raw ids into keyed digests.
        sealer: makes the dead letters.
        adapter: turns a foreign JSON object of the events topic into ours; None when they are ours already.
        max_record_bytes: a longer value is dead-lettered as `too_large`.
        not_products: item ids that name no product (postage, fees); their lines are left out.
    """

    def __init__(
        self,
        pseudonymiser: Pseudonymiser,
        sealer: Sealer,
        adapter: Adapter | None = None,
        *,
        max_record_bytes: int = 1 << 20,
        not_products: Set[str] = frozenset(),
    ) -> None:
        self._sealer = sealer
        self._adapter = adapter
        self._max_record_bytes = max_record_bytes
        self._events = EventLines(pseudonymiser, not_products=not_products)
        self._strict = msgspec.json.Decoder(StrictEvent)
        self._readers = {Topic.EVENTS: self._event, Topic.ITEMS: self._item, Topic.CONTROL: self._control}

    def read(self, records: Sequence[Record]) -> FrontBatch:
        """Lines or a verdict for every record, in order."""
        batch = FrontBatch(verdicts=[None] * len(records))
        readers = self._readers
        for index, record in enumerate(records):
            words: list[str] = []
            try:
                reader = readers.get(record.topic)
                if reader is None:
                    raise Ignored("unknown_topic")
                reader(index, record, batch, words)
                if words:
                    batch.repaired[index] = tuple(words)
            except Ignored as outcome:
                batch.verdicts[index] = (IGNORED, outcome.args[0])
            except BadRecord as bad:
                batch.verdicts[index] = (DEAD_LETTERED, bad.reason)
            except _DEFECTS:
                batch.verdicts[index] = (DEAD_LETTERED, "unexpected")
        return batch

    def seal(self, record: Record, reason: str) -> Output:
        """The dead letter of a record, whoever judged it; `reason` is a word, never a value."""
        return self._sealer.seal(record, reason=reason, stage=quality.stage_of(reason))

    def forget_ids(self) -> None:
        """Drop the raw ids of people, sessions and orders that are remembered for speed."""
        self._events.forget_ids()

    def _event(self, index: int, record: Record, batch: FrontBatch, words: list[str]) -> None:
        value = record.value
        if value is None or len(value) > self._max_record_bytes:
            value = self._value(record)
        if self._adapter is None and not record.headers:
            # Most records have the exact form of the schema: one typed decode, nothing to repair or count. It refuses
            # what the schema does not name before it descends, so that depth needs no check.
            try:
                event = self._strict.decode(value)
            except ValueError:
                pass
            else:
                lines, about = self._events.lines(index, record, event, nth=0, words=words)
                batch.starts.append(len(batch.lines))
                batch.lines += lines
                if about:
                    batch.carried_items += [(index, item) for item in about]
                return
        self._loose_events(index, record, batch, words)

    def _loose_events(self, index: int, record: Record, batch: FrontBatch, words: list[str]) -> None:
        """The same by way of a JSON object: CloudEvents, foreign formats, unknown fields, repairs."""
        obj, n_unknown = self._object(record, words), 0
        objects = [obj] if self._adapter is None else self._adapted(obj)
        lines: list[Line] = []
        starts: list[int] = []
        about: list[Item] = []
        refused = ""
        digests: set[int] = set()
        for nth, each in enumerate(objects):
            event, n = event_of(each, words)
            n_unknown += n
            try:
                its_lines, its_about = self._events.lines(index, record, event, nth=nth, words=words)
                if its_lines[0].event in digests:
                    event.event_id = f"{event.event_id} {nth}"
                    its_lines, its_about = self._events.lines(index, record, event, nth=nth, words=[])
            except Ignored as outcome:
                refused = str(outcome)
                continue
            digests.add(its_lines[0].event)
            starts.append(len(batch.lines) + len(lines))
            lines += its_lines
            about += its_about
        if not lines:
            raise Ignored(refused or "no_events")
        if refused:
            words.append("part_ignored")
        batch.unknown_fields += n_unknown
        batch.starts += starts
        batch.lines += lines
        batch.carried_items += [(index, item) for item in about]

    def _adapted(self, obj: dict[str, Any]) -> list[dict[str, Any]]:
        if self._adapter is None:
            return [obj]
        try:
            out = self._adapter(obj)
            # Through JSON once more, so that nothing but JSON values comes out of an adapter.
            objects = msgspec.json.decode(msgspec.json.encode(out))
        except BadRecord:
            raise
        except Exception:
            # Adapters meet any object there is; whatever one raises concerns that object alone.
            raise BadRecord("adapter_failed", "adapt") from None
        objects = [objects] if isinstance(objects, dict) else objects
        if not isinstance(objects, list) or not all(isinstance(each, dict) for each in objects):
            raise BadRecord("adapter_failed", "adapt")
        return objects

    def _item(self, index: int, record: Record, batch: FrontBatch, words: list[str]) -> None:
        if record.value is None:
            item_id = key_id(record.key, words)
            if not item_id:
                raise BadRecord("missing_item", "validate")
            batch.items.append((index, item_id))
            return
        item, n_unknown = item_of(record.key, self._object(record, words, of_event=False), words)
        batch.unknown_fields += n_unknown
        batch.items.append((index, item))

    def _control(self, index: int, record: Record, batch: FrontBatch, words: list[str]) -> None:
        batch.controls.append((index, *control_of(self._object(record, words, of_event=False), words)))

    def _object(self, record: Record, words: list[str], *, of_event: bool = True) -> dict[str, Any]:
        """The record's JSON object, out of its CloudEvents envelope if it came in one."""
        data, attributes = wire.json_object(self._value(record), words), wire.envelope_of(record)
        if attributes is None:
            data, attributes = wire.unwrap(data, words)
        return data if attributes is None or not of_event else wire.fill(data, attributes)

    def _value(self, record: Record) -> bytes:
        value = record.value
        if value is None:
            raise BadRecord("no_value")
        if len(value) > self._max_record_bytes:
            raise BadRecord("too_large")
        return value
