"""`summary.json`: what a run came to, as a function of its state, and what it took."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from stream_rec import assemble, component, config
from stream_rec.events import Topic
from stream_rec.pipeline import Pipeline

NAME = "summary.json"


@dataclass(frozen=True, slots=True)
class Effort:
    """What a process spent on a run: wall and CPU seconds, and the records it consumed."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    n_consumed: int = 0

    @classmethod
    def begin(cls, pipeline: Pipeline) -> Effort:
        """Start counting."""
        return cls(time.monotonic(), time.process_time(), pipeline.facts.accounting.totals["consumed"])

    def end(self, pipeline: Pipeline) -> Effort:
        """What was spent since `begin`."""
        now = Effort.begin(pipeline)
        return replace(
            self,
            wall_s=now.wall_s - self.wall_s,
            cpu_s=now.cpu_s - self.cpu_s,
            n_consumed=now.n_consumed - self.n_consumed,
        )


def write(
    pipeline: Pipeline, settings: config.Settings, effort: Effort, *, genesis: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Write `summary.json` into the run folder and return it. Call it with all outputs committed.

    `genesis` is the first entry of a ledger that is a Kafka topic; that of a folder is read from it.
    """
    run = assemble.open_run(settings.run_dir)
    summary = {
        **of_state(pipeline, settings),
        "input": (run.genesis() if genesis is None else genesis).get("input"),
        "click_rate": click_rates(run.records(Topic.METRICS)),
        "events_per_s": round(effort.n_consumed / effort.wall_s, 1) if effort.wall_s > 0 else 0.0,
        "cpu_s": round(effort.cpu_s, 2),
        "wall_s": round(effort.wall_s, 2),
    }
    text = msgspec.json.format(msgspec.json.encode(summary), indent=2)
    (settings.run_dir / NAME).write_bytes(text + b"\n")
    return summary


def read(settings: config.Settings) -> dict[str, Any] | None:
    """The summary of the run folder, if it has one."""
    path = settings.run_dir / NAME
    return msgspec.json.decode(path.read_bytes(), type=dict[str, Any]) if path.exists() else None


def of_state(pipeline: Pipeline, settings: config.Settings) -> dict[str, Any]:
    """The part that is a function of the state: two runs that should be equal are compared by it."""
    snapshots = {name: part.snapshot() for name, part in sorted(pipeline.components().items())}
    for name in ("chain", "ledger_offset"):
        # Where the state stands in its own ledger is no part of it: a replay that follows another one has its own.
        del snapshots["positions"][component.SCALARS][name]
    state = {name: component.digest(snapshot) for name, snapshot in snapshots.items()}
    return {
        **pipeline.facts.accounting.table(),
        **pipeline.learner.summary(pipeline.facts.items.n),
        "joins": pipeline.facts.joiner.counts(),
        "encoder": settings.model.encoder,
        "settings_digest": config.semantic_digest(settings)[:16],
        "build_digest": assemble.build_digest(settings),
        "seed": settings.run.seed,
        "n_ticks": pipeline.positions.number,
        "ledger_chain": pipeline.positions.chain,
        "state_digest": hashlib.sha256(msgspec.json.encode(state, order="sorted")).hexdigest(),
    }


def click_rates(lines: Iterable[Mapping[str, Any]]) -> dict[str, float | None]:
    """Clicked share of matured impressions in the first and the last tenth of the records, and on the whole.

    >>> click_rates([{"consumed": 9, "impressions": 4, "clicks": 1}, {"consumed": 1, "impressions": 2, "clicks": 1}])
    {'first_tenth': 0.25, 'last_tenth': 0.5, 'whole': 0.3333333333333333}
    """
    rows = [(line["consumed"], line["impressions"], line["clicks"]) for line in lines]
    total, done = sum(row[0] for row in rows), 0
    parts: dict[str, list[int]] = {"first_tenth": [0, 0], "last_tenth": [0, 0], "whole": [0, 0]}
    for consumed, shown, clicked in rows:
        within = {"whole": True, "first_tenth": done < 0.1 * total, "last_tenth": done + consumed > 0.9 * total}
        done += consumed
        for name in (name for name, counts in within.items() if counts):
            parts[name][0] += shown
            parts[name][1] += clicked
    return {name: clicked / shown if shown else None for name, (shown, clicked) in parts.items()}
