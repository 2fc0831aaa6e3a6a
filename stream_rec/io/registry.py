"""MLflow as a place to look at versions: written, never read back. What imports mlflow (3.17).

An experiment is a pipeline, a run one life of a worker (a new one each day of a live one), a LoggedModel a version.
The identity of a version is ours and a tag; what is logged twice is there once. The stores behind the tracking URI may
be a file of the run folder or a server.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from stream_rec.io.registry_client import connect, every_version
from stream_rec.io.registry_model import save
from stream_rec.io.registry_outbox import News, Point
from stream_rec.io.registry_words import (
    FLOOR,
    MAX_TAG,
    SERVES,
    VERSION,
    Notice,
    Ranges,
    aliases_after,
    dataset_of,
    is_version,
    metrics_of,
    ranges_of,
    tags_of,
)

DAY_MS = 86_400_000
WEIGHTS_WAIT_S = 10.0
"""How long the weights of a version may take to reach the disk."""
WORKER, OPEN_RUNS = "worker.id", "attributes.status = 'RUNNING' and tags.`worker.id` = '{}'"
DESCRIPTION, REGISTERED = "mlflow.note.content", "mlflow.modelVersions"
KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Else the UI takes versions for those of a chat agent."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a pipeline is logged.

    Attributes:
        uri: of the tracking store.
        name: of the experiment and the registered model.
        artifacts: folder of the artefacts; None leaves it to the server.
        weights: file of a version's weights.
        topics: our topics to what they are called outside.
        source: kind of the input: `kafka`, `file` or `memory`.
        follows: whether aliases follow the notices.
        daily: whether each day of event time gets a run of its own.
        floor: tag of the tick up to which missing versions went on purpose.
        tidy: collects what need not stay, of all notices so far; returns the versions that went.
    """

    uri: str
    name: str
    artifacts: Path | None
    weights: Callable[[str], Path]
    topics: Mapping[str, str]
    source: str
    follows: bool = True
    daily: bool = False
    floor: str = FLOOR
    tidy: Callable[[Sequence[Notice]], Collection[str]] = lambda _: ()


@dataclass(frozen=True, slots=True)
class Shown:
    """What people see beside the figures.

    Attributes:
        worker: tells this worker's runs from others'.
        title: what runs are called.
        tags: of every run and version: digests and the like.
        params: of every run: settings.
        page: the note of a version, of its notice and what it has read; the newest one's is the run's too.
        tables: artefact file to column to values, of a notice.
        draw: makes pictures in a folder; returns them.
    """

    worker: str
    title: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    page: Callable[[Notice, Ranges], str] = lambda _, __: ""
    tables: Callable[[News, Notice], Mapping[str, Mapping[str, list[Any]]]] = lambda _, __: {}
    draw: Callable[[Path], Sequence[Path]] = lambda _: ()


