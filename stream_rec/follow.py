"""A replay that follows another ledger: the same ticks, numbers and settings, and so the same bytes, under its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from stream_rec.effects import Effects
from stream_rec.fold import reread
from stream_rec.loop import Loop
from stream_rec.ports import EventSource
from stream_rec.stream.ledger import decode
from stream_rec.stream.tick import Tick

OWN = ("n", "prev", "kind", "settings", "build", "learner")
"""What an entry says of the run that wrote it."""


def follow(
    loop: Loop,
    source: EventSource,
    entries: Iterable[tuple[int, bytes]],
    *,
    genesis: Mapping[str, Any],
    publish: Callable[[Mapping[str, Any]], bool],
) -> Iterable[Mapping[str, Any]]:
    """Fold the entries of another ledger from its genesis on and commit the same ticks; gives each as it is done.

    Entries that an earlier start of this replay committed are passed over.

    Args:
        loop: recovered; its ledger is empty or holds the beginning of this very replay.
        source: of the records that the ticks name.
        entries: (offset, entry) of the other ledger.
        genesis: what this replay's own genesis says of it.
        publish: whether the outputs of an entry go out; it is folded all the same.

    Raises:
        LedgerMismatch: a tick gives other effects than theirs, under the same build.
        InputGone: records that they name can no longer be read.
        JobFailed: weights of a version could not be written; the next start writes them.
    """
    # Which versions are durable is said by the entries; asked all the same, a disk that refuses would go unheard.
    loop.stored()
    for offset, raw in entries:
        entry = decode(raw, offset)
        if entry["n"] <= loop.pipeline.positions.number:
            continue
        body = {name: value for name, value in entry.items() if name not in OWN}
        loop.fold.follow_settings(entry)
        if entry["kind"] == "tick":
            _tick(loop, source, entry, body=body, mute=not publish(entry))
        else:
            if entry["kind"] == "genesis":
                loop.fold.begin(entry)
                body |= dict(genesis)
            loop.commit(entry["kind"], body, Effects(outputs=()))
        yield entry


def _tick(loop: Loop, source: EventSource, entry: Mapping[str, Any], *, body: dict[str, Any], mute: bool) -> None:
    tick = loop.current = Tick.from_json(entry["n"], entry["tick"])
    records = reread(tick, source, loop.pipeline.positions)
    loop.before_fold()
    effects = loop.fold.fold(tick, records, same_build=entry["build"] == loop.build_digest)
    loop.fold.prove(entry, effects)
    body["effects_digest"] = effects.digest()
    if mute:
        body["outputs"], effects = {}, Effects(outputs=(), weights=effects.weights)
    loop.commit("tick", body, effects)
    loop.after_commit(tick, effects)
    loop.stored()
