"""Run recorded events through the very loop a live worker runs; the run folder is the only output.

Interrupted at any instant, the same command goes on and ends with the same bytes. A finished folder is not run again.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import msgspec

from stream_rec import assemble, build, component, config
from stream_rec.errors import SettingsError
from stream_rec.loop import Identity, Loop
from stream_rec.pipeline import Pipeline
from stream_rec.progress import Progress

SUMMARY = "summary.json"


def run_replay(
    settings: config.Settings,
    *,
    events: Path,
    items: Path | None = None,
    since: int | None = None,
    until: int | None = None,
) -> dict[str, Any]:
    """Replay a file of events into `settings.run_dir`.

    Args:
        settings: checked settings with a privacy key.
        events: JSONL, plain, .gz or .zst.
        items: catalogue records in the same forms.
        since: first event time taken, ms; None = all.
        until: first event time no longer taken, ms.

    Returns:
        The summary, also written to `summary.json`.

    Raises:
        SettingsError: the folder holds a run of other settings or other input.
        JobFailed: the run cannot go on; the message says why and what to do.
    """
    genesis = {
        "mode": "replay",
        "pipeline": settings.pipeline.name,
        "semantic": config.semantic(settings),
        "build_of": build.describe(),
        "input": {"events": _digest(events), "items": _digest(items), "since": since, "until": until},
    }
    identity = Identity(config.semantic_digest(settings)[:16], build.digest(), "replay", genesis)
    ports = assemble.replay_ports(settings, events=events, items=items, since_ms=since, until_ms=until)
    try:
        _same_run(ports.publisher.read_ledger(), identity)
        with Progress("replay") as progress:
            loop = Loop(
                lambda: assemble.pipeline_of(settings),
                ports,
                identity,
                max_records=settings.tick.max_records,
                on_commit=progress.committed,
            )
            return _run(loop, settings, progress, source=ports.source)
    finally:
        assemble.close(ports)


def _run(loop: Loop, settings: config.Settings, progress: Progress, *, source: Any) -> dict[str, Any]:
    loop.recover()
    if loop.finished:
        return _read_summary(settings) or _write_summary(loop.pipeline, settings, 0.0, cpu_s=0.0, n_new=0)
    began, cpu_began = time.monotonic(), time.process_time()
    consumed_before = loop.pipeline.facts.accounting.totals["consumed"]
    saved_at = [began]

    def after_step() -> None:
        progress.read(*source.progress())
        if (time.monotonic() - saved_at[0]) * 1000 >= settings.checkpoint.every_ms:
            loop.checkpoint()
            saved_at[0] = time.monotonic()

    try:
        loop.run_to_end(after_step)
    finally:
        loop.checkpoint()
    n_new = loop.pipeline.facts.accounting.totals["consumed"] - consumed_before
    wall_s, cpu_s = time.monotonic() - began, time.process_time() - cpu_began
    return _write_summary(loop.pipeline, settings, wall_s, cpu_s=cpu_s, n_new=n_new)


def summarise(pipeline: Pipeline, settings: config.Settings) -> dict[str, Any]:
    """The part of `summary.json` that is a function of the state."""
    snapshots = pipeline.snapshot()
    state = {name: component.digest(snapshot) for name, snapshot in sorted(snapshots.items())}
    return {
        **pipeline.facts.accounting.table(),
        **pipeline.learner.summary(pipeline.facts.items.n),
        "joins": pipeline.facts.joiner.counts(),
        "settings_digest": config.semantic_digest(settings)[:16],
        "build_digest": build.digest(),
        "seed": settings.run.seed,
        "ticks": pipeline.positions.number,
        "ledger_chain": pipeline.positions.chain,
        "state_digest": hashlib.sha256(msgspec.json.encode(state, order="sorted")).hexdigest(),
        "encoder": settings.model.encoder,
    }


def _write_summary(
    pipeline: Pipeline, settings: config.Settings, wall_s: float, *, cpu_s: float, n_new: int
) -> dict[str, Any]:
    rate = {
        "events_per_s": round(n_new / wall_s, 1) if wall_s > 0 else 0.0,
        "cpu_s": round(cpu_s, 2),
        "wall_s": round(wall_s, 2),
    }
    summary = {**summarise(pipeline, settings), **rate}
    path = settings.run_dir / SUMMARY
    path.write_bytes(msgspec.json.format(msgspec.json.encode(summary), indent=2) + b"\n")
    return summary


def _read_summary(settings: config.Settings) -> dict[str, Any] | None:
    path = settings.run_dir / SUMMARY
    return msgspec.json.decode(path.read_bytes()) if path.exists() else None


def _same_run(entries: Any, identity: Identity) -> None:
    """Refuse to go on in a folder that another input or other settings began."""
    if not entries:
        return
    first = msgspec.json.decode(entries[0][1])
    if first.get("settings") != identity.settings_digest:
        raise SettingsError(
            "this folder holds a run with other settings; choose another --out or bring the settings back"
        )
    if first.get("input") != msgspec.json.decode(msgspec.json.encode(identity.genesis["input"])):
        raise SettingsError("this folder holds a run over other input; choose another --out")


def _digest(path: Path | None) -> str | None:
    if path is None:
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
