"""How long records wait for their tick when ticks take their time."""

from __future__ import annotations

from itertools import pairwise

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


# ---- signs of life


class QuietLoop:
    """A loop in which nothing waits; it notes when a tick was cut."""

    def __init__(self) -> None:
        self.cuts: list[int] = []
        self.n_waiting = 0

    def gather(self) -> tuple[int, int]:
        return self.n_waiting, 100 - self.n_waiting

    def step(self, *, cut_at_ms: int, even_empty: bool = False) -> bool:
        if self.n_waiting or even_empty:
            self.cuts.append(cut_at_ms)
            self.n_waiting = 0
            return True
        return False


def cuts_until(until_ms: int, *, sign_every_ms: int, records_at_ms: tuple[int, ...] = ()) -> list[int]:
    """When a worker that began at 0 cuts ticks."""
    clock, loop, left = ManualClock(0), QuietLoop(), list(records_at_ms)
    worker = Worker(loop, clock, max_wait_ms=100, checkpoint_every_ms=10**9, sign_every_ms=sign_every_ms)
    while clock.now_ms() < until_ms:
        if left and clock.now_ms() >= left[0]:
            loop.n_waiting = len([left.pop(0)])
        worker.turn()
    return loop.cuts


def test_an_idle_worker_gives_a_sign_at_every_third_of_its_silence() -> None:
    assert cuts_until(5_000, sign_every_ms=1_000) == [1_000, 2_000, 3_000, 4_000]


def test_signs_are_never_further_apart_than_the_interval_and_one_wait() -> None:
    cuts = cuts_until(20_000, sign_every_ms=1_666)
    assert max(after - before for before, after in pairwise([0, *cuts])) <= 1_666 + 100


def test_a_tick_with_records_is_a_sign_too() -> None:
    assert cuts_until(3_000, sign_every_ms=1_000, records_at_ms=(500, 1_200)) == [600, 1_300, 2_300]


def test_without_an_interval_an_idle_worker_writes_nothing() -> None:
    assert cuts_until(60_000, sign_every_ms=0) == []
