"""The learner with the text tower: state, purity, versions, and what the tower adds."""

from __future__ import annotations

import numpy as np
import pytest

from stream_rec.component import digest
from stream_rec.events import MISSING
from stream_rec.learn.learner import Learner
from stream_rec.learn.scoring import Catalogue
from stream_rec.model.two_tower import TowerPlan, TwoTower
from tests.learn.shop import CATALOGUE, N_ITEMS, SETTINGS, Shop, Take, stream
from tests.model.hashed import EMBEDDER, TITLES

PLAN = TowerPlan(min_examples=24)


def learner(plan: TowerPlan = PLAN) -> Learner:
    out = Learner(SETTINGS, TwoTower(EMBEDDER, plan))
    out.tell(list(range(N_ITEMS)), N_ITEMS, TITLES.__getitem__, quota=N_ITEMS)
    return out


def digests(one: Learner) -> dict[str, str]:
    return {name: digest(part.snapshot()) for name, part in one.components().items()}


def run(one: Learner, shop: Shop, ticks: list[list[Take]]) -> None:
    for takes in ticks:
        one.step(shop.tick(takes), shop.histories, CATALOGUE)
        if one.cut_due():
            one.promote(one.cut().version)


@pytest.mark.parametrize("n_before", [3, 4, 7])
def test_a_learner_restored_between_ticks_goes_on_as_if_never_stopped(n_before: int) -> None:
    """Also with examples that wait for a micro-batch to fill."""
    ticks = [takes[:15] for takes in stream(1)]
    shop, one, two = Shop(), learner(), Learner(SETTINGS, TwoTower(EMBEDDER, PLAN))
    run(one, shop, ticks[:n_before])
    for name, part in two.components().items():
        part.restore(one.components()[name].snapshot())
    twin = Shop()
    run(learner(), twin, ticks[:n_before])
    run(one, shop, ticks[n_before:])
    run(two, twin, ticks[n_before:])
    assert digests(one) == digests(two)


def test_examples_do_wait_between_ticks_in_these_tests() -> None:
    waiting = []
    one, shop = learner(), Shop()
    for takes in stream(1):
        run(one, shop, [takes[:15]])
        waiting.append(len(one.tower.carry.task) if one.tower else 0)
    assert max(waiting) > 0 and 0 in waiting


def test_a_state_says_whether_it_has_columns_or_not_for_everything_it_holds() -> None:
    one = learner()
    run(one, Shop(), stream(1)[:2])
    for name, part in one.components().items():
        assert set(vars(part)) == {*part.columns, *part.scalars, *part.derived, *part.fixed}, name


def test_scoring_is_pure() -> None:
    one, shop = learner(), Shop()
    run(one, shop, stream(2))
    before = digests(one)
    pointer = np.array(list(shop.last.values()), np.int64)
    nowhere = np.full(len(pointer), MISSING, np.int64)
    first = one.rank(pointer, nowhere, shop.histories, now_ms=10**9, catalogue=CATALOGUE)
    again = one.rank(pointer, nowhere, shop.histories, now_ms=10**9, catalogue=CATALOGUE)
    assert digests(one) == before
    assert all((a == b).all() for a, b in zip(first, again, strict=True))


def test_what_the_learner_learns_shows_in_slates_only_after_its_promotion() -> None:
    one, shop, ticks = learner(), Shop(), stream(3)

    def scores() -> np.ndarray:
        pointer = np.array([shop.last[3]], np.int64)
        return one.tower.logits("champion", *view(one, shop, pointer)) if one.tower else np.zeros(0)

    one.step(shop.tick(ticks[0]), shop.histories, CATALOGUE)
    before = scores()
    for takes in ticks[1:6]:
        one.step(shop.tick([t for t in takes if t.user != 3]), shop.histories, CATALOGUE)
    assert (scores() == before).all()
    one.promote(one.cut().version)
    assert (scores() != before).any()


def view(one: Learner, shop: Shop, pointer: np.ndarray) -> tuple:
    nowhere = np.full(len(pointer), MISSING, np.int64)
    rows = one.scorer.profiles(shop.histories, pointer, nowhere, now_ms=nowhere, catalogue=CATALOGUE)
    return rows, np.zeros(len(pointer), np.int64), np.arange(N_ITEMS, dtype=np.int32)


def test_a_cold_item_is_ranked_from_its_title_the_moment_the_catalogue_names_it() -> None:
    one, shop = learner(), Shop()
    run(one, shop, stream(4))
    taken = next(iter(shop.last))
    title = TITLES[int(shop.histories.row(shop.last[taken]).item)]  # type: ignore[union-attr]
    titles = [*TITLES, f"{title} deluxe", "entirely otherwise"]
    one.tell([N_ITEMS, N_ITEMS + 1], N_ITEMS + 2, titles.__getitem__, quota=64)
    pointer, nowhere = np.array([shop.last[taken]], np.int64), np.array([MISSING], np.int64)
    ranked = one.rank(pointer, nowhere, shop.histories, now_ms=10**9, catalogue=Catalogue(N_ITEMS + 2), k=N_ITEMS + 2)
    place = {item: slot for slot, item in enumerate(ranked.items[0].tolist())}
    assert place[N_ITEMS] < place[N_ITEMS + 1]


def test_an_item_never_taken_has_its_bonus_for_who_has_a_history_and_no_other_item_has_one() -> None:
    one, shop, n = learner(), Shop(), N_ITEMS + 1
    run(one, shop, stream(4))
    one.tell([N_ITEMS], n, [*TITLES, "a new one"].__getitem__, quota=64)
    pointer, nowhere = np.array([next(iter(shop.last.values())), MISSING]), np.full(2, MISSING, np.int64)

    def scores(bonus: float) -> np.ndarray:
        one.scorer.new_item_bonus = np.float32(bonus)
        ranked = one.rank(pointer, nowhere, shop.histories, now_ms=10**9, catalogue=Catalogue(n), k=n)
        return np.take_along_axis(ranked.scores, np.argsort(ranked.items, axis=1), axis=1)

    never = one.counts.in_visits[:n] == 0
    assert never[N_ITEMS] and not never.all()
    np.testing.assert_allclose(scores(1.5) - scores(0.0), [1.5 * never, 0.0 * never], atol=1e-5)


def test_a_version_names_the_tower_too() -> None:
    one = learner()
    run(one, Shop(), stream(5)[:3])
    tensors = one.versions.tensors("champion")
    assert {"ranker", "tower.maps", "tower.residual"} <= set(tensors)
    other = learner()
    assert one.versions.champion_version == other.versions.champion_version or one.versions.progress.n_promotions


def test_a_learner_that_is_rejected_returns_to_the_champion() -> None:
    one, shop = learner(), Shop()
    run(one, shop, stream(6)[:4])
    assert one.tower is not None
    one.tower.learner.maps[0, 0, 0] = np.nan
    assert one.cut().verdict["verdict"] == "reject"
    assert (one.tower.learner.maps == one.tower.champion.maps).all()
