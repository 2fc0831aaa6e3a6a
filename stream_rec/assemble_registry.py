"""Settings to versions in MLflow: where they are logged, with what, and how a loop is watched."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stream_rec import assemble, assemble_kafka, assemble_watch, config
from stream_rec.errors import SettingsError
from stream_rec.events import Topic
from stream_rec.io import registry_estimates
from stream_rec.io.registry_child import ChildSink, Start
from stream_rec.io.registry_outbox import NAME, News, Outbox, Point
from stream_rec.io.registry_words import estimates_of
from stream_rec.learn.frozen import Columns
from stream_rec.loop import Loop
from stream_rec.redact import without_password
from stream_rec.registry_feed import Feed

STORE, ARTIFACTS = assemble.REGISTRY, assemble.REGISTERED[0]
assert NAME in assemble.REGISTERED
VARIABLE = "MLFLOW_TRACKING_URI"
SCHEMA_VERSION = "1"
"""Of notices and slates."""
REPLAYED = "-replay"
PROCESS = "stream_rec.registry_process"
STOPPING_MS = 5_000
"""How long a live worker that stops waits at most; the rest is logged at its next start."""


def wanted(settings: config.Settings) -> bool:
    """Whether versions are logged at all."""
    return settings.registry.enabled


def uri_of(settings: config.Settings) -> str:
    """The tracking URI: the setting's, else the environment's, else a file of the run folder."""
    return settings.registry.tracking_uri or os.environ.get(VARIABLE, "") or local_uri(settings)


def local_uri(settings: config.Settings) -> str:
    """The tracking URI of the run folder's own store."""
    return f"sqlite:///{(settings.run_dir / STORE).absolute()}"


def where(settings: config.Settings) -> str:
    """The command that shows the versions, or the server to look at."""
    uri = without_password(uri_of(settings))
    return uri if uri.startswith(("http://", "https://")) else f"mlflow ui --backend-store-uri {uri}"


def name_of(settings: config.Settings, *, replayed: bool) -> str:
    """Name of the experiment and of the registered model: the pipeline's; a replay has its own."""
    name = settings.pipeline.name
    return name + REPLAYED if replayed and not name.endswith(f"-{settings.replay.name}") else name


class Logging:
    """The registry of one life of a worker, replay or demo; does nothing where it is not wanted.

    Args:
        settings: of the run.
        source: kind of the input: `kafka`, `file` or `memory`.
        replayed: a replay or backfill: under a name of its own, and no alias is moved.
        daily: a live worker: each day of event time gets a run.
        topics: our topics to what they are called outside.
        history: every notice there is; None reads those of the run folder.
    """

    def __init__(
        self,
        settings: config.Settings,
        source: str,
        *,
        replayed: bool = False,
        daily: bool = False,
        topics: Mapping[str, str] | None = None,
        history: Callable[[], Iterable[Mapping[str, Any]]] | None = None,
    ) -> None:
        self._settings, self.limit_ms = settings, settings.registry.drain_ms
        self._outbox: _Outbox | None = None
        self._feed: Feed | None = None
        if not wanted(settings):
            return
        told = _start(settings, source, replayed=replayed, daily=daily, topics=topics or {})

        def before(tick: int) -> Iterable[Mapping[str, Any]]:
            notices = _of_folder(settings) if history is None else history()
            return (notice for notice in notices if notice.get("tick", 0) <= tick)

        sink = ChildSink(PROCESS, told, before)
        self._outbox = _Outbox(Outbox(settings.run_dir, sink, max_points=settings.registry.max_points))
        self._feed = Feed(
            self._outbox,
            max_items=settings.registry.max_items,
            max_bytes=settings.registry.max_statistics_bytes,
        )

    def attach(self, loop: Loop) -> None:
        """Watch a loop that has recovered."""
        if self._outbox is not None and self._feed is not None:
            self._feed.attach(loop)
            self._outbox.box.look_back(loop.pipeline.positions.number)

    def close(self, *, limit_ms: int | None = None) -> str:
        """Deliver what waits, within `limit_ms` or `self.limit_ms`.

        Returns:
            What to tell people; empty where nothing is logged, or at a second call.
        """
        if self._outbox is None:
            return ""
        limit_ms = self.limit_ms if limit_ms is None else limit_ms
        done, told = self._outbox.box.close(limit_ms / 1000), self._outbox.box.told
        folder, self._outbox = self._outbox.box.folder, None
        words = f"versions: {where(self._settings)}"
        if told.n_dropped:
            words += f" ({told.n_dropped} metric points were dropped)"
        return words if done else f"{words} (some wait in {folder} for the next start: {told.error})"


