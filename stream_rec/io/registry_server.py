"""Cleaning up a tracking server, or any store that is not the run folder's own, through MLflow's API alone.

Artefacts are gone at once. Rows are marked as deleted, as MLflow does; `mlflow gc`, run where the server is, frees
them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stream_rec.errors import JobFailed
from stream_rec.io.registry_client import connect, told_of, without_password
from stream_rec.io.registry_store import LocalStore, Logged
from stream_rec.io.registry_words import FLOOR, VERSION

PAGE = 1_000


class ServerStore:
    """The versions of one pipeline on a server.

    Args:
        uri: of the tracking store.
        name: of the registered model.
    """

    def __init__(self, uri: str, name: str) -> None:
        self._uri, self._name = uri, name
        self._client: Any = None

    def versions(self) -> dict[str, Logged]:
        """Registered versions that carry our id, oldest first; empty where nothing was ever logged.

        Raises:
            JobFailed: MLflow cannot be reached, or refuses.
        """
        with self._asked() as client:
            model = next(iter(client.search_registered_models(f"name = '{self._name}'")), None)
            if model is None:
                return {}
            named = {str(number) for number in model.aliases.values()}
            found = [one for one in _every(client, self._name) if VERSION in one.tags]
            return {
                one.tags[VERSION]: Logged(
                    int(one.version), one.source.rpartition("/")[2], one.run_id, int(one.tags.get("tick", 0)),
                    int(one.tags.get("event_time.end_ms", 0)), str(one.version) in named,
                )
                for one in sorted(found, key=lambda one: int(one.version))
            }  # fmt: skip

    def bytes(self) -> int:
        """Of the artefacts of all versions, were each as large as the newest: to look at each takes too many calls.

        Raises:
            JobFailed: as `versions`.
        """
        return self.bytes_of(self.versions())

    def bytes_of(self, gone: Mapping[str, Logged]) -> int:
        """Of the artefacts of some versions, were each as large as the newest of them.

        Raises:
            JobFailed: as `versions`.
        """
        if not gone:
            return 0
        with self._asked() as client:
            newest, n_bytes = list(gone)[-1], 0
            with _passing_over():
                n_bytes = sum(_bytes_under(*place) for place in _repositories(client, newest, gone[newest]))
            return len(gone) * n_bytes

    def delete(self, gone: Mapping[str, Logged]) -> None:
        """Take versions out of the registry and delete their artefacts; a call that breaks off may come again.

        Raises:
            JobFailed: as `versions`.
        """
        with self._asked() as client:
            # First: what is gone by then must not be logged again.
            floor = int(client.get_registered_model(self._name).tags.get(FLOOR, -1))
            newest = max(logged.tick for logged in gone.values())
            client.set_registered_model_tag(self._name, FLOOR, str(max(newest, floor)))
            for version, logged in gone.items():
                with _passing_over():
                    for repository, path in _repositories(client, version, logged):
                        repository.delete_artifacts(path)
                    client.delete_logged_model(logged.model_id)
                # Last, since a version is found again by it.
                client.delete_model_version(self._name, str(logged.number))

    def settle(self, before_ms: int, *, deleted: bool) -> None:
        """Nothing: points and free pages of a server are its own."""

    @contextmanager
    def _asked(self) -> Iterator[Any]:
        from mlflow.exceptions import MlflowException

        try:
            self._client = self._client or connect(self._uri)
            yield self._client
        except (MlflowException, OSError) as error:
            raise JobFailed(
                f"MLflow at {without_password(self._uri)} cannot be cleaned up ({told_of(error, self._uri)}); mend it, "
                "then run the command again"
            ) from None


def store_of(folder: Path, uri: str, name: str) -> LocalStore | ServerStore:
    """The store behind a tracking URI: the run folder's own, or another."""
    local = LocalStore(folder, name)
    return local if uri == f"sqlite:///{local.database.absolute()}" else ServerStore(uri, name)


def _every(client: Any, name: str) -> Iterator[Any]:
    token = None
    while True:
        page = client.search_model_versions(f"name = '{name}'", PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


@contextmanager
def _passing_over() -> Iterator[None]:
    """Pass over what an earlier call has taken out already."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise


def _repositories(client: Any, version: str, logged: Logged) -> Iterator[tuple[Any, str | None]]:
    """Where the artefacts of a version are, as (repository, path): its model, its tables and pictures in the run."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    yield get_artifact_repository(client.get_logged_model(logged.model_id).artifact_location), None
    yield get_artifact_repository(client.get_run(logged.run_id).info.artifact_uri), f"versions/{version}"


def _bytes_under(repository: Any, path: str | None) -> int:
    found = repository.list_artifacts(path)
    return sum(_bytes_under(repository, one.path) if one.is_dir else int(one.file_size or 0) for one in found)
