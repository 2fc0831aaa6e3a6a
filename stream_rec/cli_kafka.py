"""`stream-rec send | slates tail | control`: what people do around a running worker."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from stream_rec import cli_options, config
from stream_rec.errors import JobFailed, SettingsError

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


TAKES: Mapping[Word, frozenset[str]] = {
    Word.FREEZE: frozenset(),
    Word.UNFREEZE: frozenset(),
    Word.PROMOTE: frozenset({"--version"}),
    Word.PIN: frozenset({"--version"}),
    Word.ROLLBACK: frozenset({"--version", "--at"}),
    Word.EXPLORE: frozenset({"--on or --off"}),
    Word.FORGET: frozenset({"--user-key"}),
}
"""What says to each word what is meant: exactly one of them."""


def send(
    events: Annotated[Path, typer.Argument(metavar="EVENTS", help="A file of events (.jsonl, .gz, .zst).")],
    items: Annotated[Path | None, typer.Option("--items", metavar="ITEMS", help="A file of catalogue records.")] = None,
    times: Annotated[
        Times, typer.Option(help="Record times: now, or the event's own, for a history to be replayed by time.")
    ] = Times.NOW,
    rate: Annotated[
        float, typer.Option(min=0, metavar="N", help="At most so many events a second; 0: all at once.")
    ] = 0,
    config_file: cli_options.ConfigFile = None,
    *,
    sets: cli_options.Sets = None,
) -> None:
    """Put recorded events into the topics, as the shop would: the catalogue first, keyed by item, events by user.

    Every line is sent as it is, a broken one too: it becomes a dead letter of the worker. Sent again, events with
    an event_id count as duplicates. `{"item_id": ..., "deleted": true}` takes an item off sale.

    Example: stream-rec send events.jsonl --items items.jsonl --times event
    """
    for file in filter(None, (events, items)):
        if not file.is_file():
            raise SettingsError(f"there is no file {file}; `stream-rec import` makes one from a dataset")
    settings = cli_options.settings_from(config_file, sets)
    from stream_rec import assemble_tools

    own_time = times is Times.EVENT
    assemble_tools.check_input(settings, events, items=items is not None, own_time=own_time)
    told = []
    if items is not None:
        told.append(_sent(settings, "items", items, own_time=own_time))
    told.append(_sent(settings, "events", events, own_time=own_time, rate_per_s=rate))
    sys.stdout.write(", ".join(told) + "\n")


def _sent(settings: config.Settings, what: str, path: Path, *, own_time: bool, rate_per_s: float = 0.0) -> str:
    """Send a file under a progress bar; returns what was sent, in words."""
    from stream_rec import assemble_tools
    from stream_rec.progress import Progress

    lines_of = assemble_tools.item_lines if what == "items" else assemble_tools.event_lines
    n_keyless = n_tombstones = 0
    with Progress(f"send {what}") as progress:

        def count(line: assemble_tools.Line) -> None:
            nonlocal n_keyless, n_tombstones
            n_keyless += not line.record.key
            n_tombstones += line.record.value is None
            progress.read(line.n_read, line.n_file)
            progress.count(1)

        lines = lines_of(settings, path, own_time=own_time)
        n = assemble_tools.send_lines(settings, lines, rate_per_s=rate_per_s, sent=count)
    named = ((n_tombstones, "taken off sale"), (n_keyless, "without a key"))
    apart = ", ".join(f"{n_of:,} {words}" for n_of, words in named if n_of)
    topic = settings.topics.items if what == "items" else settings.topics.events
    return f"{n:,} {what}{f' ({apart})' if apart else ''} to topic {topic}"


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

    A line says when, for whom, why, by which version, and the first items with their scores.

    Example: stream-rec slates tail --user-key $(stream-rec user-key 17850)
    """
    if not (from_beginning or follow):
        raise SettingsError("--no-follow shows nothing but what is there; add --from-beginning")
    settings = cli_options.settings_from(config_file, sets)
    from stream_rec import assemble_watch
    from stream_rec.events import Topic

    n = 0
    records = assemble_watch.stored(settings, Topic.SLATES, from_beginning=from_beginning, follow=follow)
    try:
        for record in islice((r for r in records if user_key in (None, r.key)), limit):
            gone = {"key": record.key, "tombstone": True}
            line = json.dumps(record.value or gone, ensure_ascii=False) if as_json else slate_line(*record)
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
            n += 1
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted; {n:,} slates shown") from None


def slate_line(key: str, timestamp_ms: int, slate: Mapping[str, Any] | None) -> str:
    """A record of the slates topic in a line for people; fields that it lacks are left empty.

    >>> slate_line("0123456789abcdef", 1298937600000, None)
    '2011-03-01 00:00:00  0123456789ab  withdrawn'
    """
    said = slate or {"cause": "withdrawn"}
    slots = said.get("slots") or []
    shown = ", ".join(_slot_text(slot) for slot in slots[:N_SHOWN])
    more = f" and {len(slots) - N_SHOWN} more" if len(slots) > N_SHOWN else ""
    version = str(said.get("model_version", "")).partition("-")[0]
    at = cli_options.time_text(said.get("event_at", timestamp_ms))
    line = (
        f"{at:<19}  {key[:KEY_CHARACTERS]:<{KEY_CHARACTERS}}  {said.get('cause', ''):<9}  {version:<4}  {shown}{more}"
    )
    return cli_options.printable(line.rstrip())