def _start(settings: config.Settings, source: str, *, replayed: bool, daily: bool, topics: Mapping[str, str]) -> Start:
    build, uri, folder = assemble.build_of(settings), uri_of(settings), settings.run_dir.absolute()
    tags = {
        "pipeline": settings.pipeline.name,
        "settings.digest": config.semantic_digest(settings)[:16],
        "build.digest": assemble.build_digest(settings),
        "code.version": f"{build['stream_rec']}+{build['source']}",
        "schema.version": SCHEMA_VERSION,
        "encoder": settings.model.encoder,
    }
    return Start(
        run_dir=str(folder),
        uri=uri,
        name=name_of(settings, replayed=replayed),
        artifacts=str(folder / ARTIFACTS) if uri.startswith("sqlite:///") else None,
        worker=worker_of(settings),
        source=source,
        follows=not replayed,
        daily=daily,
        topics=dict(topics),
        tags=tags,
        params={name: str(value) for name, value in config.semantic(settings).items()},
        keep_last=settings.registry.keep_last,
        max_bytes=settings.registry.max_bytes,
        title=f"{settings.pipeline.name} on {settings.worker.instance}",
    )


def worker_of(settings: config.Settings) -> str:
    """Tells the runs of this worker, replay or demo from all others."""
    return f"{settings.pipeline.name}/{settings.worker.instance}/{settings.run_dir.absolute()}"


def of_worker(settings: config.Settings) -> Logging:
    """The registry of a live worker on Kafka."""
    topics = assemble_kafka.names_of(settings)
    logging = Logging(settings, "kafka", daily=True, topics=topics, history=lambda: _of_topic(settings))
    logging.limit_ms = min(logging.limit_ms, STOPPING_MS)
    return logging


def of_replayed_topics(live: config.Settings, own: config.Settings) -> Logging:
    """The registry of a replay of stored topics; its outputs are known from its own life only."""
    return Logging(own, "kafka", replayed=True, topics=assemble_kafka.names_of(live), history=tuple)


class Shelf(NamedTuple):
    """Where the versions of a run are in MLflow."""

    uri: str
    name: str
    """Of the registered model."""

    @property
    def shown(self) -> str:
        """The address without a password."""
        return without_password(self.uri)


def shelf_of(settings: config.Settings, log: Path) -> Shelf:
    """Where the versions of a log are: a server that is named, else the store of the run folder.

    Args:
        settings: `run.dir` names the folder where the log is none.
        log: a run folder, or a file of slates.

    Raises:
        SettingsError: neither is there.
    """
    folder = log if log.is_dir() else settings.run.dir
    genesis = assemble.open_run(folder).genesis() if folder is not None else {}
    run = settings.run.model_copy(update={"dir": folder})
    pipeline = settings.pipeline.model_copy(update={"name": genesis.get("pipeline", settings.pipeline.name)})
    settings = settings.model_copy(update={"run": run, "pipeline": pipeline})
    elsewhere = settings.registry.tracking_uri or os.environ.get(VARIABLE, "")
    if not elsewhere and (folder is None or not (folder / STORE).is_file()):
        raise SettingsError(
            f"--log-to-mlflow: {folder or log} holds no {STORE}; name the server with {VARIABLE} or "
            "registry.tracking_uri, or the run folder with --set run.dir=DIR"
        )
    return Shelf(elsewhere or local_uri(settings), name_of(settings, replayed=genesis.get("mode") == "replay"))


def log_estimates(shelf: Shelf, rows: Iterable[Mapping[str, Any]], draw: Callable[[str, Path], Path]) -> list[str]:
    """Write the estimates of each version to it.

    Args:
        shelf: where.
        rows: of `evaluate`; the group is the version.
        draw: makes the picture of a version in a folder.

    Returns:
        Versions that MLflow does not have.

    Raises:
        JobFailed: MLflow refused.
    """
    return registry_estimates.log_estimates(shelf.uri, shelf.name, estimates_of(rows), draw)


def _of_topic(settings: config.Settings) -> Iterable[Mapping[str, Any]]:
    """Notices of the compacted topic: of each version its newest, in order of ticks."""
    notices = [n for n in assemble_watch.topic_objects(settings, Topic.VERSIONS) if isinstance(n.get("tick"), int)]
    return sorted(notices, key=lambda notice: notice["tick"])


class _Outbox:
    """The outbox as the feed sees it."""

    def __init__(self, box: Outbox) -> None:
        self.box = box
        self.settle, self.prepare = box.settle, box.prepare

    def points(self, values: Sequence[tuple[str, float]], step: int, at_ms: int) -> None:
        self.box.points([Point(key, value, step, at_ms) for key, value in values])

    def news(
        self, said: Mapping[str, Any], copy: Callable[[], Columns] | None, compact: Callable[[Columns], Columns]
    ) -> None:
        self.box.news(News(**said), copy, compact)


def _of_folder(settings: config.Settings) -> Iterable[Mapping[str, Any]]:
    run = assemble.open_run(settings.run_dir)
    return run.records(Topic.VERSIONS) if assemble.is_run(settings.run_dir) else ()
