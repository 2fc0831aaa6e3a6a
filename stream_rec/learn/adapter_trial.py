"""An adapter on trial: its hits against the served encoder's on the same next items, judged once at a fixed count.

The slates' own task hardly shows what an encoder is worth (most of a next visit is what was bought before), so the
evidence is what people took next within organic visits; both sides rank with the same learner and differ in the text
embeddings alone.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from stream_rec.learn.comparison import Comparison
from stream_rec.learn.promotion import Rules, adapter_due, judge_adapter

Ints = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]

SERVED = "served encoder"


class Rounds(Protocol):
    """Where an adapter waits for its verdict; see `stream_rec.model.adapter_round`."""

    @property
    def phase(self) -> str:
        """Which part of the round it is."""
        ...

    def judge(self, promote: bool) -> None:
        """Take the verdict."""
        ...


class AdapterTrial:
    """Collects the comparison of the adapter that is on trial.

    Args:
        seed: of the resampling.
        n_examples: examples after which it is judged.
    """

    def __init__(self, seed: int = 0, n_examples: int = 2_000) -> None:
        self.sums = Comparison((SERVED,), ("all",))
        self._seed, self._rules = seed, Rules(champions=(SERVED,), adapter_visits=n_examples)

    def add(self, user_key: Ints, hit: Doubles, served_hit: Doubles) -> None:
        """Count E organic next items: whether the adapter's list and the served encoder's had them, 0 or 1, [E]."""
        self.sums.add(SERVED, user_key, hit[:, None], served_hit[:, None], there=np.ones((len(user_key), 1), np.bool_))

    def judge(self, rounds: Rounds) -> dict[str, Any] | None:
        """Judge the adapter when enough was seen; returns the record then."""
        if rounds.phase != "trial" or not adapter_due(self.sums, self._rules):
            return None
        record = judge_adapter(self.sums, [], self._rules, seed=self._seed)
        rounds.judge(record["verdict"] == "promote")
        self.sums.restart()
        return record
