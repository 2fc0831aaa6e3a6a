"""Cleaning up a tracking server, or any store that is not the run folder's own, through MLflow's API alone.

Artefacts are gone at once. Rows are marked as deleted, as MLflow does; `mlflow gc`, run where the server is, frees
them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stream_rec.errors import JobFailed
from stream_rec.io.registry_client import connect, every_version
from stream_rec.io.registry_store import DATABASE, LocalStore, Logged
from stream_rec.io.registry_words import VERSION, floor_of
from stream_rec.redact import told_of, without_password


class ServerStore:
    """The versions of one pipeline on a server.

    Other runs of that pipeline may log there too: only what a run was told of is its own.

    Args:
        uri: of the tracking store.
        name: of the registered model.
        worker: tells this run from those.
    """

    def __init__(self, uri: str, name: str, worker: str) -> None:
        self._uri, self._name, self._floor = uri, name, floor_of(worker)
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
            found = [one for one in every_version(client, self._name) if VERSION in one.tags]
            return {
                one.tags[VERSION]: Logged(
                    int(one.version), one.source.rpartition("/")[2], one.run_id, int(one.tags.get("tick", 0)),
                    int(one.tags.get("event_time.end_ms", 0)), str(one.version) in named,
                )
                for one in sorted(found, key=lambda one: int(one.version))
            }  # fmt: skip

    def own(self, versions: Mapping[str, Logged], told: Collection[str]) -> dict[str, Logged]:
        """Of its versions those that a run was told of."""
        return {version: one for version, one in versions.items() if version in told}

    def bytes(self, own: Mapping[str, Logged]) -> int:
        """Of the artefacts of versions, were each as large as the newest: to look at each takes too many calls.

        Raises:
            JobFailed: as `versions`.
        """
        return self.bytes_of(own)

    def bytes_of(self, gone: Mapping[str, Logged]) -> int:
        """Of the artefacts of some versions, were each as large as the newest of them.

        Raises:
            JobFailed: as `versions`.
        """
        if not gone:
            return 0
        with self._asked() as client:
            newest, n_bytes = list(gone)[-1], 0
            for place in _places(client, newest, gone[newest]):
                with _passing_over():
                    n_bytes += _bytes_under(*place())
            return len(gone) * n_bytes

    def delete(self, gone: Mapping[str, Logged]) -> None:
        """Take versions out of the registry and delete their artefacts; a call that breaks off may come again.

        Raises:
            JobFailed: as `versions`.
        """
        with self._asked() as client:
            # First: what is gone by then must not be logged again.
            floor = int(client.get_registered_model(self._name).tags.get(self._floor, -1))
            newest = max(logged.tick for logged in gone.values())
            client.set_registered_model_tag(self._name, self._floor, str(max(newest, floor)))
            for version, logged in gone.items():
                for place in _places(client, version, logged):
                    with _passing_over():
                        repository, path = place()
                        if repository.list_artifacts(path):
                            repository.delete_artifacts(path)
                with _passing_over():
                    client.delete_logged_model(logged.model_id)
                # Last, since a version is found again by it.
                client.delete_model_version(self._name, str(logged.number))

    def settle(self, before_ms: int, *, deleted: bool) -> None:
        """Nothing: points and free pages of a server are its own."""

    @contextmanager
    def _asked(self) -> Iterator[Any]:
        try:
            self._client = self._client or connect(self._uri)
            yield self._client
        except Exception as error:  # Clients of object stores raise their own.
            raise JobFailed(
                f"MLflow at {without_password(self._uri)} cannot be cleaned up ({told_of(error, self._uri)}); mend it, "
                "then run the command again"
            ) from None


def store_of(folder: Path, uri: str, name: str, worker: str) -> LocalStore | ServerStore:
    """The store behind a tracking URI: the run folder's own, or another."""
    return LocalStore(folder, name) if is_local(folder, uri) else ServerStore(uri, name, worker)


def is_local(folder: Path, uri: str) -> bool:
    """Whether a tracking URI is that of the run folder's own store."""
    return uri == f"sqlite:///{(folder / DATABASE).absolute()}"


@contextmanager
def _passing_over() -> Iterator[None]:
    """Pass over what an earlier call has taken out already."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise


def _places(client: Any, version: str, logged: Logged) -> Iterator[Callable[[], tuple[Any, str | None]]]:
    """Calls that say where the artefacts of a version are, (repository, path): its model, tables and pictures."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository as at

    yield lambda: (at(client.get_logged_model(logged.model_id).artifact_location), None)
    yield lambda: (at(client.get_run(logged.run_id).info.artifact_uri), f"versions/{version}")


def _bytes_under(repository: Any, path: str | None) -> int:
    found = repository.list_artifacts(path)
    return sum(_bytes_under(repository, one.path) if one.is_dir else int(one.file_size or 0) for one in found)
