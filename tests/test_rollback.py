"""What a rollback restores, and what of today it applies to it again."""

from __future__ import annotations

import jsonschema
import msgspec
import numpy as np
import pytest

from stream_rec import codec
from stream_rec.component import Component
from stream_rec.errors import JobFailed
from stream_rec.events import Record, Topic
from stream_rec.rollback import digest_of, learned_names
from stream_rec.stream.tick import Restore, Tick, ranges_of
from tests.laws.world import digests
from tests.test_pipeline import START_MS, Folding, events_of, key_of

RECKONED_ANEW = {
    "progress", "champion", "previous", "comparison", "guard", "pending_visits", "brake", "window", "prequential",
}  # fmt: skip
"""Components in which the version that serves again, or the later time, shows."""


class Going(Folding):
    """A pipeline fed by hand that can be taken back to any of its ticks."""

    def __init__(self, tmp_path):
        super().__init__(tmp_path)
        self.states = {}

    def fold(self, topic=Topic.EVENTS, *bodies):
        notices = super().fold(topic, *bodies)
        self.states[self.pipeline.positions.number] = self.pipeline.snapshot()
        return notices

    def go(self, answer, *bodies):
        """The tick that answers a rollback; all notices of it."""
        p, records = self.pipeline, []
        for body in bodies:
            records.append(
                Record(Topic.EVENTS, 0, self.offsets[Topic.EVENTS], START_MS, None, msgspec.json.encode(body))
            )
            self.offsets[Topic.EVENTS] += 1
        first = {(Topic.EVENTS, 0): p.positions.next_of((Topic.EVENTS, 0))}
        tick = Tick(p.positions.number + 1, ranges_of(records, first), START_MS, restore=answer)
        effects = p.fold(tick, records, self.states.get(answer.tick))
        p.positions.number += 1
        said = [o for o in effects.outputs if o.topic == Topic.VERSIONS]
        return [msgspec.json.decode(o.value) for o in said if o.value]

    def back_to(self, version):
        """Ask for a version and get it."""
        assert self.fold(Topic.CONTROL, {"command": "rollback", "version": version, "command_id": "c"}) == []
        tick = self.pipeline.wanted["tick"]
        names = learned_names(self.pipeline.components())
        return self.go(Restore(tick, digest_of(self.states[tick], names)))

    @property
    def served(self):
        return self.pipeline.learner.versions.champion_version


def two_versions(tmp_path):
    """Two versions after the first; returns the world and the one in the middle."""
    world = Going(tmp_path)
    world.learn(120)
    world.learn(1, start=500)
    middle = world.served
    world.learn(120, start=1_000)
    world.learn(1, start=1_500)
    assert len({"v0", middle, world.served}) == 3
    return world, middle


def events(n, start, **said):
    return [
        {"event_id": f"x{i}", "event_type": "view_item", "event_at": START_MS, "user_id": f"u{i}", "item_id": "i1"}
        | said
        for i in range(start, start + n)
    ]


def test_the_learned_half_is_that_of_the_cut_and_the_version_serves(tmp_path):
    world, middle = two_versions(tmp_path)
    cut = world.pipeline._releases.cut_of(middle)["tick"]
    weights = world.states[cut]["challenger"]["value"]
    world.back_to(middle)
    assert world.served == middle
    np.testing.assert_array_equal(world.pipeline.learner.versions.champion.value, weights)
    now, then = world.pipeline.snapshot(), world.states[cut]
    names = set(learned_names(world.pipeline.components())) - RECKONED_ANEW
    assert digest_of(now, names) == digest_of(then, names)


def test_the_facts_are_kept(tmp_path):
    world, middle = two_versions(tmp_path)
    before = digests(world.pipeline)
    world.back_to(middle)
    after = digests(world.pipeline)
    kept = ("histories", "items", "dedupe", "watermarks")
    assert [before[name] == after[name] for name in kept] == [True] * len(kept)


def test_a_state_that_went_back_goes_on_as_one_that_was_restored(tmp_path):
    """Restored into tables in use, nothing of what they held stays."""
    world, middle = two_versions(tmp_path)
    world.back_to(middle)
    again = Going(tmp_path)
    again.pipeline.restore(world.pipeline.snapshot())
    again.offsets, again.now_ms = dict(world.offsets), world.now_ms
    assert world.learn(150, start=5_000) == again.learn(150, start=5_000)
    assert digests(world.pipeline) == digests(again.pipeline)


def test_the_notices_say_who_serves_from_which_state_and_answer_the_command(tmp_path):
    world, middle = two_versions(tmp_path)
    newest = world.served
    notices = world.back_to(middle)
    assert events_of(notices) == ["rollback", "champion", "command"]
    rollback, pointer, answer = notices
    assert (rollback["version"], rollback["parent"], pointer["version"]) == (middle, newest, middle)
    assert rollback["verdict"]["reasons"][0].startswith(f"by command, to the cut of {middle}: the state of tick ")
    assert (answer["status"], answer["version"], answer["command_id"]) == ("done", middle, "c")
    for notice in notices:
        jsonschema.validate(notice, codec.json_schemas()["version"])


def test_versions_after_a_rollback_count_on(tmp_path):
    world, middle = two_versions(tmp_path)
    counter = world.pipeline.learner.versions.progress.n_promotions
    world.back_to(middle)
    world.fold(Topic.CONTROL, {"command": "unfreeze"})
    world.learn(150, start=3_000)
    (notice,) = world.learn(1, start=4_000)
    assert notice["event"] == "promote"
    assert notice["version"].startswith(f"v{counter + 1}-")


