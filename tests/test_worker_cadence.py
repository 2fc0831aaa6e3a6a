"""How long records wait for their tick when ticks take their time."""

from __future__ import annotations

from stream_rec.clock import ManualClock
from stream_rec.worker import Worker


class SlowLoop:
    """A loop whose ticks take 60 ms, in which two records come."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock, self.n_waiting = clock, 2
        self.cuts: list[int] = []

    def gather(self) -> tuple[int, int]:
        return self.n_waiting, 100 - self.n_waiting

    def step(self, *, cut_at_ms: int, even_empty: bool = False) -> bool:
        if not self.n_waiting:
            return False
        self.cuts.append(cut_at_ms)
        self._clock.wait(60)
        self.n_waiting = 2
        return True


def world() -> tuple[SlowLoop, Worker]:
    clock = ManualClock(1_000)
    loop = SlowLoop(clock)
    return loop, Worker(loop, clock, max_wait_ms=100, checkpoint_every_ms=10**9)


def test_what_came_while_a_tick_was_made_has_waited_since_its_cut() -> None:
    loop, worker = world()
    while len(loop.cuts) < 4:
        worker.turn()
    assert loop.cuts == [1_100, 1_200, 1_300, 1_400]


def test_what_comes_when_nothing_waits_gets_its_whole_time() -> None:
    loop, worker = world()
    while not loop.cuts:
        worker.turn()
    loop.n_waiting = 0
    worker.turn()
    loop.n_waiting = 1
    began_ms = worker._clock.now_ms()
    while len(loop.cuts) < 2:
        worker.turn()
    assert loop.cuts[1] == began_ms + 100
