"""Lexical match of a query with item titles: BM25, shares of its words and of their letters, kept as titles come.

BM25 after Robertson & Zaragoza 2009 with idf = ln(1 + (N - n + 1/2) / (n + 1/2)), N titles of which n hold the word.
Words are Unicode letters and digits, folded in case; no stemming, so no language is favoured: plurals and slips meet by
their trigrams. Nothing depends on the order in which titles came, only on the titles that are there.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from stream_rec.component import Component
from stream_rec.model.item_texts import grown

Rows = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]
Words = npt.NDArray[np.uint32]

NAMES = ("bm25", "word_share", "rare_share", "gram_share")
"""Columns of `match`: BM25; share of the query's words in the title; the same, each word counting its idf; share of the
query's letter trigrams in the title."""

TITLE_WORDS = 32
"""Words of a title that are read."""
QUERY_WORDS = 16
"""Distinct words of a query that are read."""
GRAM_BITS = 512
"""Trigrams of a title are kept as set bits; a title of 80 letters sets about one in seven."""
SATURATION, LENGTH_SHARE = 1.2, 0.75
"""BM25's k1 and b."""

_WORD = re.compile(r"[^\W_]+")
SORTED_AGAIN = 64
"""Titles that change before the words of all are sorted anew, at least."""
WHOLE = 4
"""Where fewer than one row in so many is asked for, the others are not matched for the next time."""
MAX_ASKED, KEPT_UP_TO = 64, 20_000
"""Queries whose matches are kept, and up to how many items: 16 bytes each."""


def words(text: str) -> list[str]:
    """Runs of letters and digits, compatibility forms and case folded.

    >>> words("Leyden Jug, 3/8-in. (RED)")
    ['leyden', 'jug', '3', '8', 'in', 'red']
    """
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


