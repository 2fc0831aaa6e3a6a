"""Settings to a wired program. The one module that knows both the pipeline and the outside; sole importer of io/."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from threadpoolctl import threadpool_limits

from stream_rec import build, config
from stream_rec.adapters.registry import ADAPTERS
from stream_rec.errors import SettingsError
from stream_rec.events import Kind, Topic
from stream_rec.io import datasets, lines
from stream_rec.io.checkpoint import FolderCheckpoints
from stream_rec.io.files import FileSource
from stream_rec.io.folder import LOCK_NAME, FolderPublisher, FolderWeights
from stream_rec.io.memory import MemorySource
from stream_rec.io.memory_broker import MemoryBroker
from stream_rec.io.run_folder import committed_records, file_of, lines_of
from stream_rec.learn.learner import Learner, LearnSettings
from stream_rec.pipeline import Pipeline, Quotas
from stream_rec.ports import Ports
from stream_rec.slates import SlateRules, SlateStage
from stream_rec.stream.accounting import Accounting
from stream_rec.stream.attribution import Joiner
from stream_rec.stream.dedupe import Dedupe
from stream_rec.stream.front import Front
from stream_rec.stream.histories import Histories
from stream_rec.stream.intake import Facts, Intake, Rules
from stream_rec.stream.items import ItemTable
from stream_rec.stream.privacy import Pseudonymiser, Sealer, fingerprint
from stream_rec.stream.sampling import Reservoir
from stream_rec.stream.users import Users
from stream_rec.stream.watermark import Watermarks
from stream_rec.stream.window import SlidingWindow

CACHE = "cache"
"""Folder of a run with what can be made again at any time."""

if TYPE_CHECKING:
    from stream_rec.model.adapter_round import AdapterRound
    from stream_rec.model.encoder import Encoder
    from stream_rec.model.two_tower import TwoTower

import_dataset = datasets.import_dataset
text_digest = lines.text_digest


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
        valid_ms=settings.slate.valid_ms,
        star_every_ms=settings.slate.star_every_ms,
        policy=settings.explore.policy,
        visit_gap_ms=settings.visits.gap_ms,
    )
    return Pipeline(
        intake_of(settings, facts, key),
        learner,
        SlateStage(facts, learner, rules),
        Quotas(
            n_slots=settings.slate.n_slots,
            report_every_ms=settings.report.interval_ms,
            train_steps=settings.learn.steps_per_tick,
            embed_texts=settings.model.embed_texts_per_tick,
        ),
    )


def intake_of(settings: config.Settings, facts: Facts, key: bytes) -> Intake:
    """Bytes to facts, by the settings."""
    front = Front(
        Pseudonymiser(key),
        Sealer(key),
        ADAPTERS.get(settings.events.format),
        max_record_bytes=settings.quality.max_record_bytes,
        not_products=frozenset(settings.events.not_products),
    )
    kinds = frozenset(int(Kind[word.upper()]) for word in settings.learn.positives)
    rules = Rules(kinds, settings.learn.min_rating)
    return Intake(front, facts, rules)


def facts_of(settings: config.Settings) -> Facts:
    """Every table of facts, empty."""
    s = settings
    return Facts(
        accounting=Accounting(share=s.quality.dead_letter_share),
        dedupe=Dedupe(s.dedupe.capacity),
        watermarks=Watermarks(s.watermark.bound_ms, s.watermark.lateness_ms, s.watermark.max_partitions),
        users=Users(s.users.capacity, s.visits.gap_ms),
        histories=Histories(s.histories.capacity),
        items=ItemTable(s.items.capacity),
        joiner=Joiner(
            s.attribution.max_decisions,
            s.attribution.max_exposures,
            s.slate.n_slots,
            windows_ms={
                "click": s.attribution.click_window_ms,
                "cart": s.attribution.cart_window_ms,
                "purchase": s.attribution.purchase_window_ms,
            },
            valid_ms=s.slate.valid_ms,
            disorder_ms=s.watermark.bound_ms + s.watermark.lateness_ms,
        ),
        window=SlidingWindow(s.window.capacity, length_ms=s.window.length_ms),
        reservoir=Reservoir(s.reservoir.capacity, seed=s.run.seed),
    )


def learner_of(settings: config.Settings) -> Learner:
    """The learner, before anything was learned."""
    s, learn = settings, settings.learn
    return Learner(
        LearnSettings(
            seed=s.run.seed,
            item_capacity=s.items.capacity,
            recent_capacity=learn.recent_capacity,
            max_pending_visits=learn.max_pending_visits,
            visit_gap_ms=s.visits.gap_ms,
            exact_items=learn.exact_items,
            n_neighbours=learn.neighbours,
            history_rows=learn.history_rows,
            sample_one_in=learn.sample_one_in,
            max_visit_examples=learn.max_visit_examples,
            max_next_examples=learn.max_next_examples,
            micro_batch=learn.micro_batch,
            rate=learn.learning_rate,
            examination_exponent=learn.examination_exponent,
            cut_examples=learn.light_cut_examples,
            adapter_visits=settings.model.adapter_visits,
        ),
        tower_of(settings),
    )


def tower_of(settings: config.Settings) -> TwoTower | None:
    """The text tower before anything was learned; None without an encoder.

    Raises:
        SettingsError: the encoder cannot be had.
    """
    if settings.model.encoder in ("none", config.AUTO):
        return None
    # torch takes seconds to import, and most commands need none of it.
    from stream_rec.model.tower_learning import Rates
    from stream_rec.model.two_tower import TowerPlan, TwoTower

    rates = Rates(
        maps=settings.model.map_rate,
        scalars=settings.model.scalar_rate,
        residual=settings.model.residual_rate,
        bias=settings.model.bias_rate,
        clip=settings.model.clip,
        decay=settings.model.weight_decay,
        warm_up=settings.model.warm_up_steps,
    )
    plan = TowerPlan(
        rates,
        settings.model.tower_steps,
        text=settings.model.use_text,
        ids=settings.model.use_ids,
        min_examples=settings.model.min_examples,
        seed=settings.run.seed,
    )
    encoder = encoder_of(settings)
    return TwoTower(encoder, plan, rounds_of(settings, encoder))


def build_of(settings: config.Settings) -> dict[str, str]:
    """What computes, by name; see `build.describe`."""
    return build.describe(encoder_revision(settings))


def build_digest(settings: config.Settings) -> str:
    """16 hex digits that stand for `build_of`."""
    return build.digest(encoder_revision(settings))


def encoder_revision(settings: config.Settings) -> str | None:
    """Stands for the encoder's files; None without an encoder.

    Raises:
        SettingsError: the encoder cannot be had.
    """
    if settings.model.encoder in ("none", config.AUTO):
        return None
    from stream_rec.io import encoders

    return encoders.find(settings.model.encoder).revision


def rounds_of(settings: config.Settings, encoder: Encoder) -> AdapterRound | None:
    """The adapter's slow rounds; None without an adapter."""
    if not settings.model.adapter_layers:
        return None
    from stream_rec.model.adapter import AdapterRates
    from stream_rec.model.adapter_round import AdapterRound, RoundPlan

    plan = RoundPlan(
        every_examples=settings.model.adapter_every_examples,
        steps=settings.model.adapter_steps,
        patience=settings.model.adapter_patience,
        texts_per_tick=settings.model.adapter_texts_per_tick,
        anchor=settings.model.adapter_anchor,
        rates=AdapterRates(rate=settings.model.adapter_rate, dropout=settings.model.adapter_dropout),
    )
    return AdapterRound(encoder, plan, seed=settings.run.seed)


