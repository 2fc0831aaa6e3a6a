"""`stream-rec demo | import | replay | report`: the commands that do the work of an embedded run."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from stream_rec import cli_options, config
from stream_rec.errors import SettingsError

DEMO_DIR = Path("runs") / "demo"
DEMO_SETTINGS: dict[str, object] = {
    "slate.refresh_users_per_tick": 48,
    "report.interval_ms": 3 * 3_600_000,
    "learn.light_cut_examples": 5_000,
    "learn.examination_exponent": 0.6,
    "checkpoint.horizon_ms": 24 * 3_600_000,
}
"""A small shop: many small ticks, a version every two days; the exponent is the shop's own, and nobody
rebuilds an old state. Any of them can be set."""
COUNTS = ("consumed", "accepted", "duplicate", "late", "dead_lettered", "ignored", "n_versions", "events_per_s")


class Dataset(StrEnum):
    """Datasets that `import` reads."""

    ONLINE_RETAIL = "online-retail"
    REES46 = "rees46"
    MOVIELENS = "movielens-100k"
    CSV = "csv"


def demo(
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="The run folder.  [default: ./runs/demo]")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", help="Another shop, another run.  [default: 0]")
    ] = None,
    config_file: cli_options.ConfigFile = None,
    *,
    events: Annotated[
        Path | None,
        typer.Option("--events", metavar="FILE", help="Keep what people did (.jsonl, .gz, .zst), for `evaluate`."),
    ] = None,
    sets: cli_options.Sets = None,
) -> None:
    """Watch a simulated shop's recommendations learn, with nothing but Python; takes about five minutes.

    Users with drifting tastes choose from the slates that the loop publishes; at the end stand a table (first
    tenth against last tenth, against popularity), a picture of the learning curves and the paths of all files.

    Example: stream-rec demo --seed 7 --out runs/seven
    """
    settings = demo_settings(config_file, sets, out, seed=seed)
    from stream_rec.demo_run import run_demo

    run_demo(cli_options.running(settings), Console(), events_out=events)


def demo_settings(
    config_file: Path | None, sets: list[str] | None, out: Path | None, *, seed: int | None
) -> config.Settings:
    """The settings of the demo: a folder and a key of its own unless they are set.

    Raises:
        SettingsError: see `config.load`.
    """
    options: dict[str, tuple[str, object]] = {"run.dir": ("--out", out), "run.seed": ("--seed", seed)}
    settings = cli_options.settings_from(config_file, sets, options)
    if settings.run.dir is None:
        options["run.dir"] = ("demo", DEMO_DIR)
    if settings.privacy.key is None and settings.privacy.key_file is None:
        key = hashlib.sha256(f"stream-rec demo {settings.run.seed}".encode()).hexdigest()
        options["privacy.key"] = ("demo", key)
    chosen = {value.name for value in config.sources(settings) if value.source != config.DEFAULT}
    options |= {name: ("demo", value) for name, value in DEMO_SETTINGS.items() if name not in chosen}
    return cli_options.settings_from(config_file, sets, options)


def import_(
    dataset: Annotated[Dataset, typer.Argument(metavar="DATASET", help=", ".join(Dataset))],
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="The dataset's files, plain, .gz or .zst.")],
    out: Annotated[Path, typer.Option("--out", metavar="EVENTS", help="Where the events go (.jsonl, .gz, .zst).")],
    *,
    items: Annotated[Path | None, typer.Option("--items", metavar="ITEMS", help="Where the catalogue goes.")] = None,
    column_map: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="EVENT_FIELD=COLUMN", help="For csv: which column holds a field; repeatable."),
    ] = None,
    config_file: cli_options.ConfigFile = None,
    sets: cli_options.Sets = None,
) -> None:
    """Turn a dataset into one event a line, sorted by time; nothing is dropped or cleaned.

    An unreadable line is passed on as it is and becomes a dead letter of the replay, so that it is counted there.

    Example: stream-rec import csv shop.csv --out events.jsonl --map event_at=when --map item_id=sku
    """
    cli_options.settings_from(config_file, sets)
    from stream_rec import assemble
    from stream_rec.progress import Progress

    mapped = parse_map(column_map or [])
    with Progress("import") as progress:

        def told(n_lines: int, n_bytes: int, total_bytes: int) -> None:
            progress.read(n_bytes, total_bytes)
            progress.count(n_lines)

        report = assemble.import_dataset(dataset.value, files, out=out, items_out=items, column_map=mapped, told=told)
    sys.stdout.write(f"{report}\n")


def parse_map(texts: list[str]) -> dict[str, str]:
    """Event field -> column of `--map` texts.

    >>> parse_map(["item_id=sku", "event_at=when"])
    {'item_id': 'sku', 'event_at': 'when'}

    Raises:
        SettingsError: a text is not `field=column`, or a field is mapped twice.
    """
    out: dict[str, str] = {}
    for text in texts:
        field, equals, column = text.partition("=")
        if not (field and equals and column):
            raise SettingsError(f"--map takes event_field=column, not '{text}'")
        if field in out:
            raise SettingsError(f"--map names {field} twice; keep one")
        out[field] = column
    return out


def replay(
    events: Annotated[
        Path | None,
        typer.Argument(metavar="[EVENTS]", help="A file of events (.jsonl, .gz, .zst); without it, the stored topics."),
    ] = None,
    out: cli_options.Out = None,
    items: Annotated[Path | None, typer.Option("--items", metavar="ITEMS", help="A file of catalogue records.")] = None,
    *,
    since: Annotated[
        str | None, typer.Option(metavar="T", help="First time taken: 2011-03-01, RFC 3339 or ms.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="T", help="First time no longer taken.")] = None,
    partitions: Annotated[
        str | None, typer.Option(metavar="N,N", help="Topics: only these partitions of events.")
    ] = None,
    from_ledger: Annotated[
        bool, typer.Option("--from-ledger", help="Topics: the very ticks of the live ledger, for the same bytes.")
    ] = False,
    output_topic: Annotated[
        str | None, typer.Option(metavar="T", help="Topics: where the slates go.  [default: a shadow topic]")
    ] = None,
    speed: Annotated[
        float, typer.Option(min=0, metavar="X", help="Topics: times real time; 0 for as fast as it goes.")
    ] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
    config_file: cli_options.ConfigFile = None,
    sets: cli_options.Sets = None,
) -> None:
    """Run recorded events through the very loop that a live worker runs: a file, or a range of the stored topics.

    Interrupted, the same command goes on; finished, it prints the summary again. Of a file the folder holds what the
    topics would carry, a record a line, and metrics.jsonl, summary.json, checkpoints and figures. A replay of topics is
    a pipeline of its own (PIPELINE-replay, another name with --set replay.name=...) that publishes to shadow topics;
    times are those of the records.

    Example: STREAM_REC_PRIVACY__KEY=... stream-rec replay events.jsonl --items items.jsonl --out runs/march

    Example: stream-rec replay --since 2026-03-01 --until 2026-03-08
    """
    if events is not None and (partitions or from_ledger or output_topic or speed):
        raise SettingsError("--partitions, --from-ledger, --output-topic and --speed are of stored topics; drop EVENTS")
    if events is None and items is not None:
        raise SettingsError("--items is a file beside EVENTS; stored topics bring their own catalogue")
    for path in filter(None, (events, items)):
        if not path.is_file():
            raise SettingsError(f"there is no file {path}; `stream-rec import` makes one from a dataset")
    settings = cli_options.running(cli_options.settings_from(config_file, sets, {"run.dir": ("--out", out)}))
    config.privacy_key(settings)
    since_ms, until_ms = cli_options.time_ms(since, "--since"), cli_options.time_ms(until, "--until")
    if since_ms is not None and until_ms is not None and since_ms >= until_ms:
        raise SettingsError("--since is not before --until, so nothing is selected; give an earlier --since")
    if events is not None:
        from stream_rec.replay import run_replay

        summary = run_replay(settings, events=events, items=items, since=since_ms, until=until_ms)
    else:
        from stream_rec import replay_topics

        asked = replay_topics.Asked(
            since_ms, until_ms, numbers(partitions), from_ledger=from_ledger, output_topic=output_topic, speed=speed
        )
        summary = replay_topics.run_replay(settings, asked)
        settings = replay_topics.own_settings(settings)
    print_summary(summary, settings.run_dir, as_json)


def numbers(text: str | None) -> tuple[int, ...]:
    """Partition numbers between commas, ascending.

    >>> numbers("3,0"), numbers(None)
    ((0, 3), ())

    Raises:
        SettingsError: it is something else.
    """
    try:
        found = {int(word) for word in (text or "").split(",") if word.strip()}
    except ValueError:
        raise SettingsError(f"--partitions takes numbers between commas, as in 0,3, not {text}") from None
    return tuple(sorted(found))


def worker(
    start: Annotated[
        str | None,
        typer.Option("--start", metavar="WHERE", help="Where a new pipeline begins: earliest, latest, or a time."),
    ] = None,
    init_from: Annotated[
        Path | None, typer.Option("--init-from", metavar="DIR", help="Begin with the state of this finished replay.")
    ] = None,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Do not wait until a learner of another name is silent; fence it.")
    ] = False,
    out: cli_options.Out = None,
    config_file: cli_options.ConfigFile = None,
    *,
    sets: cli_options.Sets = None,
) -> None:
    """Learn from the topics and publish slates, exactly once, until told to stop: the main job in production.

    It finds its place in the ledger topic by itself, so the same command starts it the first time, after a crash and
    after an upgrade. SIGTERM drains what is there, saves and exits with 0. Do not restart it at once after exit
    status 4: another learner owns the pipeline. `/healthz`, `/readyz`, `/status` and `/metrics` are served at
    health.port.

    Example: stream-rec worker --start earliest --set kafka.bootstrap_servers=broker:9092
    """
    settings = cli_options.running(cli_options.settings_from(config_file, sets, {"run.dir": ("--out", out)}))
    config.privacy_key(settings)
    where = start if start in (None, "earliest", "latest") else cli_options.time_ms(start, "--start")
    if init_from is not None and not init_from.is_dir():
        raise SettingsError(f"--init-from {init_from}: there is no such folder; give the run folder of a replay")
    cli_options.log_to_stderr()
    from stream_rec.worker_run import Start, run_worker

    run_worker(settings, Start(where, init_from, take_over))


def print_summary(summary: Mapping[str, Any], run_dir: Path, as_json: bool) -> None:
    """Draw what a run learned and print what it came to: the counts, the table in one line, the paths."""
    from stream_rec import report as reports

    paths = reports.draw(run_dir)
    if as_json:
        sys.stdout.write(json.dumps(summary, ensure_ascii=False) + "\n")
        return
    counts = "  ".join(f"{name} {summary[name]:,}" for name in COUNTS if name in summary)
    lines = [counts, reports.first_line(run_dir), *map(str, paths), f"stream-rec report {run_dir} shows the tables"]
    sys.stdout.write("".join(f"{line}\n" for line in lines if line))


def report(
    run_dir: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="A run folder.  [default: the setting run.dir]")
    ] = None,
    config_file: cli_options.ConfigFile = None,
    sets: cli_options.Sets = None,
) -> None:
    """Print the summary table of a run folder and draw its learning curves again; of an unfinished run, so far.

    Example: stream-rec report runs/demo
    """
    settings = cli_options.settings_from(config_file, sets)
    folder = run_dir if run_dir is not None else settings.run_dir
    if not folder.is_dir():
        raise SettingsError(f"there is no run folder {folder}; `stream-rec demo --out {folder}` makes one")
    from stream_rec.report import report as make_report

    for path in make_report(folder, Console()):
        sys.stdout.write(f"{path}\n")