def test_a_refused_rollback_leaves_everything_and_says_why(tmp_path):
    world, middle = two_versions(tmp_path)
    world.fold(Topic.CONTROL, {"command": "rollback", "version": middle})
    newest = world.served
    (answer,) = world.go(Restore(-1, "", "the disk is gone"))
    assert (answer["status"], answer["reason"]) == ("refused", "the disk is gone")
    assert world.served == newest
    assert not world.pipeline._releases.state.frozen


def test_a_state_that_nobody_asked_for_is_refused(tmp_path):
    world, _ = two_versions(tmp_path)
    with pytest.raises(JobFailed, match="nobody asked for"):
        world.go(Restore(1, "", ""))


def test_a_purchase_taken_back_since_is_taken_out_of_what_is_restored(tmp_path):
    world = Going(tmp_path)
    world.fold(Topic.EVENTS, *events(1, 9_000, event_type="purchase", item_id="once", order_id="o1"))
    world.learn(120)
    world.learn(1, start=500)
    row = world.pipeline.facts.items.find("once")
    version = world.served
    back = {"event_type": "refund", "order_id": "o1", "item_id": "once", "event_id": "back"}
    world.fold(Topic.EVENTS, *events(1, 9_000, **back))
    learner, facts = world.pipeline.learner, world.pipeline.facts
    assert world.states[max(world.states) - 1]["item_counts"]["in_visits"][row] == 1
    world.back_to(version)
    assert (learner.counts.in_visits[row], learner.recent.counts[row], learner.decayed.mass[row].sum()) == (0, 0, 0.0)
    assert not (facts.window.item[facts.window.rows()] == row).any()
    assert not (facts.reservoir.item[facts.reservoir.rows()] == row).any()


def test_a_user_forgotten_since_is_not_in_what_is_restored(tmp_path):
    world, middle = two_versions(tmp_path)
    facts = world.pipeline.facts
    born = int(facts.users.born[facts.users.find(bytes.fromhex(key_of("u3")))])
    assert (facts.window.user_born == born).any()
    world.fold(Topic.CONTROL, {"command": "forget", "user_key": key_of("u3")})
    world.back_to(middle)
    assert not (facts.window.user_born == born).any()
    assert not (facts.reservoir.user_born == born).any()


def test_an_item_row_that_changed_hands_since_starts_without_a_past(tmp_path):
    world, middle = two_versions(tmp_path)
    items = world.pipeline.facts.items
    row = items.find("i1")
    items.born[row] = world.pipeline.facts.histories.next_serial
    world.back_to(middle)
    assert world.pipeline.learner.counts.in_visits[row] == 0


def test_a_challenger_that_the_gate_held_serves_when_people_say_so(tmp_path):
    world = Going(tmp_path)
    versions = world.pipeline.learner.versions
    object.__setattr__(versions.rules, "min_users", 30)
    world.learn(120)
    held = versions.progress.held
    assert held.startswith("v1-")
    assert world.learn(1, start=500) == []
    (answer,) = world.fold(Topic.CONTROL, {"command": "promote", "version": held})
    assert answer["status"] == "done"
    (notice,) = world.learn(1, start=501)
    assert (notice["event"], notice["version"]) == ("promote", held)
    assert notice["verdict"]["reasons"] == ["held by the gate, promoted by command"]
    assert world.served == held


@pytest.mark.parametrize(
    ("before", "reason"),
    [("freeze", "promotion is frozen; unfreeze comes first"), (None, "only the challenger that the gate held")],
)
def test_a_promotion_that_cannot_be_is_refused_with_the_reason(tmp_path, before, reason):
    world, middle = two_versions(tmp_path)
    if before:
        world.fold(Topic.CONTROL, {"command": before})
    (answer,) = world.fold(Topic.CONTROL, {"command": "promote", "version": middle})
    assert answer["status"] == "refused"
    assert answer["reason"].startswith(reason)


def test_the_cut_of_a_pinned_version_stays_kept(tmp_path):
    world, middle = two_versions(tmp_path)
    world.fold(Topic.CONTROL, {"command": "pin", "version": middle})
    cut = world.pipeline._releases.cut_of(middle)["tick"]
    for n in range(2, 6):
        world.learn(120, start=n * 1_000)
        world.learn(1, start=n * 1_000 + 500)
    assert cut in world.pipeline.kept_ticks()
    assert len(world.pipeline.kept_ticks()) == 3
    world.back_to(middle)
    assert world.served == middle


def test_everything_learned_is_in_the_half_that_goes_back(tmp_path):
    facts = {n for n, c in Folding(tmp_path).pipeline.components().items() if c.half == "facts"}
    assert facts >= {"positions", "accounting", "dedupe", "watermarks", "users", "histories", "items", "joiner"}
    assert facts - {"positions", "accounting", "dedupe", "watermarks", "users", "histories", "items", "joiner"} == {
        "refresh", "report", "release", "drift_alarms", "queries", "searchers", "lexicon", "query_texts",
        "explore_budget", "explore_tried", "explore_switch", "explore_trials", "explore_floor", "explore_examination",
    }  # fmt: skip


def test_a_table_in_use_holds_nothing_of_before_when_it_is_restored():
    class Table(Component):
        columns, scalars = ("values",), ("n",)

        def __init__(self):
            self.values, self.n = np.zeros(9, np.int64), 0

        def used(self):
            return self.n

    small, large = Table(), Table()
    small.values[:2], small.n = 7, 2
    large.values[:6], large.n = 5, 6
    large.restore(small.snapshot())
    assert large.values.tolist() == [7, 7, 0, 0, 0, 0, 0, 0, 0]
