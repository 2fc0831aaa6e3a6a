"""`stream-rec send | slates tail | control`: what people do around a running worker."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from stream_rec import cli_options
from stream_rec.errors import BadRecord, JobFailed, SettingsError

slates = typer.Typer(no_args_is_help=True, help="Look at the slates that are published.")
N_SHOWN = 5
"""Items of a slate shown to people."""
KEY_CHARACTERS = 12


class Word(StrEnum):
    """Commands that the control topic takes."""

    FREEZE = "freeze"
    UNFREEZE = "unfreeze"
    PROMOTE = "promote"
    ROLLBACK = "rollback"
    PIN = "pin"
    EXPLORE = "explore"
    FORGET = "forget"


class Times(StrEnum):
    """What time records get."""

    NOW = "now"
    EVENT = "event"


def send(
    events: Annotated[Path, typer.Argument(metavar="EVENTS", help="A file of events (.jsonl, .gz, .zst).")],
    items: Annotated[Path | None, typer.Option("--items", metavar="ITEMS", help="A file of catalogue records.")] = None,
    times: Annotated[
        Times, typer.Option(help="Record times: now, or the event's own, for a history to be replayed by time.")
    ] = Times.NOW,
    rate: Annotated[
        float, typer.Option(min=0, metavar="N", help="At most so many records a second; 0: all at once.")
    ] = 0,
    config_file: cli_options.ConfigFile = None,
    *,
    sets: cli_options.Sets = None,
) -> None:
    """Put recorded events into the topics, as the shop would: keyed by user, the catalogue first, keyed by item.

    Every line is sent as it is, a broken one too: it becomes a dead letter of the worker. Sent again, events with
    an event_id count as duplicates.

    Example: stream-rec send events.jsonl --items items.jsonl --times event
    """
    for file in filter(None, (events, items)):
        if not file.is_file():
            raise SettingsError(f"there is no file {file}; `stream-rec import` makes one from a dataset")
    settings = cli_options.settings_from(config_file, sets)
    from stream_rec import assemble_tools
    from stream_rec.progress import Progress

    own_time = times is Times.EVENT
    if own_time:
        assemble_tools.refuse_expired(settings, events, now_ms=round(time.time() * 1000))
    n = {"items": 0, "events": 0}
    for what, path, lines in (
        ("items", items, assemble_tools.item_lines),
        ("events", events, assemble_tools.event_lines),
    ):
        if path is None:
            continue
        with Progress(f"send {what}") as progress:

            def watched(pairs: Iterable[tuple[Any, tuple[int, int]]], progress: Progress = progress) -> Iterator[Any]:
                for record, done in pairs:
                    progress.read(*done)
                    yield record

            n[what] = assemble_tools.send_lines(
                settings, watched(lines(settings, path, own_time=own_time)), rate_per_s=rate, sent=progress.count
            )
    sys.stdout.write(
        f"{n['items']:,} items to topic {settings.topics.items}, {n['events']:,} events to {settings.topics.events}\n"
    )


@slates.command()
def tail(
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="From the oldest that is kept instead of the next one.")
    ] = False,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Go on, or end at the present end.")] = True,
    user_key: Annotated[str | None, typer.Option(metavar="KEY", help="Only this user's; `*` for everybody's.")] = None,
    *,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="End after so many.")] = None,
    as_json: cli_options.Json = False,
    config_file: cli_options.ConfigFile = None,
    sets: cli_options.Sets = None,
) -> None:
    """Slates as they are committed, a line each, until Ctrl-C.

    Example: stream-rec slates tail --user-key $(stream-rec user-key 17850)
    """
    settings = cli_options.settings_from(config_file, sets)
    from stream_rec import assemble_tools
    from stream_rec.events import Topic

    wanted = None if user_key is None else user_key.encode()
    records = assemble_tools.stored(settings, Topic.SLATES, from_beginning=from_beginning, follow=follow)
    found = (record for record in records if wanted is None or record.key == wanted)
    for record in islice(found, limit):
        key = (record.key or b"").decode(errors="replace")
        value = record.value or msgspec.json.encode({"user_key": key, "withdrawn": True})
        sys.stdout.write((value.decode() if as_json else slate_line(msgspec.json.decode(value))) + "\n")
        sys.stdout.flush()


def slate_line(slate: Mapping[str, Any]) -> str:
    """A slate in a line for people.

    >>> slate_line({"user_key": "0123456789abcdef", "withdrawn": True})
    '0123456789ab  withdrawn'
    """
    key = str(slate["user_key"])[:KEY_CHARACTERS]
    if slate.get("withdrawn"):
        return f"{key}  withdrawn"
    shown = ", ".join(f"{slot['item_id']} {slot['score']:.2f}" for slot in slate["slots"][:N_SHOWN])
    more = f" and {len(slate['slots']) - N_SHOWN} more" if len(slate["slots"]) > N_SHOWN else ""
    version = str(slate["model_version"]).partition("-")[0]
    words = f"{cli_options.time_text(slate['event_at'])}  {key:<{KEY_CHARACTERS}}  {slate['cause']:<9}  {version:<4}  "
    return cli_options.printable(f"{words}{shown}{more}")


def control(
    word: Annotated[Word, typer.Argument(help="What to do.")],
    version: Annotated[str | None, typer.Option(metavar="V", help="For promote, pin, rollback.")] = None,
    at: Annotated[
        str | None, typer.Option(metavar="TIME", help="For rollback: to the state of this event time.")
    ] = None,
    *,
    user_key: Annotated[str | None, typer.Option(metavar="KEY", help="For forget: as `user-key` prints it.")] = None,
    on: Annotated[bool | None, typer.Option("--on/--off", help="For explore.")] = None,
    timeout_s: Annotated[
        float, typer.Option(min=0, metavar="S", help="How long to wait for the answer; 0: not at all.")
    ] = 30.0,
    config_file: cli_options.ConfigFile = None,
    sets: cli_options.Sets = None,
) -> None:
    """Command a running worker through its control topic and print its answer.

    freeze and unfreeze stop and go on with promotions; forget takes a user out of the state and withdraws the slate.
    A word that this build does not obey yet is refused, and the exit status is 1.

    Example: stream-rec control forget --user-key $(stream-rec user-key 17850)
    """
    settings = cli_options.settings_from(config_file, sets)
    body = command_of(word, version=version, at_ms=cli_options.time_ms(at, "--at"), user_key=user_key, on=on)
    from stream_rec import assemble_tools

    notice = assemble_tools.command(settings, body, timeout_ms=round(1000 * timeout_s))
    if notice is not None:
        sys.stdout.write(json.dumps(notice, ensure_ascii=False) + "\n")
        if notice.get("status") != "done":
            raise JobFailed(f"the worker refused '{word}'")
    elif timeout_s:
        raise JobFailed(
            f"no answer within {timeout_s:g} s; the command is in topic {settings.topics.control}, and a worker will "
            "obey it when it runs"
        )


def command_of(
    word: str, *, version: str | None, at_ms: int | None, user_key: str | None, on: bool | None
) -> dict[str, Any]:
    """The control record of a command.

    >>> command_of("freeze", version=None, at_ms=None, user_key=None, on=None)
    {'command': 'freeze'}

    Raises:
        SettingsError: an argument is missing, wrong or too many; says what the word takes.
    """
    from stream_rec.stream.catalogue import control_of

    body = {"command": str(word), "version": version, "event_at": at_ms, "user_key": user_key, "explore": on}
    body = {name: value for name, value in body.items() if value is not None}
    takes = {
        "promote": "--version",
        "pin": "--version",
        "rollback": "--version or --at",
        "forget": "--user-key with 32 hex digits, as `stream-rec user-key ID` prints them",
        "explore": "--on or --off",
    }
    names = {"--version": "version", "--at": "event_at", "--user-key": "user_key", "--on": "explore"}
    allowed = {field for option, field in names.items() if option in takes.get(str(word), "")}
    try:
        if body.keys() - {"command"} - allowed:
            raise BadRecord("bad_command")
        control_of(dict(body), [])
    except BadRecord:
        raise SettingsError(f"control {word} takes {takes.get(str(word), 'nothing more')}") from None
    return body
