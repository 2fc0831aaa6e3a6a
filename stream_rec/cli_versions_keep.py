"""`stream-rec versions gc | rebuild`: what of the versions stays on the disk, and making one again."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from stream_rec import cli_options, cli_versions_look
from stream_rec.errors import InputGone, JobFailed, LedgerMismatch, SettingsError

N_NAMED = 20
"""Versions named of those that go."""


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: cli_options.Json = False,
    out: cli_options.Out = None,
    *,
    config_file: cli_options.ConfigFile = None,
    sets: cli_options.Sets = None,
) -> None:
    """Delete the artefacts of old versions: in MLflow, the run folder's or a server, and the weights.

    What stays: versions with an alias (champion, rollback, pinned, or one of your own in MLflow), the newest
    `registry.keep_last`, the last of each day, and every one that a checkpoint may return to. Ledger, notices and
    checkpoints stay, so `versions rebuild` can prove what a deleted version was. A running worker does the same by
    itself above `registry.max_bytes`.

    Example: stream-rec versions gc --dry-run --out runs/demo

    stream-rec versions gc --set registry.keep_last=5
    """
    settings = cli_options.settings_from(config_file, sets, {"run.dir": ("--out", out)})
    from stream_rec import assemble_versions

    if not settings.run_dir.is_dir():
        raise SettingsError(f"there is no run folder {settings.run_dir}; name one with --out")
    done = assemble_versions.collect(settings, cli_versions_look.told(settings), dry_run=dry_run)
    if as_json:
        sys.stdout.write(json.dumps({**done._asdict(), "dry_run": dry_run}) + "\n")
        return
    names = ", ".join(done.versions[:N_NAMED])
    more = f" and {len(done.versions) - N_NAMED:,} more" if len(done.versions) > N_NAMED else ""
    would = "would be " if dry_run else ""
    sys.stdout.write(
        f"{len(done.versions):,} versions {would}deleted, {done.n_kept:,} kept{names and f': {names}{more}'}\n"
        f"{done.bytes_before:,} bytes before, {done.bytes_after:,} after{' at most' if dry_run else ''}\n"
    )
    if server := assemble_versions.server_of(settings):
        sys.stdout.write(
            f"of {server} that counts each version as large as its newest; rows marked as deleted go with `mlflow gc`, "
            "run where the server is\n"
        )


def rebuild(
    version: cli_versions_look.Which,
    events: Annotated[
        Path | None,
        typer.Option("--events", metavar="FILE", help="The file the run was replayed from; without it, topics."),
    ] = None,
    items: Annotated[
        Path | None, typer.Option("--items", metavar="FILE", help="That replay's catalogue, if it had one.")
    ] = None,
    *,
    init_from: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The run that the worker began from, where it was given one.")
    ] = None,
    whole: Annotated[
        bool, typer.Option("--whole", help="From the first tick, whatever checkpoints there are.")
    ] = False,
    write: Annotated[bool, typer.Option("--write", help="Put proven weights back into the run folder.")] = False,
    as_json: cli_options.Json = False,
    out: cli_options.Out = None,
    config_file: cli_options.ConfigFile = None,
    sets: cli_options.Sets = None,
) -> None:
    """Make a version again, and prove that its weights have the digest that was told.

    Folds the ledger from the newest checkpoint up to the version's tick, or from its beginning; every tick is compared
    with its entry, nothing is published, and a worker that runs is not disturbed. Settings are those of the ledger;
    the privacy key must be the run's.

    Example: stream-rec versions rebuild champion

    stream-rec versions rebuild 3 --events events.jsonl --items items.jsonl --out runs/history
    """
    settings = cli_options.settings_from(config_file, sets, {"run.dir": ("--out", out)})
    if events is None and items is not None:
        raise SettingsError("--items is a file beside --events; without them events and items are read from topics")
    from stream_rec import assemble_rebuild
    from stream_rec.progress import Progress

    gathered = cli_versions_look.told(settings)
    notice = gathered.told[cli_versions_look.one_of(settings, gathered, version)]
    given = assemble_rebuild.Given(events, items, init_from, whole)
    try:
        with Progress("rebuild", unit="ticks") as progress:

            def folded(done: int, of: int) -> None:
                progress.read(done, of)
                progress.count(1)

            done = assemble_rebuild.rebuilt(settings, notice, given, write=write, folded=folded)
    except (InputGone, LedgerMismatch) as error:
        raise type(error)(f"{notice['version']} cannot be rebuilt: {error}") from error
    proven = done.sha256 is not None and done.sha256 == done.told
    began = "the beginning of the ledger" if done.after_tick < 0 else f"the checkpoint of tick {done.after_tick}"
    if as_json:
        sys.stdout.write(json.dumps({**done._asdict(), "proven": proven, "written": write and proven}) + "\n")
    elif proven:
        n = done.tick - done.after_tick
        sys.stdout.write(
            f"{done.version}: {n:,} ticks folded from {began}\nsha256 {done.sha256}, the one that was told\n"
        )
    if not proven:
        differed = f"; under this build {done.n_differed:,} ticks gave other effects" if done.n_differed else ""
        raise JobFailed(
            f"{done.version} is not proven: from {began} to tick {done.tick} its weights have digest {done.sha256}, "
            f"and {done.told} was told{differed}; keep the run folder"
        )
