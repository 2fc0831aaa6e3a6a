"""The file source: lines are records, times are peeked, offsets re-read."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import zstandard

from stream_rec.errors import InputGone, JobFailed, SettingsError
from stream_rec.io.files import FileSource
from stream_rec.io.timeline import BLOCK_LINES

EVENTS, ITEMS = ("events", 0), ("items", 0)
DAY = 86_400_000


def event(at_ms, **more):
    return json.dumps({"event_type": "click", "event_at": at_ms, **more}).encode()


def written(path: Path, lines, end=b"\n"):
    path.write_bytes(b"".join(line + end for line in lines))
    return path


def drained(source, partition=EVENTS, size=700):
    records = []
    while not source.exhausted(partition):
        records.extend(source.poll(partition, size))
    assert source.poll(partition, size) == []
    return records


@pytest.fixture
def many(tmp_path):
    rng = np.random.default_rng(5)
    times = 10**12 + np.sort(rng.integers(0, 30 * DAY, 3 * BLOCK_LINES + 17))
    lines = [event(int(t), event_id=str(n)) for n, t in enumerate(times)]
    for n in rng.integers(0, len(lines), 400):
        lines[n] = lines[n][:25]
    for n in rng.integers(0, len(lines), 40):
        lines[n] = event(4_102_444_800_000)
    return written(tmp_path / "events.jsonl", lines)


def test_every_line_is_a_record_with_its_number_as_offset(tmp_path):
    path = written(tmp_path / "e.jsonl", [event(5), b"", b"\xff{", event(7)])
    records = drained(FileSource(path))
    assert [r.offset for r in records] == [0, 1, 2, 3]
    assert [r.value for r in records] == [event(5), b"", b"\xff{", event(7)]
    assert {r.key for r in records} == {None}


def test_a_line_without_a_readable_time_has_the_largest_before_it(tmp_path):
    path = written(tmp_path / "e.jsonl", [b"x", event(1_500_000_000), b"{", event(1_400_000_000), b""])
    assert [r.timestamp_ms for r in drained(FileSource(path))] == [
        0,
        1_500_000_000_000,
        1_500_000_000_000,
        1_400_000_000_000,
        1_500_000_000_000,
    ]


def test_a_last_line_without_end_and_windows_line_ends_are_read(tmp_path):
    path = tmp_path / "e.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + event(1) + b"\r\n" + event(2))
    assert [r.value for r in drained(FileSource(path))] == [event(1), event(2)]


def test_an_empty_file_is_exhausted_at_once(tmp_path):
    source = FileSource(written(tmp_path / "e.jsonl", []))
    assert source.exhausted(EVENTS) and source.poll(EVENTS, 10) == []


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_compressed_files_read_the_same_whatever_their_name(many, tmp_path, pack):
    packed = tmp_path / "packed"
    packed.write_bytes(pack(many.read_bytes()))
    assert drained(FileSource(packed)) == drained(FileSource(many))


@pytest.mark.parametrize("pack", [lambda b: b, gzip.compress, zstandard.compress])
@pytest.mark.parametrize("line", [0, 1, BLOCK_LINES - 1, BLOCK_LINES, 2 * BLOCK_LINES + 1, 3 * BLOCK_LINES + 16])
def test_a_seek_goes_on_as_if_never_stopped(many, tmp_path, pack, line):
    path = tmp_path / "packed"
    path.write_bytes(pack(many.read_bytes()))
    whole = drained(FileSource(path))
    source = FileSource(path)
    source.poll(EVENTS, 5000)
    source.seek({EVENTS: line})
    assert drained(source) == whole[line:]


def test_a_seek_behind_the_end_is_exhausted(many):
    source = FileSource(many)
    source.seek({EVENTS: 10**6})
    assert source.exhausted(EVENTS)


def test_a_range_is_read_again_exactly_and_the_position_stays(many):
    whole = drained(FileSource(many))
    source = FileSource(many)
    source.poll(EVENTS, 100)
    for first in (9000, 40, 9000, 41):
        assert source.read_range(EVENTS, first, 60) == whole[first : first + 60]
    assert source.poll(EVENTS, 1)[0].offset == 100


def test_a_range_that_is_gone_is_named(many):
    with pytest.raises(InputGone, match="put the same file back"):
        FileSource(many).read_range(EVENTS, 3 * BLOCK_LINES, 18)


def test_since_and_until_select_by_record_time_and_keep_offsets(many):
    whole = drained(FileSource(many))
    since, until = 10**12 + 3 * DAY, 10**12 + 9 * DAY
    source = FileSource(many, since_ms=since, until_ms=until)
    chosen = [r for r in whole if since <= r.timestamp_ms < until]
    assert drained(source) == chosen
    assert source.read_range(EVENTS, chosen[9].offset + 1, 20) == chosen[10:30]


def test_a_wild_time_is_in_the_future_and_lends_its_record_the_time_before(tmp_path):
    lines = [event(10**12 + n) for n in range(2000)]
    lines[7] = event("2100-01-01T00:00:00Z")
    source = FileSource(written(tmp_path / "e.jsonl", lines))
    records = drained(source)
    assert records[7].timestamp_ms == 10**12 + 6
    assert [n for n in range(2000) if source.in_future(EVENTS, n)] == [7]


def test_a_verdict_about_the_future_does_not_depend_on_what_was_read(many):
    first, second = FileSource(many), FileSource(many)
    drained(first)
    offsets = list(range(0, 3 * BLOCK_LINES + 17, 11))
    forwards = [first.in_future(EVENTS, n) for n in offsets]
    backwards = [second.in_future(EVENTS, n) for n in reversed(offsets)]
    assert forwards == backwards[::-1] and any(forwards)


def test_items_have_their_id_as_key_and_time_zero_without_updated_at(tmp_path):
    items = written(
        tmp_path / "i.jsonl",
        [b'{"item_id": 12, "title": "a"}', b'{"item_id": "b", "updated_at": "2001-09-09T01:46:40Z"}', b"{"],
    )
    source = FileSource(written(tmp_path / "e.jsonl", [event(10**12)]), items)
    assert source.partitions() == [EVENTS, ITEMS]
    assert [(r.key, r.timestamp_ms) for r in drained(source, ITEMS)] == [(b"12", 0), (b"b", 10**12), (None, 10**12)]


def test_an_item_line_that_says_deleted_is_a_tombstone(tmp_path):
    items = written(tmp_path / "i.jsonl", [b'{"item_id": "a", "deleted": true}', b'{"item_id": "a", "deleted": "no"}'])
    records = drained(FileSource(written(tmp_path / "e.jsonl", []), items), ITEMS)
    assert [r.value is None for r in records] == [True, False]


def test_an_item_newer_than_the_range_is_given_a_time_within_it_and_counted(tmp_path):
    lines = [b'{"item_id": "a", "updated_at": 1000000000}', b'{"item_id": "b", "updated_at": 1000900000}']
    items = written(tmp_path / "i.jsonl", lines)
    source = FileSource(written(tmp_path / "e.jsonl", []), items, until_ms=1_000_500_000_000)
    assert [r.timestamp_ms for r in drained(source, ITEMS)] == [10**12, 10**12]
    assert source.n_items_newer() == 1


def test_a_catalogue_exported_after_the_history_is_known_from_the_start(tmp_path):
    events = written(tmp_path / "e.jsonl", [event(10**12 + n) for n in range(3)])
    items = written(tmp_path / "i.jsonl", [b'{"item_id": "a", "updated_at": 1000000001}'] * 2)
    source = FileSource(events, items)
    assert [r.timestamp_ms for r in drained(source, ITEMS)] == [0, 0]
    assert source.n_items_newer() == 2


def test_without_an_end_only_items_later_than_the_last_event_are_newer(tmp_path):
    events = written(tmp_path / "e.jsonl", [event(10**12), event(10**12 + 9), event(10**12 + 5)])
    lines = [b'{"item_id": "a", "updated_at": %d}' % at_ms for at_ms in (10**12 + 9, 10**12 + 10, 10**12 + 2)]
    source = FileSource(events, written(tmp_path / "i.jsonl", lines))
    assert [r.timestamp_ms for r in drained(source, ITEMS)] == [10**12 + 9, 10**12 + 9, 10**12 + 2]
    assert source.n_items_newer() == 1


def test_an_event_in_the_future_does_not_end_the_range(tmp_path):
    lines = [event(10**12 + n) for n in range(2000)]
    lines[7] = event("2100-01-01T00:00:00Z")
    items = written(tmp_path / "i.jsonl", [b'{"item_id": "a", "updated_at": "2020-01-01"}'])
    source = FileSource(written(tmp_path / "e.jsonl", lines), items)
    assert [r.timestamp_ms for r in drained(source, ITEMS)] == [0]


def test_looking_for_the_end_of_the_range_changes_no_event(many, tmp_path):
    items = written(tmp_path / "i.jsonl", [b'{"item_id": "a", "updated_at": "2024-01-01"}'])
    source = FileSource(many, items)
    first = source.poll(EVENTS, 100)
    assert [r.timestamp_ms for r in drained(source, ITEMS)] == [0]
    assert [*first, *drained(source)] == drained(FileSource(many))


def test_a_poll_is_full_until_the_end_so_that_ticks_depend_on_the_file_alone(many):
    source = FileSource(many)
    source.poll(EVENTS, 1000)
    assert [len(source.poll(EVENTS, 5000)) for _ in range(3)] == [5000, 5000, 3 * BLOCK_LINES + 17 - 11_000]


def test_a_line_above_the_limit_is_cut_to_one_byte_more(tmp_path):
    lines = [b"x" * 300, event(10**12), b"y" * 50]
    source = FileSource(written(tmp_path / "e.jsonl", lines), max_line_bytes=100)
    assert [r.value for r in drained(source)] == [b"x" * 101, event(10**12), b"y" * 50]


def test_a_missing_file_is_a_wrong_argument(tmp_path):
    with pytest.raises(SettingsError, match="cannot read"):
        FileSource(tmp_path / "none.jsonl")


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_cut_compressed_data_fails_with_its_place(many, tmp_path, pack):
    path = tmp_path / "cut"
    packed = pack(many.read_bytes())
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(JobFailed, match="cut"):
        drained(FileSource(path))


def test_progress_ends_at_the_size_of_the_file(many):
    source = FileSource(many)
    assert source.progress()[0] < many.stat().st_size
    drained(source)
    assert source.progress() == (many.stat().st_size, many.stat().st_size)
