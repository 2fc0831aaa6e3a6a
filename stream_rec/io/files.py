"""Events and items from JSONL files (plain, gzip or zstd), read like the partitions of a topic.

The offset of a record is its line number from 0; every line is a record, an empty or broken one too, so that each
is accounted for. The files must not change while they are read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from stream_rec.errors import InputGone
from stream_rec.events import Record, Topic
from stream_rec.io.lines import MAX_LINE_BYTES, LineReader
from stream_rec.io.peek import NO_TIME, event_time_ms, item_time_ms, peek_item
from stream_rec.io.timeline import BLOCK_LINES, Block, Timeline
from stream_rec.ports import TopicPartition

_EVENTS = (Topic.EVENTS, 0)
_ITEMS = (Topic.ITEMS, 0)
_FOREVER_MS = 1 << 62

_Make = Callable[[int, int, bytes], Record]
_ReadFrom = Callable[[int], LineReader]


class FileSource:
    """An `EventSource` over one events file and, if given, one items file.

    `Record.timestamp_ms` is the line's own time; where it cannot be read or lies in the future (`in_future`), the
    largest before it. An item line without `updated_at` has time 0: it is known from the start. Event keys are
    None, item keys the item id; a line `{"item_id": "...", "deleted": true}` becomes a tombstone.
    """

    def __init__(
        self,
        events: Path,
        items: Path | None = None,
        *,
        since_ms: int | None = None,
        until_ms: int | None = None,
        max_line_bytes: int = MAX_LINE_BYTES,
    ) -> None:
        """Take events with `since_ms <= time < until_ms`; offsets stay line numbers, the others are passed over.

        A line above `max_line_bytes` is given cut to that length and one byte, so that it still counts as too large
        wherever records are limited to `max_line_bytes` or less, and long lines do not fill the memory.

        Items are always taken. One newer than the range (at or after `until_ms`; without it, later than every event
        that is not in the future) is the newer state of a compacted catalogue: it gets the largest time of the item
        lines before it, 0 when there are none but newer ones, and is known from there on; `n_items_newer` counts them.

        Raises:
            SettingsError: a file is not there or cannot be opened.
        """
        selected = (0 if since_ms is None else since_ms, _FOREVER_MS if until_ms is None else until_ms)
        self._timelines = {_EVENTS: Timeline(events, event_time_ms, look_ahead=True)}
        self._paths = {_EVENTS: events}
        self._makers: dict[TopicPartition, _Make] = {_EVENTS: _event_record}
        self._selected = {_EVENTS: selected}
        if items is not None:
            self._timelines[_ITEMS] = Timeline(items, self._item_time_ms, look_ahead=False)
            self._paths[_ITEMS] = items
            self._makers[_ITEMS] = _item_record
            self._selected[_ITEMS] = (0, _FOREVER_MS)
        self._max_line_bytes = max_line_bytes
        self._cursors = {partition: self._cursor(partition, 0) for partition in self._paths}
        self._second: dict[TopicPartition, _Cursor] = {}

    def partitions(self) -> Sequence[TopicPartition]:
        """`("events", 0)` and, with an items file, `("items", 0)`."""
        return sorted(self._paths)

    def seek(self, positions: Mapping[TopicPartition, int]) -> None:
        """Continue each named partition at the given line."""
        for partition, offset in positions.items():
            self._cursors[partition].close()
            self._cursors[partition] = self._cursor(partition, offset)

    def poll(self, partition: TopicPartition, max_records: int) -> Sequence[Record]:
        """The `max_records` next records; fewer only at the end, so that ticks depend on the file alone."""
        return self._cursors[partition].take(max_records)

    def read_range(self, partition: TopicPartition, first: int, count: int) -> Sequence[Record]:
        """The `count` selected records from line `first` on; the position of `poll` stays.

        Raises:
            InputGone: the file has fewer.
        """
        cursor = self._second.get(partition)
        if cursor is None or cursor.position > first:
            if cursor is not None:
                cursor.close()
            cursor = self._second[partition] = self._cursor(partition, first)
        cursor.skip_to(first)
        records = cursor.take(count)
        if len(records) < count:
            raise InputGone(
                f"{self._paths[partition]}: {count} records were read from line {first} on, now {len(records)} are "
                "left; put the same file back and use the same --since and --until"
            )
        return records

    def behind(self, partition: TopicPartition) -> bool:
        """Whether a selected record is left."""
        return not self.exhausted(partition)

    def topic_ids(self) -> Mapping[str, str]:
        """None: which files these are stands in the genesis entry by their content."""
        return {}

    def same_topics(self, topic_ids: Mapping[str, str], partitions: Sequence[TopicPartition]) -> None:
        """Nothing to compare: the digests in the genesis entry are."""

    def exhausted(self, partition: TopicPartition) -> bool:
        """Whether no selected record is left."""
        return self._cursors[partition].ended()

    def lag(self) -> int:
        """0: a file is not counted before it is read; `progress` tells how far it is."""
        return 0

    def in_future(self, partition: TopicPartition, offset: int) -> bool:
        """Whether the events line `offset` lies in the future by what follows it (module `look_ahead`)."""
        block = self._timelines[partition].block(offset // BLOCK_LINES).in_future
        return offset % BLOCK_LINES < len(block) and block[offset % BLOCK_LINES]

    def progress(self) -> tuple[int, int]:
        """(bytes of the events file read so far, its bytes), compressed as it is: for a progress bar."""
        return self._cursors[_EVENTS].progress()

    def n_items_newer(self) -> int:
        """Item lines that are newer than the range; reads the items file once more."""
        if _ITEMS not in self._paths:
            return 0
        with closing(LineReader(self._paths[_ITEMS])) as lines:
            return sum(self._is_newer(item_time_ms(line)) for line in lines)

    def _is_newer(self, at_ms: int) -> bool:
        until_ms = self._selected[_EVENTS][1]
        if until_ms != _FOREVER_MS:
            return at_ms >= until_ms
        return not self._timelines[_EVENTS].reaches(at_ms)

    def _item_time_ms(self, line: bytes) -> int:
        at_ms = item_time_ms(line)
        return NO_TIME if self._is_newer(at_ms) else at_ms

    def close(self) -> None:
        """Close the files."""
        for cursor in (*self._cursors.values(), *self._second.values()):
            cursor.close()
        for timeline in self._timelines.values():
            timeline.close()

    def _cursor(self, partition: TopicPartition, offset: int) -> _Cursor:
        path, limit = self._paths[partition], self._max_line_bytes

        def read_from(byte: int) -> LineReader:
            return LineReader(path, at_byte=byte, max_line_bytes=limit)

        within = self._selected[partition]
        cursor = _Cursor(read_from, self._timelines[partition], self._makers[partition], within=within)
        cursor.skip_to(offset)
        return cursor


class _Cursor:
    """A position in a file: reads on, and back by opening again at the block."""

    def __init__(self, read_from: _ReadFrom, timeline: Timeline, make: _Make, *, within: tuple[int, int]) -> None:
        self._read_from = read_from
        self._timeline = timeline
        self._make = make
        self._since_ms, self._until_ms = within
        self._reader = read_from(0)
        self._line = 0
        self._waiting: list[Record] = []

    @property
    def position(self) -> int:
        """The next line."""
        return self._waiting[0].offset if self._waiting else self._line

    def skip_to(self, line: int) -> None:
        """Go forward to `line`; by blocks where their places are known."""
        if line <= self.position:
            return
        self._waiting.clear()
        index = line // BLOCK_LINES
        if index > self._line // BLOCK_LINES and (place := self._timeline.place(index)) is not None:
            self._reader.close()
            self._reader = self._read_from(place)
            self._line = index * BLOCK_LINES
        while self._line < line and self._reader.read() is not None:
            self._line += 1

    def take(self, max_records: int) -> list[Record]:
        """The next selected records."""
        records, self._waiting = self._waiting[:max_records], self._waiting[max_records:]
        block, index = Block([], []), -1
        while len(records) < max_records:
            value = self._reader.read()
            if value is None:
                break
            line = self._line
            self._line += 1
            if line // BLOCK_LINES != index:
                index = line // BLOCK_LINES
                block = self._timeline.block(index)
            at_ms = block.timestamp_ms[line % BLOCK_LINES]
            if self._since_ms <= at_ms < self._until_ms:
                records.append(self._make(line, at_ms, value))
        return records

    def ended(self) -> bool:
        """Whether no selected record is left; looks one record ahead."""
        if not self._waiting:
            self._waiting = self.take(1)
        return not self._waiting

    def progress(self) -> tuple[int, int]:
        """(bytes read, bytes) of the file."""
        return self._reader.progress()

    def close(self) -> None:
        """Close the file."""
        self._reader.close()


def _event_record(line: int, at_ms: int, value: bytes) -> Record:
    return Record(Topic.EVENTS, 0, line, at_ms, None, value)


def _item_record(line: int, at_ms: int, value: bytes) -> Record:
    peek = peek_item(value)
    key = None if peek.item_id is None else peek.item_id.encode(errors="replace")
    return Record(Topic.ITEMS, 0, line, at_ms, key, None if peek.deleted and key else value)
