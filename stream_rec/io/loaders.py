"""What a dataset's loader is, and the conversions that all of them share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from stream_rec.errors import SettingsError

Fields = Mapping[str, str]
"""Column name to text of one row."""

Event = dict[str, Any]
"""An event as section `events` of the record formats has it, without `event_id`."""


class Table(NamedTuple):
    """How to read the rows of one file."""

    columns: Sequence[str]
    event: Callable[[Fields], Event | None]
    """The event of a row; None when the row goes to the catalogue only."""
    headless: bool = False
    """The first row is data already."""


class Loader(Protocol):
    """Reads the files of one dataset; keeps what the catalogue needs while it reads."""

    def table(self, header: Sequence[str]) -> Table:
        """How to read the file with this first row.

        Raises:
            SettingsError: it is no file of this dataset.
        """
        ...

    def items(self) -> Iterator[dict[str, Any]]:
        """The catalogue records, in the order in which the items were first seen."""
        ...


def need_columns(header: Sequence[str], needed: Sequence[str], dataset: str) -> None:
    """Check the header of a file.

    Raises:
        SettingsError: a needed column is missing; names it, and nothing of the file, whose first line may be data.
    """
    missing = [name for name in needed if name not in header]
    if missing:
        raise SettingsError(
            f"{dataset}: the file's first line, which has {len(header):,} fields, names no column "
            f"{', '.join(missing)}; give a file whose first line names the columns {', '.join(needed)}"
        )


def number(text: str) -> int | float | str:
    """The text as a JSON number; as it is when it is none, for the replay to judge.

    >>> number("6"), number("2.55"), number("nan"), number("six")
    (6, 2.55, 'nan', 'six')
    """
    try:
        if text.isascii() and text.lstrip("-").isdigit():
            return int(text) if len(text) <= 18 else text
        value = float(text)
    except ValueError:
        return text
    return value if abs(value) < float("inf") and "_" not in text else text
