"""Versions of a live worker in MLflow: its topics by name, the aliases, and what a killed one did not get round to."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from stream_rec.events import Topic
from stream_rec.io.registry_words import VERSION
from tests.integration.ground import Ground, until

pytestmark = pytest.mark.filterwarnings("ignore")
LOGGED = {"STREAM_REC_REGISTRY__ENABLED": "true"}
NOWHERE = {**LOGGED, "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
LOG_S = 120.0


def client_of(folder: Path) -> Any:
    import mlflow

    uri = f"sqlite:///{folder / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    return mlflow.MlflowClient(uri, uri)


def told(ground: Ground) -> set[str]:
    notices = [json.loads(value or b"{}") for _, value in ground.values(Topic.VERSIONS)]
    return {notice["version"] for notice in notices if "sha256" in notice}


def logged(ground: Ground, name: str) -> list[Any]:
    if not (ground.run_dir / "mlflow.db").exists():
        return []
    return list(client_of(ground.run_dir).search_model_versions(f"name = '{name}'"))


def test_what_a_killed_worker_told_mlflow_nothing_of_is_logged_at_the_next_start(ground: Ground) -> None:
    ground.create_topics().put_events(20)
    worker = ground.process("worker", "--start", "earliest", given=NOWHERE)
    ground.await_taken(20)
    until(lambda: told(ground), "a version")
    worker.send(signal.SIGKILL)
    worker.wait()
    again = ground.process("worker", given=LOGGED)
    name = ground.settings().pipeline.name
    until(lambda: (ground.run_dir / "mlflow.db").exists(), "the store", wait_s=LOG_S)
    until(lambda: is_served(ground, name), "the alias", wait_s=LOG_S)
    assert again.stop() == 0, again.words()
    versions = logged(ground, name)
    assert sorted(version.tags[VERSION] for version in versions) == sorted(told(ground))
    (ranges,) = {version.tags["kafka.ranges"] for version in versions}
    assert ground.name(Topic.EVENTS) in json.loads(ranges)


def is_served(ground: Ground, name: str) -> bool:
    """Whether the champion's alias is there; while the store is being made nothing is."""
    try:
        return "champion" in client_of(ground.run_dir).get_registered_model(name).aliases
    except Exception:
        return False
