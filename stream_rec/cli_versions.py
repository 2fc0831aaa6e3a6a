"""`stream-rec versions promote | rollback | pin`: commands about versions to a running worker, and its answer."""

from __future__ import annotations

from typing import Annotated

import typer

from stream_rec import cli_kafka, cli_lists, cli_options, cli_versions_keep, cli_versions_look, config
from stream_rec.cli_kafka import Word
from stream_rec.errors import SettingsError
from stream_rec.events import Topic
from stream_rec.version_facts import begins

versions = cli_lists.versions
versions.command("show")(cli_versions_look.show)
versions.command("diff")(cli_versions_look.diff)
versions.command("gc")(cli_versions_keep.gc)
versions.command("rebuild")(cli_versions_keep.rebuild)

Version = Annotated[str, typer.Argument(metavar="VERSION", help="A version or the beginning of its name: v3.")]
Timeout = Annotated[float, typer.Option("--timeout-s", min=0.1, metavar="S", help="How long to wait for the answer.")]


@versions.command("promote")
def promote(
    version: Version,
    timeout_s: Timeout = 30.0,
    config_file: cli_options.ConfigFile = None,
    *,
    sets: cli_options.Sets = None,
) -> None:
    """Let the challenger serve that the gate held at the last cut, by its whole name; prints the worker's answer.

    It serves as soon as its weights are stored.

    Example: stream-rec versions promote v4-0a1b2c3d4e5f
    """
    settings = cli_options.settings_from(config_file, sets)
    body = cli_kafka.command_of(Word.PROMOTE, version=version)
    cli_kafka.ask(settings, Word.PROMOTE, body, timeout_s=timeout_s)


@versions.command("pin")
def pin(
    version: Version,
    timeout_s: Timeout = 30.0,
    config_file: cli_options.ConfigFile = None,
    *,
    sets: cli_options.Sets = None,
) -> None:
    """Keep the state at the cut of a version until another one is pinned, so that it can be returned to.

    Example: stream-rec versions pin v3
    """
    settings = cli_options.settings_from(config_file, sets)
    body = cli_kafka.command_of(Word.PIN, version=_whole(settings, version))
    cli_kafka.ask(settings, Word.PIN, body, timeout_s=timeout_s)


@versions.command("rollback")
def rollback(
    version: Annotated[
        str | None, typer.Argument(metavar="[VERSION]", help="A version or the beginning of its name: v3.")
    ] = None,
    at: Annotated[str | None, typer.Option("--at", metavar="TIME", help="To the state of this event time.")] = None,
    timeout_s: Timeout = 60.0,
    *,
    config_file: cli_options.ConfigFile = None,
    sets: cli_options.Sets = None,
) -> None:
    """Return to an earlier version with everything that was learned by its cut; prints the worker's answer.

    What was learned since is gone, what happened is not. Nothing is promoted until `stream-rec control unfreeze`.
    The champion, the version before it and the pinned one can be returned to; with `--at` the newest checkpoint that
    had seen no later event.

    Example: stream-rec versions rollback v3
    """
    settings = cli_options.settings_from(config_file, sets)
    whole = None if version is None else _whole(settings, version)
    body = cli_kafka.command_of(Word.ROLLBACK, version=whole, at=at)
    cli_kafka.ask(settings, Word.ROLLBACK, body, timeout_s=timeout_s)


def _whole(settings: config.Settings, version: str) -> str:
    """The version whose name begins so, among those that the topic tells of.

    Raises:
        SettingsError: there are several or none.
    """
    from stream_rec import assemble_watch

    told = assemble_watch.topic_objects(settings, Topic.VERSIONS)
    names = {str(notice["version"]) for notice in told if notice.get("version") and notice.get("event") != "command"}
    meant = sorted(name for name in names if name == version or begins(name, version))
    if len(meant) != 1:
        many = f"{version} may be {' or '.join(meant)}" if meant else f"there is no version {version}"
        raise SettingsError(f"{many} in topic {settings.topics.versions}; `versions list --json` names them")
    return meant[0]
