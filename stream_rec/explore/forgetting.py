"""How fast the past fades: a clock of half-lives that runs by event time, and faster for a while after an alarm."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stream_rec.component import Component

Doubles = NDArray[np.float64]
MAX_ALARMS = 32
"""Spells of fast forgetting that are told apart; the time before them cannot be asked about exactly."""


class HalfLives(Component):
    """Half-lives passed until an event time. Evidence of time t weighs 0.5 ** (until(now) - until(t)) now.

    Args:
        long_ms: half-life, event time.
        short_ms: half-life in the spell after an alarm.
        spell_ms: length of that spell.

    >>> lives = HalfLives(long_ms=1_000, short_ms=100, spell_ms=200)
    >>> lives.alarm(2_000)
    >>> [float(lives.until(at)) - float(lives.until(2_000)) for at in (1_000, 2_100, 2_200, 3_200)]
    [-1.0, 1.0, 2.0, 3.0]
    """

    half = "learned"
    columns = ("spells",)
    scalars = ("n_spells", "folded")
    fixed = ("long_ms", "short_ms", "spell_ms")

    def __init__(self, long_ms: int, short_ms: int, spell_ms: int) -> None:
        if not 0 < short_ms <= long_ms or spell_ms < 0:
            raise ValueError("wanted: 0 < short_ms <= long_ms and spell_ms >= 0")
        self.long_ms, self.short_ms, self.spell_ms = long_ms, short_ms, spell_ms
        self.spells = np.zeros((MAX_ALARMS, 2))
        """Begin and end of each, ms, in order, apart."""
        self.n_spells = 0
        self.folded = 0.0
        """Half-lives that forgotten spells have added."""

    def until(self, at_ms: ArrayLike) -> Any:
        """Half-lives from the epoch to `at_ms`; float64 of the same shape."""
        at = np.asarray(at_ms, np.float64)
        begin, end = self.spells[: self.n_spells].T
        within = np.clip(at[..., None] - begin, 0.0, end - begin).sum(-1)
        return at / self.long_ms + self.folded + within * self._extra()

    def alarm(self, now_ms: int) -> None:
        """Forget faster from `now_ms` on, for a spell; one that is running goes on. The past stays as it was."""
        end_ms = float(now_ms + self.spell_ms)
        if self.n_spells and self.spells[self.n_spells - 1, 1] >= now_ms:
            self.spells[self.n_spells - 1, 1] = max(end_ms, self.spells[self.n_spells - 1, 1])
            return
        if self.n_spells == MAX_ALARMS:
            self.folded += float(self.spells[0, 1] - self.spells[0, 0]) * self._extra()
            self.spells[:-1] = self.spells[1:].copy()
            self.n_spells -= 1
        self.spells[self.n_spells] = (now_ms, end_ms)
        self.n_spells += 1

    def _extra(self) -> float:
        return 1.0 / self.short_ms - 1.0 / self.long_ms
