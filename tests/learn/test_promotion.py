"""The rules of the gate: who may serve, who may not, and who is not measurable."""

from __future__ import annotations

import json

import numpy as np
import pytest

from stream_rec.component import digest
from stream_rec.learn.comparison import SLICES, Comparison
from stream_rec.learn.promotion import Rules, adapter_due, judge_adapter, judge_light
from stream_rec.learn.soundness import calibration_error, faults, spread
from tests.learn.visits_drawn import Drawn, draw

N_SEEDS = 400
N_CLUSTERS = 256
CHAMPION_ONLY = Rules(champions=("champion",))
FOUR = Rules(champions=("champion", "yesterday"), baselines=("popular_7d", "own_then_popular_7d"))


def compare(visits: Drawn, part: slice = slice(None), into: Comparison | None = None, rival: str = "champion"):
    """The visits as a comparison; every second one is of a new user."""
    into = into or Comparison((rival,), n_clusters=N_CLUSTERS)
    there = np.zeros((len(visits.user_key[part]), len(SLICES)), np.bool_)
    there[:, 0] = True
    there[:, 1] = visits.user_key[part] % 2 == 0
    wide = (np.repeat(column[part, None], len(SLICES), 1) for column in (visits.challenger, visits.champion))
    into.add(rival, visits.user_key[part], *wide, there=there)
    return into


def light(visits: Drawn, *, every: int = 200, n_looks: int = 10) -> list[str]:
    """Verdicts of `n_looks` cuts, `every` visits apart."""
    comparison, out = Comparison(("champion",), n_clusters=N_CLUSTERS), []
    for look in range(n_looks):
        compare(visits, slice(look * every, (look + 1) * every), comparison)
        out.append(judge_light(comparison, [], CHAMPION_ONLY)["verdict"])
    return out


def adapter(seed: int, effect: float) -> str:
    visits = draw(seed, CHAMPION_ONLY.adapter_visits, effect)
    return judge_adapter(compare(visits), [], CHAMPION_ONLY, seed=seed)["verdict"]


# ---- light


def test_an_equal_light_challenger_looked_at_often_is_refused_in_at_most_five_of_a_hundred_runs() -> None:
    refused = sum("reject" in light(draw(seed, 2_000)) for seed in range(N_SEEDS))
    assert refused <= 0.05 * N_SEEDS


