"""Run recorded events through the very loop a live worker runs; the run folder is the only output.

Interrupted at any instant, the same command goes on and ends with the same bytes. A finished folder is not run again.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import msgspec

from stream_rec import assemble, build, config, summary
from stream_rec.errors import SettingsError
from stream_rec.loop import Identity, Loop
from stream_rec.progress import Progress


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
        return summary.read(settings) or summary.write(loop.pipeline, settings, summary.Effort())
    effort = summary.Effort.begin(loop.pipeline)
    saved_at = [time.monotonic()]

    def after_step() -> None:
        progress.read(*source.progress())
        if (time.monotonic() - saved_at[0]) * 1000 >= settings.checkpoint.every_ms:
            loop.checkpoint()
            saved_at[0] = time.monotonic()

    try:
        loop.run_to_end(after_step)
    finally:
        loop.checkpoint()
    return summary.write(loop.pipeline, settings, effort.end(loop.pipeline))


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
