"""A client of MLflow that says little, waits briefly and sends nothing to its makers."""

from __future__ import annotations

import logging
import os
import warnings
from typing import Any
from urllib.parse import unquote, urlsplit

QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SKIP_PIP_REQUIREMENTS_CHECK": "true",
}
"""Nothing is sent to MLflow's makers; a server that is down is asked again by the outbox, not for minutes by a call."""

N_CHARACTERS = 200
"""Of an error that people are told."""


def without_password(uri: str) -> str:
    """A tracking URI as it may be shown.

    >>> without_password("https://ml:secret@flow.shop:5000/x"), without_password("sqlite:////runs/mlflow.db")
    ('https://flow.shop:5000/x', 'sqlite:////runs/mlflow.db')
    """
    parts = urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def told_of(error: BaseException, uri: str) -> str:
    """The first words of an error, without what logs in at a tracking URI.

    >>> told_of(OSError("no way to http://ml:secret@flow/api"), "http://ml:secret@flow")
    'no way to http://flow/api'
    """
    parts = urlsplit(uri)
    login, words = parts.netloc.rpartition("@")[0], str(error).partition("\n")[0]
    if login:
        words = words.replace(f"{login}@", "")
    if parts.password:
        words = words.replace(parts.password, "***").replace(unquote(parts.password), "***")
    return words[:N_CHARACTERS]


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
