"""After a `forget`: who comes back is new, and the laws go on holding."""

from __future__ import annotations

import pytest

from stream_rec.events import MISSING, Output, Topic
from stream_rec.stream.privacy import Pseudonymiser
from tests.laws.town import HER_KEY, HERS, SHE, START_MS, STEP_MS, TIGHT, WIDE, forget_record, say, slate_of, told, view
from tests.laws.walk import sizes
from tests.laws.world import KEY, MINUTE_MS, World, different, digests, restored

# ---- who comes afterwards


def test_she_comes_back_as_somebody_new() -> None:
    run = told(WIDE)
    forgotten, spared = run.both()
    now_ms = run.ticks[run.at][0].cut_at_ms + MINUTE_MS
    slots = {}
    for pipeline in (forgotten, spared):
        effects = say(pipeline, now_ms, view("never seen"), view(SHE))
        slots[pipeline] = [(slate_of(effects, user) or {})["slots"] for user in (SHE, "never seen")]
    assert slots[forgotten][0] == slots[forgotten][1] == slots[spared][1] != slots[spared][0]
    users, pending = forgotten.facts.users, forgotten.learner.pending
    row = users.find(HER_KEY)
    assert (users.n_visits[row], forgotten.facts.histories.prev[users.last_row[row]]) == (1, MISSING)
    assert pending.user_slice[pending.place(users.visit_serial[[row]])].tolist() == [1]


def test_who_gets_her_row_is_not_taken_for_her() -> None:
    """The newcomer is given what one in a fresh row is given, also by an impression of a slate that both may see."""
    run = told(WIDE)
    forgotten, spared = run.both()
    her_row = spared.facts.users.find(HER_KEY)
    now_ms = run.ticks[run.at][0].cut_at_ms + MINUTE_MS
    star = run.stars[[s["event_at"] <= START_MS + 21 * STEP_MS for s in run.stars].index(False) - 1]
    shown = {"event_type": "impression", "user_id": "newcomer", "decision_id": star["decision_id"]}
    shown["items"] = [{"item_id": slot["item_id"]} for slot in star["slots"]]
    given = []
    for pipeline in (forgotten, spared):
        said = [say(pipeline, now_ms + n, each) for n, each in enumerate([view("newcomer"), shown])]
        row = pipeline.facts.users.find(Pseudonymiser(KEY.encode()).user_key("newcomer"))
        exposure = pipeline.facts.joiner.exposures.newest(row)
        assert (row == her_row) == (pipeline is forgotten)
        assert exposure != MISSING, "the slate for everybody is not known any more"
        labels = pipeline.facts.joiner.exposures.labels[exposure].tolist()
        given.append([*(slate_of(effects, "newcomer") for effects in said), labels])
    assert given[0] == given[1]
    assert not any(given[0][-1])


def test_a_refund_of_her_order_finds_nothing() -> None:
    run = told(WIDE)
    refund = {"event_type": "refund", "order_id": "hers", "item_id": HERS[1]}
    found = []
    for pipeline in run.both():
        effects = say(pipeline, run.ticks[run.at][0].cut_at_ms + MINUTE_MS, refund)
        found.append("refund_unmatched" not in effects.reasons.get("accepted", {}))
    assert found == [False, True]


# ---- the laws


@pytest.mark.parametrize("sets", [WIDE, TIGHT], ids=["wide", "tight"])
def test_a_state_restored_right_after_the_forget_goes_on_as_if_it_had_never_stopped(sets: tuple[str, ...]) -> None:
    run = told(sets)
    never_stopped = run.until(run.at + 1)
    again = restored(never_stopped, sets)
    assert digests(again) == digests(never_stopped)
    for tick, records in run.ticks[run.at + 1 :]:
        assert again.fold(tick, records).digest() == never_stopped.fold(tick, records).digest()
        assert different(again, never_stopped) == []


@pytest.mark.parametrize("sets", [WIDE, TIGHT], ids=["wide", "tight"])
def test_the_ledger_replays_to_the_same_bytes(sets: tuple[str, ...]) -> None:
    run = told(sets)
    written = run.world.outputs()
    assert Output(Topic.SLATES, HER_KEY.hex().encode(), None) in written[Topic.SLATES]
    replay = World(sets, broker=run.world.broker)
    replay.start(with_checkpoints=False)
    assert different(run.world.pipeline, replay.pipeline) == []
    folded, again = run.until(0), {topic: list[Output]() for topic in written}
    for tick, records in run.ticks:
        for output in folded.fold(tick, records).outputs:
            again[output.topic].append(output)
    assert {t: again[t] == written[t] for t in written if t != Topic.LEDGER} == dict.fromkeys(
        [t for t in written if t != Topic.LEDGER], True
    )


def test_coming_and_being_forgotten_again_and_again_takes_no_room() -> None:
    run = told(TIGHT)
    pipeline = run.until(run.at + 1)
    now_ms, seen = run.ticks[run.at][0].cut_at_ms, []
    for n in range(90):
        now_ms += 1_000
        say(pipeline, now_ms, view(SHE), {**view(SHE), "event_type": "purchase", "order_id": f"again-{n}"})
        say(pipeline, now_ms, forget_record(HER_KEY.hex(), now_ms))
        if n % 10 == 9:
            seen.append(sizes(pipeline))
    assert pipeline.facts.histories.next_serial > pipeline.facts.histories.capacity
    grown = {path: (seen[3][path], seen[-1][path]) for path in seen[-1] if seen[-1][path] > seen[3].get(path, 0)}
    assert grown == {}
