"""Workers that are broken on purpose, so that the checker can be seen to notice: `-m tests.storm.broken HOW ...`.

Each breaks one rule of the loop in one place and is the honest command line otherwise; where a crash must fall into a
short window to show it, the worker crashes itself there.
"""

from __future__ import annotations

import itertools
import os
import secrets
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from stream_rec import cli, loop, worker_run
from stream_rec.effects import Effects
from stream_rec.events import Output
from stream_rec.io.kafka import Sending, Writer
from stream_rec.io.kafka_publisher import KafkaPublisher
from stream_rec.loop import Loop
from stream_rec.stream.tick import Range


def _die_at(entry: Mapping[str, Any]) -> None:
    """The aimed fault: a crash in a tick with many events, three times in all, never twice in the same place."""
    ranges = [r for r in entry.get("tick", {}).get("ranges", ()) if r[0] == "events"]
    deaths = Path(tempfile.gettempdir()) / "deaths"
    deaths.mkdir(exist_ok=True)
    here = deaths / str(sum(r[2] for r in ranges))
    if sum(r[4] for r in ranges) > 5 and len(list(deaths.iterdir())) < 3 and not here.exists():
        here.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def checkpoint_before_commit() -> None:
    """A checkpoint is taken of a tick that may never be committed."""
    honest, numbers = Loop.commit, itertools.count()

    def commit(self: Loop, kind: str, body: dict[str, Any], effects: Effects) -> None:
        if kind == "tick" and next(numbers) % 2 == 0:
            self.current, kept = None, self.current
            self.checkpoint()
            self.current = kept
            self._ports.checkpoints.flush()
            _die_at(body)
        honest(self, kind, body, effects)

    Loop.commit = commit  # type: ignore[method-assign]


def outputs_outside() -> None:
    """Outputs are published before the transaction that holds the ledger entry."""
    honest = KafkaPublisher.commit

    def commit(self: KafkaPublisher, outputs: Sequence[Output], entry: bytes) -> int:
        plain = Writer(self._access)
        n_out = plain.settle([plain.send(self._sending(o)) for o in outputs if o.topic != "metrics"])
        plain.close()
        if n_out:
            _die_at(msgspec.json.decode(entry))
        return honest(self, [o for o in outputs if o.topic == "metrics"], entry)

    KafkaPublisher.commit = commit  # type: ignore[method-assign]


def unchecked_sends() -> None:
    """A record that was never delivered does not stop its transaction."""
    honest, numbers = Writer.transact, itertools.count()

    def transact(self: Writer, records: Iterable[Sending]) -> int:
        sent = list(records)
        if len(sent) > 3 and next(numbers) % 4 == 3:
            del sent[1]
        return honest(self, sent)

    Writer.transact = transact  # type: ignore[method-assign]


def no_fencing() -> None:
    """Every start has a transactional id of its own, nobody looks for rivals, and a failed commit is tried again."""
    init = KafkaPublisher.__init__

    def own_id(self: KafkaPublisher, access: Any, names: Any, transactional_id: str, **more: Any) -> None:
        init(self, access, names, transactional_id + secrets.token_hex(4), **more)

    KafkaPublisher.__init__ = own_id  # type: ignore[method-assign]
    worker_run.await_turn = lambda *_, **__: None
    worker_run.refuse_rival = lambda *_, **__: None


def next_from_position() -> None:
    """A range ends where the consumer stands, ahead of what was taken."""
    honest, numbers = loop.ranges_of, itertools.count()

    def ranges_of(records: Any, positions: Any) -> tuple[Range, ...]:
        ranges = honest(records, positions)
        ahead = 3 if next(numbers) % 3 == 2 else 0
        return tuple(r._replace(next=r.next + ahead) if r.topic == "events" else r for r in ranges)

    loop.ranges_of = ranges_of


VARIANTS: dict[str, Callable[[], None]] = {
    breaks.__name__: breaks
    for breaks in (checkpoint_before_commit, outputs_outside, unchecked_sends, no_fencing, next_from_position)
}

if __name__ == "__main__":
    how, sys.argv = sys.argv[1], [sys.argv[0], *sys.argv[2:]]
    VARIANTS[how]()
    cli.main()
