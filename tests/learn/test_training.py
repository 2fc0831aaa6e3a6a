"""Which positives become examples, and with what weight."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from stream_rec.learn.examples import first_takes, followed, lowest_hash, weight_of
from stream_rec.learn.training import Quota, wanted_next, wanted_visits
from tests.learn.shop import Shop, Take

LIMITS = {"seed": 0, "exponent": 1.0}


def test_a_visit_is_one_example_with_all_its_items_as_targets() -> None:
    shop = Shop()
    batch = shop.tick([Take(1, 3, 0, 1), Take(2, 5, 0, 2), Take(1, 4, 0, 1), Take(1, 3, 0, 1)])
    takes = first_takes(batch.positives, shop.histories, None)
    wanted = wanted_visits(batch.positives, takes, quota=Quota(10), **LIMITS)  # type: ignore[arg-type]
    assert wanted.visit.tolist() == [1, 2]
    assert list(zip(wanted.example.tolist(), wanted.item.tolist(), strict=True)) == [(0, 3), (1, 5), (0, 4)]


def test_orders_without_a_user_teach_no_ranker() -> None:
    shop = Shop()
    batch = shop.tick([Take(1, 3, 0, 1, stand_in=2), Take(1, 4, 0, 1, stand_in=2)])
    takes = first_takes(batch.positives, shop.histories, None)
    assert len(wanted_visits(batch.positives, takes, quota=Quota(10), **LIMITS)) == 0  # type: ignore[arg-type]
    assert len(wanted_next(batch.positives, takes, quota=Quota(10), **LIMITS)) == 0  # type: ignore[arg-type]
    assert takes.pair_a.tolist() == [4]


def test_the_next_item_needs_something_in_the_visit_before_it() -> None:
    shop = Shop()
    batch = shop.tick([Take(1, 3, 0, 1), Take(1, 4, 0, 1), Take(1, 4, 0, 1)])
    takes = first_takes(batch.positives, shop.histories, None)
    assert wanted_next(batch.positives, takes, quota=Quota(10), **LIMITS).item.tolist() == [4]  # type: ignore[arg-type]


def test_what_a_slate_caused_weighs_one_over_its_examination_clipped_at_ten() -> None:
    batch = Shop().tick([Take(1, 1, 0, 1), Take(1, 2, 0, 1, 1, 0), Take(1, 3, 0, 1, 1, 3), Take(1, 4, 0, 1, 2, 15)])
    assert weight_of(batch.positives).tolist() == [1, 1, 4, 10]
    organic = replace(batch.positives, source=np.zeros(4, np.int8))
    assert weight_of(organic).tolist() == [1, 1, 1, 1]


def test_thinning_keeps_the_same_whatever_else_is_thinned_away() -> None:
    digests = np.arange(100)
    kept = set(digests[lowest_hash(digests, 10, 1)].tolist())
    assert len(kept) == 10
    some = np.array(sorted(kept | set(range(0, 100, 7))))
    assert set(some[lowest_hash(some, 10, 1)].tolist()) == kept


def test_a_visit_gives_each_earlier_item_a_weight_of_one_in_all() -> None:
    shop = Shop()
    shop.tick([Take(1, 8, 0, 1), Take(1, 9, 0, 1)])
    batch = shop.tick([Take(1, 3, 9, 2), Take(1, 4, 9, 2), Take(2, 5, 9, 3)])
    takes = first_takes(batch.positives, shop.histories, None)
    found = followed(batch.positives, takes, shop.histories, None)
    pairs = sorted(zip(found.before.tolist(), found.after.tolist(), found.weight.tolist(), strict=True))
    assert pairs == [(8, 3, 0.5), (8, 4, 0.5), (9, 3, 0.5), (9, 4, 0.5)]
    assert sorted(found.exposed.tolist()) == [8, 9]
