"""Settings to a wired program. The one module that knows both the pipeline and the outside; sole importer of io/."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from stream_rec import assemble_learning, build, config
from stream_rec.adapters.registry import ADAPTERS
from stream_rec.assemble_learning import encoder_revision, learner_of
from stream_rec.errors import SettingsError
from stream_rec.events import Kind, Topic
from stream_rec.io import datasets, lines
from stream_rec.io.checkpoint import FolderCheckpoints
from stream_rec.io.files import FileSource
from stream_rec.io.folder import LOCK_NAME, FolderPublisher, FolderWeights
from stream_rec.io.memory import MemorySource
from stream_rec.io.memory_broker import MemoryBroker
from stream_rec.io.run_folder import committed_records, file_of, lines_of
from stream_rec.learn.learner import Learner
from stream_rec.learn.query_side import QuerySide
from stream_rec.learn.replayed import ReplayPlan
from stream_rec.pipeline import Pipeline, Quotas
from stream_rec.ports import Ports
from stream_rec.query_slates import SearchRules, SearchStage
from stream_rec.slates import SlateRules, SlateStage
from stream_rec.stream.accounting import Accounting
from stream_rec.stream.attribution import Joiner
from stream_rec.stream.dedupe import Dedupe
from stream_rec.stream.front import Front
from stream_rec.stream.histories import Histories
from stream_rec.stream.intake import Facts, Intake
from stream_rec.stream.items import ItemTable, Shelf
from stream_rec.stream.judging import Rules
from stream_rec.stream.privacy import Pseudonymiser, Sealer, fingerprint
from stream_rec.stream.queries import Queries
from stream_rec.stream.sampling import Reservoir
from stream_rec.stream.searchers import Searchers
from stream_rec.stream.searches import Searches
from stream_rec.stream.users import Users
from stream_rec.stream.watermark import Watermarks
from stream_rec.stream.window import SlidingWindow

import_dataset = datasets.import_dataset
CACHE = assemble_learning.CACHE
text_digest = lines.text_digest
REGISTRY, REGISTERED = "mlflow.db", ("mlartifacts", "mlflow-waiting")
"""What the registry leaves in a run folder: a file, and folders."""


# ---- the pipeline


def pipeline_of(settings: config.Settings) -> Pipeline:
    """The pipeline in its initial state.

    Raises:
        SettingsError: there is no privacy key.
    """
    # A sum over two threads is another sum: one thread makes the bytes the same on every machine of a build.
    threadpool_limits(1)
    key = config.privacy_key(settings)
    facts = facts_of(settings)
    learner = learner_of(settings)
    rules = SlateRules(
        seed=settings.run.seed,
        key_id=fingerprint(key),
        n_slots=settings.slate.n_slots,
        refresh_users=settings.slate.refresh_users_per_tick,
        refresh_per_s=settings.slate.refresh_users_per_s,
        valid_ms=settings.slate.valid_ms,
        star_every_ms=settings.slate.star_every_ms,
        visit_gap_ms=settings.visits.gap_ms,
    )
    slates = SlateStage(facts, learner, rules)
    return Pipeline(
        intake_of(settings, facts, key),
        learner,
        slates,
        search_of(settings, facts, learner, slates),
        Quotas(
            n_slots=settings.slate.n_slots,
            report_every_ms=settings.report.interval_ms,
            train_steps=settings.learn.steps_per_tick,
            embed_texts=settings.model.embed_texts_per_tick,
            replay=ReplayPlan(
                settings.learn.replay,
                settings.learn.replay_examples,
                seed=settings.run.seed,
                exponent=settings.learn.examination_exponent,
            ),
        ),
    )


def search_of(settings: config.Settings, facts: Facts, learner: Learner, slates: SlateStage) -> SearchStage:
    """Search, by the settings."""
    rules = SearchRules(
        slates.rules,
        slates_per_tick=settings.search.slates_per_tick,
        pairs_per_tick=settings.search.pairs_per_tick,
        valid_ms=settings.search.valid_ms,
    )
    return SearchStage(facts, QuerySide(learner, facts.searches.queries, seed=settings.run.seed), slates, rules)


def intake_of(settings: config.Settings, facts: Facts, key: bytes) -> Intake:
    """Bytes to facts, by the settings."""
    kinds = frozenset(int(Kind[word.upper()]) for word in settings.learn.positives)
    rules = Rules(kinds, settings.learn.min_rating)
    return Intake(front_of(settings, key), facts, rules)


def front_of(settings: config.Settings, key: bytes) -> Front:
    """Bytes to events, by the settings."""
    return Front(
        Pseudonymiser(key),
        Sealer(key),
        ADAPTERS.get(settings.events.format),
        max_record_bytes=settings.quality.max_record_bytes,
        not_products=frozenset(settings.events.not_products),
    )


def windows_of(settings: config.Settings) -> dict[str, int]:
    """Attribution windows in ms, by what they are of."""
    return {
        "click": settings.attribution.click_window_ms,
        "cart": settings.attribution.cart_window_ms,
        "purchase": settings.attribution.purchase_window_ms,
    }


def facts_of(settings: config.Settings) -> Facts:
    """Every table of facts, empty."""
    s = settings
    return Facts(
        accounting=Accounting(share=s.quality.dead_letter_share),
        dedupe=Dedupe(s.dedupe.capacity),
        watermarks=Watermarks(s.watermark.bound_ms, s.watermark.lateness_ms, s.watermark.max_partitions),
        users=Users(s.users.capacity, s.visits.gap_ms),
        histories=Histories(s.histories.capacity),
        items=ItemTable(
            s.items.capacity, Shelf(frozenset(s.slate.blocked_items), s.slate.min_price, s.slate.max_price)
        ),
        joiner=Joiner(
            s.attribution.max_decisions,
            s.attribution.max_exposures,
            s.slate.n_slots,
            windows_ms=windows_of(s),
            valid_ms=s.slate.valid_ms,
            disorder_ms=s.watermark.bound_ms + s.watermark.lateness_ms,
        ),
        window=SlidingWindow(s.window.capacity, length_ms=s.window.length_ms),
        reservoir=Reservoir(s.reservoir.capacity, seed=s.run.seed),
        searches=Searches(
            Queries(s.search.capacity, s.search.frequent_users),
            Searchers(s.search.max_searchers),
            s.search.window_ms,
        ),
    )


def build_of(settings: config.Settings) -> dict[str, str]:
    """What computes, by name; see `build.describe`."""
    return build.describe(encoder_revision(settings))


def build_digest(settings: config.Settings) -> str:
    """16 hex digits that stand for `build_of`."""
    return build.digest(encoder_revision(settings))


# ---- the outside


def replay_ports(
    settings: config.Settings, *, events: Path, items: Path | None, since_ms: int | None, until_ms: int | None
) -> Ports:
    """A file of events in, the run folder out.

    Raises:
        SettingsError: a file or the folder is not what it should be.
        JobFailed: another program is writing to the folder.
    """
    source = FileSource(events, items, since_ms=since_ms, until_ms=until_ms)
    return _into_folder(settings, source)


def input_of(*, events: Path, items: Path | None, since_ms: int | None, until_ms: int | None) -> dict[str, Any]:
    """What the genesis entry says of a replay's input: digests of the content, the range, newer items.

    Item records newer than the range are known from its start; how many there are is said here.

    Raises:
        SettingsError: a file cannot be read to its end.
    """
    source = FileSource(events, items, since_ms=since_ms, until_ms=until_ms)
    try:
        return {
            "events": text_digest(events),
            "items": None if items is None else text_digest(items),
            "since": since_ms,
            "until": until_ms,
            "items_newer_than_range": source.n_items_newer(),
        }
    finally:
        source.close()


def memory_ports(settings: config.Settings, broker: MemoryBroker) -> Ports:
    """The in-memory transport in, the run folder out."""
    return _into_folder(settings, MemorySource(broker))


def memory_broker(n_partitions: int) -> MemoryBroker:
    """An empty in-memory transport with `n_partitions` of events."""
    return MemoryBroker({"control": 1, "items": 1, "events": n_partitions})


def _into_folder(settings: config.Settings, source: Any) -> Ports:
    folder = settings.run_dir
    publisher = FolderPublisher(folder)
    checkpoints = FolderCheckpoints(
        folder / "checkpoints",
        keep=settings.checkpoint.keep,
        horizon_ms=settings.checkpoint.horizon_ms,
        sync_first=publisher.sync,
    )
    return Ports(source, publisher, checkpoints, FolderWeights(folder / "weights", synchronous=True))


def close(ports: Ports) -> None:
    """Finish what is being written and let go of the folder, whatever fails on the way."""
    try:
        ports.checkpoints.close()
    finally:
        try:
            ports.weights.close()
        finally:
            ports.publisher.close()


def clear_run(folder: Path, *, mode: str) -> None:
    """Remove an earlier run of the same mode, so that a new one can begin; an empty or missing folder is left alone.

    Raises:
        SettingsError: the folder holds something else.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    refuse_foreign(folder)
    first = next(committed_records(folder, Topic.LEDGER), {})
    if first.get("mode") != mode:
        raise SettingsError(f"{folder} holds something that is not a {mode} run; choose another --out")
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name in ("checkpoints", "figures", "weights", CACHE, *REGISTERED):
            shutil.rmtree(path)
        elif path.suffix in (".jsonl", ".json") or path.name.startswith(REGISTRY):
            path.unlink()


