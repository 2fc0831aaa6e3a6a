"""`stream-rec topics`: make the pipeline's topics as they must be kept, and see whether they are."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer

from stream_rec import cli_options
from stream_rec.errors import JobFailed, SettingsError

app = typer.Typer(no_args_is_help=True, help="Make and check the topics of a pipeline.")
COLUMNS = ("topic", "partitions", "replication", "cleanup", "retention", "compacted after", "state")
OK = "ok"
_UNITS_MS = (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000), ("ms", 1))


@app.command()
def create(
    partitions: Annotated[
        int, typer.Option("--partitions", min=1, metavar="N", help="Partitions of events, items and slates.")
    ] = 6,
    replication: Annotated[
        int, typer.Option("--replication", min=1, metavar="R", help="Copies of each topic; 1 on a single broker.")
    ] = 3,
    min_isr: Annotated[
        int | None,
        typer.Option("--min-isr", min=1, metavar="M", help="Copies that must have a record.  [default: 2; 1 of 1]"),
    ] = None,
    as_json: cli_options.Json = False,
    *,
    config_file: cli_options.ConfigFile = None,
    sets: cli_options.Sets = None,
) -> None:
    """Make the topics that are missing, with the retention and compaction that exactly-once needs.

    What is there stays as it is; where that is not enough, it is said, and the exit status is 1. Control, ledger,
    versions and dead letters have one partition. Retention follows checkpoint.horizon_ms.

    Example: stream-rec topics create --partitions 12 --set kafka.bootstrap_servers=broker:9092
    """
    settings = cli_options.settings_from(config_file, sets)
    least = min(2, replication) if min_isr is None else min_isr
    if least > replication:
        raise SettingsError(f"--min-isr {least} is above --replication {replication}: no record could be written")
    from stream_rec import assemble_tools

    rows = assemble_tools.create_topics(settings, n_partitions=partitions, replication=replication, min_isr=least)
    cli_options.print_rows(rows, ("topic", "what", "state"), as_json, empty="no topics")
    _refuse(rows)


@app.command()
def describe(
    as_json: cli_options.Json = False,
    config_file: cli_options.ConfigFile = None,
    sets: cli_options.Sets = None,
) -> None:
    """How the topics are kept, and what of it must be mended (exit status 1).

    Example: stream-rec topics describe --json
    """
    settings = cli_options.settings_from(config_file, sets)
    from stream_rec import assemble_tools

    rows = assemble_tools.describe_topics(settings)
    cli_options.print_rows(rows if as_json else map(_for_people, rows), COLUMNS, as_json, empty="no topics")
    _refuse(rows)


def _for_people(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of `describe_topics` as the table shows it: only the times that its cleanup looks at."""
    cleanup = row["cleanup"] or ""
    return {
        **row,
        "retention": duration_text(row["retention_ms"]) if "delete" in cleanup else "-",
        "compacted after": duration_text(row["compaction_lag_ms"]) if "compact" in cleanup else "-",
    }


def duration_text(duration_ms: int | None) -> str:
    """Milliseconds in the largest unit that holds them whole.

    >>> duration_text(2_592_000_000), duration_text(5_400_000), duration_text(-1), duration_text(None)
    ('30 d', '90 min', 'for ever', '-')
    """
    if duration_ms is None or duration_ms < 0:
        return "-" if duration_ms is None else "for ever"
    unit, of_ms = next((u, ms) for u, ms in _UNITS_MS if duration_ms % ms == 0)
    return f"{duration_ms // of_ms} {unit}" if duration_ms else "0 ms"


def _refuse(rows: Iterable[Mapping[str, Any]]) -> None:
    if wrong := [row["topic"] for row in rows if row["state"] != OK]:
        sys.stdout.flush()
        raise JobFailed(
            f"{', '.join(wrong)}: not kept as a pipeline needs; `stream-rec topics create` makes what is missing, and "
            "settings of a topic that is there are mended with your Kafka tools (kafka-configs --alter)"
        )
