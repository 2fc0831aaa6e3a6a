"""Collecting versions: the bytes on the disk shrink, what people named can be loaded, what a checkpoint needs stays."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing

import pytest

from stream_rec import assemble, assemble_registry, assemble_versions, replay
from stream_rec.events import Topic
from stream_rec.io.registry_gc import needed
from stream_rec.io.registry_store import LocalStore
from stream_rec.simulate import ShopPlan
from stream_rec.version_facts import gather
from tests.conftest import registry_wanted
from tests.shop_files import small_settings, write_shop

pytestmark = pytest.mark.filterwarnings("ignore")
NAME = "stream-rec-replay"
CUTS = "learn.light_cut_examples=100"
BUSY = ShopPlan(days=2, n_users=120, n_items=150, visits_per_day=600)
PARTS = ("mlflow.db", "mlartifacts", "weights")


@pytest.fixture(scope="module", autouse=True)
def own_tracking_uri():
    """MLflow puts the store that was looked at last into the environment; others must not find it there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(assemble_registry.VARIABLE, "")
        yield


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return write_shop(tmp_path_factory.mktemp("shop"), plan=BUSY)


def replayed(folder, shop, *sets, logged: bool = True):
    settings = small_settings(folder, CUTS, *sets)
    with pytest.MonkeyPatch.context() as patch:
        # MLflow puts the store that was looked at last there.
        patch.delenv(assemble_registry.VARIABLE, raising=False)
        if logged:
            patch.setattr(assemble_registry, "wanted", registry_wanted)
        replay.run_replay(settings, events=shop[0], items=shop[1])
    return settings


def told_of(settings):
    return gather(assemble.open_run(settings.run_dir).records(Topic.VERSIONS))


def collect(settings, *sets, dry_run: bool = False):
    again = small_settings(settings.run_dir, CUTS, "registry.keep_last=2", *sets)
    return assemble_versions.collect(again, told_of(settings), dry_run=dry_run)


def bytes_on_disk(folder) -> int:
    files = [path for part in PARTS for path in [folder / part, *(folder / part).rglob("*")] if path.is_file()]
    return sum(path.stat().st_size for path in files)


def weights_in(folder) -> set[str]:
    return {path.stem for path in (folder / "weights").glob("*.safetensors")}


# ---- without MLflow


@pytest.fixture(scope="module")
def bare(tmp_path_factory, shop):
    return replayed(tmp_path_factory.mktemp("bare"), shop, logged=False)


@pytest.fixture
def run(bare, tmp_path):
    shutil.copytree(bare.run_dir, tmp_path / "run")
    return small_settings(tmp_path / "run", CUTS)


def test_a_dry_run_deletes_nothing_and_says_what_would_go(run):
    before = weights_in(run.run_dir)
    would = collect(run, dry_run=True)
    assert weights_in(run.run_dir) == before
    assert collect(run).versions == would.versions
    assert would.versions


def test_the_newest_one_a_day_and_whatever_a_checkpoint_needs_keep_their_weights(run):
    told, wanted = told_of(run), needed(run.run_dir)
    done = collect(run)
    left = weights_in(run.run_dir)
    assert left == told.told.keys() - set(done.versions)
    assert {*list(told.told)[-2:], *wanted & told.told.keys(), *told.aliases.values()} <= left


def test_a_pinned_version_stays(run):
    first = told_of(run)
    gone = collect(run, dry_run=True).versions[0]
    pinned = first._replace(aliases={**first.aliases, "pinned": gone})
    assert gone not in assemble_versions.collect(run, pinned, dry_run=True).versions


def test_versions_that_a_checkpoint_names_are_read_from_it(bare):
    champion = told_of(bare).aliases["champion"]
    assert champion in needed(bare.run_dir)


