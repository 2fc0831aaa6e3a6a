"""`stream-rec dead-letters` and `stream-rec versions`: lists over a run folder or the topics."""

from __future__ import annotations

import base64
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Annotated, Any

import typer

from stream_rec import cli_options, config
from stream_rec.errors import JobFailed, SettingsError, Unreachable
from stream_rec.events import Topic
from stream_rec.stream.quality import REASONS
from stream_rec.version_facts import POINTER

dead_letters = typer.Typer(no_args_is_help=True, help="Look at records that could not be used.")
versions = typer.Typer(no_args_is_help=True, help="Look at the versions of the model.")

LETTER_COLUMNS = ("position", "timestamp", "stage", "reason", "length", "digest")
N_NAMED = 20
"""Positions named of those that are left for one reason."""
VERSION_COLUMNS = ("version", "event", "event_at", "verdict", "recall difference", "examples", "reasons")


def _lines(settings: config.Settings, topic: str) -> Iterator[dict[str, Any]]:
    """The records of a topic, oldest first: in the run folder where it holds a ledger or was named, else on Kafka."""
    if _on_kafka(settings):
        return _of_topic(settings, topic)
    if not settings.run_dir.is_dir():
        raise SettingsError(f"there is no run folder {settings.run_dir}; name one with --out")
    from stream_rec import assemble

    return iter(assemble.open_run(settings.run_dir).records(topic))


def _on_kafka(settings: config.Settings) -> bool:
    named = config.source_of(settings, "run.dir") == "--out"
    return not named and not (settings.run_dir / "ledger.jsonl").is_file()


def _of_topic(settings: config.Settings, topic: str) -> Iterator[dict[str, Any]]:
    from stream_rec import assemble_watch

    try:
        yield from assemble_watch.topic_objects(settings, topic)
    except Unreachable as error:
        raise Unreachable(f"{error}; to look into a run folder, name it with --out") from error


def place(settings: config.Settings, topic: str) -> str:
    """Where the records of a topic are looked for, in words."""
    return f"topic {topic}" if _on_kafka(settings) else str(settings.run_dir)


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
    """Dead letters: where each came from and why it could not be used.

    Those of a run folder (`--out`, or one that holds a ledger), else those of the topic.

    Example: stream-rec dead-letters list --out runs/demo --reason bad_event_at
    """
    settings = cli_options.settings_from(config_file, sets, {"run.dir": ("--out", out)})
    there: Counter[str] = Counter()

    def found() -> Iterator[dict[str, Any]]:
        for letter in _letters(settings):
            there[letter["reason"]] += 1
            if reason in (None, letter["reason"]):
                yield letter

    letters = found()
    rows = list(islice(letters, limit))
    n = len(rows) + sum(1 for _ in letters)
    if reason is not None and not n and reason not in REASONS:
        raise SettingsError(f"no dead letter has the reason given; there are {', '.join(sorted(there)) or 'none'}")
    cli_options.print_rows(
        rows, LETTER_COLUMNS, as_json, empty="no dead letters" + (" of this reason" if there else "")
    )
    if n > len(rows):
        cut = f"{len(rows):,} of {n:,}; --limit {n} shows all\n"
        (sys.stderr if as_json else sys.stdout).write(cut)


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
        where = place(settings, settings.topics.dead_letters)
        raise SettingsError(f"there is no dead letter {position} in {where}; `dead-letters list` names them")
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


