"""Named points inside the durable stores at which a test crashes the process or pauses it.

Every store takes `faults=None`; with a `Faults` it reports each point it passes. The points, in the order of a tick:

    before_outputs between_outputs before_entry before_commit after_commit      Publisher.commit
    weights_begin weights_mid weights_after                                     WeightStore.put
    checkpoint_begin checkpoint_mid after_checkpoint                            CheckpointStore.save
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

COMMIT_POINTS = ("before_outputs", "between_outputs", "before_entry", "before_commit", "after_commit")
WEIGHT_POINTS = ("weights_begin", "weights_mid", "weights_after")
CHECKPOINT_POINTS = ("checkpoint_begin", "checkpoint_mid", "after_checkpoint")


class Crash(BaseException):
    """The process died here. No handler of Exception sees it, as none would see kill -9."""


class Faults:
    """Counts passages of named points and acts at chosen ones.

    >>> faults = Faults()
    >>> faults.crash_at("before_commit", nth=2)
    >>> faults.passing("before_commit")
    >>> faults.passing("before_commit")
    Traceback (most recent call last):
    stream_rec.io.faults.Crash: before_commit, passage 2
    """

    def __init__(self) -> None:
        self.passages: Counter[str] = Counter()
        self.order: list[str] = []
        self._actions: dict[tuple[str, int], Callable[[], None]] = {}
        self._crash_at_step = 0

    def crash_at(self, point: str, nth: int = 1) -> None:
        """Raise `Crash` at the `nth` passage of `point` (1-based, counted from this object's making)."""

        def crash() -> None:
            raise Crash(f"{point}, passage {nth}")

        self.pause_at(point, crash, nth)

    def crash_at_step(self, step: int) -> None:
        """Raise `Crash` at the `step`-th passage of any point (1-based): the way to visit every place there is."""
        self._crash_at_step = step

    def pause_at(self, point: str, action: Callable[[], None], nth: int = 1) -> None:
        """Call `action` at the `nth` passage of `point`: what the world does while this process is stopped there."""
        self._actions[point, nth] = action

    def passing(self, point: str) -> None:
        """Count one passage; the stores call it.

        Raises:
            Crash: when the test asked for it here.
        """
        self.passages[point] += 1
        self.order.append(point)
        if len(self.order) == self._crash_at_step:
            raise Crash(f"{point}, step {self._crash_at_step}")
        if action := self._actions.get((point, self.passages[point])):
            action()


def passing_of(faults: Faults | None) -> Callable[[str], None]:
    """What a store calls at its points: `faults.passing`, or nothing at all."""
    return faults.passing if faults is not None else _nothing


def _nothing(_point: str) -> None:
    return None
