"""A version's notice says where the version comes from."""

from __future__ import annotations

import json

import pytest

from stream_rec import assemble, replay
from stream_rec.events import Topic
from tests.shop_files import small_settings, write_shop


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    events, items = write_shop(tmp_path_factory.mktemp("shop"))
    replay.run_replay(small_settings(out), events=events, items=items)
    return assemble.open_run(out)


@pytest.fixture(scope="module")
def served(run):
    notices = [notice for notice in run.records(Topic.VERSIONS) if notice["event"] in ("initial", "promote")]
    assert len(notices) > 2
    return notices


def test_every_version_that_serves_says_up_to_which_offset_it_has_read(run, served):
    reached = {}
    for entry in run.records(Topic.LEDGER):
        for topic, partition, *rest in entry.get("tick", {}).get("ranges", ()):
            reached[f"{topic}/{partition}"] = rest[1]
        for notice in served:
            if notice["tick"] == entry["n"]:
                assert notice["lineage"]["next"] | reached == notice["lineage"]["next"]


def test_it_counts_the_records_that_the_ledger_counts(run, served):
    counted = 0
    for entry in run.records(Topic.LEDGER):
        counted += entry.get("counts", {}).get("consumed", 0)
        for notice in served:
            if notice["tick"] == entry["n"]:
                assert notice["lineage"]["counts"]["consumed"] == counted


def test_pointers_have_no_lineage(run):
    pointers = [notice for notice in run.records(Topic.VERSIONS) if notice["event"] == "champion"]
    assert pointers
    assert not any("lineage" in json.dumps(pointer) for pointer in pointers)
