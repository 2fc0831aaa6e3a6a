"""`stream-rec dead-letters` and `stream-rec versions`: lists over a run folder."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Annotated, Any

import typer

from stream_rec import cli_options, config
from stream_rec.errors import SettingsError
from stream_rec.events import Topic

dead_letters = typer.Typer(no_args_is_help=True, help="Look at records that could not be used.")
versions = typer.Typer(no_args_is_help=True, help="Look at the versions of the model.")

LETTER_COLUMNS = ("position", "timestamp", "stage", "reason", "length", "digest")
SERVING = {"promote", "rollback"}
"""Events of a notice after which its version is the champion."""
VERSION_COLUMNS = ("version", "event", "event_at", "tick", "verdict", "sha256")


def _lines(settings: config.Settings, topic: str) -> Iterator[dict[str, Any]]:
    """The records of a topic in the run folder, oldest first."""
    if not settings.run_dir.is_dir():
        raise SettingsError(f"there is no run folder {settings.run_dir}; name one with --out")
    from stream_rec import assemble

    return iter(assemble.open_run(settings.run_dir).records(topic))


def _letters(settings: config.Settings) -> Iterator[dict[str, Any]]:
    for letter in _lines(settings, Topic.DEAD_LETTERS):
        yield {"position": f"{letter['topic']}/{letter['partition']}/{letter['offset']}"} | letter


@dead_letters.command("list")
def list_letters(
    as_json: cli_options.Json = False,
    reason: Annotated[str | None, typer.Option(help="Only those that died of this reason.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 1_000,
    *,
    out: cli_options.Out = None,
    config_file: cli_options.ConfigFile = None,
    sets: cli_options.Sets = None,
) -> None:
    """Dead letters of a run folder: where each came from and why it could not be used.

    Example: stream-rec dead-letters list --out runs/demo --reason bad_event_at
    """
    settings = cli_options.settings_from(config_file, sets, {"run.dir": ("--out", out)})
    rows = islice((r for r in _letters(settings) if reason in (None, r["reason"])), limit)
    cli_options.print_rows(rows, LETTER_COLUMNS, as_json, empty="no dead letters")


@dead_letters.command("show")
def show_letter(
    position: Annotated[str, typer.Argument(metavar="TOPIC/PARTITION/OFFSET", help="As `dead-letters list` says it.")],
    as_json: cli_options.Json = False,
    out: cli_options.Out = None,
    *,
    config_file: cli_options.ConfigFile = None,
    sets: cli_options.Sets = None,
) -> None:
    """Open one dead letter with the privacy key and show what arrived.

    Example: stream-rec dead-letters show events/0/1234 --out runs/demo --set privacy.key_file=privacy.key
    """
    from stream_rec.stream.privacy import Sealer

    settings = cli_options.settings_from(config_file, sets, {"run.dir": ("--out", out)})
    letter = next((r for r in _letters(settings) if r.pop("position") == position), None)
    if letter is None:
        raise SettingsError(f"there is no dead letter {position} in {settings.run_dir}; `dead-letters list` names them")
    record = Sealer(config.privacy_key(settings)).unseal(json.dumps(letter).encode()).record
    if as_json:
        whole = {
            "key": _b64(record.key),
            "value": _b64(record.value),
            "headers": {n: _b64(v) for n, v in record.headers},
        }
        sys.stdout.write(json.dumps({"position": position, "reason": letter["reason"]} | whole) + "\n")
        return
    parts = [("reason", letter["reason"].encode()), ("key", record.key), *record.headers, ("value", record.value)]
    for name, content in parts:
        sys.stdout.write(
            f"{cli_options.printable(name)}: {'-' if content is None else cli_options.printable(content)}\n"
        )


def _b64(content: bytes | None) -> str | None:
    return None if content is None else base64.b64encode(content).decode()


@versions.command("list")
def list_versions(
    as_json: cli_options.Json = False,
    out: cli_options.Out = None,
    config_file: cli_options.ConfigFile = None,
    *,
    sets: cli_options.Sets = None,
) -> None:
    """Notices about versions in a run folder, oldest first: promotions, refusals and what the gate found.

    Example: stream-rec versions list --out runs/demo --json
    """
    settings = cli_options.settings_from(config_file, sets, {"run.dir": ("--out", out)})
    rows = (row | {"verdict": _word(row.get("verdict"))} if not as_json else row for row in _notices(settings))
    cli_options.print_rows(rows, VERSION_COLUMNS, as_json, empty="no versions yet")


@versions.command("show")
def show_version(
    version: Annotated[
        str, typer.Argument(metavar="VERSION", help="A version, or `champion` for the one that serves.")
    ],
    out: cli_options.Out = None,
    config_file: cli_options.ConfigFile = None,
    *,
    sets: cli_options.Sets = None,
) -> None:
    """The newest notice about one version, with the gate's verdict and its figures, as JSON.

    Example: stream-rec versions show champion --out runs/demo
    """
    settings = cli_options.settings_from(config_file, sets, {"run.dir": ("--out", out)})
    found: Mapping[str, Any] | None = None
    for row in _notices(settings):
        if row["version"] == version or (version == "champion" and row["event"] in SERVING):
            found = row
    if found is None:
        raise SettingsError(f"there is no version {version} in {settings.run_dir}; `versions list` names them")
    sys.stdout.write(json.dumps(found, indent=2, ensure_ascii=False) + "\n")


def _notices(settings: config.Settings) -> Iterator[dict[str, Any]]:
    return (row for row in _lines(settings, Topic.VERSIONS) if not row.get("tombstone"))


def _word(verdict: object) -> object:
    """The verdict in one word, where it is a record with its figures."""
    return verdict.get("verdict") if isinstance(verdict, Mapping) else verdict
