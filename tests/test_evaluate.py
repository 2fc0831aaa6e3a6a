"""`evaluate` tells the truth about slates it can use, and says what it leaves out and why."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread
from typer.testing import CliRunner, Result

from stream_rec import cli, config
from stream_rec import evaluate as evaluation
from stream_rec.evaluate_shown import IMPLIED, NO_DECISION, NOT_SHOWN, OPEN, OUTSIDE, REFUNDED, WEAK
from stream_rec.evaluate_slates import DETERMINISTIC, NO_SLATE, NOT_DRAWN, NOT_IN_SLATE, UNREADABLE
from tests.evaluate_ground import DAY_MS, MINUTE_MS, START_MS, Shop, event, log_of, slate_of, written

N_WORLDS = 6
Told = evaluation.Told


def told_of(folder: Path, slates: list[Any], events: list[Any], policy: str = "logged", **asked: Any) -> Told:
    log, happened = written(folder, slates, events)
    return evaluation.evaluate(config.Settings(), evaluation.Asked(log, policy, happened, **asked))


def cell(told: Told, unit: str, estimator: str, group: str = "all") -> dict[str, Any]:
    (row,) = (r for r in told.rows if (r["unit"], r["estimator"], r["group"]) == (unit, estimator, group))
    return row


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["evaluate", *map(str, arguments)])


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


# ---- the truth


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[float, dict[str, Any]]]]:
    """(true value a slate, rows of the slate estimators) of several shops by policy."""
    out: dict[str, list[tuple[float, dict[str, Any]]]] = {}
    for seed in range(N_WORLDS):
        shop = Shop.of(seed)
        slates, events = log_of(shop, 1_500, seed)
        folder = tmp_path_factory.mktemp("world")
        for policy, share in (("logged", shop.budget), ("greedy", 0.0), ("uniform", 1.0), ("epsilon:0.2", 0.2)):
            told = told_of(folder, slates, events, policy)
            rows = {r["estimator"]: r for r in told.rows if r["unit"] == "slate"}
            out.setdefault(policy, []).append((shop.true_value(share), rows))
    return out


@pytest.mark.parametrize("policy", ["logged", "greedy", "uniform", "epsilon:0.2"])
@pytest.mark.parametrize("estimator", ["full", "rips"])
def test_slates_tell_the_value_of_another_policy(policy: str, estimator: str, worlds) -> None:
    errors = [(rows[estimator]["value"] - truth) / truth for truth, rows in worlds[policy]]
    assert abs(np.mean(errors)) < 0.05
    assert np.abs(errors).max() < 0.25


@pytest.mark.parametrize("policy", ["greedy", "uniform", "epsilon:0.2"])
def test_the_intervals_hold_the_truth(policy: str, worlds) -> None:
    held = [rows["rips"]["low"] <= truth <= rows["rips"]["high"] for truth, rows in worlds[policy]]
    assert np.mean(held) >= 0.75


def test_the_logged_policy_has_the_value_that_was_earned(worlds) -> None:
    for _, rows in worlds["logged"]:
        assert rows["full"]["value"] == pytest.approx(rows["on_policy"]["value"])


def test_a_truncated_list_is_evaluated_by_what_was_shown(tmp_path: Path) -> None:
    """Impressions show the first two of three slots: the value is that of two slots."""
    shop = Shop.of(3)
    slates, events = log_of(shop, 2_000, 3)
    for happened in events:
        if happened["event_type"] == "impression":
            happened["items"] = happened["items"][:2]
    told, two = told_of(tmp_path, slates, events, "uniform"), Shop.of(3, n_slots=2).true_value(1.0)
    assert cell(told, "slate", "rips")["value"] == pytest.approx(two, rel=0.2)
    assert cell(told, "slot", "snips")["n"] == 4_000


def test_estimates_by_version_stand_beside_the_whole(tmp_path: Path) -> None:
    told = told_of(tmp_path, *log_of(Shop.of(0), 1_300, 0), "greedy", per_version=True)
    ns = [cell(told, "slot", "snips", group)["n"] for group in ("all", "v0", "v1")]
    assert ns[0] == ns[1] + ns[2] and min(ns) > 0


def test_estimates_for_mlflow_need_a_place_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    slates, events = written(tmp_path, *log_of(Shop.of(0), 200, 0))
    done = run(slates, "--events", events, "--log-to-mlflow")
    assert done.exit_code == 2
    assert "MLFLOW_TRACKING_URI" in done.output


# ---- what one shown slate says


def one(tmp_path: Path, *happened: dict[str, Any], **slot: Any) -> Told:
    """One slate of items 0, 1 and 2 for user 0, shown; drawn alike, and what else happened."""
    slate = slate_of("d0", 0, START_MS, [0, 1, 2], [0.5, 0.5, 0.5], [False] * 3, n_items=6)
    slate["slots"][0] |= slot
    seen = event("impression", "u0", START_MS, decision_id="d0", items=[{"item_id": f"i{i}"} for i in range(3)])
    end = event("view_item", "last", START_MS + 40 * DAY_MS, item_id="i9")
    return told_of(tmp_path, [slate], [seen, *happened, end])


def earned(told: Told) -> float:
    return float(cell(told, "slate", "on_policy")["value"])


def after(minutes: float, kind: str, **fields: Any) -> dict[str, Any]:
    return event(kind, "u0", START_MS + round(minutes * MINUTE_MS), **fields)


@pytest.mark.parametrize(
    ("happened", "worth"),
    [
        ([after(1, "click", decision_id="d0", item_id="i1")], 0.2),
        ([after(1, "click", decision_id="d0", item_id="i1"), after(2, "click", decision_id="d0", item_id="i1")], 0.2),
        ([after(60, "purchase", decision_id="d0", item_id="i1", order_id="o")], 0.8),
        ([after(1, "click", decision_id="d0", item_id="i1"), after(9, "purchase", item_id="i1", order_id="o")], 1.0),
        ([after(1, "add_to_cart", decision_id="d0", item_id="i2"), after(9, "purchase", item_id="i2")], 0.8),
        ([after(1, "add_to_cart", decision_id="d0", item_id="i2")], 0.0),
    ],
    ids=["click", "two clicks", "purchase", "purchase behind a click", "purchase behind a cart", "cart"],
)
def test_a_slot_earns_its_clicks_and_purchases(tmp_path: Path, happened: list[dict[str, Any]], worth: float) -> None:
    assert earned(one(tmp_path, *happened)) == pytest.approx(worth)


@pytest.mark.parametrize(
    ("happened", "reason"),
    [
        (after(1, "click", item_id="i1"), WEAK),
        (after(1, "purchase", item_id="i1"), WEAK),
        (after(1, "click", decision_id="d7", item_id="i1"), IMPLIED),
        (after(1, "click", decision_id="d0", item_id="i5"), NOT_SHOWN),
        (after(31, "click", decision_id="d0", item_id="i1"), OUTSIDE),
        (after(-30, "click", decision_id="d0", item_id="i1"), OUTSIDE),
        (after(8 * 1440, "purchase", decision_id="d0", item_id="i1"), OUTSIDE),
        (after(1, "impression", item_id="i1"), NO_DECISION),
        (after(1, "impression", item_id="i1", decision_id="d8"), NO_SLATE),
        (after(1, "impression", item_id="i8", decision_id="d0"), NOT_IN_SLATE),
    ],
)
def test_what_is_not_joined_by_name_and_in_time_earns_nothing_and_is_counted(
    tmp_path: Path, happened: dict[str, Any], reason: str
) -> None:
    told = one(tmp_path, happened)
    assert earned(told) == 0.0
    assert told.left_out == {reason: 1}


def test_a_purchase_that_was_taken_back_earns_nothing(tmp_path: Path) -> None:
    bought = after(5, "purchase", decision_id="d0", item_id="i1", order_id="o7")
    told = one(tmp_path, bought, after(9, "refund", item_id="i1", order_id="o7"))
    assert earned(told) == 0.0 and told.left_out == {REFUNDED: 1}


def test_an_event_that_came_twice_counts_once(tmp_path: Path) -> None:
    stray = after(1, "click", item_id="i1", event_id="e1")
    assert one(tmp_path, stray, stray).left_out == {WEAK: 1}


def test_the_events_may_stand_in_any_order(tmp_path: Path) -> None:
    slates, events = log_of(Shop.of(1), 300, 1)
    there = told_of(tmp_path, slates, events, "greedy")
    mixed = [events[i] for i in np.random.default_rng(0).permutation(len(events))]
    assert told_of(tmp_path, slates, mixed, "greedy").rows == there.rows


def test_an_impression_whose_click_window_is_open_waits(tmp_path: Path) -> None:
    slates, events = log_of(Shop.of(1), 300, 1)
    told = told_of(tmp_path, slates, events[:-1])
    assert told.left_out[OPEN] == 30
    assert told.said["shown_slates"] == 270


def test_two_users_of_the_slate_for_everybody_are_two_exposures(tmp_path: Path) -> None:
    slates, events = log_of(Shop.of(1), 60, 1)
    slates[0]["user_key"] = "*"
    events.insert(
        1, event("impression", "u7", START_MS, decision_id=slates[0]["decision_id"], items=events[0]["items"])
    )
    assert told_of(tmp_path, slates, events).said["shown_slates"] == 61


# ---- hostile logs


def spoiled(change: Callable[[dict[str, Any]], Any], *, one_in: int = 20) -> tuple[list[Any], list[Any]]:
    slates, events = log_of(Shop.of(2), 600, 2)
    for slate in slates[::one_in]:
        change(slate)
    return slates, events


@pytest.mark.parametrize(
    ("propensity", "reason"),
    [
        (0.0, "propensity is zero or tiny"),
        (1e-9, "propensity is zero or tiny"),
        (-0.5, "propensity is zero or tiny"),
        (1.5, "propensity is above one"),
        (None, "propensity is missing"),
        ("0.5", "propensity is missing"),
        (True, "propensity is missing"),
    ],
)
def test_slots_without_a_usable_propensity_are_refused_with_the_reason(
    tmp_path: Path, propensity: object, reason: str
) -> None:
    told = told_of(tmp_path, *spoiled(lambda slate: slate["slots"][0].update(propensity=propensity)), "greedy")
    slot, slate = cell(told, "slot", "snips"), cell(told, "slate", "rips")
    assert slot["refused_reasons"] == slate["refused_reasons"] == {reason: 30}
    assert slot["n"] == 1_770 and slate["n"] == 570


def test_a_slate_with_nan_or_without_its_fields_is_counted_and_left_out(tmp_path: Path) -> None:
    slates, events = log_of(Shop.of(2), 600, 2)
    slates[0]["slots"][0]["propensity"] = math.nan
    del slates[1]["slots"]
    told = told_of(tmp_path, [*slates, "no json", '{"decision_id": 7}'], events)
    assert told.left_out == {UNREADABLE: 4, NO_SLATE: 2}


def test_a_withdrawn_slate_is_no_broken_one(tmp_path: Path) -> None:
    slates, events = log_of(Shop.of(2), 60, 2)
    assert told_of(tmp_path, [*slates, {"key": "u", "tombstone": True}], events).left_out == {}


def test_small_propensities_are_clipped_and_counted(tmp_path: Path) -> None:
    told = told_of(
        tmp_path, *spoiled(lambda slate: slate["slots"][0].update(propensity=1e-4, explored=False)), "greedy"
    )
    assert cell(told, "slot", "ips")["clipped"] == 30
    assert cell(told, "slot", "ips")["largest_weight"] == pytest.approx(1e4)


def test_deterministic_slots_never_enter_and_are_counted(tmp_path: Path) -> None:
    told = told_of(
        tmp_path, *spoiled(lambda s: s["slots"][0].update(propensity=None, deterministic=True), one_in=1), "greedy"
    )
    assert told.left_out == {DETERMINISTIC: 600}
    assert cell(told, "slot", "snips")["n"] == 1_200


def test_slates_drawn_by_no_chance_are_refused_with_the_counts(tmp_path: Path) -> None:
    def fixed(slate: dict[str, Any]) -> None:
        for slot in slate["slots"]:
            slot.update(propensity=None, deterministic=True)

    log, events = written(tmp_path, *spoiled(fixed, one_in=1))
    result = run(log, "--events", events)
    assert result.exit_code == 3
    assert f"1,800 {DETERMINISTIC}, 600 {NOT_DRAWN}" in result.stderr


@pytest.mark.parametrize("policy", ["uniform", "epsilon:0.1"])
def test_slates_that_do_not_say_how_many_were_admitted_refuse_a_policy_that_asks(tmp_path: Path, policy: str) -> None:
    def without(slate: dict[str, Any]) -> None:
        del slate["candidates"]["admitted"]

    log, events = written(tmp_path, *spoiled(without, one_in=1))
    result = run(log, "--events", events, "--policy", policy)
    assert result.exit_code == 3 and "`candidates.admitted`" in result.stderr
    assert run(log, "--events", events, "--policy", "greedy").exit_code == 0


def test_more_slots_than_candidates_are_unknown_to_uniform(tmp_path: Path) -> None:
    told = told_of(tmp_path, *spoiled(lambda slate: slate["candidates"].update(admitted=2)), "uniform")
    assert cell(told, "slot", "snips")["refused_reasons"] == {"unknown to the target policy": 30}


def test_decisions_without_impressions_are_refused(tmp_path: Path) -> None:
    slates, events = log_of(Shop.of(2), 60, 2)
    log, happened = written(tmp_path, slates, [e for e in events if e["event_type"] != "impression"])
    result = run(log, "--events", happened)
    assert result.exit_code == 3 and IMPLIED in result.stderr


def test_a_log_without_explored_slots_gives_uniform_no_verdict(tmp_path: Path) -> None:
    slates, events = log_of(Shop.of(2, budget=0.0), 600, 2)
    told = told_of(tmp_path, slates, events, "uniform")
    assert not cell(told, "slot", "ips")["verdict"]
    assert "do not average one" in cell(told, "slot", "ips")["reason"]


# ---- the command


def test_the_table_says_estimates_and_what_was_left_out(tmp_path: Path) -> None:
    log, events = written(tmp_path, *spoiled(lambda s: s["slots"][0].update(propensity=None, deterministic=True)))
    lines = run(log, "--events", events, "--policy", "greedy").stdout.splitlines()
    assert lines[0].split()[:6] == ["group", "unit", "policy", "estimator", "value", "interval"]
    assert len(lines) == 10 and lines[-1] == f"left out: 30 {DETERMINISTIC}"


def test_json_gives_a_line_an_estimate_and_one_about_the_log(tmp_path: Path) -> None:
    log, events = written(tmp_path, *log_of(Shop.of(2), 300, 2))
    lines = [json.loads(line) for line in run(log, "--events", events, "--json").stdout.splitlines()]
    assert [line.get("estimator") for line in lines] == [
        "on_policy", "replay", "ips", "snips", "on_policy", "full", "iips", "rips", None,
    ]  # fmt: skip
    assert lines[-1]["shown_slates"] == 300


def test_the_figure_is_a_picture_with_something_on_it(tmp_path: Path) -> None:
    log, events = written(tmp_path, *log_of(Shop.of(2), 300, 2))
    result = run(log, "--events", events, "--policy", "greedy", "--figure", "told/greedy.png")
    assert result.stdout.splitlines()[-1] == "told/greedy.png"
    assert 0.01 < (imread("told/greedy.png")[..., :3].min(axis=2) < 0.9).mean() < 0.5


def test_the_same_log_gives_the_same_estimates(tmp_path: Path) -> None:
    log, events = written(tmp_path, *log_of(Shop.of(2), 300, 2))
    assert run(log, "--events", events, "--json").stdout == run(log, "--events", events, "--json").stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["none.jsonl"], ["slates.jsonl"], ["slates.jsonl", "--events", "none.jsonl"], ["."],
        ["slates.jsonl", "--events", "events.jsonl", "--policy", "bogus"],
        ["slates.jsonl", "--events", "events.jsonl", "--policy", "epsilon:2"],
        ["slates.jsonl", "--events", "events.jsonl", "--policy", "greedy:0.1"],
        ["slates.jsonl", "--events", "events.jsonl", "--figure", "a.pdf"],
        ["slates.jsonl", "--events", "events.jsonl", "--by", "arm", "--policy", "greedy"],
        ["slates.jsonl", "--events", "events.jsonl", "--against", "events.jsonl"],
    ],
)  # fmt: skip
def test_wrong_usage_exits_2_with_one_line(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "deeper").mkdir()
    written(tmp_path, *log_of(Shop.of(2), 30, 2))
    result = run(*("deeper" if a == "." else a for a in arguments))
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1


# ---- arms


def test_arms_are_compared_over_all_slots_with_the_difference_to_the_first(tmp_path: Path) -> None:
    slates, events = log_of(Shop.of(4, n_slots=1, budget=1.0), 900, 4)
    for k, slate in enumerate(slates):
        slate["arm"] = "ab"[k % 300 % 2]
    told = told_of(tmp_path, slates, events, by_arm=True)
    a, b, less = (cell(told, "slate", *of) for of in (("mean", "a"), ("mean", "b"), ("difference", "b - a")))
    assert (a["n"], a["users"]) == (450, 150)
    assert less["value"] == pytest.approx(b["value"] - a["value"])
    assert less["low"] < 0 < less["high"]


def test_slates_without_an_arm_refuse_to_be_compared_by_it(tmp_path: Path) -> None:
    log, events = written(tmp_path, *log_of(Shop.of(2), 30, 2))
    assert run(log, "--events", events, "--by", "arm").exit_code == 3


def test_few_users_of_an_arm_get_no_verdict(tmp_path: Path) -> None:
    slates, events = log_of(Shop.of(2), 60, 2, n_users=10)
    for slate in slates:
        slate["arm"] = "a"
    (row,) = told_of(tmp_path, slates, events, by_arm=True).rows
    assert row["reason"] == "10 users are too few for an interval"
