"""The long-running learner: turns of the loop by a clock, a checkpoint now and then, a drain when told to stop."""

from __future__ import annotations

from collections.abc import Callable

from stream_rec.clock import Clock
from stream_rec.garbage import tidy
from stream_rec.loop import Loop


class Worker:
    """Runs a loop on live input.

    Args:
        loop: recovered by `start`.
        clock: gives each tick its `cut_at_ms`.
        max_wait_ms: a tick closes when it is full or its first record has waited so long.
        checkpoint_every_ms: time between two checkpoints.
        sign_every_ms: after so long without a tick an empty one is cut, so that silence means death; 0 for never.
        wait: returns when so many records (its second argument) are there, at the latest after its first in ms; the
            clock's wait when None.
    """

    def __init__(
        self,
        loop: Loop,
        clock: Clock,
        *,
        max_wait_ms: int = 100,
        checkpoint_every_ms: int = 30_000,
        sign_every_ms: int = 0,
        wait: Callable[[int, int], None] | None = None,
    ) -> None:
        self._loop, self._clock = loop, clock
        self._max_wait_ms, self._checkpoint_every_ms = max_wait_ms, checkpoint_every_ms
        self._sign_every_ms = sign_every_ms
        self._wait = wait or (lambda duration_ms, _n_enough: clock.wait(duration_ms))
        self._saved_at_ms = self._ticked_at_ms = clock.now_ms()
        self._waiting_since_ms: int | None = None
        self._cut_at_ms: int | None = None
        """The cut of the tick just made, until somebody has looked at what came meanwhile."""
        self._n_tidied, self._tidy = 0, True

    def start(self, *, stopped: Callable[[], bool] = lambda: False) -> bool:
        """Recover the state that the ledger says; False when `stopped` said so on the way.

        Raises:
            JobFailed: the ledger, its inputs or their replay do not agree.
        """
        return self._loop.recover(stopped=stopped)

    def turn(self) -> bool:
        """One turn: a tick when one is full, waited for long enough or due, else a wait; says whether it was a tick."""
        now_ms = self._clock.now_ms()
        n_waiting, n_room = self._loop.gather()
        if n_waiting and self._waiting_since_ms is None:
            # What came while a tick was made has waited for as long: else slow ticks would wait twice.
            self._waiting_since_ms = now_ms if self._cut_at_ms is None else self._cut_at_ms
        self._cut_at_ms = None
        left_ms = (self._waiting_since_ms or now_ms) + self._max_wait_ms - now_ms
        if n_waiting and n_room and left_ms > 0:
            self._wait_tidily(left_ms, n_room)
            return False
        silent = 0 < self._sign_every_ms <= now_ms - self._ticked_at_ms
        did = self._loop.step(cut_at_ms=now_ms, even_empty=silent)
        self._waiting_since_ms = None
        if not did:
            self._wait_tidily(self._max_wait_ms, 1)
            return False
        self._tidy = False
        self._ticked_at_ms = self._cut_at_ms = now_ms
        if now_ms - self._saved_at_ms >= self._checkpoint_every_ms and self._loop.checkpoint(patient=True):
            self._saved_at_ms = now_ms
        return True

    def _wait_tidily(self, duration_ms: int, n_enough: int) -> None:
        """Wait; once after a tick tidy up instead, which counts as waiting: the next turn looks at the clock again."""
        if self._tidy:
            self._wait(duration_ms, n_enough)
            return
        tidy(self._n_tidied)
        self._n_tidied, self._tidy = self._n_tidied + 1, True

    def catch_up(self) -> None:
        """Turn until nothing is left to take."""
        while self._loop.step(cut_at_ms=self._clock.now_ms()):
            pass

    def stop(self) -> None:
        """Cut the draining tick and save the state at it."""
        self._loop.step(drain=True, cut_at_ms=self._clock.now_ms())
        self._loop.checkpoint()
