"""Candidates of a large catalogue: they hold what may matter, and what they lack is measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from stream_rec.events import MISSING
from stream_rec.learn import candidates
from stream_rec.learn.learner import Learner
from stream_rec.learn.scoring import Catalogue
from stream_rec.model.two_tower import TwoTower
from tests.learn.shop import CATALOGUE, N_ITEMS, SETTINGS, Shop, stream
from tests.model.hashed import EMBEDDER, TITLES


def learned() -> tuple[Learner, Shop]:
    one, shop = Learner(replace(SETTINGS, exact_items=5, n_neighbours=8), TwoTower(EMBEDDER)), Shop()
    one.tell(list(range(N_ITEMS)), N_ITEMS, TITLES.__getitem__, quota=N_ITEMS)
    one.scorer.full_items, one.scorer.pool_items = 10, 2
    for takes in stream(1):
        one.step(shop.tick(takes), shop.histories, CATALOGUE)
    return one, shop


def test_candidates_are_fewer_than_the_catalogue_and_hold_the_users_own_and_their_likes(monkeypatch) -> None:
    monkeypatch.setattr(candidates, "N_NEWEST", 1)
    one, shop = learned()
    pointer, nowhere = np.array([shop.last[3]], np.int64), np.array([MISSING], np.int64)
    rows = one.scorer.profiles(shop.histories, pointer, nowhere, now_ms=nowhere, catalogue=CATALOGUE)
    universe = one.scorer.universe(CATALOGUE, rows)
    assert len(universe) < N_ITEMS and N_ITEMS - 1 in universe
    assert np.isin(rows.item, universe).all()
    assert one.tower is not None and np.isin(one.tower.neighbours.of(rows.recent), universe).all()


def test_an_unknown_item_is_no_candidate() -> None:
    one, _ = learned()
    known = np.arange(N_ITEMS) != N_ITEMS - 1
    assert N_ITEMS - 1 not in one.scorer.universe(Catalogue(N_ITEMS, known=known))


def test_a_small_catalogue_is_scored_whole_and_needs_no_measure() -> None:
    one = Learner(SETTINGS)
    assert len(one.scorer.universe(CATALOGUE)) == N_ITEMS and one.summary(N_ITEMS)["candidates"] is None


def test_what_candidates_lack_of_a_whole_scan_is_measured(monkeypatch) -> None:
    monkeypatch.setattr("stream_rec.learn.probe.SCANNED_ONE_IN", 1)
    monkeypatch.setattr(candidates, "N_NEWEST", 1)
    one, _ = learned()
    table = one.summary(N_ITEMS)["candidates"]
    assert table["n_users"] > 0 and 0 < table["recall@20"] < 1 and 2 < table["candidates"] < N_ITEMS
