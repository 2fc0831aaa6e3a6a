"""What the loop tells the registry after each commit, in well under a millisecond of its time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from stream_rec.effects import Effects
from stream_rec.events import Topic
from stream_rec.learn import frozen
from stream_rec.loop import Loop
from stream_rec.pipeline import Pipeline
from stream_rec.stream.tick import Tick
from stream_rec.version_page import points_of

N_SLATES = 10
"""Sample slates of a tick in which a version began to serve."""
LEFT_OUT = ("user_key", "decision_id", "query")
"""What of a slate would tell people apart."""
POINTS_EVERY_MS = 15 * 60_000
"""Event time between two metrics lines that are logged: at most 96 a day."""


class Telling(Protocol):
    """Builds what an outbox takes, and hands it over; the assemble modules give one."""

    def points(self, values: Sequence[tuple[str, float]], step: int, at_ms: int) -> None:
        """Metric values of one line."""
        ...

    def news(
        self,
        said: Mapping[str, Any],
        copy: Callable[[], frozen.Columns] | None,
        compact: Callable[[frozen.Columns], frozen.Columns],
    ) -> None:
        """What a tick said of versions; see `stream_rec.io.registry_outbox.News`."""
        ...

    def prepare(self, work: Callable[[], None]) -> object:
        """Do something before the first copy, beside the loop."""
        ...

    def settle(self) -> None:
        """Return when nobody reads the state any more."""
        ...


class Feed:
    """Watches a loop.

    Args:
        outbox: where things wait.
        max_items: catalogues above that are logged without statistics.
        max_bytes: what statistics of pairs may take.
    """

    def __init__(self, outbox: Telling, *, max_items: int, max_bytes: int) -> None:
        self._outbox, self._max_items, self._max_bytes = outbox, max_items, max_bytes
        self._spare = frozen.Spare()
        self._pointed_at_ms: int | None = None
        self._cuts: dict[str, str] = {}
        """Version to the checkpoint of its cut, for as long as it is not told."""

    def attach(self, loop: Loop) -> None:
        """Watch this loop from now on, beside whoever does already."""
        before = loop.on_commit

        def committed(tick: Tick, effects: Effects) -> None:
            if before is not None:
                before(tick, effects)
            self.committed(tick, effects, loop.pipeline)

        loop.on_commit = committed
        loop.before_fold = self._outbox.settle
        learner = loop.pipeline.learner
        if loop.pipeline.facts.items.n <= self._max_items:
            self._outbox.prepare(lambda: self._spare.warm(learner))

    def committed(self, tick: Tick, effects: Effects, pipeline: Pipeline) -> None:
        """Take what a tick published."""
        if effects.weights:
            name = f"{pipeline.positions.number:010d}-{pipeline.positions.chain[:16]}"
            self._cuts |= dict.fromkeys(effects.weights, name)
        told = [o for o in effects.outputs if o.topic in (Topic.METRICS, Topic.VERSIONS) and o.value is not None]
        for output in told:
            if output.topic == Topic.METRICS:
                self._points(msgspec.json.decode(output.value or b"", type=dict[str, Any]), tick, pipeline)
        notices = [msgspec.json.decode(o.value or b"") for o in told if o.topic == Topic.VERSIONS]
        notices = [notice for notice in notices if "version" in notice]
        if notices:
            self._news(notices, tick, effects, pipeline=pipeline)

    def _points(self, line: Mapping[str, Any], tick: Tick, pipeline: Pipeline) -> None:
        last, at_ms = self._pointed_at_ms, int(line["event_at"])
        if last is None or at_ms - last >= POINTS_EVERY_MS or tick.drain:
            self._pointed_at_ms = at_ms
            self._outbox.points(list(points_of(line)), _seen(pipeline), at_ms)

    def _news(self, notices: list[dict[str, Any]], tick: Tick, effects: Effects, *, pipeline: Pipeline) -> None:
        begun = [notice["version"] for notice in notices if notice["event"] == "champion"]
        slates = [o.value for o in effects.outputs if o.topic == Topic.SLATES and o.value is not None]
        said = {
            "tick": tick.number,
            "at_ms": tick.cut_at_ms,
            "step": _seen(pipeline),
            "notices": notices,
            "slates": [_nameless(value) for value in slates[:N_SLATES]] if begun else [],
            "checkpoints": {version: self._cuts.pop(version) for version in begun if version in self._cuts},
        }
        items, queries, learner = pipeline.facts.items, pipeline.facts.searches.queries, pipeline.learner
        fits = 0 < items.n <= self._max_items

        def copy() -> frozen.Columns:
            return frozen.copied(learner, items, queries, self._spare)

        def compact(columns: frozen.Columns) -> frozen.Columns:
            small = frozen.compacted(columns, self._max_bytes)
            self._spare.warm(learner)
            return small

        self._outbox.news(said, copy if begun and fits else None, compact)


def _seen(pipeline: Pipeline) -> int:
    return pipeline.facts.accounting.totals["consumed"]


def _nameless(value: bytes) -> dict[str, Any]:
    slate = msgspec.json.decode(value, type=dict[str, Any])
    return {name: said for name, said in slate.items() if name not in LEFT_OUT}
