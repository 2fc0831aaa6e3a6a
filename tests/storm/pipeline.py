"""The pipeline that storms are about: its settings, its topics, the environment of its workers."""

from __future__ import annotations

import os
from pathlib import Path

from stream_rec import assemble_kafka, config
from stream_rec.io.kafka import Access, Admin

KEY = "the key of the storms"
NAME = "storm"
N_PARTITIONS = 2
MODEL = "STREAM_REC_MODEL__"
"""What the environment says of the model holds for workers and checker alike."""
SETTINGS = {
    "privacy.key": KEY,
    "pipeline.name": NAME,
    "run.seed": "3",
    "health.port": "0",
    "tick.max_records": "256",
    "tick.max_wait_ms": "50",
    "checkpoint.every_ms": "1500",
    "worker.silence_ms": "1500",
    "kafka.transaction_timeout_ms": "2000",
    "kafka.connect_timeout_ms": "5000",
    "watermark.idle_ms": "86400000",
    "watermark.max_partitions": "8",
    "slate.n_slots": "12",
    "slate.refresh_users_per_tick": "4",
    "learn.light_cut_examples": "1000",
    "quality.dead_letter_share": "1",
    "dedupe.capacity": "200000",
    "users.capacity": "20000",
    "histories.capacity": "200000",
    "items.capacity": "3000",
    "attribution.max_decisions": "100000",
    "attribution.max_exposures": "20000",
    "window.capacity": "2000",
    "window.length_ms": "129600000",
    "learn.recent_capacity": "200000",
    "learn.exact_items": "500",
    "model.encoder": "none",
    "registry.enabled": "false",
    **{f"model.{k.removeprefix(MODEL).lower()}": v for k, v in os.environ.items() if k.startswith(MODEL)},
}
"""Roomy tables but for the window, so that a batch computation over the whole log can be compared."""


def settings_of(bootstrap: str, *sets: str) -> config.Settings:
    """The settings of a reader of the pipeline."""
    return config.load(
        None, [*(f"{k}={v}" for k, v in SETTINGS.items()), f"kafka.bootstrap_servers={bootstrap}", *sets], {}
    )


def environment(bootstrap: str, instance: str) -> dict[str, str]:
    """The environment of a worker process."""
    given = SETTINGS | {"kafka.bootstrap_servers": bootstrap, "worker.instance": instance}
    own = {f"STREAM_REC_{name.replace('.', '__').upper()}": value for name, value in given.items()}
    return {k: v for k, v in os.environ.items() if not k.startswith("STREAM_REC_")} | own


def make_topics(bootstrap: str) -> None:
    """The topics of the pipeline, one copy each."""
    settings = settings_of(bootstrap)
    admin = Admin(assemble_kafka.access_of(settings))
    for ours, name in assemble_kafka.names_of(settings).items():
        kept = assemble_kafka.kept_of(settings)[ours]
        admin.create(name, n_partitions=kept.n_partitions or N_PARTITIONS, replication=1, configs=kept.configs)
    admin.close()


def access_of(bootstrap: str) -> Access:
    """How to reach the brokers past any proxy."""
    return assemble_kafka.access_of(settings_of(bootstrap))


def checkpoints_of(folder: Path) -> list[Path]:
    """Checkpoints of a run folder, newest first."""
    return sorted((p for p in (folder / "checkpoints").glob("*-*") if p.is_dir()), reverse=True)
