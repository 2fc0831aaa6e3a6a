"""Run recorded events through the very loop a live worker runs; the run folder is the only output.

Interrupted at any instant, the same command goes on and ends with the same bytes. A finished folder is not run again.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from stream_rec import assemble, assemble_registry, config, summary
from stream_rec.errors import SettingsError
from stream_rec.events import Topic
from stream_rec.fold import Identity
from stream_rec.loop import Loop
from stream_rec.progress import Progress
from stream_rec.stopping import Stopping

INTERRUPTED = "interrupted; the same command goes on"
INTERRUPTED_MS = 1_000
"""How long MLflow is waited for then."""


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
        SettingsError: the folder holds something else, or a run of other settings or other input.
        KeyboardInterrupt: SIGINT or SIGTERM; the tick in progress is finished first, but not for a second signal.
        JobFailed: the run cannot go on; the message says why and what to do.
    """
    assemble.refuse_foreign(settings.run_dir)
    genesis = {
        "mode": "replay",
        "pipeline": settings.pipeline.name,
        "semantic": config.semantic(settings),
        "build_of": assemble.build_of(settings),
        "input": assemble.input_of(events=events, items=items, since_ms=since, until_ms=until),
    }
    identity = Identity(config.semantic_digest(settings)[:16], assemble.build_digest(settings), "replay", genesis)
    ports = assemble.replay_ports(settings, events=events, items=items, since_ms=since, until_ms=until)
    registry, ended = None, False
    try:
        same_run(next(iter(ports.publisher.read_ledger()), None), identity)
        registry = assemble_registry.Logging(settings, "file", replayed=True)
        with Stopping() as stopping, Progress("replay", timed=since is None and until is None) as progress:
            loop = Loop(
                lambda: assemble.pipeline_of(settings),
                ports,
                identity,
                max_records=settings.tick.max_records,
            )
            loop.on_commit = progress.committed
            result = _run(loop, settings, progress, source=ports.source, stopping=stopping, registry=registry)
            ended = True
    finally:
        assemble.close(ports)
        if registry is not None and (words := registry.close(limit_ms=None if ended else INTERRUPTED_MS)):
            sys.stderr.write(f"{words}\n")
    if not _took_events(settings.run_dir):
        sys.stderr.write("warning: the run took no event; see whether --since and --until fit the file's times\n")
    return result


def _took_events(run_dir: Path) -> bool:
    entries = assemble.open_run(run_dir).records(Topic.LEDGER)
    return any(part[0] == Topic.EVENTS for entry in entries for part in entry.get("tick", {}).get("ranges", ()))


def _run(
    loop: Loop,
    settings: config.Settings,
    progress: Progress,
    *,
    source: Any,
    stopping: Stopping,
    registry: assemble_registry.Logging,
) -> dict[str, Any]:
    loop.recover()
    if loop.finished:
        return summary.read(settings) or summary.write(loop.pipeline, settings, summary.Effort())
    registry.attach(loop)
    effort = summary.Effort.begin(loop.pipeline)
    saved_at = [time.monotonic()]
    progress.read(*source.progress())

    def after_step() -> None:
        progress.read(*source.progress())
        if (time.monotonic() - saved_at[0]) * 1000 >= settings.checkpoint.every_ms:
            loop.checkpoint()
            saved_at[0] = time.monotonic()

    stopping.gently()
    try:
        ended = loop.run_to_end(after_step, stopped=stopping)
    finally:
        loop.checkpoint()
    if not ended:
        raise KeyboardInterrupt(INTERRUPTED)
    return summary.write(loop.pipeline, settings, effort.end(loop.pipeline))


def same_run(genesis: tuple[int, bytes] | None, identity: Identity) -> None:
    """Refuse to go on where another mode, other input or other settings began; says what differs.

    Raises:
        SettingsError: they differ.
    """
    if genesis is None:
        return
    first = msgspec.json.decode(genesis[1])
    own = msgspec.json.decode(msgspec.json.encode(identity.genesis))
    if first.get("mode") != own["mode"]:
        raise SettingsError(f"this folder holds a {first.get('mode', 'worker')}'s run; choose another --out")
    if first.get("settings") != identity.settings_digest:
        names = ", ".join(_differing(first.get("semantic", {}), own["semantic"]))
        raise SettingsError(
            f"this folder holds a run with other settings{names and f' ({names})'}; choose another --out or bring the "
            "settings back"
        )
    if names := ", ".join(_differing(first.get("input", {}), own["input"])):
        raise SettingsError(f"this folder holds a run over other input ({names} differ); choose another --out")


def _differing(theirs: dict[str, Any], own: dict[str, Any]) -> list[str]:
    return [name for name in sorted(theirs.keys() | own.keys()) if theirs.get(name) != own.get(name)]
