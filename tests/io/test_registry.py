"""Versions in a real MLflow store (sqlite): what is there, what is there once, what a clean process loads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from stream_rec import assemble, assemble_registry, replay
from stream_rec.events import Topic
from stream_rec.io.registry_outbox import News
from stream_rec.io.registry_words import VERSION, aliases_after, tags_of
from tests.conftest import registry_wanted
from tests.shop_files import small_settings, write_shop

pytestmark = pytest.mark.filterwarnings("ignore")
NAME = "stream-rec-replay"
PREDICT = """
import json, sys, mlflow, pandas
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
frame = pandas.DataFrame(json.loads(sys.argv[3]))
print(json.dumps(model.predict(frame, params={"k": 20}).to_dict("records")))
"""


def notice(version: str, event: str, parent: str | None = None) -> dict:
    return {"version": version, "event": event, "parent": parent, "sha256": "00", "tick": 1, "event_at": 1}


def pointer(version: str) -> dict:
    return {"version": version, "event": "champion", "tick": 1, "event_at": 1}


@pytest.mark.parametrize(
    ("notices", "aliases"),
    [
        ([notice("v0", "initial"), pointer("v0")], ("v0", None)),
        ([notice("v1", "promote", "v0"), pointer("v1")], ("v1", "v0")),
        ([notice("v0", "rollback", "v1"), pointer("v0")], ("v0", None)),
        ([{"version": "v1", "event": "pinned"}], None),
    ],
)
def test_aliases_are_what_the_pointer_says(notices, aliases):
    assert aliases_after(News(1, 1, 1, notices)) == aliases


def test_tags_say_the_offsets_that_a_version_has_read_beyond_its_parent():
    parent = notice("v0", "initial") | {"lineage": {"next": {"events/0": 10}}, "event_at": 5}
    child = notice("v1", "promote", "v0") | {"lineage": {"next": {"events/0": 25, "events/1": 3}}, "event_at": 9}
    tags = tags_of(child, parent, {"events": "shop"})
    assert json.loads(tags["kafka.ranges"]) == {"shop": {"0": [10, 25], "1": [None, 3]}}
    assert (tags["event_time.start_ms"], tags["event_time.end_ms"], tags[VERSION]) == ("5", "9", "v1")


# ---- a real store


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished replay whose versions were logged to the file store of its folder."""
    out = tmp_path_factory.mktemp("run")
    events, items = write_shop(tmp_path_factory.mktemp("shop"))
    settings = small_settings(out)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assemble_registry, "wanted", registry_wanted)
        replay.run_replay(settings, events=events, items=items)
    return settings


@pytest.fixture(scope="module")
def client(run):
    import mlflow

    uri = assemble_registry.uri_of(run)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    return mlflow.MlflowClient(uri, uri)


def promoted(run) -> list[dict]:
    return [n for n in assemble.open_run(run.run_dir).records(Topic.VERSIONS) if "sha256" in n]


def models(client) -> list:
    experiment = client.get_experiment_by_name(NAME)
    return client.search_logged_models([experiment.experiment_id])


@pytest.mark.slow
def test_every_version_of_the_run_is_there_once_with_its_lineage(run, client):
    registered = client.search_model_versions(f"name = '{NAME}'")
    wanted = {n["version"]: n for n in promoted(run)}
    assert sorted(v.tags[VERSION] for v in registered) == sorted(wanted)
    assert sorted(model.name for model in models(client)) == sorted(wanted)
    for version in registered:
        said = wanted[version.tags[VERSION]]
        assert version.tags["weights.sha256"] == said["sha256"]
        assert version.tags["events_seen"] == str(said["lineage"]["counts"]["consumed"])
        for name in ("kafka.ranges", "settings.digest", "code.version", "schema.version", "checkpoint", "tick"):
            assert version.tags[name], name


@pytest.mark.slow
def test_a_replay_moves_no_alias(run, client):
    assert client.get_registered_model(NAME).aliases == {}


@pytest.mark.slow
def test_metrics_are_grouped_and_stand_at_events_seen(run, client):
    experiment = client.get_experiment_by_name(NAME)
    (life,) = client.search_runs([experiment.experiment_id])
    assert {key.partition("/")[0] for key in life.data.metrics} >= {"stream", "train", "eval", "explore", "data"}
    assert life.info.status == "FINISHED"
    steps = [point.step for point in client.get_metric_history(life.info.run_id, "eval/next_visit_ranker_recall_at_20")]
    assert steps == sorted(steps)
    consumed = [point.value for point in client.get_metric_history(life.info.run_id, "stream/consumed")]
    whole = [point.step for point in client.get_metric_history(life.info.run_id, "stream/consumed")]
    assert whole[-1] == sum(consumed)
    assert promoted(run)[-1]["version"] in life.data.tags["mlflow.note.content"]


@pytest.mark.slow
def test_a_run_has_tables_pictures_and_a_dataset_with_its_offsets(run, client):
    experiment = client.get_experiment_by_name(NAME)
    (life,) = client.search_runs([experiment.experiment_id])
    last = promoted(run)[-1]["version"]
    there = {Path(f.path).name for f in client.list_artifacts(life.info.run_id, f"versions/{last}")}
    assert there == {"slices.json", "slates.json", "learning.png", "coverage.png"}
    sources = [json.loads(d.dataset.source) for d in life.inputs.dataset_inputs]
    assert any(source["events"]["0"][1] == promoted(run)[-1]["lineage"]["next"]["events/0"] for source in sources)


@pytest.mark.slow
def test_a_clean_process_loads_a_version_and_scores_as_the_slate_of_its_first_tick(run, client):
    wanted = promoted(run)[-1]
    slate = next(
        slate
        for slate in assemble.open_run(run.run_dir).records(Topic.SLATES)
        if slate.get("cause") == "everybody" and slate["statistics_tick"] == wanted["tick"]
    )
    (version,) = client.search_model_versions(
        f"name = 'stream-rec-replay' and tags.`{VERSION}` = '{wanted['version']}'"
    )
    rows = [{"history": [], "as_of": slate["event_at"]}]
    found = predicted(run, f"models:/stream-rec-replay/{version.version}", rows)[0]
    assert found["item_ids"] == [slot["item_id"] for slot in slate["slots"]]
    assert found["scores"] == pytest.approx([slot["score"] for slot in slate["slots"]], abs=2e-6)


def predicted(run, model: str, rows: list[dict]) -> list[dict]:
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", PREDICT, assemble_registry.uri_of(run), model, json.dumps(rows)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=run.run_dir)
    assert done.returncode == 0, done.stderr
    found: list[dict] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
def test_a_version_is_never_there_twice_and_a_missing_one_is_logged_again(run, client):
    (victim, *_) = models(client)
    (registered, *_) = client.search_model_versions(f"name = '{NAME}' and tags.`{VERSION}` = '{victim.name}'")
    client.delete_model_version(NAME, registered.version)
    client.delete_logged_model(victim.model_id)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assemble_registry, "wanted", registry_wanted)
        logging = assemble_registry.Logging(run, "file", replayed=True)
    pipeline = assemble.pipeline_of(run)
    pipeline.positions.number = 10**9
    logging.attach(SimpleNamespace(pipeline=pipeline, on_commit=None, before_fold=None))
    assert "wait" not in logging.close()
    again = client.search_model_versions(f"name = '{NAME}'")
    assert sorted(v.tags[VERSION] for v in again) == sorted({n["version"] for n in promoted(run)})
    assert sorted(model.name for model in models(client)) == sorted({n["version"] for n in promoted(run)})
