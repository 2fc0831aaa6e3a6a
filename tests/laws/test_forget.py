"""`forget`: in the tick that says so a user is gone from the whole state, and the slate is withdrawn."""

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
from stream_rec.events import MISSING, Output, Record, Topic
from stream_rec.io.folder import FolderPublisher
from stream_rec.pipeline import Pipeline
from stream_rec.stream.privacy import Pseudonymiser
from tests.laws.test_law_10_no_raw_id import NOW_MS, run_into
from tests.laws.town import HER_KEY, HERS, SHE, TIGHT, WIDE, Told, forget_record, say, told, view
from tests.laws.world import KEY, at_rest, slates_of

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
    everywhere = {*USER_ROWS, *ITEM_ROWS, *BORN, *VISITS, *POINTERS, *STAYS, "users.key"}
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