def encoder_of(settings: config.Settings) -> Encoder:
    """The frozen text encoder, with what it keeps of texts in the run folder.

    Raises:
        SettingsError: it cannot be had.
    """
    from stream_rec.io import encoders
    from stream_rec.model.bodies import Plan
    from stream_rec.model.encoder import Encoder
    from stream_rec.model.trunk_cache import TrunkCache

    found = encoders.find(settings.model.encoder)
    plan = Plan(
        pooling=found.pooling,
        adapter_layers=max(1, settings.model.adapter_layers),
        rank=settings.model.adapter_rank,
        alpha=settings.model.adapter_alpha,
    )

    def encoder(cache: TrunkCache | None) -> Encoder:
        tokens, seed = settings.model.max_tokens, settings.run.seed
        return Encoder(
            found.folder, revision=found.revision, max_tokens=tokens, seed=seed, plan=plan, cache=cache
        )  # fmt: skip

    if not settings.model.adapter_layers:
        return encoder(None)
    folder = settings.run_dir / CACHE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return encoder(TrunkCache(str(folder / "trunk"), max_bytes=settings.model.trunk_cache_bytes))
    except OSError:
        # A cache is worth no run: without room for it every text is computed when it is needed.
        return encoder(None)


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
        if path.is_dir() and path.name in ("checkpoints", "figures", "weights", CACHE):
            shutil.rmtree(path)
        elif path.suffix in (".jsonl", ".json"):
            path.unlink()


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
