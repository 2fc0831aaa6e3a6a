"""Pseudonyms, scrubbing and sealing."""

from __future__ import annotations

import hashlib
import hmac
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_rec.errors import SettingsError
from stream_rec.events import Record, Topic
from stream_rec.stream.privacy import MAX_SEALED_BYTES, Pseudonymiser, Sealer, fingerprint, scrub

NAMES = Pseudonymiser(b"secret")


def record(value: bytes | None = b"body", key: bytes | None = b"key", headers=(), offset: int = 7) -> Record:
    return Record(Topic.EVENTS, 2, offset, 1_700_000_000_000, key, value, headers)


@settings(derandomize=True, deadline=None)
@given(key=st.binary(min_size=1, max_size=200), raw=st.text(st.characters(exclude_categories=["Cs"])))
def test_user_keys_are_hmac_sha256(key: bytes, raw: str) -> None:
    assert Pseudonymiser(key).user_key(raw) == hmac.digest(key, raw.encode(), hashlib.sha256)[:16]


def test_equal_text_means_unrelated_digests_by_domain() -> None:
    assert len({NAMES.user_key("a"), NAMES.session("a").stand_in, NAMES.order("a").stand_in}) == 3
    assert len({NAMES.session("a").number, NAMES.order("a").number, NAMES.event("a")}) == 3


def test_another_key_gives_other_pseudonyms() -> None:
    other = Pseudonymiser(b"other")
    assert other.user_key("a") != NAMES.user_key("a")
    assert other.session("a") != NAMES.session("a")
    assert other.event("a") != NAMES.event("a")


@settings(derandomize=True, deadline=None)
@given(st.text(max_size=40))
def test_numbers_are_63_bit_and_sessions_never_zero(raw: str) -> None:
    for number in (NAMES.session(raw).number, NAMES.order(raw).number):
        assert 0 < number < 2**63
    assert 0 <= NAMES.event(raw) < 2**63


def test_an_empty_key_is_refused_with_a_fix() -> None:
    with pytest.raises(SettingsError, match="openssl rand"):
        Pseudonymiser(b"")


def test_the_fingerprint_tells_keys_apart() -> None:
    assert NAMES.fingerprint == fingerprint(b"secret") != fingerprint(b"other")
    assert len(NAMES.fingerprint) == 16


@pytest.mark.parametrize(
    ("query", "clean"),
    [
        ("ann.lee+x@mail.shop.example", "<email>"),
        ("mug ann%40shop.example red", "mug <email> red"),
        ("<ann@shop.example>", "<<email>>"),
        ("4111 1111 1111 1111", "<card>"),
        ("4111-1111-1111-1111 mug", "<card> mug"),
        ("378282246310005", "<card>"),
        ("+442079460958", "<phone>"),
        ("call 020 7946 0958 now", "call <phone> now"),
        ("(555) 123-4567", "<phone>"),
        ("5551234567", "<phone>"),
        ("+44 20 7946 0958 4111 1111 1111 1111", "<phone> <phone>"),
        ("white hanging heart 22423", "white hanging heart 22423"),
        ("ean 5012345678901", "ean 5012345678901"),
        ("96385074", "96385074"),
        ("iphone 15 256gb", "iphone 15 256gb"),
        ("shelf 100x200x30", "shelf 100x200x30"),
        ("2 @ 5", "2 @ 5"),
        ("sizes 40 42 44", "sizes 40 42 44"),
    ],
)
def test_scrub(query: str, clean: str) -> None:
    assert scrub(query) == clean


@settings(derandomize=True, deadline=None)
@given(st.text(max_size=200))
def test_scrubbing_twice_changes_nothing_more(query: str) -> None:
    assert scrub(scrub(query)) == scrub(query)


@settings(derandomize=True, deadline=None)
@given(
    st.none() | st.binary(max_size=300),
    st.none() | st.binary(max_size=50),
    st.lists(
        st.tuples(st.text(st.characters(exclude_categories=["Cs"]), max_size=9), st.binary(max_size=30)), max_size=3
    ),
)
def test_unseal_gives_the_record_back(value, key, headers) -> None:
    sealer = Sealer(b"secret")
    sent = record(value, key, tuple(headers))
    opened = sealer.unseal(sealer.seal(sent, reason="not_json", stage="decode").value or b"")
    assert opened == (sent, "decode", "not_json", False)


def test_sealing_is_deterministic() -> None:
    first, second = (Sealer(b"secret").seal(record(), reason="r", stage="s") for _ in range(2))
    assert first == second


def test_equal_records_at_two_positions_have_equal_digests_and_unequal_content() -> None:
    sealer = Sealer(b"secret")
    a, b = (json.loads(sealer.seal(record(offset=o), reason="r", stage="s").value or b"") for o in (1, 2))
    assert a["digest"] == b["digest"]
    assert a["sealed"] != b["sealed"]


def test_the_digest_is_keyed() -> None:
    a, b = (json.loads(Sealer(k).seal(record(), reason="r", stage="s").value or b"")["digest"] for k in (b"a", b"b"))
    assert a != b


def test_a_long_value_is_cut_and_says_so() -> None:
    sealer = Sealer(b"secret")
    letter = sealer.seal(record(b"x" * 10_000_000), reason="too_large", stage="decode")
    opened = sealer.unseal(letter.value or b"")
    assert opened.truncated
    assert len(opened.record.value or b"") == MAX_SEALED_BYTES - len(b"key")
    assert json.loads(letter.value or b"")["length"] == 10_000_000
    assert len(letter.value or b"") < 100_000


@pytest.mark.parametrize("name", ["key", "headers"])
def test_long_keys_and_headers_are_cut_too(name: str) -> None:
    long = {"key": b"k" * 200_000} if name == "key" else {"headers": (("h", b"v" * 200_000),)}
    letter = Sealer(b"secret").seal(record(**long), reason="r", stage="s")
    assert len(letter.value or b"") < 100_000
    assert Sealer(b"secret").unseal(letter.value or b"").truncated


def test_another_key_cannot_open_and_is_told_which_is_needed() -> None:
    letter = Sealer(b"secret").seal(record(), reason="r", stage="s")
    with pytest.raises(SettingsError, match=fingerprint(b"secret")):
        Sealer(b"other").unseal(letter.value or b"")


@pytest.mark.parametrize("field", ["offset", "sealed"])
def test_an_altered_dead_letter_is_refused(field: str) -> None:
    letter = json.loads(Sealer(b"secret").seal(record(), reason="r", stage="s").value or b"")
    letter[field] = 8 if field == "offset" else "AAAA" + letter[field][4:]
    with pytest.raises(SettingsError, match="altered"):
        Sealer(b"secret").unseal(json.dumps(letter).encode())


def test_what_is_no_dead_letter_is_refused_without_quoting_it() -> None:
    with pytest.raises(SettingsError) as refused:
        Sealer(b"secret").unseal(b'{"topic": "raw-user-1"}')
    assert "raw-user-1" not in str(refused.value)
