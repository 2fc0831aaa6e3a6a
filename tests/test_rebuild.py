"""`versions rebuild`: the ledger folded again gives the weights that were told, or says what is gone."""

from __future__ import annotations

import json
import shutil

import pytest
from typer.testing import CliRunner

from stream_rec import replay
from stream_rec.cli import app
from tests.shop_files import KEY, small_settings, write_shop


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return write_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, shop):
    folder = tmp_path_factory.mktemp("run")
    replay.run_replay(small_settings(folder), events=shop[0], items=shop[1])
    return folder


@pytest.fixture
def out(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def rebuild(out, shop, *words, key: str = KEY):
    given = ["--events", str(shop[0]), "--items", str(shop[1]), "--out", str(out), "--set", f"privacy.key={key}"]
    return CliRunner().invoke(app, ["versions", "rebuild", *words, *given])


def test_a_version_is_proven_from_the_checkpoint_before_it(out, shop):
    done = json.loads(rebuild(out, shop, "2", "--json").stdout)
    assert (done["proven"], done["sha256"]) == (True, done["told"])
    assert 0 <= done["after_tick"] <= done["tick"]


def test_without_its_checkpoints_it_is_proven_from_the_beginning(out, shop):
    shutil.rmtree(out / "checkpoints")
    done = json.loads(rebuild(out, shop, "2", "--json").stdout)
    assert (done["proven"], done["after_tick"]) == (True, -1)


def test_nothing_is_published_and_the_folder_stays_as_it_is(out, shop):
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert rebuild(out, shop, "champion", "--whole").exit_code == 0
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_proven_weights_are_put_back_on_demand(out, shop):
    (path,) = (out / "weights").glob("v1-*")
    whole = path.read_bytes()
    path.unlink()
    assert rebuild(out, shop, "1", "--write").exit_code == 0
    assert path.read_bytes() == whole


def test_input_that_is_gone_is_named_with_its_place(out, shop, tmp_path):
    short = tmp_path / "short.jsonl"
    short.write_bytes(b"".join(shop[0].read_bytes().splitlines(keepends=True)[:300]))
    result = rebuild(out, (short, shop[1]), "2", "--whole")
    assert result.exit_code == 1
    assert "v2-" in result.stderr
    assert "line 251" in result.stderr


def test_input_that_was_changed_is_named_with_tick_and_offsets(out, shop, tmp_path):
    other = tmp_path / "other.jsonl"
    lines = shop[0].read_bytes().splitlines(keepends=True)
    other.write_bytes(b"".join([*lines[:200], lines[200].replace(b'"user_id"', b'"user_ix"'), *lines[201:]]))
    result = rebuild(out, (other, shop[1]), "2", "--whole")
    assert result.exit_code == 1
    assert "cannot be rebuilt: the input differs: tick 3 read" in result.stderr


def test_weights_that_differ_from_what_was_told_are_not_proven(out, shop):
    path = out / "versions.jsonl"
    told = [line for line in path.read_bytes().splitlines() if b'"promote"' in line]
    digest = json.loads(told[0])["sha256"].encode()
    path.write_bytes(path.read_bytes().replace(digest, b"0" * 64))
    result = rebuild(out, shop, "1")
    assert result.exit_code == 1
    assert "is not proven" in result.stderr


def test_another_privacy_key_is_refused(out, shop):
    result = rebuild(out, shop, "1", key="quite another key")
    assert result.exit_code == 2
    assert "another privacy.key" in result.stderr
