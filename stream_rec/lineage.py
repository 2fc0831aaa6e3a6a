"""Where a version comes from, said in its notice: offsets, event time, counts and joins. A function of the state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from stream_rec.events import Output, Topic
from stream_rec.learn.learner import Learner
from stream_rec.stream.intake import Facts
from stream_rec.stream.positions import Positions
from stream_rec.stream.tick import Tick
from stream_rec.stream.watermark import BEFORE_TIME


def traced(outputs: Sequence[Output], tick: Tick, positions: Positions, facts: Facts, learner: Learner) -> list[Output]:
    """The outputs, with `lineage` in the notice of every version that begins to serve.

    Args:
        outputs: of a tick.
        tick: the tick.
        positions: of before the tick.
        facts: of after it.
        learner: of after it.
    """
    return [
        _told(output, tick, positions, facts, learner) if output.topic == Topic.VERSIONS and output.value else output
        for output in outputs
    ]


def _told(output: Output, tick: Tick, positions: Positions, facts: Facts, learner: Learner) -> Output:
    body = msgspec.json.decode(output.value or b"", type=dict[str, Any])
    if "sha256" not in body:
        return output
    reached = {f"{r.topic}/{r.partition}": r.next for r in tick.ranges}
    watermark_ms = facts.watermarks.global_ms
    body["lineage"] = {
        "next": dict(sorted({**positions.next_by_name, **reached}.items())),
        "watermark": None if watermark_ms == BEFORE_TIME else watermark_ms,
        "counts": dict(facts.accounting.totals),
        "joins": facts.joiner.counts(),
        "n_examples": learner.versions.progress.n_examples,
        "n_items": facts.items.n,
    }
    return Output(output.topic, output.key, msgspec.json.encode(body))
