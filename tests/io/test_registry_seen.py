"""What people do with a version in MLflow: serve it, and look at it in a browser."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.request
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from stream_rec import assemble_registry, demo_run
from stream_rec.cli import app
from stream_rec.io.registry_words import VERSION
from stream_rec.simulate import Shop
from tests.conftest import registry_wanted
from tests.integration.mlflow_server import Loopback
from tests.shop_files import SMALL, small_settings

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
NAME = "stream-rec"
ARTIFACTS = Path(__file__).resolve().parents[2] / ".ci" / "artifacts"
REQUIRED = "STREAM_REC_BROWSER_REQUIRED"
NO_BROWSER = "no chromium: apt-get install -y --no-install-recommends chromium"
POINT = 'class="point"'
"""A point of a chart."""
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
    # A page without a mouse shows the tools of every chart over it.
    "--blink-settings=primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4,availablePointerTypes=4",
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(tracking URI, run folder) of a finished demo of three days, its versions logged."""
    settings = small_settings(tmp_path_factory.mktemp("demo"), "registry.drain_ms=600000")
    with pytest.MonkeyPatch.context() as patch, Path("/dev/null").open("w") as nowhere:
        patch.delenv(assemble_registry.VARIABLE, raising=False)
        patch.setattr(assemble_registry, "wanted", registry_wanted)
        events = settings.run_dir / "what-people-did.jsonl"
        demo_run.run_demo(settings, Console(file=nowhere), shop=Shop(1, SMALL), events_out=events)
        yield assemble_registry.local_uri(settings), settings.run_dir


@pytest.fixture(scope="module")
def client(run):
    import mlflow

    mlflow.set_tracking_uri(run[0])
    mlflow.set_registry_uri(run[0])
    return mlflow.MlflowClient(run[0], run[0])


# ---- served


SMALL_END_MS = 1_767_571_200_000 + 5 * 86_400_000
"""After the last visit of the shop."""


