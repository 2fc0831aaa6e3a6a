"""The demo: a small simulated shop from end to end, and what it publishes against the shipped schemas."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import jsonschema
import pytest
from rich.console import Console

from stream_rec import demo_run
from stream_rec.codec import SCHEMA_DIR
from stream_rec.effects import Effects
from stream_rec.errors import SettingsError
from stream_rec.events import Output
from stream_rec.simulate import Shop
from tests.shop_files import SMALL, small_settings

EVENTS = "what-people-did.jsonl"
SCHEMAS = {"slates": "slate", "versions": "version", "dead-letters": "dead-letter", "ledger": "ledger"}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """(run folder, summary, shop, what the person saw) of a demo of three days."""
    out, shop = tmp_path_factory.mktemp("demo"), Shop(1, SMALL)
    with Path("/dev/null").open("w") as nowhere:
        console = Console(record=True, width=100, file=nowhere)
        summary = demo_run.run_demo(small_settings(out), console, shop=shop, events_out=out.with_name(EVENTS))
    return out, summary, shop, console.export_text()


def records(folder, topic):
    return [json.loads(line) for line in (folder / f"{topic}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("every", [10, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("topic", SCHEMAS)
def test_published_records_fit_their_schema(demo, topic, every):
    schema = json.loads((Path(SCHEMA_DIR) / f"{SCHEMAS[topic]}.json").read_text())
    check = jsonschema.Draft202012Validator(schema)
    found = records(demo[0], topic)
    assert found
    for record in found[::every]:
        check.validate(record)


def test_visitors_see_published_slates_and_their_clicks_are_joined_exactly(demo):
    joins = demo[1]["joins"]
    assert joins["exposed"] > 100
    assert joins["exact"] > 0.9 * (joins["exact"] + joins["implied"])


def test_every_record_of_the_shop_is_accounted_for(demo):
    summary = demo[1]
    outcomes = ("accepted", "duplicate", "late", "dead_lettered", "ignored")
    assert summary["consumed"] == sum(summary[outcome] for outcome in outcomes)
    assert summary["consumed"] == sum(line["consumed"] for line in records(demo[0], "metrics"))


def test_the_person_gets_a_table_a_picture_and_the_paths(demo):
    folder, text = demo[0], demo[3]
    assert "Recall@20 at the next visit" in text
    assert (folder / "figures" / "learning.png").read_bytes()[:4] == b"\x89PNG"
    assert all((folder / name).exists() for name in ("summary.json", "slates.jsonl", "checkpoints", "weights"))


def test_the_paths_of_all_files_are_printed_and_the_picture_comes_first(demo):
    folder, text = demo[0], "".join(demo[3].splitlines())
    places = [text.index(f"{folder}/{name}") for name in ("figures/learning.png", "summary.json", "ledger.jsonl")]
    assert places == sorted(places)


def test_a_slate_names_what_made_it_and_numbers_its_slots(demo):
    slates = [slate for slate in records(demo[0], "slates") if "tombstone" not in slate]
    versions = {notice["version"] for notice in records(demo[0], "versions")}
    assert {slate["model_version"] for slate in slates} <= versions
    for slate in slates:
        if slate.get("query"):
            assert all(slot["utility"] is None for slot in slate["slots"])
        else:
            assert all(0 <= slot["utility"] <= 1 for slot in slate["slots"])
        assert [slot["position"] for slot in slate["slots"]] == list(range(len(slate["slots"])))


def test_slates_are_the_best_by_score_until_the_clicks_of_a_day_named_their_decisions_and_drawn_then(demo):
    slates = [slate for slate in records(demo[0], "slates") if "tombstone" not in slate]
    ranked = [slate for slate in slates if slate["policy"] == "greedy"]
    drawn = [slate for slate in slates if slate["policy"] == "igw"]
    for slate in ranked:
        scores = [slot["score"] for slot in slate["slots"]]
        assert scores == sorted(scores, reverse=True)
        assert all(slot["deterministic"] for slot in slate["slots"])
    assert drawn and drawn[0]["event_at"] - slates[0]["event_at"] > 86_400_000
    assert any(slot["explored"] for slate in drawn for slot in slate["slots"])


def test_the_report_tells_how_well_calibrated_the_probabilities_of_shown_slots_were(demo):
    folder, text = demo[0], demo[3]
    assert "Probabilities of shown slots, whole run" in text
    found = [line["heads"]["click"]["learner"] for line in records(folder, "metrics") if "click" in line["heads"]]
    assert found
    assert all(0 <= figures["ece"] <= 1 and figures["n"] > 0 for figures in found)


def test_no_two_slates_share_a_decision_id(demo):
    decisions = [slate["decision_id"] for slate in records(demo[0], "slates")]
    assert len(decisions) == len(set(decisions))


def test_nothing_is_recommended_after_it_was_delisted_or_sold_out(demo):
    assert any(slate["cause"] == "item_lost" for slate in records(demo[0], "slates"))


def test_what_people_did_is_kept_and_names_the_slates_that_were_shown(demo):
    lines = demo[0].with_name(EVENTS).read_bytes().splitlines()
    assert len(lines) == demo[2].counts.total() - demo[2].counts["out_of_order"] - demo[2].counts["late"]
    shown = {word.split(b'"')[0].decode() for line in lines for word in line.split(b'"decision_id":"')[1:]}
    assert shown and shown <= {slate["decision_id"] for slate in records(demo[0], "slates")}


def test_the_same_seed_gives_the_same_run(demo, tmp_path):
    again = demo_run.run_demo(small_settings(tmp_path), Console(quiet=True), shop=Shop(1, SMALL))
    assert (again["state_digest"], again["ledger_chain"]) == (demo[1]["state_digest"], demo[1]["ledger_chain"])


def test_a_folder_that_is_no_demo_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(SettingsError):
        demo_run.run_demo(small_settings(tmp_path), Console(quiet=True), shop=Shop(1, SMALL))
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def metrics(at_ms: int, *, shown: int, clicked: int, n: int, recall: float) -> Effects:
    served = {"next_visit": {"served": {"all": {"n": n, "recall@20": recall}}}}
    line = {"event_at": at_ms, "version": "v2-ab", "impressions": shown, "clicks": clicked, "metrics": served}
    return Effects(outputs=(Output("metrics", b"k", json.dumps(line).encode()),))


def test_the_live_line_is_the_average_of_the_last_day():
    figures, hour_ms = demo_run.Figures(), 3_600_000
    figures.receive(metrics(0, shown=1000, clicked=0, n=100, recall=0.0))
    figures.receive(metrics(24 * hour_ms, shown=10, clicked=1, n=1, recall=1.0))
    figures.receive(metrics(30 * hour_ms, shown=30, clicked=3, n=3, recall=0.2))
    stats = figures.stats(7)
    assert (stats["click_rate"], stats["recall"], stats["version"], stats["lag"]) == (0.1, 0.4, "v2", 7)


def test_a_tombstone_takes_a_slate_out_of_the_shop():
    front = demo_run.Shopfront(b"k")
    slates = {b"*": b'{"slots":[],"valid_until":9}', front._pseudonymiser.user_key("u").hex().encode(): None}
    own = next(key for key in slates if key != b"*")
    said = [Output("slates", key, value or b'{"slots":[1],"valid_until":9}') for key, value in slates.items()]
    front.receive(Effects(outputs=said))
    assert front.slate("u")["slots"] == [1]
    front.receive(Effects(outputs=[Output("slates", own, None)]))
    assert front.slate("u")["slots"] == []


def test_a_signal_ends_the_demo_in_words_that_say_that_it_starts_anew(tmp_path, monkeypatch):
    step = Shop.step

    def signalled(self, until_ms, slates):
        signal.raise_signal(signal.SIGTERM)
        monkeypatch.setattr(Shop, "step", step)
        return step(self, until_ms, slates)

    monkeypatch.setattr(Shop, "step", signalled)
    with pytest.raises(KeyboardInterrupt, match="starts the demo anew"):
        demo_run.run_demo(small_settings(tmp_path), Console(quiet=True), shop=Shop(1, SMALL))
    assert (tmp_path / "ledger.jsonl").stat().st_size > 0
