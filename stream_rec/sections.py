"""The sections of the settings: one class a section, one field a setting, each with its bounds and its trade.

A setting is *semantic* when it can change a slate, a version or a count of the same input, and *operational* when it
cannot. A replay goes on under the same semantic settings only; an operational one may differ at every start.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

SECOND_MS = 1_000
MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DAY_MS = 86_400_000
MAX_ROWS = 2**31 - 1
"""Rows are numbered by int32 columns."""


def split(value: object) -> object:
    """Take a list from text: words between commas."""
    return tuple(word.strip() for word in value.split(",") if word.strip()) if isinstance(value, str) else value


def _plain_name(name: str) -> str:
    """Refuse a name that cannot be part of a topic, an id and a folder."""
    if not all(c.isascii() and (c.isalnum() or c in "._-") for c in name) or not name.strip("."):
        raise ValueError("use letters, digits, '.', '_' and '-' only")
    return name


def _no_path(value: object) -> object:
    """Take empty text for "not set"."""
    return None if isinstance(value, str) and not value.strip() else value


def unique(words: tuple[str, ...]) -> tuple[str, ...]:
    """One order and no repeats, so that equal sets are equal settings."""
    return tuple(sorted(set(words)))


Name = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_plain_name)]
PathSetting = Annotated[Path | None, BeforeValidator(_no_path)]
Words = Annotated[tuple[str, ...], BeforeValidator(split), AfterValidator(unique)]


def semantic(default: Any, description: str, **bounds: Any) -> Any:
    """A setting that can change what the same input leads to."""
    return Field(default, description=description, json_schema_extra={"effect": "semantic"}, **bounds)


def operational(default: Any, description: str, *, shown: str | None = None, **bounds: Any) -> Any:
    """A setting that changes speed, place or appearance only; `shown` stands for a default that a table cannot show."""
    extra: dict[str, Any] = {"effect": "operational"} | ({"shown": shown} if shown else {})
    if callable(default):
        return Field(default_factory=default, description=description, json_schema_extra=extra, **bounds)
    return Field(default, description=description, json_schema_extra=extra, **bounds)


def _host_name() -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in socket.gethostname())[:100] or "-"


class Section(BaseModel):
    """Base of every section: frozen, no unknown keys, no NaN or infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Pipeline(Section):
    """Which pipeline this is."""

    name: Name = operational("stream-rec", "Name of the pipeline: its transactional id and its default run folder.")


