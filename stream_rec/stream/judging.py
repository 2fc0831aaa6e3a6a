"""The verdicts that depend on what came before: duplicates, late events and those in the future, event by event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Any

import numpy as np

from stream_rec.events import Kind, Line, Record
from stream_rec.stream.dedupe import Dedupe
from stream_rec.stream.front import FrontBatch
from stream_rec.stream.tick import Tick
from stream_rec.stream.watermark import Watermarks

Array = np.ndarray[Any, np.dtype[Any]]
Verdict = tuple[str, str]
"""Outcome and reason."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What counts as a positive: event types, and the rating from which a review does; what lies in the future."""

    positive_kinds: frozenset[int] = field(
        default_factory=lambda: frozenset((Kind.CLICK, Kind.VIEW_ITEM, Kind.ADD_TO_CART, Kind.PURCHASE, Kind.REVIEW))
    )
    min_rating: float = 4.0
    in_future_ms: int = 5 * 60_000
    """How far an event may be ahead of the tick's clock."""


@dataclass(slots=True)
class Events:
    """A tick's accepted events in processing order; an event with several items has as many lines, side by side."""

    heads: Sequence[Line]
    """The first line of each."""
    first: Array
    """int64 [n_events]: place of that line."""
    n_lines: Array
    """int64 [n_events]."""
    lines: list[Line]
    """All lines."""


def judge(
    tick: Tick,
    records: Sequence[Record],
    heads: Sequence[Line],
    *,
    dedupe: Dedupe,
    watermarks: Watermarks,
    in_future_ms: int,
) -> list[Verdict | None]:
    """What keeps each event out, in order; None for those that count. Dedupe and watermarks move on.

    Args:
        tick: the clock, and which records are in the future of their file.
        records: the tick's records.
        heads: the first line of each event.
        dedupe: events seen so far.
        watermarks: how far the partitions have come.
        in_future_ms: how far an event may be ahead of the tick's clock.
    """
    judged: list[Verdict | None] = [None] * len(heads)
    here = list(range(len(heads)))
    wild, horizon_ms = frozenset(tick.in_future), tick.cut_at_ms + in_future_ms
    if wild or max([line.at_ms for line in heads], default=0) > horizon_ms:
        for k, line in enumerate(heads):
            where = records[line.record]
            if line.at_ms > horizon_ms or (where.partition, where.offset) in wild:
                judged[k] = ("dead_lettered", "in_future")
        here = [k for k in here if judged[k] is None]
    new = dedupe.admit_many([heads[k].event for k in here])
    if not all(new):
        for k, is_new in zip(here, new, strict=True):
            if not is_new:
                judged[k] = ("duplicate", "event_id")
        here = list(compress(here, new))
    late = watermarks.judge_many([records[heads[k].record].partition for k in here], [heads[k].at_ms for k in here])
    for i in np.flatnonzero(late).tolist():
        judged[here[i]] = ("late", "beyond_allowed_lateness")
    return judged


def accepted(batch: FrontBatch, heads: Sequence[Line], judged: Sequence[Verdict | None]) -> Events:
    """The events without a verdict; `judged` as `judge` says it of `heads`."""
    lines = batch.lines
    in_play = np.array([verdict is None for verdict in judged], np.bool_)
    starts = np.array([*batch.starts, len(lines)], np.int64)
    n_lines = np.diff(starts)
    if not in_play.all():
        lines = list(compress(lines, np.repeat(in_play, n_lines).tolist()))
        heads, n_lines = list(compress(heads, in_play.tolist())), n_lines[in_play]
    return Events(heads, np.cumsum(n_lines) - n_lines, n_lines, lines)
