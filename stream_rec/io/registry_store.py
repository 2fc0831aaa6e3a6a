"""Cleaning up MLflow's local store in a run folder: rows of versions out of sqlite, their folders off the disk.

MLflow itself only marks what is deleted and keeps the rows of tags for good; its own `gc` leaves registered versions
alone. The tables are those of MLflow 3.17.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from stream_rec.errors import JobFailed
from stream_rec.io.registry_words import FLOOR, VERSION

DATABASE, ARTIFACTS = "mlflow.db", "mlartifacts"
WAIT_S = 60.0
"""How long another program may hold the file."""
_OF_MODELS = ("logged_model_metrics", "logged_model_params", "logged_model_tags", "logged_models")
_TIED = """source_type = 'DATASET' AND source_id IN (SELECT dataset_uuid FROM read)
OR destination_type = 'MODEL_OUTPUT' AND destination_id IN (SELECT model_id FROM gone)"""
_THIN = """
DELETE FROM metrics WHERE rowid IN (
    SELECT point FROM (
        SELECT metrics.rowid AS point,
               row_number() OVER (PARTITION BY run_uuid, key ORDER BY step DESC, timestamp DESC) AS place
        FROM metrics WHERE run_uuid IN (
            SELECT run_uuid FROM runs JOIN experiments USING (experiment_id) JOIN latest_metrics USING (run_uuid)
            WHERE experiments.name = ? AND status != 'RUNNING' AND key = 'stream/consumed'
            GROUP BY run_uuid HAVING max(timestamp) < ?
        )
    ) WHERE place > 1
)"""


class Logged(NamedTuple):
    """A registered version of ours."""

    number: int
    model_id: str
    run_id: str
    tick: int
    event_at: int
    """Event time at which it began to serve, ms."""
    has_alias: bool


class LocalStore:
    """The store of one pipeline in a run folder.

    Args:
        folder: the run folder.
        name: of the registered model.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self.database, self.artifacts = folder / DATABASE, folder / ARTIFACTS

    def versions(self) -> dict[str, Logged]:
        """Registered versions that carry our id, oldest first; empty where nothing was ever logged.

        Raises:
            JobFailed: the file is no store of this MLflow.
        """
        if not self.database.is_file():
            return {}
        with _opened(self.database) as db:
            tags: dict[int, dict[str, str]] = {}
            for number, key, value in db.execute(
                "SELECT version, key, value FROM model_version_tags WHERE name = ? AND key IN (?, 'tick', "
                "'event_time.end_ms')", (self._name, VERSION),
            ):  # fmt: skip
                tags.setdefault(number, {})[key] = value
            aliased = {
                number
                for (number,) in db.execute(
                    "SELECT version FROM registered_model_aliases WHERE name = ?", (self._name,)
                )
            }
            rows = db.execute(
                "SELECT version, source, run_id FROM model_versions WHERE name = ? AND current_stage != "
                "'Deleted_Internal' ORDER BY version", (self._name,),
            ).fetchall()  # fmt: skip
        return {
            told[VERSION]: Logged(
                number, source.rpartition("/")[2], run_id, int(told.get("tick", 0)),
                int(told.get("event_time.end_ms", 0)), number in aliased,
            )
            for number, source, run_id in rows
            if VERSION in (told := tags.get(number, {}))
        }  # fmt: skip

    def own(self, versions: Mapping[str, Logged], told: Collection[str]) -> dict[str, Logged]:
        """Those that the run may delete: all, since nobody else logs here."""
        del told
        return dict(versions)

    def bytes(self, own: Mapping[str, Logged]) -> int:
        """Of the database and all artefacts, on the disk."""
        del own
        return sum(map(bytes_of, (*self._folder.glob(f"{DATABASE}*"), self.artifacts)))

    def bytes_of(self, gone: Mapping[str, Logged]) -> int:
        """Of the artefacts of some versions."""
        return sum(bytes_of(path) for item in gone.items() for path in self._folders_of(*item))

    def _folders_of(self, version: str, logged: Logged) -> tuple[Path, Path]:
        """Where the artefacts of a version are: its model, its tables and pictures in the run."""
        return (
            self.artifacts / "models" / logged.model_id,
            self.artifacts / logged.run_id / "artifacts" / "versions" / version,
        )

    def delete(self, gone: Mapping[str, Logged]) -> None:
        """Take versions out of the store for good, with their artefacts.

        Rows go first and at once: a crash leaves at most folders that nothing names, which the next call removes.

        Raises:
            JobFailed: another program holds the file, or it is no store of this MLflow.
        """
        # Looked at first: what a live worker logs meanwhile is in neither list.
        folders = list(self._folder_names())
        with _opened(self.database) as db:
            with db:
                self._delete_rows(db, gone.values())
                newest = max(logged.tick for logged in gone.values())
                (floor,) = db.execute(
                    "SELECT max(CAST(value AS INTEGER)) FROM registered_model_tags WHERE name = ? AND key = ?",
                    (self._name, FLOOR),
                ).fetchone()
                self._set_floor(db, max(newest, floor or 0))
            left = {model_id for (model_id,) in db.execute("SELECT model_id FROM logged_models")}
        for version, logged in gone.items():
            for folder in self._folders_of(version, logged):
                shutil.rmtree(folder, ignore_errors=True)
        for folder in folders:
            if folder.name not in left:
                shutil.rmtree(folder, ignore_errors=True)

    def settle(self, before_ms: int, *, deleted: bool) -> None:
        """Thin what is old and give free pages of the database back to the disk.

        Args:
            before_ms: event time; of runs that ended earlier each metric's last point stays alone.
            deleted: whether versions went.

        Raises:
            JobFailed: as `delete`.
        """
        if self.database.is_file() and (self.thin(before_ms) or deleted):
            with _opened(self.database) as db:
                db.isolation_level = None
                db.execute("VACUUM")

    def thin(self, before_ms: int) -> int:
        """Of each metric keep the last point, in runs that are over and whose newest point lies before a time.

        Returns:
            How many points went.
        """
        with _opened(self.database) as db, db:
            return db.execute(_THIN, (self._name, before_ms)).rowcount

    def _delete_rows(self, db: sqlite3.Connection, gone: Collection[Logged]) -> None:
        db.execute("CREATE TEMP TABLE gone (model_id TEXT PRIMARY KEY, version INTEGER)")
        db.executemany("INSERT INTO gone VALUES (?, ?)", [(logged.model_id, logged.number) for logged in gone])
        db.execute(
            "CREATE TEMP TABLE read AS SELECT DISTINCT dataset_uuid FROM logged_model_metrics "
            "WHERE dataset_uuid IS NOT NULL AND model_id IN (SELECT model_id FROM gone)"
        )
        db.execute(f"CREATE TEMP TABLE tied AS SELECT input_uuid FROM inputs WHERE {_TIED}")  # noqa: S608 (our own words)
        for table in ("input_tags", "inputs"):
            db.execute(f"DELETE FROM {table} WHERE input_uuid IN (SELECT input_uuid FROM tied)")  # noqa: S608
        db.execute("DELETE FROM datasets WHERE dataset_uuid IN (SELECT dataset_uuid FROM read)")
        for table in _OF_MODELS:
            db.execute(f"DELETE FROM {table} WHERE model_id IN (SELECT model_id FROM gone)")  # noqa: S608
        for table in ("model_version_tags", "model_versions"):
            db.execute(
                f"DELETE FROM {table} WHERE name = ? AND version IN (SELECT version FROM gone)",  # noqa: S608
                (self._name,),
            )

    def _set_floor(self, db: sqlite3.Connection, tick: int) -> None:
        db.execute("DELETE FROM registered_model_tags WHERE name = ? AND key = ?", (self._name, FLOOR))
        db.execute("INSERT INTO registered_model_tags (key, value, name) VALUES (?, ?, ?)", (FLOOR, tick, self._name))

    def _folder_names(self) -> Iterator[Path]:
        models = self.artifacts / "models"
        return models.glob("m-*") if models.is_dir() else iter(())


def bytes_of(path: Path) -> int:
    """Of a file, or of all files under a folder; 0 where nothing is."""
    with suppress(OSError):
        if path.is_file():
            return path.stat().st_size
        return sum(map(bytes_of, path.iterdir())) if path.is_dir() else 0
    return 0


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that is closed at the end; what sqlite says becomes a failure that people can mend."""
    db = sqlite3.connect(path, timeout=WAIT_S)
    try:
        yield db
    except sqlite3.Error as error:
        raise JobFailed(
            f"{path} cannot be cleaned up ({error}); stop the program that holds it and run the same command again"
        ) from error
    finally:
        db.close()
