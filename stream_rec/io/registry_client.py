"""A client of MLflow that says little, waits briefly and sends nothing to its makers."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from typing import Any

PAGE = 1_000
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SKIP_PIP_REQUIREMENTS_CHECK": "true",
}
"""Nothing is sent to MLflow's makers; a server that is down is asked again by the outbox, not for minutes by a call."""


def connect(uri: str) -> Any:
    """`mlflow.MlflowClient` of a tracking URI, which is the registry's too.

    Raises:
        mlflow.exceptions.MlflowException: the store cannot be opened.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    import mlflow

    warnings.filterwarnings("ignore", ".*An input example was not provided")

    # A model's own URI is looked up in the process-wide store, wherever the client points.
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    return mlflow.MlflowClient(uri, uri)


def every_version(client: Any, name: str) -> Iterator[Any]:
    """Every version of a registered model, page by page."""
    token = None
    while True:
        page = client.search_model_versions(f"name = '{name}'", PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
