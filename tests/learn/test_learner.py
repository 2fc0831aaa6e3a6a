"""The facade: test before learning, restore = never stopped, pure scoring, bounded state."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from stream_rec.component import digest
from stream_rec.events import MISSING
from stream_rec.learn.batch import TickBatch, no_positives, no_retractions, no_visits
from stream_rec.learn.learner import Learner
from stream_rec.learn.scoring import BOUGHT_BEFORE, Catalogue
from tests.learn.shop import CATALOGUE, MINUTE_MS, N_ITEMS, SETTINGS, Shop, Take, stream


def digests(learner: Learner) -> dict[str, str]:
    return {name: digest(part.snapshot()) for name, part in learner.components().items()}


def run(learner: Learner, shop: Shop, ticks: list[list[Take]]) -> None:
    for takes in ticks:
        learner.step(shop.tick(takes), shop.histories, CATALOGUE)
        if learner.cut_due():
            learner.promote(learner.cut().version)


def test_a_learner_restored_between_ticks_goes_on_as_if_never_stopped() -> None:
    ticks, shop, one, two = stream(1), Shop(), Learner(SETTINGS), Learner(SETTINGS)
    run(one, shop, ticks[:7])
    for name, part in two.components().items():
        part.restore(one.components()[name].snapshot())
    twin = Shop()
    run(Learner(SETTINGS), twin, ticks[:7])
    run(one, shop, ticks[7:])
    run(two, twin, ticks[7:])
    assert digests(one) == digests(two)
    assert one.summary(N_ITEMS) == two.summary(N_ITEMS)


def test_a_state_says_whether_it_has_columns_or_not_for_everything_it_holds() -> None:
    for name, part in Learner(SETTINGS).components().items():
        declared = {*part.columns, *part.scalars, *part.derived, *part.fixed}
        assert set(vars(part)) == declared, name


def test_the_metrics_of_a_tick_do_not_see_its_own_positives() -> None:
    """Two shops with equal pasts and different presents make the same lists for the present's visits."""
    lists = []
    for item in (3, 9):
        shop, learner = Shop(), Learner(SETTINGS)
        run(learner, shop, stream(2))
        at = 10**9
        batch = shop.tick([Take(1, item, at, 9_001), Take(2, item, at, 9_002), Take(1, item + 1, at, 9_001)])
        learner.test(batch, shop.histories, CATALOGUE)
        pending = learner.pending
        lists.append(pending.lists[[pending.place_of[9_001], pending.place_of[9_002]]])
        learner.absorb(batch, shop.histories, CATALOGUE)
        learner.train()
    np.testing.assert_array_equal(lists[0], lists[1])


def test_testing_changes_no_statistic_and_no_weight() -> None:
    shop, learner = Shop(), Learner(SETTINGS)
    run(learner, shop, stream(3))
    before = digests(learner)
    learner.test(shop.tick([Take(1, 2, 10**9, 9_001)]), shop.histories, CATALOGUE)
    changed = {name for name, value in digests(learner).items() if value != before[name]}
    assert changed <= {"pending_visits", "prequential", "reach"}


def test_ranking_is_pure() -> None:
    shop, learner = Shop(), Learner(SETTINGS)
    run(learner, shop, stream(3))
    before = digests(learner)
    pointer = np.array([shop.last[1], MISSING])
    slates = [
        learner.rank(pointer, np.full(2, MISSING), shop.histories, now_ms=10**9, catalogue=CATALOGUE) for _ in "ab"
    ]
    assert digests(learner) == before
    np.testing.assert_array_equal(slates[0].items, slates[1].items)


def test_a_returning_user_is_shown_what_was_bought_before_and_a_stranger_what_is_popular() -> None:
    shop, learner = Shop(), Learner(SETTINGS)
    run(learner, shop, stream(4))
    pointer, closed = np.array([shop.last[5]]), np.array([MISSING])
    slate = learner.rank(pointer, closed, shop.histories, now_ms=10**9, catalogue=CATALOGUE, k=4)
    assert {5, 6, 7} <= set(slate.items[0].tolist())
    assert all(r & BOUGHT_BEFORE for i, r in zip(slate.items[0], slate.reasons[0], strict=True) if i in (5, 6, 7))
    star = learner.star(shop.histories, now_ms=10**9, catalogue=CATALOGUE, k=3)
    assert 25 in star.items[0].tolist()
    assert not (star.reasons & BOUGHT_BEFORE).any()