def _slot_text(slot: Mapping[str, Any]) -> str:
    score = slot.get("score")
    return f"{slot.get('item_id')} {score:.2f}" if isinstance(score, int | float) else f"{slot.get('item_id')}"


def control(
    word: Annotated[Word, typer.Argument(metavar="WORD", help=", ".join(Word))],
    version: Annotated[str | None, typer.Option(metavar="V", help="For promote, pin, rollback.")] = None,
    at: Annotated[
        str | None, typer.Option(metavar="TIME", help="For rollback: to the state of this event time.")
    ] = None,
    *,
    user_key: Annotated[str | None, typer.Option(metavar="KEY", help="For forget: as `user-key` prints it.")] = None,
    on: Annotated[bool | None, typer.Option("--on/--off", help="For explore.")] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the worker's answer.")] = True,
    timeout_s: Annotated[float, typer.Option(min=0.1, metavar="S", help="How long.")] = 30.0,
    config_file: cli_options.ConfigFile = None,
    sets: cli_options.Sets = None,
) -> None:
    """Command a running worker through its control topic and print its answer.

    freeze and unfreeze stop and go on with promotions; rollback, promote and pin are `versions rollback` and so on;
    forget takes a user out of the state and withdraws the slate. Refused, the exit status is 1.

    Example: stream-rec control forget --user-key $(stream-rec user-key 17850)
    """
    settings = cli_options.settings_from(config_file, sets)
    body = command_of(word, version=version, at=at, user_key=user_key, on=on)
    ask(settings, word, body, timeout_s=timeout_s if wait else None)


def ask(settings: config.Settings, word: Word, body: Mapping[str, Any], *, timeout_s: float | None) -> None:
    """Put a command into the control topic and print the worker's answer.

    Args:
        settings: how the brokers are reached.
        word: the command.
        body: its record.
        timeout_s: how long to wait; None: not at all.

    Raises:
        JobFailed: it was refused, or no answer came.
    """
    from stream_rec import assemble_watch

    topic = settings.topics.control
    notice = assemble_watch.command(settings, body, timeout_ms=None if timeout_s is None else round(1000 * timeout_s))
    if notice is not None:
        sys.stdout.write(json.dumps(notice, ensure_ascii=False) + "\n")
        if notice.get("status") != "done":
            sys.stdout.flush()
            raise JobFailed(f"the worker refused {word}: {notice.get('reason') or 'this build does not obey it yet'}")
    elif timeout_s is not None:
        raise JobFailed(
            f"no answer to {word} within {timeout_s:g} s; the command is in topic {topic}, and a worker obeys it when "
            "it runs"
        )
    else:
        sys.stdout.write(f"{word} is in topic {topic}\n")


def command_of(
    word: Word,
    *,
    version: str | None = None,
    at: str | None = None,
    user_key: str | None = None,
    on: bool | None = None,
) -> dict[str, Any]:
    """The control record of a command.

    >>> command_of(Word.ROLLBACK, at="2011-03-01")
    {'command': 'rollback', 'event_at': 1298937600000}

    Raises:
        SettingsError: an argument is missing, wrong or too many; says which, its value and what the word takes.
    """
    given: dict[str, object] = {"--version": version, "--at": at, "--user-key": user_key, "--on or --off": on}
    given = {option: value for option, value in given.items() if value is not None}
    takes = " or ".join(sorted(TAKES[word], reverse=True)) or "no option"
    if foreign := sorted(given.keys() - TAKES[word]):
        raise SettingsError(f"control {word} takes {takes}; leave out {foreign[0]}")
    if len(given) != min(1, len(TAKES[word])):
        raise SettingsError(f"control {word} takes {takes}, and {'not both' if given else 'none was given'}")
    at_ms = cli_options.time_ms(at, "--at")
    body = {"command": str(word), "version": version, "event_at": at_ms, "user_key": user_key, "explore": on}
    return _checked({name: value for name, value in body.items() if value is not None})


def _checked(body: dict[str, Any]) -> dict[str, Any]:
    """The same, as a worker would read it.

    Raises:
        SettingsError: it would be a dead letter.
    """
    from stream_rec.errors import BadRecord
    from stream_rec.stream.catalogue import control_of

    wants = {
        "version": "--version takes a version as `stream-rec versions list --json` gives it",
        "event_at": "--at takes a time of the shop's events, from 1990 to 2100",
        "user_key": "--user-key takes 32 hex digits in small letters, as `stream-rec user-key ID` prints them",
    }
    try:
        control_of(body, [])
    except BadRecord:
        field = next(name for name in wants if name in body)
        # What is given for a key may be a user's id, which is not repeated.
        value = f"{len(body[field])} characters of another kind" if field == "user_key" else f"{body[field]!r:.80}"
        raise SettingsError(f"{wants[field]}, not {value}") from None
    return body
