"""Collecting versions on a real MLflow server: the bytes of its artefacts shrink, what people named stays."""

from __future__ import annotations

import pytest

from stream_rec import assemble, assemble_registry, assemble_versions, replay
from stream_rec.errors import JobFailed
from stream_rec.events import Topic
from stream_rec.io.registry_server import ServerStore
from stream_rec.io.registry_store import Logged
from stream_rec.io.registry_words import VERSION
from stream_rec.registry_process import registry_of
from stream_rec.simulate import ShopPlan
from stream_rec.version_facts import gather
from tests.conftest import registry_wanted
from tests.integration.mlflow_server import MlflowServer
from tests.shop_files import small_settings, write_shop

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
NAME = "stream-rec-replay"
SETS = ("learn.light_cut_examples=100", "registry.keep_last=2", "registry.drain_ms=600000")
ASKED = [{"history": [], "as_of": 1_767_700_000_000}]
BUSY = ShopPlan(days=2, n_users=120, n_items=150, visits_per_day=600)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch, MlflowServer(tmp_path_factory.mktemp("server")) as server:
        patch.setenv(assemble_registry.VARIABLE, server.uri)
        patch.setattr(assemble_registry, "wanted", registry_wanted)
        yield server


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return write_shop(tmp_path_factory.mktemp("shop"), plan=BUSY)


@pytest.fixture(scope="module")
def collected(server, shop, tmp_path_factory):
    """Settings of a logged run, its notices, an old version that a person has named, what collecting gave."""
    settings = small_settings(tmp_path_factory.mktemp("run"), *SETS)
    replay.run_replay(settings, events=shop[0], items=shop[1])
    gathered = gather(assemble.open_run(settings.run_dir).records(Topic.VERSIONS))
    store, client = ServerStore(server.uri, NAME, "nobody"), server.client()
    old = assemble_versions.collect(settings, gathered, dry_run=True).versions[0]
    client.set_registered_model_alias(NAME, "mine", str(store.versions()[old].number))
    before = server.artifact_bytes()
    return settings, gathered, old, assemble_versions.collect(settings, gathered, dry_run=False), before


def test_the_artefacts_of_what_goes_are_off_the_servers_disk(server, collected):
    _, gathered, _, done, before = collected
    assert len(done.versions) > 2
    assert server.artifact_bytes() < before * (1 - 0.8 * len(done.versions) / len(gathered.told))


def test_what_goes_is_gone_from_registry_and_experiment_and_the_rest_is_there(server, collected):
    _, gathered, _, done, _ = collected
    left, client = gathered.told.keys() - set(done.versions), server.client()
    assert {v.tags[VERSION] for v in client.search_model_versions(f"name = '{NAME}'")} == left
    experiment = client.get_experiment_by_name(NAME)
    assert {model.name for model in client.search_logged_models([experiment.experiment_id])} == left


def test_a_version_that_a_person_named_there_stays_whole(server, collected):
    _, _, old, done, _ = collected
    import mlflow

    server.client()
    assert old not in done.versions
    assert len(mlflow.pyfunc.load_model(f"models:/{NAME}@mine").predict(ASKED)["item_ids"][0]) > 0


def test_the_next_start_does_not_log_again_what_went(server, collected):
    settings, *_ = collected
    left = len(ServerStore(server.uri, NAME, "nobody").versions())
    registry = registry_of(assemble_registry._start(settings, "file", replayed=True, daily=False, topics={}))
    registry.look_back(frozenset(), list(assemble.open_run(settings.run_dir).records(Topic.VERSIONS)))
    registry.end()
    assert len(ServerStore(server.uri, NAME, "nobody").versions()) == left


def test_a_collection_that_broke_off_is_finished_by_the_next(server, collected):
    settings, gathered, old, *_ = collected
    store, client = ServerStore(server.uri, NAME, "nobody"), server.client()
    client.delete_registered_model_alias(NAME, "mine")
    client.delete_logged_model(store.versions()[old].model_id)
    assert assemble_versions.collect(settings, gathered, dry_run=False).versions == [old]
    assert old not in store.versions()


def test_what_other_runs_logged_under_the_same_name_is_not_ones_own():
    versions = {name: Logged(n, "m", "r", n, 0, has_alias=False) for n, name in enumerate(("v1-a", "v2-b"))}
    assert list(ServerStore("http://127.0.0.1:9", NAME, "nobody").own(versions, {"v2-b", "v3-c"})) == ["v2-b"]


def test_a_server_that_is_away_is_named_without_its_password(monkeypatch):
    # MLflow keeps there what it was connected to last.
    monkeypatch.setenv(assemble_registry.VARIABLE, "")
    with pytest.raises(JobFailed, match=r"MLflow at http://127\.0\.0\.1:9 cannot be cleaned up") as caught:
        ServerStore("http://me:secret@127.0.0.1:9", NAME, "nobody").versions()
    assert "secret" not in str(caught.value)
    settings = small_settings(None, "registry.tracking_uri=http://me:secret@127.0.0.1:9")
    assert assemble_registry.where(settings) == "http://127.0.0.1:9"


def test_above_its_bound_a_run_collects_there_by_itself(server, shop, tmp_path):
    settings = small_settings(tmp_path, *SETS, "registry.max_bytes=1", "pipeline.name=bounded")
    replay.run_replay(settings, events=shop[0], items=shop[1])
    told = gather(assemble.open_run(settings.run_dir).records(Topic.VERSIONS)).told
    left = ServerStore(server.uri, "bounded-replay", "nobody").versions()
    assert len(left) < len(told)
    assert list(told)[-1] in left
