"""`forget`: in the tick that says so a user is gone from the whole state, and the laws go on holding.

A small town recorded by the real loop: twenty people, and one who looks at things nobody else touches, acts on slates
with and without an impression, takes a purchase back, and is forgotten in a tick that holds more records of the same
user. Some ticks later that user comes back.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from stream_rec import assemble, cli, report_run
from stream_rec.component import SCALARS, Snapshot
from stream_rec.effects import Effects
from stream_rec.events import MISSING, Output, Record, Topic
from stream_rec.io.folder import FolderPublisher
from stream_rec.pipeline import Pipeline
from stream_rec.stream.privacy import Pseudonymiser
from stream_rec.stream.tick import Tick, ranges_of
from tests.laws.test_law_10_no_raw_id import NOW_MS, run_into
from tests.laws.walk import sizes
from tests.laws.world import (
    COMMON,
    KEY,
    MINUTE_MS,
    ROOM,
    SMALL,
    Chunk,
    World,
    at_rest,
    different,
    digests,
    pipeline_of,
    restored,
    rng_of,
    slates_of,
)  # fmt: skip

START_MS = 1_767_600_000_000
STEP_MS = 10 * MINUTE_MS
N_STEPS, FORGET, BACK = 30, 24, 27
WIDE = (*COMMON, *ROOM, "window.capacity=5000", "learn.light_cut_examples=1000000", "slate.refresh_users_per_tick=1")
"""Nothing evicts, nothing is promoted, and lost items are made good slowly."""
TIGHT = SMALL
"""Everything evicts."""

SHE = "somebody to forget"
HER_KEY = Pseudonymiser(KEY.encode()).user_key(SHE)
HERS = tuple(f"hers-{n}" for n in range(6))
"""Items that nobody else touches and that are sold out, so that no list shows them."""
ODD_MS = 7
"""Her events are at times of their own."""


# ---- the town


class Town:
    """Makes the records of a step, seeing the slates that were published."""

    def __init__(self) -> None:
        self._rng, self._n = rng_of(7), 0
        self.slates: dict[str, list[dict[str, Any]]] = {}

    def receive(self, _tick: Tick, effects: Effects) -> None:
        for slate in slates_of(effects.outputs):
            if slate:
                self.slates.setdefault(slate["user_key"], []).append(slate)

    def step(self, step: int) -> Chunk:
        now_ms = START_MS + step * STEP_MS
        records = [*self._catalogue(step, now_ms), *self._people(now_ms)]
        for nth, said in enumerate(self._hers(step)):
            records.append(self._record(now_ms - 50_000 + 10 * nth + ODD_MS, SHE, **said))
        if step == FORGET:
            records.append(forget_record(HER_KEY.hex(), now_ms - 20_000))
        return Chunk(now_ms, tuple(sorted(records, key=lambda r: r.timestamp_ms)))

    def _record(self, at_ms: int, user: str, **said: Any) -> Record:
        self._n += 1
        body = {"event_id": f"e{self._n}", "event_at": at_ms, "user_id": user, **said}
        return Record(Topic.EVENTS, self._n % 2, 0, at_ms, user.encode(), json.dumps(body).encode())

    def _catalogue(self, step: int, now_ms: int) -> Iterator[Record]:
        at_ms = now_ms - 2 * MINUTE_MS
        if step == 0:
            for item in (*(f"i{n}" for n in range(25)), *HERS):
                body = {"title": item, "in_stock": item not in HERS}
                yield Record(Topic.ITEMS, 0, 0, at_ms, item.encode(), json.dumps(body).encode())
        if step == FORGET - 1:
            for slot in self.slates[HER_KEY.hex()][-1]["slots"][:3]:
                yield Record(Topic.ITEMS, 0, 0, at_ms, slot["item_id"].encode(), None)

    def _people(self, now_ms: int) -> Iterator[Record]:
        for nth in range(24):
            at_ms, item = now_ms - MINUTE_MS + 1_000 * nth, f"i{int(self._rng.random() ** 2 * 25)}"
            user = f"p{int(self._rng.integers(20))}" if nth < 20 else f"passing-{self._n}"
            said: dict[str, Any] = {"event_type": "view_item", "item_id": item}
            if nth % 4 == 1:
                said = {"event_type": "purchase", "items": [{"item_id": item}], "order_id": f"o{self._n}"}
            if nth % 4 == 2 and (own := self.slates.get(Pseudonymiser(KEY.encode()).user_key(user).hex())):
                shown = [{"item_id": slot["item_id"]} for slot in own[-1]["slots"]]
                said = {"event_type": "impression", "items": shown, "decision_id": own[-1]["decision_id"]}
            yield self._record(at_ms, user, **said)

    def _hers(self, step: int) -> Iterator[dict[str, Any]]:
        """What she does: three visits, a comeback after the second, and once more when she has been forgotten."""
        own = self.slates.get(HER_KEY.hex(), [])
        match step:
            case 3:
                yield {"event_type": "view_item", "item_id": HERS[0], "session_id": "hers"}
                yield {"event_type": "purchase", "item_id": HERS[1], "session_id": "hers", "order_id": "hers"}
            case 12:
                yield {"event_type": "purchase", "item_id": HERS[2], "order_id": "taken back"}
                yield {"event_type": "refund", "item_id": HERS[2], "order_id": "taken back"}
            case 22:
                named = {"decision_id": own[-1]["decision_id"]}
                yield {"event_type": "view_item", "item_id": HERS[4], "session_id": "last"}
                yield {"event_type": "impression", **named, "items": [{"item_id": item} for item in HERS[3:5]]}
                yield {"event_type": "click", **named, "item_id": HERS[3]}
                yield early_click(self.slates["*"][-1])
            case 23:
                yield {"event_type": "click", "decision_id": own[-2]["decision_id"], "item_id": HERS[3]}
                yield early_click(own[-1])
            case 24:
                yield {"event_type": "purchase", "item_id": HERS[5], "order_id": "last"}
                yield {"event_type": "view_item", "item_id": HERS[0]}
            case 27:
                yield {"event_type": "view_item", "item_id": "i3"}


def early_click(slate: dict[str, Any]) -> dict[str, Any]:
    """Its impression is lost or still to come."""
    return {"event_type": "click", "decision_id": slate["decision_id"], "item_id": slate["slots"][0]["item_id"]}


def forget_record(key: str, at_ms: int) -> Record:
    return Record(Topic.CONTROL, 0, 0, at_ms, None, json.dumps({"command": "forget", "user_key": key}).encode())


@dataclass(eq=False)
class Told:
    """A recorded run: the loop that made it, its ticks, and which of them forgets."""

    sets: tuple[str, ...]
    world: World
    ticks: list[tuple[Tick, list[Record]]]
    at: int
    stars: list[dict[str, Any]]

    def until(self, n: int) -> Pipeline:
        """A pipeline that has folded the first `n` ticks."""
        pipeline = pipeline_of(self.sets)
        pipeline.begin(dict.fromkeys(self.world.broker.inputs, 0))
        for tick, records in self.ticks[:n]:
            pipeline.fold(tick, records)
        return pipeline

    def before(self) -> Pipeline:
        """The state before she is forgotten, while slates of lost items are still owed.

        The ticks without records that made them good in the recorded run are left out.
        """
        last = max(i for i, (_, records) in enumerate(self.ticks[: self.at]) if records)
        return self.until(last + 1)

    def both(self) -> tuple[Pipeline, Pipeline]:
        """States after the tick that forgets: as it was, and as if it did not say so."""
        (tick, records), forgotten, spared = self.ticks[self.at], self.before(), self.before()
        forgotten.fold(tick, records)
        spared.fold(tick, [record for record in records if record.topic != Topic.CONTROL])
        return forgotten, spared


@lru_cache
def told(sets: tuple[str, ...]) -> Told:
    world, town = World(sets), Town()
    world.on_commit = town.receive
    for step in range(N_STEPS):
        world.arrive(town.step(step))
        world.catch_up()
    ticks = world.ticks()
    (at,) = [i for i, (_, records) in enumerate(ticks) if any(r.topic == Topic.CONTROL for r in records)]
    return Told(sets, world, ticks, at, town.slates["*"])


def say(pipeline: Pipeline, now_ms: int, *said: dict[str, Any] | Record) -> Effects:
    """Fold one more tick of hand-made records."""
    records = []
    for each in said:
        if not isinstance(each, Record):
            body = {"event_at": now_ms, "event_id": json.dumps(each) + str(now_ms), **each}
            each = Record(Topic.EVENTS, 0, 0, now_ms, None, json.dumps(body).encode())
        taken = sum(r.topic == each.topic for r in records)
        records.append(each._replace(offset=pipeline.positions.next_of((each.topic, 0)) + taken))
    first = {(r.topic, 0): pipeline.positions.next_of((r.topic, 0)) for r in records}
    pipeline.positions.number += 1
    return pipeline.fold(Tick(pipeline.positions.number, ranges_of(records, first), now_ms), records)


def slate_of(effects: Effects, user: str) -> dict[str, Any] | None:
    key = Pseudonymiser(KEY.encode()).user_key(user).hex()
    return next((slate for slate in slates_of(effects.outputs) if slate.get("user_key") == key), None)


def view(user: str, item: str = "i3") -> dict[str, Any]:
    return {"event_type": "view_item", "user_id": user, "item_id": item}


# ---- nothing is left


@dataclass
class Traces:
    """What stands for her in the state: numbers that nobody else has, and small ones by where they mean her."""

    wide: set[int]
    small: dict[str, set[int]]


USER_ROWS = (
    "histories.user", "window.user", "reservoir.user", "joiner.decisions.user", "joiner.exposures.user",
    "joiner.early.user", "pending_visits.user", "refresh.queue",
)  # fmt: skip
ITEM_ROWS = (
    "histories.item", "window.item", "reservoir.item", "joiner.decisions.items", "joiner.exposures.items",
    "joiner.early.item", "pending_visits.lists",
)  # fmt: skip
BORN = ("users.born", "window.user_born", "reservoir.user_born", "joiner.decisions.user_born")
VISITS = ("users.visit_serial", "histories.visit", "pending_visits.visit")
POINTERS = ("users.last_row", "users.visit_before", "histories.prev")
STAYS = {"dedupe.ring", "recent_popularity.at_ms"}
"""Digests against events sent twice, and times in a sum over everybody: neither says whose."""


def traces_of(pipeline: Pipeline) -> Traces:
    facts = pipeline.facts
    decisions, exposures, early = facts.joiner.decisions, facts.joiner.exposures, facts.joiner.early
    row = facts.users.find(HER_KEY)
    assert row > 0, "row 0 could not be told from a blank"
    born, serial, chain = int(facts.users.born[row]), int(facts.users.last_row[row]), []
    while serial >= facts.histories.first_serial:
        chain.append(serial)
        serial = int(facts.histories.prev[serial % facts.histories.capacity])
    past = [facts.histories.row(serial) for serial in chain]
    held = (decisions.decision, decisions.user), (exposures.key, exposures.user), (early.key, early.user)
    keys = [number for key, user in held for number in key[user == row].tolist()]
    examples = facts.window.user_born == born
    wide = {*np.frombuffer(HER_KEY, "<i8").tolist(), int.from_bytes(HER_KEY[:8], "little") & (2**63 - 1)}
    wide |= {int(facts.users.visit_key[row]), int(facts.users.seen_at_ms[row]), int(facts.users.visit_start_ms[row])}
    wide |= {*keys, *facts.window.event[examples].tolist()}
    wide |= {r.at_ms for r in past if r} | {r.order for r in past if r and r.order}
    items = {facts.items.find(item) for item in HERS} - {MISSING}
    assert len(chain) >= 6
    assert len(items) == len(HERS)
    visits = {r.visit for r in past if r}
    meant = (USER_ROWS, {row}), (ITEM_ROWS, items), (BORN, {born}), (VISITS, visits), (POINTERS, set(chain))
    return Traces(wide, {column: values for columns, values in meant for column in columns})


def holding(snapshots: dict[str, Snapshot], traces: Traces) -> set[str]:
    """Columns and scalars in which she is to be seen."""
    found = set()
    for name, snapshot in snapshots.items():
        for column, values in snapshot.items():
            path = f"{name}.{column}"
            if column == SCALARS:
                found |= {path} if any(n in traces.wide for n in numbers(values)) else set()
                found |= {path} if HER_KEY.hex() in json.dumps(values) else set()
            elif isinstance(values, np.ndarray):
                wide = values.dtype.kind in "iu" and values.itemsize == 8
                wanted = (traces.wide if wide else set()) | traces.small.get(path, set())
                if wanted and np.isin(values.astype(np.int64), list(wanted)).any():
                    found.add(path)
    return found


def numbers(value: Any) -> Iterator[int]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from numbers(each)
    elif isinstance(value, int):
        yield value


def test_before_the_forget_she_is_to_be_seen_wherever_the_state_could_hold_her() -> None:
    pipeline = told(WIDE).before()
    everywhere = {*USER_ROWS, *ITEM_ROWS, *BORN, *VISITS, *POINTERS, *STAYS, "users.key", "paired_recall.user_key"}
    everywhere |= {"pending_visits.user_key", "joiner.early.key", "joiner.exposures.key", "joiner.decisions.decision"}
    everywhere |= {"window.event", "reservoir.event", "window.order", "histories.order", "histories.at_ms"}
    # No slate shows what is sold out, whoever it is for, and an early action is on what a slate showed.
    everywhere -= {"joiner.decisions.items", "pending_visits.lists", "joiner.early.item"}
    assert everywhere - holding(pipeline.snapshot(), traces_of(pipeline)) == set()


@pytest.mark.parametrize("sets", [WIDE, TIGHT], ids=["wide", "tight"])
def test_after_the_forget_nothing_in_the_state_says_what_she_did(sets: tuple[str, ...]) -> None:
    run = told(sets)
    forgotten, spared = run.both()
    traces = traces_of(spared)
    assert holding(spared.snapshot(), traces) >= {"users.key", "histories.item", "window.item", "pending_visits.user"}
    assert holding(forgotten.snapshot(), traces) - STAYS == set()


def test_an_event_of_hers_that_is_sent_again_does_not_bring_her_back() -> None:
    run = told(WIDE)
    forgotten = run.until(run.at + 1)
    (again,) = [r for r in run.ticks[run.at][1] if b'"order_id": "last"' in (r.value or b"")]
    effects = say(forgotten, run.ticks[run.at][0].cut_at_ms + 1_000, again._replace(partition=0))
    assert effects.counts["duplicate"] == 1
    assert forgotten.facts.users.find(HER_KEY) == MISSING


# ---- what is published


def test_in_the_tick_that_forgets_a_tombstone_stands_for_her_slate() -> None:
    run = told(WIDE)
    before, (tick, records) = run.until(run.at), run.ticks[run.at]
    said = [output for output in before.fold(tick, records).outputs if output.key == HER_KEY.hex().encode()]
    assert said == [Output(Topic.SLATES, HER_KEY.hex().encode(), None)]


def test_she_gets_no_slate_until_she_comes_back() -> None:
    run = told(WIDE)
    about_her = [
        (i, slate["cause"])
        for i, (tick, records) in enumerate(run.ticks)
        for slate in slates_by_tick(run)[tick.number]
        if i >= run.at and slate.get("user_key") == HER_KEY.hex()
    ]
    (first, *_) = about_her
    back = next(i for i in range(run.at + 1, len(run.ticks)) if any(SHE.encode() == r.key for r in run.ticks[i][1]))
    assert first == (back, "touched")
    assert back > run.at + 1


@lru_cache
def slates_by_tick(run: Told) -> dict[int, list[dict[str, Any]]]:
    pipeline, out = run.until(0), {}
    for tick, records in run.ticks:
        out[tick.number] = slates_of(pipeline.fold(tick, records).outputs)
    return out


def test_to_forget_her_changes_no_slate_that_somebody_else_is_given_for_coming() -> None:
    """Sums over everybody are not unlearned."""
    run = told(WIDE)
    (forgotten, spared), n = run.both(), 0
    for tick, records in run.ticks[run.at + 1 :]:
        others = [r for r in records if r.key != SHE.encode()]
        one, other = (
            [s for s in slates_of(p.fold(tick, others).outputs) if s["cause"] == "touched"] for p in (forgotten, spared)
        )
        assert one == other
        n += len(one)
    assert n > 40


def test_the_notice_of_a_user_who_is_known_no_more_says_so() -> None:
    run = told(WIDE)
    forgotten = run.until(run.at + 1)
    effects = say(forgotten, run.ticks[run.at][0].cut_at_ms + 1_000, forget_record(HER_KEY.hex(), 0))
    assert Output(Topic.SLATES, HER_KEY.hex().encode(), None) in effects.outputs
    (notice,) = [json.loads(o.value or b"") for o in effects.outputs if o.key == b"command-forget"]
    assert (notice["status"], notice["found"]) == ("done", False)


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


def test_what_was_copied_before_the_forget_is_not_touched_by_it() -> None:
    """A checkpoint may still be on its way to the disk."""
    run = told(WIDE)
    pipeline = run.until(run.at)
    copy = pipeline.snapshot()
    kept = at_rest(copy)
    pipeline.fold(*run.ticks[run.at])
    assert holding(copy, traces_of(run.both()[1])) == holding(kept, traces_of(run.both()[1]))


# ---- a run folder


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("run")
    said = [view(SHE), view("somebody else"), {"event_type": "heartbeat"}, view("third", item="x" * 999)]
    bodies = [{"event_id": f"e{n}", "event_at": NOW_MS + n, **body} for n, body in enumerate(said)]
    records = [Record(Topic.EVENTS, n % 2, 0, NOW_MS, None, json.dumps(b).encode()) for n, b in enumerate(bodies)]
    run_into(folder, [*records, forget_record(HER_KEY.hex(), NOW_MS + 10)])
    return folder


def test_a_tombstone_is_a_line_of_the_run_folder(run_folder: Path) -> None:
    slates = list(assemble.open_run(run_folder).records(Topic.SLATES))
    assert {"key": HER_KEY.hex(), "tombstone": True} in slates
    others = {slate["user_key"] for slate in slates if "user_key" in slate}
    assert others == {"*", Pseudonymiser(KEY.encode()).user_key("somebody else").hex()}


def test_readers_of_a_run_folder_do_not_stumble_over_a_tombstone(run_folder: Path) -> None:
    listed = CliRunner().invoke(cli.app, ["versions", "list", "--out", str(run_folder)])
    assert (listed.exit_code, "command forget done" in listed.output) == (0, True)
    letters = CliRunner().invoke(cli.app, ["dead-letters", "list", "--json", "--out", str(run_folder)])
    assert (letters.exit_code, json.loads(letters.output)["reason"]) == (0, "bad_item_id")
    run = report_run.read_run(run_folder)
    assert run.promoted_at_ms == [NOW_MS + 1_000]
    again = FolderPublisher(run_folder)
    again.close()
    assert again.cut_bytes == {}
