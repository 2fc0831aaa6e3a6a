"""What the commands share: their common options, how settings are loaded, how lists and errors are printed."""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from stream_rec import config
from stream_rec.errors import SettingsError, StreamRecError

INTERRUPTED = 130
DEBUG_VARIABLE = "STREAM_REC_DEBUG"

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Settings file.  [default: ./stream-rec.toml when there is one]"),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="SECTION.KEY=VALUE", help="One setting; repeatable; stronger than file and environment."
    ),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="The run folder (setting run.dir).  [default: ./runs/PIPELINE]"),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line instead of a table.")]


class Commands(TyperGroup):
    """The command tree; ends what its commands raise in one line on stderr and the exit status of the README."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            _say(str(error) or "interrupted; run the same command again")
            raise typer.Exit(INTERRUPTED) from None
        except StreamRecError as error:
            _say(f"error: {error}")
            raise typer.Exit(error.exit_status) from None
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
        except OSError as error:
            where = f": {error.filename}" if error.filename else ""
            _say(f"error: {error.strerror or type(error).__name__}{where}; mend that and run the same command again")
            raise typer.Exit(1) from None
        except Exception as error:
            if type(error).__module__.partition(".")[0] in {"typer", "click"} or os.environ.get(DEBUG_VARIABLE):
                raise
            # The message of a stray exception may quote a record, so only its place is told.
            sys.stderr.writelines(traceback.format_tb(error.__traceback__))
            _say(f"error: {type(error).__name__}, a bug; {DEBUG_VARIABLE}=1 tells its message, which may quote input")
            raise typer.Exit(1) from None


def _say(line: str) -> None:
    sys.stderr.write(" ".join(line.split()) + "\n")


def settings_from(
    config_file: Path | None, sets: Sequence[str] | None, options: Mapping[str, tuple[str, object]] | None = None
) -> config.Settings:
    """Load the settings of a command; an option that was not given (value None) sets nothing.

    Raises:
        SettingsError: see `config.load`.
    """
    given = {name: option for name, option in (options or {}).items() if option[1] is not None}
    return config.load(config_file, sets or (), os.environ, given)


def running(settings: config.Settings) -> config.Settings:
    """The settings of a command that learns, with the warning that belongs to them on stderr."""
    if warning := config.encoder_warning(settings):
        _say(f"warning: {warning}")
    return settings


def log_to_stderr() -> None:
    """Say what a long-running command does, a line each, with the time."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)


def time_ms(text: str | None, option: str) -> int | None:
    """Milliseconds since the epoch of an RFC 3339 time, a date, or epoch milliseconds; without a zone it is UTC.

    >>> time_ms("2011-03-01", "--since")
    1298937600000

    Raises:
        SettingsError: it is none of these.
    """
    if text is None:
        return None
    if text.isdecimal() and len(text) >= 12:
        return int(text)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise SettingsError(f"{option} takes a time such as 2011-03-01, 2011-03-01T08:00:00Z or epoch ms") from None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return round(at.timestamp() * 1000)


def time_text(at_ms: object) -> str:
    """Write a time in ms as people read it, in UTC.

    >>> time_text(1298937600000)
    '2011-03-01 00:00:00'
    """
    if not isinstance(at_ms, int):
        return "" if at_ms is None else str(at_ms)
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def printable(text: str | bytes) -> str:
    r"""Text that cannot command a terminal: control characters and broken UTF-8 escaped.

    >>> printable(b"a\x1b[2J\xff")
    'a\\x1b[2J\\xff'
    """
    whole = text.decode(errors="backslashreplace") if isinstance(text, bytes) else text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in whole)


def print_rows(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], as_json: bool, *, empty: str) -> None:
    """Print a list: JSON lines with every field, or a table of `columns`; `empty` says that there is nothing.

    On a terminal the table is fitted to it; elsewhere each row is one line.
    """
    if as_json:
        for row in rows:
            sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
        return
    cells = [[printable(_cell(column, row.get(column))) for column in columns] for row in rows]
    console = Console()
    if not cells:
        console.print(empty, markup=False)
    elif console.is_terminal:
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
        for column in columns:
            table.add_column(column, overflow="fold")
        for row_cells in cells:
            table.add_row(*map(Text, row_cells))
        console.print(table)
    else:
        widths = [max(map(len, told)) for told in zip(columns, *cells, strict=True)]
        for line in (columns, *cells):
            padded = "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True))
            sys.stdout.write(padded.rstrip() + "\n")


def _cell(column: str, value: object) -> str:
    if column.endswith("_at") or column in {"timestamp", "timestamp_ms"}:
        return time_text(value)[: -len(":00")] if column == "event_at" else time_text(value)
    if isinstance(value, Mapping | list):
        return json.dumps(value, ensure_ascii=False)
    return "" if value is None else str(value)
