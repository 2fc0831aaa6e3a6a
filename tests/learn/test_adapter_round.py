"""The slow round: learn, embed beside what is served, be tried, serve with a version; the same after any restore."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from stream_rec.component import digest
from stream_rec.learn.learner import Learner
from stream_rec.model.adapter import AdapterRates
from stream_rec.model.adapter_round import AdapterRound, RoundPlan
from stream_rec.model.encoder import Encoder
from stream_rec.model.two_tower import TowerPlan, TwoTower
from tests.learn.shop import CATALOGUE, N_ITEMS, SETTINGS, Shop, stream
from tests.model import tiny

WORDS = ("red", "blue", "green", "large", "small", "glass")
THINGS = ("jug", "vase", "lamp", "chair", "bag")
TITLES = [f"{word} {thing}" for word in WORDS for thing in THINGS]
ROUNDS = RoundPlan(every_examples=60, steps=3, texts_per_tick=7, rates=AdapterRates(rate=3e-3))
TICKS = stream(1, n_ticks=14)
PHASES = ("learn", "embed", "trial")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    folder = tiny.tiny_encoder_folder(tmp_path_factory.mktemp("tiny"))
    return Encoder(folder, revision="tiny")


def learner(encoder: Encoder, n_trial: int = 10**6) -> Learner:
    rounds = AdapterRound(encoder, ROUNDS)
    tower = TwoTower(encoder, TowerPlan(min_examples=16), rounds)
    out = Learner(replace(SETTINGS, adapter_visits=n_trial), tower)
    out.tell(list(range(N_ITEMS)), N_ITEMS, TITLES.__getitem__, quota=N_ITEMS)
    return out


def run(one: Learner, shop: Shop, ticks: list) -> Iterator[str]:
    """The phase after each tick; nothing is cut."""
    for takes in ticks:
        one.tell([], N_ITEMS, TITLES.__getitem__, quota=N_ITEMS)
        one.step(shop.tick(takes), shop.histories, CATALOGUE)
        yield rounds_of(one).phase


def rounds_of(one: Learner) -> AdapterRound:
    assert one.tower is not None and one.tower.rounds is not None
    return one.tower.rounds


def on_trial(encoder: Encoder) -> Learner:
    one, shop = learner(encoder), Shop()
    assert "trial" in list(run(one, shop, TICKS))
    return one


def digests(one: Learner) -> dict[str, str]:
    return {name: digest(part.snapshot()) for name, part in one.components().items()}


def test_a_round_learns_then_embeds_then_is_tried(encoder: Encoder) -> None:
    seen = list(dict.fromkeys(run(learner(encoder), Shop(), TICKS)))
    assert [phase for phase in seen if phase in PHASES] == list(PHASES)


@pytest.mark.parametrize("phase", PHASES)
def test_a_round_restored_in_the_middle_goes_on_as_if_never_stopped(encoder: Encoder, phase: str) -> None:
    one, shop = learner(encoder), Shop()
    n = next(n for n, found in enumerate(run(one, shop, TICKS), 1) if found == phase)
    two, twin = learner(encoder), Shop()
    for name, part in two.components().items():
        part.restore(one.components()[name].snapshot())
    for takes in TICKS[:n]:
        twin.tick(takes)
    assert list(run(one, shop, TICKS[n:])) == list(run(two, twin, TICKS[n:]))
    assert digests(one) == digests(two)


def test_what_is_served_stays_as_it_is_until_the_version_is_promoted(encoder: Encoder) -> None:
    one = on_trial(encoder)
    tower = one.tower
    assert tower is not None
    served = tower.texts.table.copy()
    rounds_of(one).judge(promote=True)
    assert one.cut_due()
    cut = one.cut()
    assert (tower.texts.table == served).all()
    assert any(name.startswith("adapter.") for name in cut.tensors)
    assert one.promote(cut.version)
    assert (tower.texts.table != served).any()
    assert rounds_of(one).phase == "idle"
    assert (tower.texts.table[:N_ITEMS] == rounds_of(one).embed(TITLES).astype(np.float16)).all()


def test_a_version_called_back_takes_its_adapter_and_its_embeddings_with_it(encoder: Encoder) -> None:
    one = on_trial(encoder)
    assert one.tower is not None
    before, served = one.versions.tensors("champion"), one.tower.texts.table.copy()
    rounds_of(one).judge(promote=True)
    assert one.promote(one.cut().version)
    one.tell([3], N_ITEMS, lambda row: TITLES[(row + 1) % N_ITEMS], quota=N_ITEMS)
    assert one.versions.roll_back()
    after = one.versions.tensors("champion")
    assert before.keys() == after.keys() and all((before[name] == after[name]).all() for name in before)
    others = np.arange(N_ITEMS) != 3
    assert (one.tower.texts.table[:N_ITEMS][others] == served[:N_ITEMS][others]).all()
    assert one.tower.texts.waiting.tolist() == [3]
    assert rounds_of(one).phase == "idle"


def test_an_adapter_whose_challenger_is_held_waits_for_the_next_cut(encoder: Encoder) -> None:
    one = on_trial(encoder)
    rounds_of(one).judge(promote=True)
    one.versions.rules = replace(one.versions.rules, min_users=2_000)
    assert one.cut().verdict["verdict"] == "hold"
    assert rounds_of(one).phase == "ready"
    assert not one.cut_due()
    one.versions.count(SETTINGS.cut_examples)
    assert one.cut_due()


def test_a_rejected_adapter_leaves_nothing_behind(encoder: Encoder) -> None:
    one = on_trial(encoder)
    assert one.tower is not None
    served = one.tower.texts.table.copy()
    rounds_of(one).judge(promote=False)
    assert rounds_of(one).phase == "idle"
    cut = one.cut()
    assert one.promote(cut.version)
    assert (one.tower.texts.table == served).all()
    assert not any(name.startswith("adapter.") for name in cut.tensors)


def test_a_challenger_that_was_cut_before_the_verdict_does_not_carry_the_adapter(encoder: Encoder) -> None:
    one = on_trial(encoder)
    assert one.tower is not None
    served, cut = one.tower.texts.table.copy(), one.cut()
    rounds_of(one).judge(promote=True)
    assert one.promote(cut.version)
    assert (one.tower.texts.table == served).all() and one.cut_due()


@pytest.mark.parametrize(("hit", "phase"), [(1.0, "ready"), (0.0, "idle")])
def test_an_adapter_is_judged_once_at_its_fixed_count(encoder: Encoder, hit: float, phase: str) -> None:
    one, shop = learner(encoder, n_trial=200), Shop()
    assert "trial" in list(run(one, shop, TICKS))
    users = np.arange(99, dtype=np.int64) * 7919
    one.trial.add(users, np.full(99, hit), np.full(99, 1.0 - hit))
    assert one.trial.judge(rounds_of(one)) is None
    one.trial.add(users + 1, np.full(99, hit), np.full(99, 1.0 - hit))
    record = one.trial.judge(rounds_of(one))
    assert record is not None and record["verdict"] == ("promote" if hit else "reject")
    assert rounds_of(one).phase == phase
    assert one.trial.judge(rounds_of(one)) is None


def test_a_round_that_no_longer_gains_stops_and_keeps_its_best_adapter(encoder: Encoder) -> None:
    rounds = AdapterRound(encoder, ROUNDS._replace(steps=100, patience=3))
    rounds.count(ROUNDS.every_examples)
    start = rounds.trainer.value.copy()
    rounds.trainer.value = start + 1
    rounds._gained(0.5)
    best = rounds.trainer.value.copy()
    for _ in range(3):
        rounds.trainer.value = rounds.trainer.value + 1
        rounds._gained(-1.0)
    tower = TwoTower(encoder, TowerPlan(), rounds)
    tower.tell([0, 1], 2, TITLES.__getitem__, quota=2)
    table = tower.texts.table.astype(np.float32)
    rounds.learn(tower.learner, table, [], popularity=np.zeros(len(table)), text_of=TITLES.__getitem__)
    assert rounds.phase == "embed" and (rounds.trainer.value == best).all()


def test_the_vectors_of_an_adapter_stay_near_the_served_ones(encoder: Encoder) -> None:
    one = on_trial(encoder)
    assert one.tower is not None
    new, old = rounds_of(one).candidate.table[:N_ITEMS], one.tower.texts.table[:N_ITEMS]
    cosine = (new.astype(np.float32) * old.astype(np.float32)).sum(axis=1)
    assert cosine.min() > 0.9 and (new != old).any()