@dead_letters.command("redrive")
def redrive(
    positions: Annotated[
        list[str] | None, typer.Argument(metavar="[TOPIC/PARTITION/OFFSET...]", help="Those at these positions.")
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Those that died of this reason.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which.")] = False,
    config_file: cli_options.ConfigFile = None,
    *,
    sets: cli_options.Sets = None,
) -> None:
    """Put dead records back into the topics they came from, byte for byte, once the cause is mended.

    They are opened with the privacy key. One that was longer than what a dead letter keeps cannot be put back and is
    named. A header says where each had died.

    Example: stream-rec dead-letters redrive --reason bad_event_at
    """
    settings = cli_options.settings_from(config_file, sets)
    if bool(positions) + (reason is not None) + every != 1:
        raise SettingsError("say which, by one of these: positions as `dead-letters list` gives them, --reason, --all")
    if reason is not None and reason not in REASONS:
        raise SettingsError(f"--reason {reason!r:.80} is no reason of a dead letter; `dead-letters list` shows them")
    from stream_rec import assemble_watch

    left: dict[str, list[str]] = {}
    dead = assemble_watch.dead_records(settings, positions or None, reason, key=config.privacy_key(settings))

    def watched() -> Iterator[assemble_watch.Dead]:
        # All of the positions must be found before the first is put back.
        for each in list(dead) if positions else dead:
            if each.record is None:
                left.setdefault(each.why_not, []).append(each.position)
            elif dry_run:
                sys.stdout.write(f"{each.position}\n")
            yield each

    n = sum(each.record is not None for each in watched()) if dry_run else assemble_watch.put_back(settings, watched())
    n_left = sum(map(len, left.values()))
    for why_not, those in left.items():
        more = f" and {len(those) - N_NAMED:,} more" if len(those) > N_NAMED else ""
        sys.stderr.write(f"left {', '.join(those[:N_NAMED])}{more}: {why_not}\n")
    sys.stdout.write(f"{n:,} {'would be ' if dry_run else ''}put back, {n_left:,} left\n")
    if n_left:
        sys.stdout.flush()
        raise JobFailed(f"{n_left:,} dead letters cannot be put back, for the reasons said above")


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

    The recall difference to the version before is given with its 95 % interval. `versions show` and `--json` tell
    all: whole names, digests, every figure.

    Example: stream-rec versions list --out runs/demo
    """
    settings = cli_options.settings_from(config_file, sets, {"run.dir": ("--out", out)})
    rows = notices(settings) if as_json else map(_in_brief, _without_pointers(notices(settings)))
    cli_options.print_rows(rows, VERSION_COLUMNS, as_json, empty="no versions yet")


def notices(settings: config.Settings) -> Iterator[dict[str, Any]]:
    """Records of `versions`, oldest first, of the run folder or the topic."""
    return (row for row in _lines(settings, Topic.VERSIONS) if not row.get("tombstone"))


def _without_pointers(rows: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The notices less those that repeat whom the notice before made the champion."""
    before: Mapping[str, Any] = {}
    for row in rows:
        if row.get("event") != POINTER or row.get("version") != before.get("version"):
            yield row
        before = row


def _in_brief(row: Mapping[str, Any]) -> dict[str, Any]:
    """A notice as the table shows it."""
    verdict = row.get("verdict")
    told: Mapping[str, Any] = verdict if isinstance(verdict, Mapping) else {"verdict": verdict}
    return {
        "version": str(row.get("version") or "").partition("-")[0],
        "event": " ".join(filter(None, (row.get("event"), row.get("command"), row.get("status")))),
        "event_at": row.get("event_at"),
        "verdict": told.get("verdict"),
        "recall difference": difference(told.get("recall_difference"), told.get("interval")),
        "examples": "" if (n := row.get("n_examples")) is None else f"{n:,}",
        "reasons": "; ".join(told.get("reasons", ())),
    }


def difference(mean: float | None, interval: Sequence[float] | None) -> str:
    """A difference with its interval.

    >>> difference(-0.001481, [-0.00661, 0.003185]), difference(0.01, None), difference(None, None)
    ('-0.0015 [-0.0066, +0.0032]', '+0.0100', '')
    """
    if mean is None:
        return ""
    return f"{mean:+.4f} [{interval[0]:+.4f}, {interval[1]:+.4f}]" if interval else f"{mean:+.4f}"
