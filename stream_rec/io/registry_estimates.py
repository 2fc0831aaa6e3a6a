"""What other policies would have earned under each version, written to the versions that MLflow has."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stream_rec.errors import JobFailed
from stream_rec.io.registry_client import connect
from stream_rec.io.registry_words import VERSION
from stream_rec.redact import told_of, without_password


def log_estimates(
    uri: str, name: str, estimates: Mapping[str, Mapping[str, float]], draw: Callable[[str, Path], Path]
) -> list[str]:
    """Write estimates to the runs and LoggedModels of versions; what stands there already is not written again.

    Args:
        uri: of the tracking store.
        name: of the registered model.
        estimates: version to metric to value.
        draw: makes the picture of a version in a folder.

    Returns:
        Versions that MLflow does not have, in the order given.

    Raises:
        JobFailed: MLflow refused.
    """
    from mlflow.exceptions import MlflowException

    try:
        client = connect(uri)
        return [version for version, values in estimates.items() if not _log(client, name, version, values, draw)]
    except MlflowException as error:
        raise JobFailed(
            f"MLflow at {without_password(uri)} takes no estimates ({told_of(error, uri)}); mend it, then run the "
            "command again"
        ) from None


def _log(client: Any, name: str, version: str, values: Mapping[str, float], draw: Callable[[str, Path], Path]) -> bool:
    from mlflow.entities import Metric

    found = client.search_model_versions(f"name = '{name}' and tags.`{VERSION}` = '{version}'")
    if not found:
        return False
    model_id, run_id = found[0].source.rpartition("/")[2], found[0].run_id
    told = sorted(client.get_logged_model(model_id).metrics or (), key=lambda metric: metric.timestamp)
    there = {metric.key: metric.value for metric in told}
    step, now_ms = int(found[0].tags.get("events_seen", 0)), time.time_ns() // 1_000_000
    new = {key: value for key, value in values.items() if there.get(key) != value}
    points = [Metric(key, value, now_ms, step, model_id=model_id) for key, value in new.items()]
    for low in range(0, len(points), 1_000):
        client.log_batch(run_id, metrics=points[low : low + 1_000])
    folder = Path(tempfile.mkdtemp(prefix="stream-rec-"))
    try:
        client.log_artifact(run_id, str(draw(version, folder)), f"versions/{version}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return True