def test_of_runs_that_are_long_over_only_the_last_point_of_each_metric_stays(tmp_path):
    runs = {"old": ("FINISHED", 5), "new": ("FINISHED", 50), "going on": ("RUNNING", 5)}
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as db, db:
        db.execute("CREATE TABLE experiments (experiment_id, name)")
        db.execute("CREATE TABLE runs (run_uuid, experiment_id, status)")
        db.executemany("INSERT INTO experiments VALUES (?, ?)", [(1, NAME), (2, "another")])
        for table in ("metrics", "latest_metrics"):
            db.execute(f"CREATE TABLE {table} (key, value, timestamp, run_uuid, step, is_nan)")
        for run, (status, newest) in [*runs.items(), ("of another", ("FINISHED", 5))]:
            db.execute("INSERT INTO runs VALUES (?, ?, ?)", (run, 2 if run == "of another" else 1, status))
            for key in ("a", "stream/consumed"):
                points = [(key, step, newest - 3 + step, run, step, 0) for step in range(4)]
                db.executemany("INSERT INTO metrics VALUES (?, ?, ?, ?, ?, ?)", points)
                db.execute("INSERT INTO latest_metrics VALUES (?, ?, ?, ?, ?, ?)", points[-1])
    assert LocalStore(tmp_path, NAME).thin(20) == 6
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as db:
        left = db.execute("SELECT run_uuid, count(*), min(step) FROM metrics GROUP BY run_uuid").fetchall()
    assert {run: rest for run, *rest in left} == {
        "old": [2, 3], "new": [8, 0], "going on": [8, 0], "of another": [8, 0],
    }  # fmt: skip


# ---- with a real store


@pytest.fixture(scope="module")
def collected(tmp_path_factory, shop):
    """A logged run, an alias that a person has set on an old version, and what collecting gave."""
    import mlflow

    settings = replayed(tmp_path_factory.mktemp("run"), shop)
    uri = assemble_registry.local_uri(settings)
    client = mlflow.MlflowClient(uri, uri)
    old = collect(settings, dry_run=True).versions[0]
    numbers = {v.tags["stream_rec.version"]: v.version for v in client.search_model_versions(f"name = '{NAME}'")}
    client.set_registered_model_alias(NAME, "mine", numbers[old])
    before = bytes_on_disk(settings.run_dir)
    return settings, client, old, collect(settings), before


@pytest.mark.slow
def test_the_bytes_on_the_disk_shrink_and_are_those_that_it_says(collected):
    settings, _, _, done, before = collected
    after = bytes_on_disk(settings.run_dir)
    assert (done.bytes_before, done.bytes_after) == (before, after)
    assert len(done.versions) > 2
    assert after < before - 4_000 * len(done.versions)


@pytest.mark.slow
def test_the_store_itself_shrinks(collected):
    settings, *_ = collected
    with sqlite3.connect(settings.run_dir / "mlflow.db") as db:
        assert db.execute("PRAGMA freelist_count").fetchone() == (0,)
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []


@pytest.mark.slow
def test_what_is_deleted_is_gone_from_mlflow_and_the_rest_is_there(collected):
    settings, client, _, done, _ = collected
    left = {v.tags["stream_rec.version"] for v in client.search_model_versions(f"name = '{NAME}'")}
    assert left == told_of(settings).told.keys() - set(done.versions)
    experiment = client.get_experiment_by_name(NAME)
    assert {model.name for model in client.search_logged_models([experiment.experiment_id])} == left


@pytest.mark.slow
def test_a_version_with_an_alias_can_still_be_loaded(collected):
    settings, _, old, done, _ = collected
    import mlflow

    mlflow.set_tracking_uri(assemble_registry.local_uri(settings))
    mlflow.set_registry_uri(assemble_registry.local_uri(settings))
    assert old not in done.versions
    model = mlflow.pyfunc.load_model(f"models:/{NAME}@mine")
    assert len(model.predict([{"history": [], "as_of": 1_767_700_000_000}])["item_ids"][0]) > 0


@pytest.mark.slow
def test_the_next_start_does_not_log_again_what_was_deleted(collected):
    settings, client, *_ = collected
    from stream_rec.registry_process import registry_of

    left = len(client.search_model_versions(f"name = '{NAME}'"))
    registry = registry_of(assemble_registry._start(settings, "file", replayed=True, daily=False, topics={}))
    registry.look_back(frozenset(), list(assemble.open_run(settings.run_dir).records(Topic.VERSIONS)))
    registry.end()
    assert len(client.search_model_versions(f"name = '{NAME}'")) == left


@pytest.mark.slow
def test_above_its_bound_a_running_worker_collects_by_itself(tmp_path, shop):
    import mlflow

    settings = replayed(tmp_path, shop, "registry.max_bytes=1", "registry.keep_last=2")
    uri = assemble_registry.local_uri(settings)
    left = mlflow.MlflowClient(uri, uri).search_model_versions(f"name = '{NAME}'")
    told = told_of(settings).told
    assert len(left) < len(told)
    assert list(told)[-1] in {v.tags["stream_rec.version"] for v in left}