class Kafka(Section):
    """How the brokers are reached. Consumers and producers are tuned by the program itself."""

    bootstrap_servers: Annotated[str, Field(min_length=1)] = operational(
        "localhost:9092", "Brokers to begin with, host:port between commas."
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = operational(
        "PLAINTEXT", "How to talk to them; SSL and SASL_SSL encrypt."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = operational(
        "SCRAM-SHA-512", "How to prove who we are, under SASL_PLAINTEXT and SASL_SSL."
    )
    sasl_username: str = operational("", "Name to log in with.")
    sasl_password: SecretStr | None = operational(None, "Password to log in with. Set it in the environment.")
    ssl_cafile: PathSetting = operational(None, "Certificates to trust, PEM; the system's when not set.")
    ssl_certfile: PathSetting = operational(None, "Our own certificate, PEM, where brokers ask for one.")
    ssl_keyfile: PathSetting = operational(None, "Its private key, PEM.")
    compression: Literal["none", "gzip", "lz4", "zstd"] = operational("zstd", "Compression of what is published.")
    max_message_bytes: int = operational(
        1_048_576, "Bytes a published record may have; the topics' `max.message.bytes`.", ge=1_024, le=64 * 1_048_576
    )
    connect_timeout_ms: int = operational(
        15_000, "Time in ms within which a first connection must come about.", ge=SECOND_MS, le=10 * MINUTE_MS
    )
    transaction_timeout_ms: int = operational(
        5_000,
        "Time in ms after which brokers abort a transaction whose worker is gone.",
        ge=SECOND_MS,
        le=15 * MINUTE_MS,
    )


class Topics(Section):
    """What the topics are called."""

    events: Name = operational("events", "Topic of the shop's events, keyed by user.")
    items: Name = operational("items", "Compacted topic of the catalogue, keyed by item.")
    control: Name = operational("control", "Topic of commands to the worker; one partition.")
    slates: Name = operational("slates", "Topic of the published slates.")
    versions: Name = operational("versions", "Compacted topic of promotions, rollbacks and answers to commands.")
    ledger: Name = operational("ledger", "Topic of the ledger; one partition, one a pipeline.")
    dead_letters: Name = operational("dead-letters", "Topic of records that could not be used.")


class Health(Section):
    """Where the worker says how it is: /healthz, /readyz, /status, /metrics."""

    host: str = operational("127.0.0.1", "Address that health is served at; 0.0.0.0 for every one of the machine.")
    port: int = operational(8099, "Port that health is served at. 0: it is not.", ge=0, le=65_535)


class Worker(Section):
    """Who runs it."""

    instance: Name = operational(
        _host_name,
        "Name of this worker; a worker of the same name takes over from a dead one at once.",
        shown="host name",
    )
    silence_ms: int = operational(
        5_000, "Silence in ms after which a learner of another name is taken for dead; a live one writes oftener.",
        ge=SECOND_MS, le=10 * MINUTE_MS,
    )  # fmt: skip


class Run(Section):
    """Where a run lives and where its randomness starts."""

    dir: PathSetting = operational(None, "The run folder; `--out` sets it.", shown="./runs/PIPELINE")
    seed: int = semantic(0, "Seed of every draw: samples, first weights, decision ids.", ge=0, lt=2**63)


class Tick(Section):
    """How input is cut into ticks."""

    max_records: int = semantic(
        1024, "Records a tick closes at. More: fewer transactions; fewer: fresher slates.", ge=1, le=65_536
    )
    max_wait_ms: int = operational(
        100, "Wait in ms after which a tick closes; a backfill closes by records alone.", ge=1, le=MINUTE_MS
    )
    lagging_records: int = operational(
        50_000, "Waiting records above which a live worker thins training until it has caught up.", ge=1, le=10**9
    )
    lagging_ms: int = operational(
        300, "A live tick that took so long in ms is followed by one that trains on and refreshes a quarter. 0: never.",
        ge=0, le=MINUTE_MS,
    )  # fmt: skip


class Watermark(Section):
    """How event time advances."""

    bound_ms: int = semantic(
        MINUTE_MS, "Out-of-orderness bound: how far in ms the watermark trails the newest event.", ge=0, le=DAY_MS
    )
    lateness_ms: int = semantic(
        10 * MINUTE_MS, "Allowed lateness in ms below the watermark; older events are `late`.", ge=0, le=30 * DAY_MS
    )
    idle_ms: int = operational(
        MINUTE_MS, "Silence in ms after which a partition no longer holds the watermark back.", ge=SECOND_MS, le=DAY_MS
    )
    max_partitions: int = semantic(1024, "Events partitions that can be followed.", ge=1, le=65_536)


class Dedupe(Section):
    """Which events count as seen before."""

    capacity: int = semantic(
        2_000_000, "Event ids remembered (8 bytes each and their index); a repeat later than that counts again.",
        ge=1, le=MAX_ROWS,
    )  # fmt: skip


class Users(Section):
    """The user table."""

    capacity: int = semantic(
        1_000_000, "Users remembered; when full, the 1 % not seen for longest are forgotten.", ge=100, le=MAX_ROWS
    )


class Histories(Section):
    """What users did."""

    capacity: int = semantic(
        4_000_000, "Positive events remembered over all users (about 40 bytes each).", ge=1, le=MAX_ROWS
    )


class Visits(Section):
    """What a visit is when an event has neither session nor order."""

    gap_ms: int = semantic(30 * MINUTE_MS, "Pause in ms of event time that ends a visit.", ge=SECOND_MS, le=7 * DAY_MS)


class Items(Section):
    """The item table."""

    capacity: int = semantic(
        200_000,
        "Items remembered; when full, delisted ones go first, then the least recently used.",
        ge=100,
        le=MAX_ROWS,
    )


class Attribution(Section):
    """How long feedback counts for what was shown."""

    click_window_ms: int = semantic(
        30 * MINUTE_MS,
        "Wait in ms for a click. Longer: more clicks joined, later training.",
        ge=SECOND_MS,
        le=30 * DAY_MS,
    )
    cart_window_ms: int = semantic(6 * HOUR_MS, "Wait in ms for an add to cart.", ge=SECOND_MS, le=30 * DAY_MS)
    purchase_window_ms: int = semantic(7 * DAY_MS, "Wait in ms for a purchase.", ge=SECOND_MS, le=90 * DAY_MS)
    max_decisions: int = semantic(
        200_000, "Slates that may wait for their impression; the rest end as `unshown`.", ge=1, le=10_000_000
    )
    max_exposures: int = semantic(
        200_000, "Impressions that may wait for feedback; evicted ones are counted and excluded.", ge=1, le=10_000_000
    )


class Window(Section):
    """The sliding window of examples."""

    length_ms: int = semantic(
        30 * DAY_MS, "Event time in ms that the window reaches back.", ge=MINUTE_MS, le=3_650 * DAY_MS
    )
    capacity: int = semantic(200_000, "Examples the window holds; the newest stay.", ge=1, le=MAX_ROWS)


class Reservoir(Section):
    """A uniform sample of everything, against forgetting."""

    capacity: int = semantic(10_000, "Examples in the reservoir.", ge=1, le=10_000_000)


class Events(Section):
    """What input looks like."""

    format: Literal["stream_rec", "ga4", "segment", "snowplow", "ubi"] = semantic(
        "stream_rec", "The shop's event format; every one but `stream_rec` goes through its adapter."
    )
    not_products: Words = semantic(
        (), "Item ids that name no product (postage, fees); their lines are left out and counted. Words between commas."
    )


class Quality(Section):
    """Which records are refused."""

    max_record_bytes: int = semantic(
        1_048_576, "Bytes a record may have; a larger one is a dead letter.", ge=256, le=64 * 1_048_576
    )
    dead_letter_share: float = operational(
        0.5, "Share of a topic's last 1,000 records that may die; above it the run stops with exit 3 (1: never).",
        gt=0, le=1,
    )  # fmt: skip


class Slate(Section):
    """What is published."""

    n_slots: int = semantic(20, "Items on a slate.", ge=1, le=60)
    refresh_users_per_tick: int = semantic(
        256,
        "Known users whose slates are made anew a tick at most, in turn. More: fresher, slower.",
        ge=0,
        le=100_000,
    )
    refresh_users_per_s: int = semantic(
        256, "The same a second of the tick's clock, which counts where ticks are short.", ge=1, le=1_000_000
    )
    valid_ms: int = semantic(
        7 * DAY_MS, "Event time in ms after which a shop serves `*` instead.", ge=MINUTE_MS, le=90 * DAY_MS
    )
    star_every_ms: int = semantic(
        HOUR_MS, "Event time in ms between two slates for users never seen.", ge=SECOND_MS, le=DAY_MS
    )
    blocked_items: Words = semantic((), "Item ids that are never shown. Words between commas.")
    min_price: float = semantic(0.0, "Items that cost less are not shown; those without a price are.", ge=0)
    max_price: float = semantic(1e12, "Items that cost more are not shown; those without a price are.", gt=0)


class Privacy(Section):
    """The key behind every pseudonym."""

    key: SecretStr | None = semantic(
        None, "Key of the pseudonyms and of sealed dead letters. Set it in the environment or use `privacy.key_file`."
    )
    key_file: PathSetting = operational(None, "File that holds the key.")


class Replay(Section):
    """A replay of stored topics: what it is called there."""

    name: Name = operational(
        "replay",
        "Name of a replay of stored topics: its pipeline is PIPELINE-NAME, its topics are TOPIC.PIPELINE-NAME.",
    )


class Checkpoint(Section):
    """How often the state is saved."""

    every_ms: int = operational(
        30_000, "Processing time in ms between two checkpoints. More: less disk, longer recovery.", ge=100, le=DAY_MS
    )
    keep: int = operational(3, "Newest checkpoints kept, beside the hourly and daily ones.", ge=1, le=1_000)
    horizon_ms: int = operational(
        30 * DAY_MS,
        "How far back in ms one checkpoint a day is kept: the rebuild horizon.",
        ge=DAY_MS,
        le=3_650 * DAY_MS,
    )


class Report(Section):
    """What a run says about itself."""

    interval_ms: int = semantic(
        6 * HOUR_MS, "Event time in ms that one line of `metrics.jsonl` covers.", ge=SECOND_MS, le=365 * DAY_MS
    )


class Registry(Section):
    """Versions in MLflow: written beside the loop, never waited for."""

    enabled: bool = operational(True, "Whether versions and metrics are logged to MLflow.")
    tracking_uri: str = operational(
        "", "Tracking URI of a server; empty takes MLFLOW_TRACKING_URI, else `mlflow.db` in the run folder.",
        shown="sqlite:///RUN_DIR/mlflow.db",
    )  # fmt: skip
    drain_ms: int = operational(
        60_000, "Wait in ms at the end for what MLflow has not taken yet; the rest stays for the next start.",
        ge=0, le=HOUR_MS,
    )  # fmt: skip
    max_points: int = operational(
        50_000, "Metric points that may wait for MLflow; above it the oldest are dropped.", ge=100, le=10_000_000
    )
    keep_last: int = operational(
        20, "Newest versions whose artefacts stay, beside those with an alias and one a day.", ge=2, le=1_000_000
    )
    max_bytes: int = operational(
        4 * 1024**3, "Bytes of a run's versions and weights above which those that need not stay go. 0: never.",
        ge=0, le=2**50,
    )  # fmt: skip
    max_items: int = operational(
        20_000, "Items up to which a version carries its statistics, and so can be loaded and asked.", ge=1, le=MAX_ROWS
    )
    max_statistics_bytes: int = operational(
        32 * 1_048_576, "Bytes that pairs of items may take in a version; above it each item keeps its strongest.",
        ge=1_024, le=2**40,
    )  # fmt: skip
