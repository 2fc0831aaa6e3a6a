"""Repairs and reasons, one value at a time."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_rec.errors import BadRecord
from stream_rec.events import MISSING, Kind
from stream_rec.stream import quality

AT_MS = 1_294_135_200_000


@pytest.mark.parametrize(
    ("raw", "clean", "words"),
    [
        ("17850", "17850", []),
        ("17850.0", "17850", ["id_float"]),
        ("  85123A ", "85123A", ["id_trimmed"]),
        ("\t17850.00\n", "17850", ["id_trimmed", "id_float"]),
        ("", "", ["id_blank"]),
        ("   ", "", ["id_trimmed", "id_blank"]),
        ("1.05", "1.05", []),
        ("v1.0", "v1.0", []),
        ("00123", "00123", []),
    ],
)
def test_ids_are_trimmed_and_float_text_becomes_whole(raw: str, clean: str, words: list[str]) -> None:
    said: list[str] = []
    assert quality.clean_id(raw, "bad_user_id", said) == clean
    assert said == words


@pytest.mark.parametrize("raw", ["a\x00b", "a\nb", "a\x7fb", "a\u2028b", "x" * 257, "\ud800"])
def test_ids_with_control_characters_or_without_end_are_refused(raw: str) -> None:
    with pytest.raises(BadRecord) as bad:
        quality.clean_id(raw, "bad_item_id", [])
    assert bad.value.reason == "bad_item_id"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("2011-01-04T10:00:00Z", []),
        ("2011-01-04T11:00:00+01:00", []),
        ("2011-01-04T10:00:00.000Z", []),
        ("2011-01-04 10:00:00", ["time_naive"]),
        ("2011-01-04 10:00", ["time_naive"]),
        (" 2011-01-04T10:00:00Z ", ["time_text"]),
        ("2011-01-04 10:00:00 UTC", ["time_text"]),
        (AT_MS, []),
        (AT_MS // 1000, ["epoch_s"]),
        (AT_MS / 1000, ["epoch_s"]),
        (AT_MS + 0.2, ["epoch_float"]),
        (AT_MS * 1000, ["epoch_us"]),
        (AT_MS * 1_000_000, ["epoch_ns"]),
        (AT_MS * 1e6, ["epoch_ns"]),
        (str(AT_MS), ["time_text"]),
        (str(AT_MS // 1000), ["time_text", "epoch_s"]),
    ],
)
def test_one_instant_has_many_spellings(value: int | float | str, words: list[str]) -> None:
    said: list[str] = []
    assert quality.time_ms(value, said) == AT_MS
    assert said == words


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ("", "missing_event_at"),
        ("  ", "missing_event_at"),
        ("yesterday", "bad_event_at"),
        ("2011-13-01T00:00:00Z", "bad_event_at"),
        ("2011-02-29T00:00:00Z", "bad_event_at"),
        ("nan", "not_finite"),
        ("Infinity", "not_finite"),
        ("1e999", "not_finite"),
        (math.nan, "not_finite"),
        (math.inf, "not_finite"),
        (0, "event_at_out_of_range"),
        (-5, "event_at_out_of_range"),
        ("1970-01-01T00:00:00Z", "event_at_out_of_range"),
        ("0001-01-01T00:00:00+23:59", "event_at_out_of_range"),
        ("9999-12-31T23:59:59-23:59", "event_at_out_of_range"),
        (10**400, "event_at_out_of_range"),
        (-(10**400), "event_at_out_of_range"),
        (1e308, "event_at_out_of_range"),
        ("9" * 40, "event_at_out_of_range"),
    ],
)
def test_what_is_no_time_has_a_word(value: int | float | str, word: str) -> None:
    with pytest.raises(BadRecord) as bad:
        quality.time_ms(value, [])
    assert bad.value.reason == word


@settings(derandomize=True, deadline=None)
@given(st.integers() | st.floats() | st.text())
def test_any_time_is_in_range_or_refused(value: int | float | str) -> None:
    try:
        assert quality.MIN_AT_MS <= quality.time_ms(value, []) <= quality.MAX_AT_MS
    except BadRecord as bad:
        assert bad.reason in quality.REASONS


@settings(derandomize=True, deadline=None)
@given(st.integers(quality.MIN_AT_MS, quality.MAX_AT_MS))
def test_every_ms_in_range_reads_as_itself(at_ms: int) -> None:
    assert quality.time_ms(at_ms, []) == at_ms


@settings(derandomize=True, deadline=None)
@given(st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers()))
def test_a_number_is_finite_or_refused(value: object) -> None:
    try:
        got = quality.number(value, "bad_price", [])
    except BadRecord as bad:
        assert bad.reason in ("bad_price", "not_finite")
    else:
        assert got is None or math.isfinite(got)


@pytest.mark.parametrize("text", ["12,50", "£3", "1_000", "0x10", "\u0663", "abc", "--1"])
def test_text_that_only_looks_like_a_number_is_refused(text: str) -> None:
    with pytest.raises(BadRecord):
        quality.number(text, "bad_price", [])


@pytest.mark.parametrize("price", [0.0, -1.0, -11062.06, 1e12, 1e308])
def test_a_purchase_needs_a_believable_price_above_zero(price: float) -> None:
    with pytest.raises(BadRecord, match="bad_price"):
        quality.price_of(Kind.PURCHASE, price, [])


def test_a_price_of_zero_elsewhere_is_dropped() -> None:
    words: list[str] = []
    assert math.isnan(quality.price_of(Kind.CLICK, 0.0, words))
    assert words == ["price_dropped"]


@pytest.mark.parametrize("quantity", [0.0, -1.0, 1e12])
def test_a_purchase_needs_a_quantity_above_zero(quantity: float) -> None:
    with pytest.raises(BadRecord, match="bad_quantity"):
        quality.quantity_of(Kind.PURCHASE, quantity, [])


def test_a_refund_may_count_backwards() -> None:
    words: list[str] = []
    assert quality.quantity_of(Kind.REFUND, -3.0, words) == 3.0
    assert words == ["quantity_sign"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_infinite_prices_and_quantities_never_pass(value: float) -> None:
    for judge in (quality.price_of, quality.quantity_of):
        with pytest.raises(BadRecord, match="not_finite"):
            judge(Kind.CLICK, value, [])


@pytest.mark.parametrize(
    ("position", "kept"), [(0, 0), (9999, 9999), (-1, MISSING), (10_000, MISSING), (10**40, MISSING)]
)
def test_positions_are_bounded(position: int, kept: int) -> None:
    assert quality.position_of(position, []) == kept


@pytest.mark.parametrize("text", ["Add_To_Cart", "add-to-cart", " add to cart "])
def test_event_types_are_read_in_other_spellings(text: str) -> None:
    words: list[str] = []
    assert quality.kind_of(text, words) == Kind.ADD_TO_CART
    assert words == ["type_case"]


def test_unknown_types_are_ignored_and_blank_ones_refused() -> None:
    with pytest.raises(quality.Ignored, match="unknown_type"):
        quality.kind_of("page_ping", [])
    with pytest.raises(BadRecord, match="missing_event_type"):
        quality.kind_of(" ", [])


def test_every_word_of_the_sources_stands_in_its_table() -> None:
    folder = Path(quality.__file__).parent
    source = "".join(
        (folder / f"{name}.py").read_text()
        for name in ("wire", "quality", "fields", "catalogue", "event_lines", "front")
    )
    reasons = set(re.findall(r'BadRecord\(\s*"(\w+)"', source))
    ignored = set(re.findall(r'Ignored\("(\w+)"', source))
    repairs = set(re.findall(r'words\.append\("(\w+)"', source))
    assert reasons <= quality.REASONS.keys()
    assert ignored <= quality.IGNORED.keys()
    assert repairs <= quality.REPAIRS.keys()
    assert len(reasons) > 15
    assert len(repairs) > 15
