"""Record times as they are written in the wild."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_rec.io.peek import NO_TIME, event_time_ms, peek_item, time_ms

AT = 1_569_888_001_000


@pytest.mark.parametrize(
    "value",
    [
        "2019-10-01T00:00:01Z", "2019-10-01 00:00:01 UTC", "2019-10-01T02:00:01+02:00", "2019-10-01T00:00:01.000Z",
        1_569_888_001, 1_569_888_001.0, "1569888001", AT, str(AT), AT * 1000, AT * 1_000_000,
    ],
)  # fmt: skip
def test_a_time_is_read_in_its_unit(value):
    assert time_ms(value) == AT


@pytest.mark.parametrize(
    "value", [None, True, "", "soon", "1e", "NaN", float("nan"), float("inf"), -5, 1e300, {}, [], "9" * 400, "0000-00"]
)
def test_what_is_no_time_has_none(value):
    assert time_ms(value) == NO_TIME


@pytest.mark.parametrize(
    "line",
    [
        b'{"event_at": "2019-10-01T00:00:01Z", "time": "2020-01-01T00:00:00Z"}',
        b'{"specversion": "1.0", "time": "2020-01-01T00:00:00Z", "data": {"event_at": 1569888001000}}',
        b'{"specversion": "1.0", "time": "2019-10-01T00:00:01Z", "data": {"x": 1}}',
        b'{"event_name": "purchase", "event_timestamp": 1569888001000000}',
        b'{"type": "track", "timestamp": "2019-10-01T00:00:01.000Z"}',
        b'{"derived_tstamp": "2019-10-01 00:00:01.000", "collector_tstamp": "2020-01-01 00:00:00"}',
    ],
)
def test_every_known_format_tells_its_time(line):
    assert event_time_ms(line) == AT


def test_a_deeply_nested_line_has_no_time():
    assert event_time_ms(b'{"a":' * 100_000) == NO_TIME


@settings(derandomize=True, deadline=None)
@given(st.one_of(st.binary(max_size=80), st.text(max_size=40).map(lambda t: b'{"event_at": "' + t.encode() + b'"}')))
def test_peeking_never_raises(line):
    assert event_time_ms(line) >= NO_TIME
    assert peek_item(line).at_ms >= NO_TIME
