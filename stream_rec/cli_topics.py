"""`stream-rec topics`: make the pipeline's topics as they must be kept, and see whether they are."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer

from stream_rec import cli_options
from stream_rec.errors import JobFailed

app = typer.Typer(no_args_is_help=True, help="Make and check the topics of a pipeline.")
COLUMNS = ("topic", "partitions", "replication", "cleanup", "retention_ms", "compaction_lag_ms", "wrong")


@app.command()
def create(
    partitions: Annotated[int, typer.Option(min=1, help="Partitions of events, items and slates.")] = 6,
    replication: Annotated[int, typer.Option(min=1, help="Copies of each; 1 on a single broker.")] = 3,
    min_isr: Annotated[
        int | None, typer.Option("--min-isr", min=1, help="Copies that must be in step.  [default: 2, 1 with 1 copy]")
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
    from stream_rec import assemble_tools

    least = min(2, replication) if min_isr is None else min_isr
    rows = assemble_tools.create_topics(settings, n_partitions=partitions, replication=replication, min_isr=least)
    cli_options.print_rows(rows, ("topic", "what", "wrong"), as_json, empty="no topics")
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
    cli_options.print_rows([row | {"wrong": row["wrong"] or "ok"} for row in rows], COLUMNS, as_json, empty="no topics")
    _refuse(rows)


def _refuse(rows: Iterable[Mapping[str, Any]]) -> None:
    if wrong := [row["topic"] for row in rows if row["wrong"]]:
        sys.stdout.flush()
        raise JobFailed(f"{', '.join(wrong)}: not kept as a pipeline needs it; mend this with your Kafka tools")
