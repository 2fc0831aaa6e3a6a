"""Lexical match: the book's BM25, whatever the order of titles, renewed and forgotten exactly, and bounded."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from stream_rec.component import digest
from stream_rec.model.lexical import NAMES, TITLE_WORDS, Lexicon, words
from tests.model.hashed import TITLES

BM25, WORD, RARE, GRAM = range(len(NAMES))
ROWS = np.arange(len(TITLES), dtype=np.int32)
ALL = [*TITLES, "red red red jug with a very long name of many words", "jugs"]


def lexicon(titles: list[str] = ALL) -> Lexicon:
    out = Lexicon()
    out.tell(range(len(titles)), titles)
    return out


def by_the_book(query: str, title: str, titles: list[str]) -> float:
    mean = sum(len(words(t)) for t in titles) / len(titles)
    times, length, total = Counter(words(title)), len(words(title)), 0.0
    for word in dict.fromkeys(words(query)):
        holding = sum(word in words(t) for t in titles)
        idf = math.log(1 + (len(titles) - holding + 0.5) / (holding + 0.5))
        total += idf * times[word] * 2.2 / (times[word] + 1.2 * (0.25 + 0.75 * length / mean))
    return total


@pytest.mark.parametrize("query", ["red jug", "RED lamp, red!", "many words of a star", "nothing here"])
def test_bm25_is_the_books(query: str) -> None:
    found = lexicon().match(query, np.arange(len(ALL), dtype=np.int32))[:, BM25]
    assert np.allclose(found, [by_the_book(query, title, ALL) for title in ALL], atol=1e-5)


def test_shares_are_of_the_querys_words_and_the_rare_word_counts_more() -> None:
    found = lexicon(["red jug", "red lamp", "red vase", "blue bag"]).match("red bag", np.arange(4, dtype=np.int32))
    assert found[:, WORD].tolist() == [0.5, 0.5, 0.5, 0.5]
    assert found[3, RARE] > 0.5 > found[0, RARE]
    assert np.isclose(found[0, RARE] + found[3, RARE], 1)


def test_a_plural_and_a_slip_meet_by_trigrams() -> None:
    found = lexicon(["jugs", "lamp", "vase"]).match("jug", np.arange(3, dtype=np.int32))
    assert found[0, WORD] == 0
    assert found[0, GRAM] > 0.5 > found[1, GRAM]


def test_the_order_in_which_titles_came_does_not_matter() -> None:
    at_once, one_by_one = lexicon(), Lexicon()
    for row in reversed(range(len(ALL))):
        one_by_one.tell([row], [ALL[row]])
    assert digest(at_once.snapshot()) == digest(one_by_one.snapshot())


def test_a_renewed_title_leaves_nothing_of_the_old_one() -> None:
    renewed = lexicon(["old words of a title", *ALL[1:]])
    renewed.tell([0], [ALL[0]])
    assert digest(renewed.snapshot()) == digest(lexicon().snapshot())


def test_forgotten_rows_and_rows_never_told_match_nothing() -> None:
    own = lexicon()
    own.forget_items(np.array([0, 5_000], np.int32))
    assert not own.match(ALL[0], np.array([0, 9_999], np.int32)).any()
    assert own.n_titles == len(ALL) - 1


def test_a_row_has_the_same_bits_in_any_company() -> None:
    own = lexicon()
    whole = own.match("red jug star", ROWS)
    alone = np.concatenate([own.match("red jug star", ROWS[i : i + 1]) for i in ROWS])
    assert np.array_equal(whole, alone)


def test_snapshot_and_restore_is_never_stopped() -> None:
    stopped, restored = lexicon(ALL[:9]), Lexicon()
    restored.restore(stopped.snapshot())
    restored.tell(range(9, len(ALL)), ALL[9:])
    assert digest(restored.snapshot()) == digest(lexicon().snapshot())


def test_an_endless_stream_of_new_words_keeps_the_state_in_its_bounds() -> None:
    own = Lexicon(buckets=64)
    own.tell(range(256), [f"word{i}" for i in range(256)])
    held = own.n_bytes()
    for turn in range(4):
        own.tell(range(256), [" ".join(f"w{turn}x{i}x{k}" for k in range(2 * TITLE_WORDS)) for i in range(256)])
    assert own.n_bytes() == held
    assert own.titles_with.sum() == 256 * TITLE_WORDS
    assert np.isfinite(own.match("w3x0x0 word1", np.arange(256, dtype=np.int32))).all()


@pytest.mark.parametrize("query", ["", " ,. ", "\ud800", "ß" * 10_000, " ".join(f"q{i}" for i in range(500))])
def test_any_text_is_a_query(query: str) -> None:
    found = lexicon().match(query, ROWS)
    assert found.shape == (len(ROWS), len(NAMES))
    assert np.isfinite(found).all()


def test_what_was_asked_before_a_title_changed_is_asked_anew():
    rows = np.arange(3, dtype=np.int32)
    asked, fresh = Lexicon(), Lexicon()
    asked.tell([0, 1, 2], ["red jug", "blue jugs", "lamp"])
    asked.match("red jug", rows)
    asked.tell([1], ["red red jug"])
    fresh.tell([0, 1, 2], ["red jug", "red red jug", "lamp"])
    assert np.array_equal(asked.match("red jug", rows), fresh.match("red jug", rows))
    asked.forget_items(np.array([0], np.int32))
    fresh.tell([0], [""])
    assert np.array_equal(asked.match("red jug", rows), fresh.match("red jug", rows))


def test_what_is_remembered_of_queries_is_bounded():
    small, large = Lexicon(), Lexicon()
    small.tell([9], ["jug"])
    large.tell([20_000], ["jug"])
    for n in range(200):
        for own in (small, large):
            own.match(f"jug {n}", np.arange(len(own.length), dtype=np.int32))
    assert (small._asked.cache_info().currsize, large._asked.cache_info().currsize) == (64, 0)
