"""Exploration in the loop: what it learns from impressions, when it may draw, and what its records say."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from stream_rec import config
from stream_rec.events import Kind
from stream_rec.explore.slate import DrawRules, slate_seeds
from stream_rec.explore.switch import DAY_MS, Switch
from stream_rec.learn.exploration import OFF, ON, SAFE, SHADOW, Exploration, ExplorePlan, with_trials
from stream_rec.learn.scoring import Catalogue, Ranked
from stream_rec.replay import run_replay
from stream_rec.stream.decisions import UNSAID
from tests.learn.test_impressions import ANN, CUP, HOUR_MS, JUG, MINUTE_MS, PAN, Desk, scored

PLAN = ExplorePlan(
    DrawRules(policy="igw", n_slots=3, budget=0.2, first_explorable=0), n_candidates=6, item_capacity=50, starts_on=True
)


class Explored(Desk):
    """A joiner with exploration behind it."""

    def __init__(self, **changed):
        super().__init__()
        self.exploration = Exploration(replace(PLAN, **changed), self.heads)

    def settle(self, watermark_ms, *, braking=False):
        self.exploration.learn(self.joiner.mature(watermark_ms), braking=braking)


def candidates(n_users=4, n=6, seed=5):
    """Candidates 0 to n - 1 of each user."""
    rng = np.random.default_rng(seed)
    items = np.tile(np.arange(n, dtype=np.int32), (n_users, 1))
    said = rng.normal([-4, 0, 2, 1], 1.0, (n_users, n, 4)).astype(np.float16)
    return Ranked(items, np.zeros(items.shape, np.float32), np.zeros(items.shape, np.int8), said)


def seeds(n_users=4):
    return slate_seeds(1, 2, [f"u{n}" for n in range(n_users)], "touched")


# ---- what is learned


def test_before_there_is_evidence_the_belief_is_that_of_the_heads():
    desk, ranked = Explored(), candidates(1)
    offer = desk.exploration._offer(ranked, seeds(1), None)
    assert np.allclose(offer.utility[0], desk.heads.expected(ranked.scored[0], np.zeros(6, int)))


def test_items_that_are_clicked_are_believed_in_more_than_the_same_that_are_not():
    desk = Explored()
    said = np.tile(scored()[:, :1], (1, 3, 1))
    for n in range(60):
        desk.show([n], 1000 + n, said=said)
        desk.act(Kind.CLICK, JUG, 2000, f"d{n}", user=n)
    desk.settle(HOUR_MS)
    offer = desk.exploration._offer(
        Ranked(np.array([[CUP, JUG, PAN]]), said[:, :, 0], said[:, :, 0], said), seeds(1), None
    )
    assert offer.utility[0].argmax() == JUG
    assert desk.exploration.head.n_observed == 180


def test_a_reward_that_comes_late_leads_to_what_it_would_have_led_to_in_time():
    def learned(*, late):
        desk = Explored()
        desk.show([ANN], 1000)
        desk.show([1], 1000)
        if late:
            desk.settle(HOUR_MS)
        desk.act(Kind.PURCHASE, JUG, 29 * MINUTE_MS, "d0")
        desk.settle(HOUR_MS + 1)
        return desk.exploration.head

    assert np.allclose(learned(late=True).moment, learned(late=False).moment)
    assert np.allclose(learned(late=True).gram, learned(late=False).gram)


def test_an_action_that_names_no_decision_is_no_evidence_of_its_slot():
    desk = Explored()
    desk.show([ANN], 1000)
    desk.act(Kind.CLICK, JUG, 2000)
    desk.settle(HOUR_MS)
    assert desk.exploration.head.n_observed == 2


def test_nothing_is_learned_while_the_brake_is_on_but_what_was_shown_is_counted():
    desk = Explored()
    desk.show([ANN], 1000)
    desk.settle(HOUR_MS, braking=True)
    assert desk.exploration.head.n_observed == 0
    assert desk.exploration.trials.n_shown[:4].tolist() == [1, 1, 1, 0]


def test_an_item_row_that_another_item_takes_over_is_on_trial_again():
    desk = Explored()
    desk.show([ANN], 1000)
    desk.settle(HOUR_MS)
    desk.exploration.forget_items(np.array([JUG]))
    assert desk.exploration.trials.n_shown[[CUP, JUG]].tolist() == [1, 0]
    assert not desk.exploration.head.item_weight[JUG]


@pytest.mark.parametrize(("model", "n_learned"), [("position", 6), ("cascade", 5)])
def test_under_the_cascade_what_stands_below_the_last_click_was_not_seen(model, n_learned):
    desk = Explored(click_model=model)
    desk.show([ANN, 1], 1000)
    desk.act(Kind.CLICK, JUG, 2000, "d0")
    desk.settle(HOUR_MS)
    assert desk.exploration.head.n_observed == n_learned


def test_a_purchase_that_comes_late_below_the_last_click_was_not_seen_by_the_cascade_either():
    desk = Explored(click_model="cascade")
    desk.show([ANN], 1000)
    desk.act(Kind.CLICK, CUP, 2000, "d0")
    desk.settle(HOUR_MS)
    before = desk.exploration.head.moment.copy()
    desk.act(Kind.PURCHASE, PAN, HOUR_MS + 1, "d0")
    desk.settle(HOUR_MS + 2)
    assert np.array_equal(desk.exploration.head.moment, before)


def test_what_is_expected_of_a_position_is_corrected_by_how_often_it_is_looked_at():
    desk = Explored()
    sums = desk.exploration.examination.sums
    sums[1][:, [0, 2, 3]] = 1e6
    sums[1, 0, 1], sums[1, 1, 1] = 1e6, 5e5
    assert desk.exploration.table(braking=False)["examination"] == [1.0, 1.0, 0.5]
    desk.show([ANN], 1000)
    shown = desk.joiner.mature(HOUR_MS).click
    use = np.ones(shown.items.shape, np.bool_)
    plain = desk.heads.expected(shown.scored[use], shown.positions[use])
    assert np.allclose(desk.exploration._slots(shown, use)[1], plain * [1.0, 1.0, 0.5], rtol=1e-4)


# ---- when it draws


@pytest.mark.parametrize(
    ("policy", "starts_on", "braking", "mode"),
    [("greedy", True, False, OFF), ("igw", False, False, SHADOW), ("igw", True, True, SAFE), ("igw", True, False, ON)],
)
def test_the_mode_follows_policy_switch_and_brake(policy, starts_on, braking, mode):
    desk = Explored(draws=replace(PLAN.draws, policy=policy), starts_on=starts_on)
    assert desk.exploration.mode(braking=braking) == mode
    assert (desk.exploration.table(braking=braking)["why_off"] == "") == (mode == ON)


def test_a_day_decides_about_the_next_and_a_quiet_one_about_nothing():
    switch, said = Switch(0.8), []
    for day, (named, clicks) in enumerate([(79, 100), (80, 100), (0, 5), (0, 100)]):
        switch.count(day * DAY_MS, n_named=0, n_clicks=0)
        switch.count(day * DAY_MS + 1, n_named=named, n_clicks=clicks)
        switch.count((day + 1) * DAY_MS, n_named=0, n_clicks=0)
        said.append(switch.is_open)
    assert said == [False, True, True, False]


def test_a_person_s_word_wins_over_what_was_measured():
    switch = Switch(0.8, is_on=True)
    switch.tell(False)
    assert not switch.is_open and "control explore --on" in switch.why_off()
    switch.tell(True)
    assert switch.is_open and switch.why_off() == ""


def test_what_is_off_says_the_share_that_was_measured():
    switch = Switch(0.8)
    switch.count(0, n_named=0, n_clicks=0)
    switch.count(1, n_named=10, n_clicks=100)
    switch.count(DAY_MS, n_named=0, n_clicks=0)
    assert "10%" in switch.why_off() and "decision_id" in switch.why_off()


def test_when_more_was_lost_than_may_be_slates_are_safe_until_it_is_earned_back():
    exploration = Explored().exploration
    exploration.draw(candidates(), seeds(), safe=True, vectors=None)
    exploration.budget.room = -1e3
    assert exploration.mode(braking=False) == SAFE


def test_below_the_baseline_s_floor_slates_are_safe_and_it_says_so():
    exploration = Explored().exploration
    half = np.arange(3_000) % 2 == 0
    exploration.floor.add(half * 1.0, half * 2.0, 0)
    told = exploration.table(braking=False)
    assert told["mode"] == SAFE and "baseline_floor" in told["why_off"]
    assert (told["earned"], told["baseline"]) == (0.5, 1.0)


def test_only_drawn_slates_whose_click_wait_has_closed_are_held_to_the_floor():
    desk = Explored()
    code = np.array([[1.0, 0.5, 1.0], [1.0, -0.5, 2.75], [1.0, 1.0, 1.0]], np.float16)
    desk.show([0, 1, 2], 1000, drawn=code)
    desk.act(Kind.CLICK, JUG, 2000, "d0", user=0)
    desk.settle(1000)
    assert desk.exploration.floor.figures() == {}
    desk.settle(HOUR_MS)
    # two drawn slates, one of them without a click; the other stands for two greedy ones
    assert desk.exploration.floor.moments[0].tolist() == [2.0, 0.2, 2.0, 0.4]


# ---- what it draws


def test_a_drawn_slate_shows_each_item_once_with_what_it_was_scored_with():
    desk, ranked = Explored(), candidates()
    picked, drawn = desk.exploration.draw(ranked, seeds(), safe=False, vectors=None)
    for b in range(4):
        assert len(set(picked.items[b].tolist())) == 3
        assert np.array_equal(picked.scored[b], ranked.scored[b, picked.items[b]])
    assert (drawn.n_admitted == 6).all()
    assert ((drawn.propensity > 0) & (drawn.propensity < 1))[~drawn.deterministic].all()


def test_fewer_candidates_than_slots_leave_slots_empty():
    picked, _ = Explored().exploration.draw(candidates(n=2), seeds(), safe=False, vectors=None)
    assert (picked.items[:, 2] == -1).all() and (picked.scored[:, 2] == UNSAID).all()
    assert np.isneginf(picked.scores[:, 2]).all()


def test_items_on_trial_stand_beside_the_best_and_are_never_out_of_stock():
    exploration = Explored(trial_impressions=5, n_trial=3).exploration
    exploration.trials.n_shown[:10] = 5
    servable = np.ones(20, np.bool_)
    servable[10:14] = False
    catalogue = Catalogue(20, servable)
    rows = {tick: exploration.trial_items(catalogue, tick) for tick in range(40)}
    assert all(len(r) == 3 for r in rows.values())
    assert {int(i) for r in rows.values() for i in r} == set(range(14, 20))
    assert with_trials(catalogue, rows[0]).beside is rows[0]


# ---- in a run


SETS = (
    "privacy.key=k",
    "model.encoder=none",
    "registry.enabled=false",
    "slate.n_slots=5",
    "tick.max_records=16",
    "learn.light_cut_examples=100",
    "gate.min_users=0",
    "explore.exploration_budget=0.2",
)


def run_of(tmp_path, name, *sets, n=400, items=None):
    """A file of visits, replayed."""
    path = tmp_path / "events.jsonl"
    views = (
        {"event_id": f"e{i}", "event_type": "view_item", "event_at": 1_767_571_200_000 + i * 20_000}
        | {"user_id": f"u{i % 13}", "item_id": f"i{i * i % 29}"}
        for i in range(n)
    )
    path.write_bytes(b"\n".join(msgspec.json.encode(view) for view in views))
    settings = config.load(None, [*SETS, f"run.dir={tmp_path / name}", *sets], {})
    summary = run_replay(settings, events=path, items=items)
    lines = (tmp_path / name / "slates.jsonl").read_bytes().splitlines()
    return summary, [msgspec.json.decode(line) for line in lines]


def values(lines):
    return [line.get("value", line) for line in lines]


def test_what_is_served_in_shadow_is_what_is_served_without_exploration(tmp_path):
    _, shadow = run_of(tmp_path, "shadow")
    _, greedy = run_of(tmp_path, "greedy", "explore.policy=greedy")
    assert shadow == greedy


def test_drawn_slates_say_policy_budget_candidates_and_every_slot_its_propensity(tmp_path):
    _, lines = run_of(tmp_path, "on", "explore.start=on")
    drawn = [slate for slate in values(lines) if slate["policy"] == "igw"]
    slots = [slot for slate in drawn for slot in slate["slots"]]
    assert len(drawn) > 300 and sum(slot["explored"] for slot in slots) > 50
    assert {slate["budget"] for slate in drawn} == {0.2}
    assert all(slate["candidates"]["admitted"] >= len(slate["slots"]) for slate in drawn)
    for slot in slots:
        assert ("propensity" in slot) != slot["deterministic"]
        assert slot["deterministic"] or 0 < slot["propensity"] <= 1
        assert not slot["explored"] or "tried out" in slot["reasons"]
    assert not any(slate["slots"][0]["explored"] for slate in drawn)


def test_the_same_run_draws_the_same_slates(tmp_path):
    one, two = (run_of(tmp_path, name, "explore.start=on") for name in ("one", "two"))
    assert one[1] == two[1] and one[0]["state_digest"] == two[0]["state_digest"]


def test_slates_for_everybody_are_never_drawn(tmp_path):
    _, lines = run_of(tmp_path, "on", "explore.start=on")
    shared = [slate for slate in values(lines) if slate["user_key"] == "*"]
    assert shared and all(slate["policy"] == "greedy" for slate in shared)


def test_users_of_the_control_arm_are_never_drawn_and_every_slate_names_its_arm(tmp_path):
    _, lines = run_of(tmp_path, "arms", "explore.start=on", "explore.control_share=0.4")
    own = [slate for slate in values(lines) if slate["user_key"] != "*"]
    by_arm = {arm: [slate for slate in own if slate["arm"] == arm] for arm in ("control", "drawn")}
    users = {arm: {slate["user_key"] for slate in slates} for arm, slates in by_arm.items()}
    assert all(users.values()) and not users["control"] & users["drawn"]
    assert {arm: {slate["policy"] for slate in slates} for arm, slates in by_arm.items()} == {
        "control": {"greedy"},
        "drawn": {"igw"},
    }


@pytest.mark.parametrize(
    ("sets", "gone"),
    [
        (("slate.blocked_items=i1,i4",), {"i1", "i4"}),
        (("slate.max_price=20",), {"dear"}),
        (("slate.min_price=5",), {"cheap"}),
    ],
)
def test_blocked_items_and_those_outside_the_price_limits_are_never_shown(tmp_path, sets, gone):
    items = tmp_path / "items.jsonl"
    prices = {"i1": None, "i4": 10.0, "dear": 20.5, "cheap": 4.5}
    items.write_bytes(
        b"\n".join(msgspec.json.encode({"item_id": i, "title": i, "price": p}) for i, p in prices.items())
    )
    shown = {}
    for name, more in (("all", ()), ("some", sets)):
        _, lines = run_of(tmp_path, name, "slate.n_slots=40", *more, items=items)
        shown[name] = {slot["item_id"] for slate in values(lines) for slot in slate["slots"]}
    assert shown["all"] - shown["some"] == gone