def copy_cache(source: Path, target: Path) -> None:
    """Take over what a run keeps of its encoder, where a folder has none yet; a cache is worth no failure."""
    if not (target / CACHE).exists():
        with suppress(OSError):
            shutil.copytree(source / CACHE, target / CACHE)


def refuse_foreign(folder: Path) -> None:
    """Take a missing or empty folder, or one in which a run began.

    Raises:
        SettingsError: something else is there.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise SettingsError(f"{there} is a file, and a run needs a folder; choose another --out")
    if there == folder and not is_run(folder) and any(path.name not in (LOCK_NAME, CACHE) for path in folder.iterdir()):
        raise SettingsError(f"{folder} holds files and is no run folder; choose another --out")


def is_run(folder: Path) -> bool:
    """Whether a run began in the folder."""
    return file_of(folder, Topic.LEDGER).is_file()


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder to look at."""

    folder: Path

    def records(self, topic: str) -> Iterator[dict[str, Any]]:
        """The committed records of a topic as JSON objects, oldest first.

        Of a run whose ledger is a Kafka topic the folder holds the metrics only.
        """
        if topic == Topic.METRICS and not is_run(self.folder):
            return lines_of(self.folder, topic)
        return committed_records(self.folder, topic)

    def genesis(self) -> dict[str, Any]:
        """The entry that the ledger began with; empty when it is a Kafka topic."""
        return next(self.records(Topic.LEDGER), {}) if is_run(self.folder) else {}


def open_run(folder: Path) -> Run:
    """A run folder, to read."""
    return Run(folder)