def test_an_item_out_of_stock_is_on_no_slate() -> None:
    shop, learner = Shop(), Learner(SETTINGS)
    run(learner, shop, stream(4))
    servable = np.ones(N_ITEMS, np.bool_)
    servable[[5, 25]] = False
    slate = learner.rank(
        np.array([shop.last[5]]),
        np.array([MISSING]),
        shop.histories,
        now_ms=10**9,
        catalogue=Catalogue(N_ITEMS, servable),
        k=N_ITEMS,
    )
    assert not {5, 25} & set(slate.items[0].tolist())
    assert (slate.items[0] == MISSING).sum() == 2


def test_learning_beats_popularity_where_people_come_back_for_the_same() -> None:
    shop, learner = Shop(), Learner(SETTINGS)
    run(learner, shop, stream(5, n_ticks=30))
    known = {m: v["known"]["recall@20"] for m, v in learner.summary(N_ITEMS)["metrics"]["whole"]["next_visit"].items()}
    assert known["ranker"] >= known["popular_7d"]


def test_an_empty_tick_is_no_trouble() -> None:
    batch = TickBatch(1, 0, 0, no_positives(), no_visits(), no_retractions())
    assert len(Learner(SETTINGS).step(batch, Shop().histories, CATALOGUE)) == 0


def test_an_empty_catalogue_is_no_trouble() -> None:
    learner, shop = Learner(SETTINGS), Shop()
    visits = shop.tick([Take(0, 0, 1, 1)]).visits
    batch = TickBatch(1, 0, 0, no_positives(), visits, no_retractions())
    learner.step(batch, Shop().histories, Catalogue(0))
    assert (learner.star(shop.histories, now_ms=0, catalogue=Catalogue(0)).items == MISSING).all()


def test_an_event_without_a_user_counts_for_popularity_only() -> None:
    shop, learner = Shop(), Learner(SETTINGS)
    batch = shop.tick([Take(1, 4, 10, MISSING)])
    p = replace(batch.positives, stand_in=np.array([3], np.int8), user=np.array([MISSING], np.int32))
    learner.step(replace(batch, positives=p, visits=no_visits()), shop.histories, CATALOGUE)
    assert learner.recent.counts[4] == 1
    assert learner.versions.progress.n_steps == 0


def test_a_second_take_of_an_item_in_a_visit_counts_once() -> None:
    shop, learner = Shop(), Learner(SETTINGS)
    learner.step(shop.tick([Take(1, 4, 10, 1), Take(1, 4, 11, 1)]), shop.histories, CATALOGUE)
    learner.step(shop.tick([Take(1, 4, 12, 1)]), shop.histories, CATALOGUE)
    assert learner.counts.in_visits[4] == 1


def test_cutting_the_stream_into_other_ticks_gives_the_same_pair_counts() -> None:
    takes = [Take(1, i % 5, i, 1) for i in range(8)] + [Take(1, 7, 10**8, 2)]
    dense = []
    for size in (1, 3, 9):
        shop, learner = Shop(), Learner(SETTINGS)
        run(learner, shop, [takes[i : i + size] for i in range(0, 9, size)])
        dense.append(learner.together.dense)
    np.testing.assert_array_equal(dense[0], dense[1])
    np.testing.assert_array_equal(dense[0], dense[2])


@pytest.mark.parametrize("user_before", [False, True])
def test_a_retraction_leaves_the_statistics_as_if_never_bought(user_before: bool) -> None:
    past = [[Take(1, 8, 5, 1), Take(1, 9, 6, 1)]] if user_before else []
    shop, learner = Shop(), Learner(SETTINGS)
    run(learner, shop, [*past, [Take(1, 3, 10**8, 2), Take(1, 4, 10**8, 2)]])
    back = shop.take_back(1, 4)
    learner.step(shop.tick([], back), shop.histories, CATALOGUE)
    assert learner.counts.in_visits[4] == learner.recent.counts[4] == 0
    assert learner.decayed.mass[4].tolist() == [0.0] * 3
    assert not learner.together.dense[4].any()
    assert not learner.after.dense[:, 4].any()