def test_a_better_light_challenger_is_promoted_at_every_cut_in_nearly_all_runs() -> None:
    promoted = sum(set(light(draw(seed, 2_000, 0.03))) == {"promote"} for seed in range(N_SEEDS // 4))
    assert promoted >= 0.95 * N_SEEDS // 4


def test_a_much_worse_light_challenger_is_refused_for_good_after_two_thousand_visits() -> None:
    assert {light(draw(seed, 2_000, -0.09))[-1] for seed in range(N_SEEDS // 4)} == {"reject"}


def test_losses_too_small_for_one_cut_are_seen_against_yesterday() -> None:
    comparison = Comparison(("champion", "yesterday"), n_clusters=N_CLUSTERS)
    compare(draw(1, 300, -0.01), into=comparison)
    compare(draw(2, 6_000, -0.06), into=comparison, rival="yesterday")
    record = judge_light(comparison, [], Rules())
    assert record["verdict"] == "reject"
    assert [reason.split(":")[0] for reason in record["reasons"]] == ["worse than yesterday by more than 2%"]


def test_a_worse_challenger_within_the_margin_is_promoted() -> None:
    assert light(draw(3, 6_000, -0.004), every=300)[-1] == "promote"


def test_nothing_shown_below_a_baseline_serves() -> None:
    comparison = Comparison((*FOUR.champions, *FOUR.baselines), n_clusters=N_CLUSTERS)
    for rival, effect in (("champion", 0.05), ("yesterday", 0.05), ("popular_7d", 0.05), (FOUR.baselines[1], -0.06)):
        compare(draw(4, 4_000, effect), into=comparison, rival=rival)
    record = judge_light(comparison, [], FOUR)
    assert record["verdict"] == "reject"
    assert record["reasons"][0].startswith("below the baseline own_then_popular_7d: -0.0")
    assert record["rivals"]["popular_7d"]["judged"] == "not worse"


def test_a_slice_shown_much_worse_refuses_and_a_small_one_is_not_judged() -> None:
    visits = draw(5, 4_000)
    worse = np.where(visits.user_key % 2 == 0, 0.5 * visits.champion, 1.5 * visits.champion)
    record = judge_light(compare(visits._replace(challenger=worse)), [], CHAMPION_ONLY)
    assert record["reasons"][0].startswith("worse than champion on new_users by more than 5%")
    assert {name: row["judged"] for name, row in record["slices"].items()} == {
        "new_users": "worse",
        "new_items": "not judged",
        "head": "not judged",
        "tail": "not judged",
    }


def test_too_few_users_are_not_measurable() -> None:
    record = judge_light(compare(draw(6, 25)), [], CHAMPION_ONLY)
    assert (record["verdict"], record["interval"]) == ("hold", None)
    assert record["reasons"][0].startswith("not measurable: 25 organic visits of ")


# ---- adapter


def test_an_equal_adapter_is_promoted_in_at_most_five_of_a_hundred_runs() -> None:
    assert sum(adapter(seed, 0.0) == "promote" for seed in range(N_SEEDS)) <= 0.05 * N_SEEDS


def test_a_better_adapter_is_promoted_in_four_of_five_runs_at_least() -> None:
    assert sum(adapter(seed, 0.03) == "promote" for seed in range(N_SEEDS // 4)) >= 0.8 * N_SEEDS // 4


def test_a_worse_adapter_is_never_promoted() -> None:
    assert sum(adapter(seed, -0.03) == "promote" for seed in range(N_SEEDS)) == 0


def test_an_adapter_is_held_until_its_count_of_visits_and_then_judged() -> None:
    visits = draw(7, 2_000, 0.05)
    comparison = compare(visits, slice(0, 1_999))
    assert not adapter_due(comparison, CHAMPION_ONLY)
    assert judge_adapter(comparison, [], CHAMPION_ONLY, seed=0)["verdict"] == "hold"
    compare(visits, slice(1_999, 2_000), comparison)
    assert adapter_due(comparison, CHAMPION_ONLY)
    assert judge_adapter(comparison, [], CHAMPION_ONLY, seed=0)["verdict"] == "promote"


def test_an_adapter_better_than_the_champion_but_below_a_baseline_is_refused() -> None:
    comparison = Comparison((*FOUR.champions, *FOUR.baselines), n_clusters=N_CLUSTERS)
    compare(draw(8, 3_000, 0.05), into=comparison)
    compare(draw(8, 3_000, -0.05), into=comparison, rival="popular_7d")
    record = judge_adapter(comparison, [], FOUR, seed=0)
    assert record["verdict"] == "reject"
    assert [reason.split(":")[0] for reason in record["reasons"]] == ["below the baseline popular_7d"]


# ---- both


@pytest.mark.parametrize("judge", [judge_light, lambda *a: judge_adapter(*a, seed=0)], ids=["light", "adapter"])
def test_a_broken_challenger_is_refused_whatever_it_recalls(judge) -> None:
    record = judge(compare(draw(9, 3_000, 0.1)), faults({"w": np.array([np.inf])}), CHAMPION_ONLY)
    assert (record["verdict"], record["hard_check"]) == ("reject", False)
    assert record["reasons"] == ["hard check failed: w: 1 of 1 weights are not finite"]


def test_a_record_is_json_and_names_every_rival_and_slice() -> None:
    record = judge_light(compare(draw(10, 500), into=Comparison((*FOUR.champions, *FOUR.baselines))), [], FOUR)
    again = json.loads(json.dumps(record))
    assert again == record
    assert list(again["rivals"]) == [*FOUR.champions, *FOUR.baselines]
    assert list(again["slices"]) == list(SLICES[1:])


# ---- the comparison


def test_a_restored_comparison_goes_on_as_if_never_stopped() -> None:
    visits = draw(11, 400)
    one, two = compare(visits, slice(0, 200)), Comparison(("champion",), n_clusters=N_CLUSTERS)
    two.restore(one.snapshot())
    for comparison in (one, two):
        compare(visits, slice(200, 400), comparison)
    assert digest(one.snapshot()) == digest(two.snapshot())
    assert set(vars(one)) == {*one.columns, *one.scalars, *one.derived, *one.fixed}


def test_a_forgotten_user_leaves_nothing_in_the_comparison() -> None:
    visits = draw(12, 400)
    comparison = compare(visits)
    comparison.forget_users(visits.user_key)
    assert digest(comparison.snapshot()) == digest(Comparison(("champion",), n_clusters=N_CLUSTERS).snapshot())


def test_one_rival_begins_anew_without_the_others() -> None:
    comparison = Comparison(("champion", "yesterday"), n_clusters=N_CLUSTERS)
    for rival in comparison.rivals:
        compare(draw(13, 100), into=comparison, rival=rival)
    comparison.restart("champion")
    assert (comparison.sample("champion").n, comparison.sample("yesterday").n) == (0, 100)
    comparison.restart()
    assert comparison.sample("yesterday").n == 0


# ---- hard checks


def test_collapsed_embeddings_are_found_against_the_frozen_encoder() -> None:
    base = np.random.default_rng(0).normal(size=(200, 16))
    collapsed = base.mean(axis=0) + 1.0 + 0.05 * base
    assert spread(collapsed) < 0.1 * spread(base)
    assert faults({}, embeddings=base + 0.1, base=base) == []
    assert faults({}, embeddings=collapsed, base=base)[0].startswith("collapse: the spread of the embeddings")


def test_scores_alike_for_most_users_are_a_collapse() -> None:
    scores = np.random.default_rng(0).normal(size=(10, 50))
    assert faults({}, scores=scores) == []
    scores[:6] = 0.5
    assert faults({}, scores=scores) == ["collapse: all items score alike for 60% of users"]


def test_figures_that_are_not_finite_are_faults() -> None:
    assert faults({}, embeddings=np.full((2, 2), np.nan)) == ["embeddings are not finite"]
    assert faults({}, scores=np.full((2, 2), np.inf)) == ["scores are not finite"]
    assert faults({}, ece=float("nan")) == ["calibration: the expected error is nan, above 0.1"]


def test_badly_calibrated_probabilities_are_refused_and_honest_ones_not() -> None:
    rng = np.random.default_rng(0)
    probability = rng.uniform(0.0, 0.5, 20_000)
    label = (rng.random(20_000) < probability).astype(np.float64)
    honest = calibration_error(probability, label)
    assert honest < 0.02
    assert faults({}, ece=honest) == []
    assert faults({}, ece=calibration_error(np.sqrt(probability), label)) != []