class Lexicon(Component):
    """The words of the item titles, and in how many titles each is.

    Columns: `word` uint32 [rows, TITLE_WORDS] ids in the title's order, 0 where there is none; `gram` uint64
    [rows, GRAM_BITS / 64]; `length` int32 [rows] words, 0 for no title; `titles_with` int32 [buckets]. 196 bytes an
    item and 4 a bucket, whatever the stream holds.

    Args:
        buckets: counters of words; words whose ids meet in one share it, which lowers the idf of the rarer.

    >>> lexicon = Lexicon()
    >>> lexicon.tell([0, 1, 2], ["red jug", "blue jugs", "lamp"])
    >>> lexicon.match("red jug", np.arange(3, dtype=np.int32)).astype(float).round(2).tolist()
    [[1.81, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.33], [0.0, 0.0, 0.0, 0.0]]
    """

    half = "facts"
    columns = ("word", "gram", "length", "titles_with")
    scalars = ("n_titles", "n_words")
    derived = ("_asked", "_index", "_unsorted")
    fixed = ("buckets",)

    def __init__(self, buckets: int = 1 << 20) -> None:
        self.buckets = buckets
        self.word = np.zeros((0, TITLE_WORDS), np.uint32)
        self.gram = np.zeros((0, GRAM_BITS // 64), np.uint64)
        self.length = np.zeros(0, np.int32)
        self.titles_with = np.zeros(buckets, np.int32)
        self.n_titles = self.n_words = 0
        self._asked = lru_cache(MAX_ASKED)(self._match_all)
        """How all titles match what was asked lately, until one of them changes."""
        self._index = np.zeros(0, np.uint32), np.zeros(0, np.int32)
        """Words of all titles, rising, and whose they are; of `_unsorted` rows it says what no longer holds."""
        self._unsorted: set[int] = set()

    def rebuild(self) -> None:
        """Forget what was asked, and sort the words anew."""
        self._asked.cache_clear()
        row, place = np.nonzero(self.word)
        ids = self.word[row, place]
        order = np.argsort(ids, kind="stable")
        self._index, self._unsorted = (ids[order], row[order].astype(np.int32)), set()

    def tell(self, rows: Sequence[int], titles: Sequence[str]) -> None:
        """Take the titles of item rows, in place of those they had; an empty one is none."""
        if rows:
            self._reserve(max(rows) + 1)
            self._changed(rows)
        for row, title in zip(rows, titles, strict=True):
            self._drop(row)
            told = words(title)[:TITLE_WORDS]
            if told:
                ids = _ids(told)
                self.word[row, : len(ids)] = ids
                self.gram[row] = _grams(told)
                self.length[row] = len(ids)
                self._count(ids, 1)

    def forget_items(self, rows: Rows) -> None:
        """Start again for item rows that were given to other items."""
        here = rows[rows < len(self.length)].tolist()
        self._changed(here)
        for row in here:
            self._drop(row)

    def _changed(self, rows: Sequence[int]) -> None:
        if rows:
            self._asked.cache_clear()
            self._unsorted.update(rows)

    def match(self, query: str, rows: Rows) -> Floats:
        """How the titles of `rows` match a query, float32 [n, NAMES]; zero for rows without a title. Pure.

        A row's figures have the same bits whatever other rows are asked for.

        Args:
            query: any text.
            rows: item rows, in any order; may lie beyond those told.
        """
        n = len(self.length)
        if n > KEPT_UP_TO or len(rows) * WHOLE < n:
            return self._match(query, rows)
        out = np.zeros((len(rows), len(NAMES)), np.float32)
        here = rows < n
        out[here] = self._asked(query)[rows[here]]
        return out

    def _match_all(self, query: str) -> Floats:
        return self._match(query, np.arange(len(self.length), dtype=np.int32))

    def _match(self, query: str, rows: Rows) -> Floats:
        out = np.zeros((len(rows), len(NAMES)), np.float32)
        told = list(dict.fromkeys(words(query)))[:QUERY_WORDS]
        here = np.flatnonzero(rows < len(self.length))
        if not told or not len(here):
            return out
        own, ids = rows[here], _ids(told)
        idf = self._idf(ids)
        mean_length = max(self.n_words, 1) / max(self.n_titles, 1)
        some = np.zeros((3, len(own)), np.float64)
        for times_in, rarity in zip(self._times(ids), idf, strict=True):
            there = np.flatnonzero(times_in[own])
            times = times_in[own[there]]
            damped = SATURATION * (1 - LENGTH_SHARE + LENGTH_SHARE * self.length[own[there]] / mean_length)
            some[0, there] += rarity * times * (SATURATION + 1) / (times + damped)
            some[1, there] += 1 / len(ids)
            some[2, there] += rarity / idf.sum()
        out[here, :3] = some.T
        asked = _grams(told)
        out[here, 3] = np.bitwise_count(self.gram[own] & asked).sum(axis=1) / np.bitwise_count(asked).sum()
        return out

    def _times(self, ids: Words) -> Iterator[npt.NDArray[np.int64]]:
        """How often each word stands in each title, [rows] a word."""
        if len(self._unsorted) > max(SORTED_AGAIN, len(self.length) // 16):
            self.rebuild()
        words, rows = self._index
        late = np.array(sorted(self._unsorted), np.int64)
        for each in ids:
            low, high = np.searchsorted(words, each), np.searchsorted(words, each, "right")
            times = np.bincount(rows[low:high], minlength=len(self.length))
            times[late] = (self.word[late] == each).sum(axis=1)
            yield times

    def _idf(self, ids: Words) -> npt.NDArray[np.float64]:
        holding = self.titles_with[ids % self.buckets]
        # Words that share a bucket may add up to more titles than there are.
        return np.asarray(np.log1p(np.maximum(self.n_titles - holding + 0.5, 0.5) / (holding + 0.5)))

    def _drop(self, row: int) -> None:
        n = int(self.length[row])
        if n:
            self._count(self.word[row, :n], -1)
            self.word[row] = self.gram[row] = self.length[row] = 0

    def _count(self, ids: Words, sign: int) -> None:
        np.add.at(self.titles_with, np.unique(ids) % self.buckets, sign)
        self.n_titles += sign
        self.n_words += sign * len(ids)

    def _reserve(self, n_items: int) -> None:
        if n_items > len(self.length):
            self.word, self.gram, self.length = (grown(each, n_items) for each in (self.word, self.gram, self.length))


def _ids(told: Iterable[str]) -> Words:
    """Never 0, which is no word."""
    return np.array([zlib.crc32(word.encode("utf-8", "surrogatepass")) or 1 for word in told], np.uint32)


def _grams(told: Iterable[str]) -> npt.NDArray[np.uint64]:
    """Bits of the trigrams of words, each with a blank before and behind."""
    bits = np.zeros(GRAM_BITS, np.uint8)
    for word in told:
        bits[list(_gram_bits(word))] = 1
    return np.packbits(bits, bitorder="little").view("<u8").astype(np.uint64)


@lru_cache(maxsize=65_536)
def _gram_bits(word: str) -> tuple[int, ...]:
    blanks = f" {word} "
    grams = (blanks[i : i + 3] for i in range(len(blanks) - 2))
    return tuple(zlib.crc32(gram.encode("utf-8", "surrogatepass")) % GRAM_BITS for gram in grams)