def test_models_serve_answers_as_predict_does(run, client, tmp_path):
    import mlflow
    import pandas as pd

    served = f"models:/{NAME}@champion"
    model = mlflow.pyfunc.load_model(served)
    rows = asked(model.predict(pd.DataFrame([{"as_of": SMALL_END_MS}]))["item_ids"][0])
    words = ["models", "serve", "-m", served, "--env-manager", "local"]
    with Loopback(tmp_path, words, path="/ping", tracking_uri=run[0]) as server:
        body = json.dumps({"dataframe_records": rows, "params": {"k": 5}}).encode()
        request = urllib.request.Request(
            f"{server.uri}/invocations", body, {"Content-Type": "application/json"}, method="POST"
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            told = json.load(answer)["predictions"]
    wanted = model.predict(pd.DataFrame(rows), params={"k": 5}).to_dict("records")
    assert [row["item_ids"] for row in told] == [list(row["item_ids"]) for row in wanted]
    for row, own in zip(told, wanted, strict=True):
        assert row["scores"] == pytest.approx(list(own["scores"]), abs=1e-6)
    assert len({tuple(row["item_ids"]) for row in told}) == len(rows)


def asked(items: list[str]) -> list[dict]:
    """Nobody, somebody with a history, the same among some candidates, the same with a query."""
    history = [{"item_id": item, "at": SMALL_END_MS - 60_000 * (n + 1)} for n, item in enumerate(items[7:10])]
    nothing: dict = {"history": [], "candidates": [], "query": "", "as_of": SMALL_END_MS}
    own = nothing | {"history": history}
    return [nothing, own, own | {"candidates": items[3:7]}, own | {"query": "lamp"}]


def test_an_encoder_that_is_not_there_is_named_with_the_ways_to_have_it():
    from stream_rec.io.pyfunc_model import _encoder

    with pytest.raises(ValueError, match=r"revision abc.*stream-rec\[minilm\]"):
        _encoder("no/such/folder", {"": {"encoder": {"revision": "abc"}}})


# ---- estimated


def test_estimates_of_each_version_are_written_to_it_once(run, client, monkeypatch):
    monkeypatch.delenv(assemble_registry.VARIABLE, raising=False)
    command = ["evaluate", str(run[1]), "--events", str(run[1] / "what-people-did.jsonl"), "--policy", "greedy"]
    told = []
    for _ in range(2):
        done = CliRunner().invoke(app, [*command, "--log-to-mlflow", "--json"])
        assert done.exit_code == 0, done.output
        told = [json.loads(line) for line in done.stdout.splitlines()]
    version = client.get_model_version_by_alias(NAME, "champion")
    rows = [row for row in told[:-1] if row["group"] == version.tags[VERSION] and row["unit"] == "slot"]
    (model,) = client.search_logged_models(
        [client.get_experiment_by_name(NAME).experiment_id], f"name = '{version.tags[VERSION]}'"
    )
    written = {metric.key: metric.value for metric in model.metrics}
    assert rows
    for row in rows:
        key = f"explore/{row['policy']}_slot_{row['estimator']}"
        assert written[f"{key}_ess"] == row["ess"]
        if row["verdict"]:
            assert (written[key], written[f"{key}_low"]) == (row["value"], row["low"])
        points = client.get_metric_history(version.run_id, f"{key}_ess")
        assert [point.step for point in points].count(int(version.tags["events_seen"])) == 1
    pictures = client.list_artifacts(version.run_id, f"versions/{version.tags[VERSION]}")
    assert "off-policy-greedy.png" in {Path(picture.path).name for picture in pictures}
    assert told[-1]["not_in_mlflow"] == []


def test_a_version_that_mlflow_lacks_is_named(run, tmp_path):
    from stream_rec.io.registry_estimates import log_estimates

    assert log_estimates(run[0], NAME, {"v9-gone": {"explore/a": 1.0}}, lambda *_: tmp_path) == ["v9-gone"]


# ---- looked at


def test_a_version_has_pictures_of_learning_calibration_and_coverage(client):
    (life,) = client.search_runs([client.get_experiment_by_name(NAME).experiment_id])
    version = client.get_model_version_by_alias(NAME, "champion").tags[VERSION]
    there = {Path(f.path).name for f in client.list_artifacts(life.info.run_id, f"versions/{version}")}
    assert there >= {"slices.json", "slates.json", "learning.png", "calibration.png", "coverage.png"}


class Browser:
    """Opens pages; each in a process that ends when the page is still.

    Args:
        profile: its folder.
        program: chromium.
    """

    def __init__(self, profile: Path, program: str) -> None:
        self._profile, self._program = profile, program

    def open(self, url: str, wanted: str, picture: Path, *, height: int = 1_400) -> str:
        """The page as it stands once `wanted` is there, or at the last of a few looks; `picture` becomes a PNG of it.

        A busy machine may not have drawn all of it when the page's own time is over, so each look takes longer.
        """
        picture.parent.mkdir(parents=True, exist_ok=True)
        own = [f"--user-data-dir={self._profile}", f"--window-size=1920,{height}", f"--screenshot={picture}"]
        for budget_ms in (15_000, 60_000, 240_000):
            command = [self._program, *QUIET, *own, f"--virtual-time-budget={budget_ms}", "--dump-dom", url]
            page = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
            if wanted in page:
                break
        return page


@pytest.fixture
def browser(tmp_path):
    program = shutil.which("chromium")
    if program is None and os.environ.get(REQUIRED) == "1":
        pytest.fail(NO_BROWSER, pytrace=False)
    if program is None:
        pytest.skip(NO_BROWSER)
    return Browser(tmp_path / "profile", program)


def test_a_browser_finds_experiment_version_with_its_lineage_and_charts_with_points(
    run, client, browser, tmp_path, capsys
):
    experiment = client.get_experiment_by_name(NAME).experiment_id
    (life,) = client.search_runs([experiment])
    version = client.get_model_version_by_alias(NAME, "champion")
    words = ["ui", "--workers", "1", "--backend-store-uri", run[0]]
    with Loopback(tmp_path, words) as server:
        pages, training = f"{server.uri}/#", "?workflowType=machine_learning"
        at = f"{pages}/experiments/{experiment}/runs{training}"
        runs = browser.open(at, life.info.run_name, tmp_path / "runs.png")
        at = f"{pages}/models/{NAME}/versions/{version.version}{training}"
        registered = browser.open(at, "kafka.ranges", ARTIFACTS / "mlflow-version.png")
        at = f"{pages}/experiments/{experiment}/runs/{life.info.run_id}/model-metrics{training}"
        charts = browser.open(at, POINT, ARTIFACTS / "mlflow.png", height=2_600)
    assert NAME in runs
    assert life.info.run_name in runs
    for words in (version.tags[VERSION], "kafka.ranges", "read of", "champion"):
        assert words in registered, words
    assert charts.count(POINT) > 20
    with capsys.disabled():
        print(f"\n{ARTIFACTS / 'mlflow.png'}\n{ARTIFACTS / 'mlflow-version.png'}")