class Registry:
    """What the child of the outbox drives; any exception means: not now, and the call may come again.

    Args:
        place: where.
        shown: with what.
    """

    def __init__(self, place: Place, shown: Shown) -> None:
        self._place, self._shown = place, shown
        self._client: Any = None
        self._experiment = self._run = ""
        self._day: int | None = None
        self._numbers: dict[str, str] = {}
        """Version to its number in the registered model."""
        self._notices: dict[str, Notice] = {}
        self._said: list[Notice] = []
        """Every notice of a version so far, without its long parts."""
        self._floor = -1
        """Tick up to which a version that MLflow lacks went on purpose."""

    # ---- what it is told

    def look_back(self, waiting: frozenset[str], notices: Iterable[Notice]) -> None:
        """Log again what MLflow lacks.

        Args:
            waiting: versions that are still to be told of.
            notices: every one there is so far, oldest first.
        """
        self._ready()
        self._catch_up(waiting, notices)

    def _ready(self) -> None:
        """Connect, once."""
        if self._client is None:
            self._client = connect(self._place.uri)
        if not self._experiment:
            self._experiment = self._experiment_id()
            self._close_left_over()
            self._known()
        if not self._run:
            self._open_run()

    def points(self, points: Sequence[Point]) -> None:
        """Log metric points."""
        from mlflow.entities import Metric

        self._ready()
        for day in sorted({self._day_of(point.at_ms) for point in points}):
            self._turn_over(day)
            some = [point for point in points if self._day_of(point.at_ms) == day]
            self._client.log_batch(self._run, metrics=[Metric(p.key, p.value, p.at_ms, p.step) for p in some])

    def news(self, news: News, statistics: Path | None) -> None:
        """Log the versions that a tick tells of, and let the aliases follow it."""
        self._ready()
        self._turn_over(self._day_of(news.at_ms))
        for notice in filter(is_version, news.notices):
            if notice["version"] not in self._numbers:
                self._log(news, notice, statistics)
            self._remember(notice)
        if told := aliases_after(news):
            self._follow(*told)
        self._said += map(_slim, news.notices)
        for version in self._place.tidy(self._said):
            self._numbers.pop(version, None)

    def end(self) -> None:
        """End the run."""
        if self._run:
            self._client.set_terminated(self._run, "FINISHED")

    # ---- connecting

    def _experiment_id(self) -> str:
        found = self._client.get_experiment_by_name(self._place.name)
        if found is None:
            at = None if self._place.artifacts is None else self._place.artifacts.absolute().as_uri()
            return str(self._client.create_experiment(self._place.name, artifact_location=at, tags=KIND))
        if found.lifecycle_stage != "active":
            self._client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _close_left_over(self) -> None:
        """Runs of this worker that nobody ended: the process was killed."""
        words = OPEN_RUNS.format(self._shown.worker)
        for run in self._client.search_runs([self._experiment], words):
            self._client.set_terminated(run.info.run_id, "KILLED")

    def _known(self) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(self._place.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        self._floor = int(self._client.get_registered_model(self._place.name).tags.get(self._place.floor, -1))
        for found in every_version(self._client, self._place.name):
            if VERSION in found.tags:
                self._numbers[found.tags[VERSION]] = found.version

    def _catch_up(self, waiting: frozenset[str], notices: Iterable[Notice]) -> None:
        pointer: tuple[str, str | None] | None = None
        for notice in notices:
            self._said.append(_slim(notice))
            if notice.get("version") in waiting:
                # It is logged with what was kept for it, and the aliases with it.
                pointer = None
                self._remember(notice)
                continue
            line = notice.get("lineage", {})
            news = News(
                notice.get("tick", 0), notice.get("event_at", 0), line.get("counts", {}).get("consumed", 0),
                [dict(notice)],
            )  # fmt: skip
            if is_version(notice):
                if notice["version"] not in self._numbers and notice.get("tick", 0) > self._floor:
                    self._log(news, notice, None)
                self._remember(notice)
            pointer = self._pointer(news) or pointer
        if pointer is not None:
            self._follow(*pointer)

    def _pointer(self, news: News) -> tuple[str, str | None] | None:
        told = aliases_after(news)
        if told is None:
            return None
        own = self._notices.get(told[0], {})
        return told[0], own.get("parent") if own.get("event") == "promote" else None

    def _remember(self, notice: Notice) -> None:
        if is_version(notice) and (notice.get("event") in SERVES or notice["version"] not in self._notices):
            self._notices[notice["version"]] = notice
        elif is_version(notice):
            self._notices[notice["version"]] = {**self._notices[notice["version"]], "event": notice.get("event")}

    # ---- runs

    def _day_of(self, at_ms: int) -> int:
        return at_ms // DAY_MS if self._place.daily else 0

    def _turn_over(self, day: int) -> None:
        """Another run for another day."""
        if self._day is None:
            self._day = day
        if day > self._day:
            self._client.set_terminated(self._run, "FINISHED")
            previous, self._run, self._day = self._run, "", day
            self._open_run({"session.previous_run": previous})

    def _open_run(self, more: Mapping[str, str] | None = None) -> None:
        from mlflow.entities import Param

        tags = {WORKER: self._shown.worker, **self._shown.tags, **(more or {})}
        day = "" if self._day is None or not self._place.daily else f" {date(1970, 1, 1) + timedelta(self._day)}"
        run = self._client.create_run(self._experiment, tags=tags, run_name=f"{self._shown.title}{day}")
        params = [Param(name, value[:6_000]) for name, value in sorted(self._shown.params.items())]
        for low in range(0, len(params), 100):
            self._client.log_batch(run.info.run_id, params=params[low : low + 100])
        self._run = run.info.run_id

    # ---- versions

    def _log(self, news: News, notice: Notice, statistics: Path | None) -> None:
        version, parent = notice["version"], self._notices.get(notice.get("parent") or "")
        ranges = ranges_of(notice, parent, self._place.topics)
        tags = {**self._shown.tags, **tags_of(notice, parent, self._place.topics)}
        tags["statistics"] = "none" if statistics is None else f"tick {news.tick}"
        if checkpoint := news.checkpoints.get(version):
            tags["checkpoint"] = checkpoint
        note = self._shown.page(notice, ranges)
        model_id = self._logged_model(version, {**tags, DESCRIPTION: note}, statistics)
        self._link(news, notice, model_id, dataset_of(notice, ranges, self._place.source))
        self._artefacts(news, notice)
        made = self._client.create_model_version(
            self._place.name, f"models:/{model_id}", self._run, tags=tags, description=note[:MAX_TAG], model_id=model_id
        )
        self._numbers[version] = made.version
        registered = json.dumps([{"name": self._place.name, "version": made.version}])
        self._client.set_logged_model_tags(model_id, {REGISTERED: registered})
        self._client.set_tag(self._run, DESCRIPTION, f"**Newest version**\n\n{note}")

    def _logged_model(self, version: str, tags: Mapping[str, str], statistics: Path | None) -> str:
        """The LoggedModel of a version; one that an earlier try left unfinished is marked and made again."""
        from mlflow.models import Model

        found = self._client.search_logged_models([self._experiment], f"tags.`{VERSION}` = '{version}'")
        for one in found:
            if one.status == "READY":
                return str(one.model_id)
            self._client.delete_logged_model(one.model_id)
        made = self._client.create_logged_model(
            self._experiment, version, self._run, tags=dict(tags), params={"version": version}, model_type="ranker"
        )
        folder = Path(tempfile.mkdtemp(prefix="stream-rec-"))
        try:
            artifacts = {"weights": self._waited_for(version), "statistics": statistics}
            model = Model(run_id=self._run, model_id=made.model_id)
            save(folder / "model", model, artifacts, encoder=self._shown.tags.get("encoder", "none"))
            self._client.log_model_artifacts(made.model_id, str(folder / "model"))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self._client.finalize_logged_model(made.model_id, "READY")
        return str(made.model_id)

    def _waited_for(self, version: str) -> Path:
        """The weights of a version, once they are there."""
        weights = self._place.weights(version)
        until_s = time.monotonic() + WEIGHTS_WAIT_S
        while not weights.exists() and time.monotonic() < until_s:
            time.sleep(0.05)
        return weights

    def _link(self, news: News, notice: Notice, model_id: str, dataset: Mapping[str, str]) -> None:
        """Tie run, model and dataset together at the step of the version."""
        from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelOutput, Metric

        self._client.log_outputs(self._run, [LoggedModelOutput(model_id, step=news.step)])
        given = Dataset(**dataset)
        self._client.log_inputs(self._run, [DatasetInput(given, [InputTag("mlflow.data.context", "training")])])
        on = {"model_id": model_id, "dataset_name": given.name, "dataset_digest": given.digest}
        found = [Metric(key, value, news.at_ms, news.step, **on) for key, value in metrics_of(notice).items()]
        self._client.log_batch(self._run, metrics=found)

    def _artefacts(self, news: News, notice: Notice) -> None:
        """Tables and pictures of a version, in the run."""
        at = f"versions/{notice['version']}"
        for name, table in self._shown.tables(news, notice).items():
            if table and any(table.values()):
                self._client.log_table(self._run, dict(table), f"{at}/{name}.json")
        folder = Path(tempfile.mkdtemp(prefix="stream-rec-"))
        try:
            for picture in self._shown.draw(folder):
                self._client.log_artifact(self._run, str(picture), at)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _follow(self, champion: str, back: str | None) -> None:
        """Let the aliases say what the notices say; they are read by people only."""
        if not self._place.follows:
            return
        for alias, version in (("champion", champion), ("rollback", back)):
            number = self._numbers.get(version or "")
            if number is not None:
                self._client.set_registered_model_alias(self._place.name, alias, number)
            elif alias == "rollback":
                self._client.delete_registered_model_alias(self._place.name, alias)


def _slim(notice: Notice) -> Notice:
    return {name: notice[name] for name in ("version", "event", "parent", "tick", "event_at") if name in notice}
