"""A year of versions in MLflow's own store: what the store weighs, what `versions gc` leaves, how long both take.

    python -m tests.bench.bench_mlflow_year [--versions 10000] [--days 365] [--points 96]

The last version and run of a small simulated shop, really logged, are copied: rows with new ids, artefacts as hard
links (each counts whole). A day is a run with so many points of each metric, as a live worker logs at most. The encoder
is none and the shop has 150 items: with a tower or more items an artefact is larger, the number that stays is not.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from rich.console import Console

from stream_rec import demo_run
from stream_rec.io.registry_gc import measured
from stream_rec.io.registry_words import VERSION
from stream_rec.simulate import Shop, ShopPlan
from stream_rec.version_facts import DAY_MS
from tests.bench.bench_versions import BEGAN_MS, LIMIT_S, timed, write_run
from tests.shop_files import small_settings

NAME = "stream-rec-replay"
PLAN = ShopPlan(days=3, n_users=120, n_items=150, visits_per_day=150)
OF_VERSION = ("logged_models", "logged_model_tags", "logged_model_params", "logged_model_metrics")
OF_RUN = ("tags", "params", "latest_metrics")


class Template:
    """A store with a logged version, and how more like it are made.

    Args:
        folder: of a run that was logged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.db = folder, sqlite3.connect(folder / "mlflow.db")
        row = self.db.execute("SELECT version, source, run_id FROM model_versions ORDER BY version DESC").fetchone()
        self.number, self.model, self.run = row[0], row[1].rpartition("/")[2], row[2]
        sql = "SELECT name FROM logged_models WHERE model_id = ?"
        self.version = self.db.execute(sql, (self.model,)).fetchone()[0]
        sql = "SELECT dataset_uuid FROM logged_model_metrics WHERE model_id = ?"
        self.dataset = self.db.execute(sql, (self.model,)).fetchone()[0]
        self.artifacts = folder / "mlartifacts"
        self._rows = cache(self._read)

    def copy(self, table: str, where: str, new: Mapping[str, object]) -> None:
        """Rows of a table again, with other values in some columns; `where` names no more than this template's own."""
        columns, rows = self._rows(table, where)
        values = [[new.get(name, value) for name, value in zip(columns, row, strict=True)] for row in rows]
        self.db.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(columns))})", values)

    def _read(self, table: str, where: str) -> tuple[list[str], list[tuple[object, ...]]]:
        columns = [row[1] for row in self.db.execute(f"PRAGMA table_info({table})")]
        return columns, self.db.execute(f"SELECT * FROM {table} WHERE {where}").fetchall()

    def day(self, number: int, n_points: int) -> str:
        """One more run with its points; returns its id."""
        run, began_ms = f"{number:032x}", BEGAN_MS + number * DAY_MS
        self.copy("runs", f"run_uuid = '{self.run}'", {"run_uuid": run, "name": f"day {number}"})
        for table in OF_RUN:
            new = {"run_uuid": run} | ({"timestamp": began_ms + DAY_MS - 1} if table == "latest_metrics" else {})
            self.copy(table, f"run_uuid = '{self.run}'", new)
        step_ms = DAY_MS // n_points
        self.db.execute(
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < ? - 1) INSERT INTO metrics "
            "(key, value, timestamp, run_uuid, step, is_nan) SELECT key, value + i, ? + i * ?, ?, ? + i * 100, 0 "
            "FROM latest_metrics, n WHERE run_uuid = ?",
            (n_points, began_ms, step_ms, run, number * n_points * 100, self.run),
        )
        return run

    def copy_version(self, number: int, name: str, at_ms: int, run: str) -> None:
        """One more version, of a run, with its artefacts."""
        model, dataset = f"m-{number:032x}", f"d{number:031x}"
        for table in OF_VERSION:
            new = {"model_id": model, "name": name, "source_run_id": run, "run_id": run, "dataset_uuid": dataset}
            self.copy(table, f"model_id = '{self.model}'", new)
        self.copy("datasets", f"dataset_uuid = '{self.dataset}'", {"dataset_uuid": dataset, "digest": dataset})
        for end, own, other in (("source", self.dataset, dataset), ("destination", self.model, model)):
            new = {"input_uuid": f"{end[0]}{number:031x}", f"{end}_id": other}
            self.copy("inputs", f"{end}_id = '{own}'", new)
        own, number = f"name = '{NAME}' AND version = {self.number}", self.number + 1 + number
        self.copy("model_versions", own, {"version": number, "source": f"models:/{model}", "run_id": run})
        for key, value in ((VERSION, name), ("event_time.end_ms", str(at_ms)), ("tick", str(number))):
            self.copy("model_version_tags", f"{own} AND key = '{key}'", {"version": number, "value": value})
        others = f"key NOT IN ('{VERSION}', 'event_time.end_ms', 'tick')"
        self.copy("model_version_tags", f"{own} AND {others}", {"version": number})
        pictures = Path(self.run, "artifacts", "versions", self.version)
        shutil.copytree(
            self.artifacts / "models" / self.model, self.artifacts / "models" / model, copy_function=os.link
        )
        to = self.artifacts / run / "artifacts" / "versions" / name
        shutil.copytree(self.artifacts / pictures, to, copy_function=os.link)


def logged(folder: Path) -> None:
    """A small shop whose versions are logged to the store of the folder."""
    sets = (f"pipeline.name={NAME}", "model.encoder=none", "registry.enabled=true")
    settings = small_settings(folder, *sets)
    with Path(os.devnull).open("w") as nowhere:
        demo_run.run_demo(settings, Console(file=nowhere), shop=Shop(1, PLAN))


def weighed(folder: Path) -> str:
    """Megabytes of the database, and of everything that `registry.max_bytes` bounds."""
    return (
        f"mlflow.db {(folder / 'mlflow.db').stat().st_size / 1e6:,.0f} MB, with artefacts and weights "
        f"{measured(folder) / 1e6:,.0f} MB"
    )


def main() -> None:
    """Print bytes and times before and after."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--versions", type=int, default=10_000)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--points", type=int, default=96)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, made = Path(name, "year"), Path(name, "made")
        logged(made)
        folder.mkdir()
        write_run(folder, given.versions, given.days, 4_096)
        for part in ("mlflow.db", "mlartifacts"):
            shutil.move(made / part, folder / part)
        template, began_s = Template(folder), time.perf_counter()
        runs = [template.day(number, given.points) for number in range(given.days)]
        for number in range(given.versions):
            day = number * given.days // given.versions
            at_ms = BEGAN_MS + number * given.days * DAY_MS // given.versions
            template.copy_version(number, f"v{number}-{number:012x}", at_ms, runs[day])
        template.db.commit()
        template.db.close()
        print(f"{given.versions:,} versions over {given.days} days made in {time.perf_counter() - began_s:.0f} s")
        print(f"before: {weighed(folder)}")
        for words in (("list",), ("gc",), ("gc",), ("list",)):
            took_s, said = timed(*words, "--out", str(folder))
            limit = f" (limit {LIMIT_S:g} s)" if words[0] == "list" else ""
            print(f"versions {' '.join(words)}: {took_s:.2f} s{limit}; {said.splitlines()[0][:40]} ...")
        print(f"after: {weighed(folder)}")
        with sqlite3.connect(folder / "mlflow.db") as db:
            for table in ("model_versions", "runs", "metrics"):
                print(f"{db.execute(f'SELECT count(*) FROM {table}').fetchone()[0]:,} {table}")


if __name__ == "__main__":
    main()
