"""How the worker is, for people and probes: one small record that the worker writes and the health port reads."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stream_rec.effects import Effects
from stream_rec.stream.tick import Tick

STARTING, STANDING_BY, RECOVERING, RUNNING = "starting", "standing by", "recovering", "running"
WAITING, STOPPING = "waiting", "stopping"
STUCK_S = 60.0
"""Without a sign of the loop for so long the process is taken for stuck."""


@dataclass(slots=True)
class Health:
    """The worker's state in words and figures. Written by the loop's thread, read by any."""

    state: str = STARTING
    detail: str = ""
    """Why it waits, or how far it is."""
    tick: int = -1
    cut_at_ms: int | None = None
    lag: int | None = None
    version: str | None = None
    brake: tuple[str, ...] = ()
    """Why nothing is learned or promoted now; empty when it is."""
    explore: Mapping[str, Any] = field(default_factory=dict)
    """Whether slates are drawn, why not, and what it has cost."""
    n_rebuilds: int = 0
    """Times the state was dropped and recovered from the ledger in this process."""
    records: Counter[str] = field(default_factory=Counter)
    """Records of this process by outcome; `consumed` is their sum."""
    n_ticks: int = 0
    tick_s: float = 0.0
    """Seconds from a tick's cut to its commit, all together."""
    seen_s: float = field(default_factory=time.monotonic)

    def says(self, state: str, detail: str = "") -> None:
        """Go over to another state."""
        self.state, self.detail = state, detail
        self.alive()

    def alive(self) -> None:
        """The loop gives a sign."""
        self.seen_s = time.monotonic()

    def committed(self, tick: Tick, effects: Effects, took_s: float) -> None:
        """Take note of a committed tick."""
        self.tick, self.cut_at_ms = tick.number, tick.cut_at_ms
        self.n_ticks += 1
        self.tick_s += took_s
        self.records.update(effects.counts)
        self.brake = tuple(effects.brake)
        self.alive()

    def is_alive(self) -> bool:
        """Whether the loop moves; one that waits for its brokers does."""
        return time.monotonic() - self.seen_s < STUCK_S

    def is_ready(self) -> bool:
        """Whether ticks are being committed."""
        return self.state == RUNNING and self.is_alive()

    def table(self) -> Mapping[str, Any]:
        """All of it, as `/status` says it."""
        return {
            "state": self.state,
            "detail": self.detail,
            "tick": self.tick,
            "event_at": self.cut_at_ms,
            "lag": self.lag,
            "version": self.version,
            "brake": list(self.brake),
            "explore": dict(self.explore),
            "records": dict(self.records),
            "ticks": self.n_ticks,
            "mean_tick_ms": round(1000 * self.tick_s / self.n_ticks, 2) if self.n_ticks else None,
            "rebuilds": self.n_rebuilds,
        }
