"""Each format against records written by hand, and against anything at all."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_rec.adapters.csv_map import mapped
from stream_rec.adapters.registry import ADAPTERS
from stream_rec.adapters.shape import from_one
from stream_rec.errors import SettingsError
from stream_rec.io.peek import event_time_ms
from stream_rec.stream.quality import time_ms

GOLDEN = Path(__file__).parent / "golden"
CASES = [
    pytest.param(path.stem, case["in"], case["out"], id=f"{path.stem}: {case['case']}")
    for path in sorted(GOLDEN.glob("*.json"))
    for case in json.loads(path.read_text())
]


def test_every_adapter_has_golden_records():
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(ADAPTERS)


@pytest.mark.parametrize(("name", "given_", "expected"), CASES)
def test_a_golden_record_becomes_its_events(name, given_, expected):
    assert ADAPTERS[name](given_) == expected


@pytest.mark.parametrize(("name", "given_", "expected"), CASES)
def test_a_file_of_the_format_tells_the_time_of_its_events(name, given_, expected):
    assert event_time_ms(json.dumps(given_).encode()) == time_ms(expected[0]["event_at"], [])


@pytest.mark.parametrize(("name", "given_", "expected"), CASES)
def test_an_adapter_changes_nothing_in_what_it_is_given(name, given_, expected):
    before = json.dumps(given_)
    ADAPTERS[name](given_)
    assert json.dumps(given_) == before


def keys(value):
    if isinstance(value, dict):
        return set(value) | set().union(*map(keys, value.values()), set())
    return set().union(*map(keys, value), set()) if isinstance(value, list) else set()


KEYS = sorted(set().union(*(keys(case.values[1]) for case in CASES)))
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(KEYS)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
    max_leaves=25,
)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.sampled_from(sorted(ADAPTERS)), st.dictionaries(st.sampled_from(KEYS), JSON, max_size=8))
def test_an_adapter_never_raises_and_gives_objects(name, record):
    assert all(isinstance(event, dict) for event in ADAPTERS[name](record))


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.sampled_from(CASES), st.data())
def test_an_adapter_survives_any_value_in_any_place_of_a_real_record(case, data):
    name, record, _ = case.values
    field = data.draw(st.sampled_from(sorted(record)))
    assert all(isinstance(event, dict) for event in ADAPTERS[name](record | {field: data.draw(JSON)}))


def test_positions_that_count_from_zero_stay():
    assert from_one([{"position": 0}, {"position": 1}]) == [{"position": 0}, {"position": 1}]


def test_a_column_map_names_the_nearest_field_for_a_wrong_one():
    with pytest.raises(SettingsError, match="did you mean user_id"):
        mapped({"userid": "u"})