def test_retractions_of_a_whole_order_in_one_tick_leave_no_pair() -> None:
    shop, learner = Shop(), Learner(SETTINGS)
    run(learner, shop, [[Take(1, 3, 1, 1), Take(1, 4, 1, 1)]])
    a, b = shop.take_back(1, 3), shop.take_back(1, 4)
    both = type(a)(**{n: np.concatenate([getattr(a, n), getattr(b, n)]) for n in a.__dataclass_fields__})
    learner.step(shop.tick([], both), shop.histories, CATALOGUE)
    assert not learner.together.dense.any()


def test_a_reused_item_row_starts_without_a_past() -> None:
    shop, learner = Shop(), Learner(SETTINGS)
    run(learner, shop, stream(6))
    learner.forget_items(np.array([25], np.int32))
    assert learner.counts.in_visits[25] == learner.recent.counts[25] == 0
    assert not learner.together.dense[25].any()
    assert not (learner.pending.lists[: learner.pending.used()] == 25).any()


def test_a_challenger_waits_for_its_weights_and_then_serves() -> None:
    shop, learner = Shop(), Learner(SETTINGS)
    first = learner.versions.champion_version
    for takes in stream(7, n_ticks=4):
        learner.step(shop.tick(takes), shop.histories, CATALOGUE)
    assert learner.cut_due()
    cut = learner.cut()
    assert not learner.cut_due()
    assert learner.versions.champion_version == first != cut.version
    assert not learner.promote("v9-000000000000")
    assert learner.promote(cut.version)
    np.testing.assert_array_equal(learner.versions.champion.value, cut.tensors["ranker"])


def test_weights_that_are_not_finite_are_rejected_and_the_learner_returns_to_the_champion() -> None:
    learner = Learner(SETTINGS)
    learner.versions.learner.value[0, 0, 0] = np.nan
    cut = learner.cut()
    assert cut.verdict["verdict"] == "reject"
    assert not learner.promote(cut.version)
    np.testing.assert_array_equal(learner.versions.learner.value, learner.versions.champion.value)


def test_what_is_said_outside_is_json() -> None:
    shop, learner = Shop(), Learner(SETTINGS)
    run(learner, shop, stream(8))
    json.dumps([learner.metrics_interval(), learner.summary(N_ITEMS), learner.cut().verdict])


def test_above_the_full_scan_the_own_items_and_popular_ones_are_still_found() -> None:
    shop, learner = Shop(), Learner(SETTINGS)
    run(learner, shop, stream(4))
    pointer = np.array([shop.last[5]]), np.array([MISSING]), shop.histories
    whole = learner.rank(*pointer, now_ms=10**9, catalogue=CATALOGUE, k=5)
    learner.scorer.full_items = 10
    capped = learner.rank(*pointer, now_ms=10**9, catalogue=CATALOGUE, k=5)
    np.testing.assert_array_equal(whole.items, capped.items)


@pytest.mark.parametrize("full_items", [10, 20_000])
def test_items_that_stand_beside_the_best_are_scored_however_large_the_catalogue_is(full_items: int) -> None:
    shop, learner = Shop(), Learner(SETTINGS)
    run(learner, shop, stream(4))
    learner.scorer.full_items = full_items
    beside = np.array([0, N_ITEMS - 1], np.int32)
    pointer = np.array([shop.last[5]]), np.array([MISSING]), shop.histories
    ranked = learner.rank(*pointer, now_ms=10**9, catalogue=replace(CATALOGUE, beside=beside), k=5)
    assert ranked.items.shape == (1, 7)
    assert np.isin(beside, ranked.items).all()
    held = ranked.items[0][ranked.items[0] != MISSING].tolist()
    assert len(set(held)) == len(held)


def test_a_lagging_tick_trains_a_quarter() -> None:
    settings = replace(SETTINGS, micro_batch=1, max_visit_examples=8, max_next_examples=8)
    steps = []
    for lagging in (False, True):
        shop, learner = Shop(), Learner(settings)
        takes = [Take(u, i, u * MINUTE_MS, u) for u in range(10) for i in (1, 2)]
        learner.step(replace(shop.tick(takes), lagging=lagging), shop.histories, CATALOGUE)
        steps.append(learner.versions.progress.n_steps)
    assert steps == [16, 4]
