"""Whose turn it is: before a learner takes a ledger over, it makes sure that nobody lives on it.

Two live learners of one pipeline would fence each other for ever. The ledger shows who wrote last and when; a living
learner writes an empty tick when it has nothing to do, so silence means death.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from stream_rec.clock import Clock
from stream_rec.errors import Fenced
from stream_rec.stream.ledger import decode

LOOK_EVERY_MS = 250
CLOCKS_APART_MS = 60_000
"""How far the clocks of two machines may differ; a holder that wrote within so much of its silence is watched."""


class Entry(Protocol):
    """A ledger entry with its place and its time."""

    @property
    def offset(self) -> int:
        """Where it is."""
        ...

    @property
    def raw(self) -> bytes:
        """What it says."""
        ...

    @property
    def written_at_ms(self) -> int:
        """When it was written, by the log's clock."""
        ...


def await_turn(
    newest: Callable[[], Entry | None], own: str, *, silence_ms: int, clock: Clock, stopped: Callable[[], bool]
) -> None:
    """Return when no learner of another name lives on the ledger.

    A learner of our own name is one that died: a file lock keeps twins on one host apart.

    Args:
        newest: looks at the entry written last.
        own: our name.
        silence_ms: how long another one must be silent.
        clock: ours; it may differ from the log's by `CLOCKS_APART_MS`, since a younger entry is watched for
            `silence_ms`.
        stopped: whether to give up.

    Raises:
        Fenced: another learner is alive; says which.
    """
    first = newest()
    if first is None:
        return
    holder = decode(first.raw, first.offset).get("learner")
    if holder == own or clock.now_ms() - first.written_at_ms >= silence_ms + CLOCKS_APART_MS:
        return
    for _ in range(0, silence_ms, LOOK_EVERY_MS):
        if stopped():
            return
        clock.wait(LOOK_EVERY_MS)
        now = newest()
        if now is not None and now.offset > first.offset:
            raise Fenced(
                f"learner {holder} is alive on this pipeline (its newest tick came just now); stop it, start this one "
                "under another pipeline.name, or force it with --take-over"
            )


def refuse_rival(entries: Iterable[tuple[int, bytes]], session: str) -> None:
    """Stop when another learner has claimed the ledger among these entries, which came after our own claim.

    Raises:
        Fenced: names the learner and its tick.
    """
    for offset, raw in entries:
        entry = decode(raw, offset)
        if entry["kind"] != "tick" and entry.get("session") != session:
            raise Fenced(
                f"learner {entry.get('learner')} has claimed this pipeline at tick {entry['n']}; this worker stops and "
                "must not be started again at once"
            )
