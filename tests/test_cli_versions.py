"""`stream-rec versions show | diff` on the folder of a finished replay."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from stream_rec import replay
from stream_rec.cli import app
from tests.shop_files import small_settings, write_shop


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return write_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def out(tmp_path_factory, shop):
    folder = tmp_path_factory.mktemp("run")
    replay.run_replay(small_settings(folder), events=shop[0], items=shop[1])
    return folder


@pytest.fixture
def run(out):
    return lambda *words: CliRunner().invoke(app, ["versions", *words, "--out", str(out)])


def shown(run, word: str) -> dict:
    return json.loads(run("show", word, "--json").stdout)


def test_a_version_is_shown_with_offsets_digests_checkpoint_and_whole_weights(run, out):
    known, parent = shown(run, "2"), shown(run, "1")
    assert known["offsets"]["events/0"] == [parent["lineage"]["next"]["events/0"], known["lineage"]["next"]["events/0"]]
    assert (known["serves"], known["weights"]["state"]) == (True, "whole")
    # A cut's own checkpoint is not kept when the one before is still being written.
    assert (out / "checkpoints" / known["checkpoint"]).is_dir()
    assert (len(known["settings"]), len(known["build"])) == (16, 16)
    assert known["event_span"] == [parent["event_at"], known["event_at"]]


def test_the_version_before_the_champion_is_the_one_to_roll_back_to(run):
    assert shown(run, "rollback")["version"] == shown(run, "champion")["parent"]


def test_people_read_of_the_weights_whether_they_are_whole(run, out):
    path = out / "weights" / f"{shown(run, '1')['version']}.safetensors"
    whole = path.read_bytes()
    assert f"{len(whole)} bytes, whole" in run("show", "1").stdout
    path.write_bytes(whole[:-1] + b"\0")
    damaged = run("show", "1").stdout
    path.unlink()
    missing = shown(run, "1")["weights"]["state"]
    path.write_bytes(whole)
    assert "DAMAGED" in damaged
    assert missing == "missing"


def test_an_unknown_version_is_refused_with_its_name_and_the_last_there_is(run):
    result = run("show", "v9")
    assert result.exit_code == 2
    assert "there is no version v9" in result.stderr
    assert "the last is v2-" in result.stderr


def test_two_versions_are_compared_by_what_was_told_and_by_weights(run):
    told = json.loads(run("diff", "1", "2", "--json").stdout)
    rows = {row["what"]: row for row in told["told"]}
    assert rows["records"]["change"] == shown(run, "2")["records"]
    relative = [row["relative"] for row in told["weights"]]
    assert relative == sorted(relative, reverse=True)
    assert relative[0] > 0
    assert told["weights"][0]["group"] in run("diff", "1", "2").stdout


def test_a_version_does_not_differ_from_itself(run):
    told = json.loads(run("diff", "champion", "champion", "--json").stdout)
    assert {row["change"] for row in told["weights"]} == {0.0}
