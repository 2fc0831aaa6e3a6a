"""A real MLflow server is killed in the middle of a run: the run neither waits nor stops, and all is there after."""

from __future__ import annotations

import pytest

from stream_rec import assemble, assemble_registry, replay
from stream_rec.events import Topic
from stream_rec.io.registry_words import VERSION
from stream_rec.loop import Loop
from tests.conftest import registry_wanted
from tests.integration.mlflow_server import MlflowServer
from tests.shop_files import small_settings, write_shop

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
NAME = "stream-rec-replay"


def test_a_server_killed_in_mid_run_costs_nothing_and_catches_up(tmp_path, monkeypatch):
    import mlflow

    events, items = write_shop(tmp_path)
    quiet, settings = tmp_path / "quiet", small_settings(tmp_path / "run")
    replay.run_replay(small_settings(quiet), events=events, items=items)
    monkeypatch.setattr(assemble_registry, "wanted", registry_wanted)
    monkeypatch.setattr(replay, "INTERRUPTED_MS", 0)
    (tmp_path / "server").mkdir()
    with MlflowServer(tmp_path / "server") as server:
        monkeypatch.setenv(assemble_registry.VARIABLE, server.uri)
        after, began = Loop.after_commit, assemble_registry.Logging.attach
        attached = []

        def attaching(logging, loop):
            began(logging, loop)
            attached.append(logging)

        def after_commit(loop, tick, effects):
            after(loop, tick, effects)
            if tick.number == 3:
                until_begun(attached[0])
                server.kill()

        monkeypatch.setattr(assemble_registry.Logging, "attach", attaching)
        monkeypatch.setattr(Loop, "after_commit", after_commit)
        monkeypatch.setattr(assemble_registry.Logging, "close", closing_after(server, assemble_registry.Logging.close))
        replay.run_replay(settings, events=events, items=items)
        told = {n["version"] for n in assemble.open_run(settings.run_dir).records(Topic.VERSIONS) if "sha256" in n}
        client = mlflow.MlflowClient(server.uri, server.uri)
        registered = client.search_model_versions(f"name = '{NAME}'")
        assert sorted(v.tags[VERSION] for v in registered) == sorted(told)
        assert all(v.tags["statistics"].startswith("tick") for v in registered)
        experiment = client.get_experiment_by_name(NAME)
        (life,) = client.search_runs([experiment.experiment_id])
        consumed = client.get_metric_history(life.info.run_id, "stream/consumed")
        assert sum(point.value for point in consumed) == consumed[-1].step
    for name in ("slates", "versions", "ledger", "metrics"):
        of_run, of_quiet = ((folder / f"{name}.jsonl").read_bytes() for folder in (settings.run_dir, quiet))
        assert of_run == of_quiet, name


def until_begun(logging) -> None:
    """Return when the server has the first version."""
    box = logging._outbox.box
    with box._changed:
        assert box._changed.wait_for(lambda: box.told.n_delivered > 0, 120)


def closing_after(server, close):
    """Close only when the server is up again."""

    def closing(logging, **given):
        box = logging._outbox.box if logging._outbox is not None else None
        if box is not None and not server._answers():
            with box._changed:
                assert box._changed.wait_for(lambda: box.told.n_failures > 0, 120)
            server.start()
        return close(logging)

    return closing
