"""The ledger of a run folder, to read: beside a writer or without one, and nothing is locked, cut off or written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from stream_rec.errors import JobFailed
from stream_rec.events import Output, Topic
from stream_rec.io.run_folder import committed_lines


class FolderLedger:
    """A Publisher that publishes nothing.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def commit(self, outputs: Sequence[Output], entry: bytes) -> int:
        """Refuse.

        Raises:
            JobFailed: always.
        """
        del outputs, entry
        raise JobFailed(f"the ledger of {self.folder} is only read here")

    def take_over(self) -> None:
        """Nothing to do: nobody writes here."""

    def read_ledger(self, offset: int = 0) -> Iterator[tuple[int, bytes]]:
        """(line number, entry) of every committed entry from line `offset` on."""
        for number, line in enumerate(committed_lines(self.folder, Topic.LEDGER)):
            if number >= offset:
                yield number, line

    def close(self) -> None:
        """Nothing is held."""
