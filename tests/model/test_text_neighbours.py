"""Neighbours by text: found one by one they are those found at once, and what is forgotten is nobody's neighbour."""

from __future__ import annotations

import numpy as np

from stream_rec.model.item_texts import ItemTexts, grown
from stream_rec.model.text_neighbours import N_NEIGHBOURS, TextNeighbours
from tests.model.hashed import EMBEDDER, TITLES

ROWS = np.arange(len(TITLES), dtype=np.int32)


def table() -> np.ndarray:
    return grown(EMBEDDER.embed(TITLES).astype(np.float16), len(TITLES))


def neighbours(*batches: np.ndarray) -> TextNeighbours:
    out, known = TextNeighbours(), np.zeros_like(table())
    for rows in batches:
        known[rows] = table()[rows]
        out.renew(rows, known)
    return out


def test_neighbours_found_one_by_one_are_those_found_at_once() -> None:
    at_once, one_by_one = neighbours(ROWS), neighbours(*np.split(ROWS, len(ROWS)))
    for row in ROWS:
        assert sorted(at_once.cosine[row].round(4)) == sorted(one_by_one.cosine[row].round(4))


def test_neighbours_are_the_nearest_by_cosine() -> None:
    found, vectors = neighbours(ROWS), table().astype(np.float32)
    cosine = vectors[3] @ vectors.T
    cosine[3] = -1
    best = np.sort(cosine)[-N_NEIGHBOURS:]
    assert np.allclose(np.sort(found.cosine[3]), np.where(best > 0, best, -1), atol=1e-3)


def test_an_item_borrows_the_weighted_mean_of_its_neighbours_values() -> None:
    found = neighbours(ROWS)
    values = np.zeros((1, len(ROWS)), np.float32)
    values[0, found.row[4, 0]] = 1.0
    assert 0 < found.smoothed(values)[0, 4] < 1
    assert np.allclose(found.smoothed(np.ones_like(values)), 1.0, atol=1e-5)


def test_an_item_row_that_changes_hands_is_nobodys_neighbour() -> None:
    found = neighbours(ROWS)
    found.forget_items(np.array([4], np.int32))
    assert not (found.cosine[found.row == 4] > 0).any()
    assert not found.smoothed(np.ones((1, len(ROWS)), np.float32))[0, 4]


def test_texts_wait_for_their_turn_in_the_order_they_were_told() -> None:
    texts = ItemTexts(EMBEDDER.dim)
    texts.tell([3, 1, 3, 2], 5)
    assert texts.embed(2, TITLES.__getitem__, EMBEDDER).tolist() == [3, 1]
    texts.tell([1], 5)
    assert texts.embed(9, TITLES.__getitem__, EMBEDDER).tolist() == [2, 1]
    assert texts.table[2].any() and not texts.table[0].any()


def test_an_item_without_a_text_has_the_zero_vector() -> None:
    texts = ItemTexts(EMBEDDER.dim)
    texts.tell([0], 1)
    texts.embed(1, lambda _: "", EMBEDDER)
    assert not texts.table.any()
