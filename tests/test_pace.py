"""Held back to a pace: replays by record time, sending by a rate; on a clock that moves only when somebody waits."""

from __future__ import annotations

import pytest

from stream_rec import replay_topics
from stream_rec.errors import JobFailed
from stream_rec.io import kafka_sends

AT_MS = 1_767_571_200_000


class Time:
    """Stands for the module `time` and for the system's clock."""

    def __init__(self) -> None:
        self.now_s = 50.0
        self.longest_ms = 0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, duration_s: float) -> None:
        self.now_s += duration_s

    def wait(self, duration_ms: int) -> None:
        self.longest_ms = max(self.longest_ms, duration_ms)
        self.sleep(duration_ms / 1000)


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    made = Time()
    monkeypatch.setattr(replay_topics, "time", made)
    monkeypatch.setattr(replay_topics, "SystemClock", lambda: made)
    monkeypatch.setattr(kafka_sends, "time", made)
    return made


def took_s(time: Time, speed: float, *after_s: float, stopped: bool = False) -> float:
    """Seconds that a replay takes over records so many seconds after the first."""
    pace, began_s = replay_topics.Pace(speed), time.now_s
    for each in (0.0, *after_s):
        pace.keep(AT_MS + round(1000 * each), lambda: stopped)
    return time.now_s - began_s


@pytest.mark.parametrize(("speed", "seconds"), [(0.5, 240), (1, 120), (60, 2), (0, 0)])
def test_a_replay_takes_its_record_time_divided_by_the_speed(time: Time, speed: float, seconds: float) -> None:
    assert took_s(time, speed, 30, 30, 120) == pytest.approx(seconds, abs=0.01)


def test_a_replay_that_fell_behind_catches_up_without_waiting(time: Time) -> None:
    pace = replay_topics.Pace(1)
    pace.keep(AT_MS, lambda: False)
    time.now_s += 60
    began_s = time.now_s
    pace.keep(AT_MS + 60_000, lambda: False)
    assert time.now_s == began_s
    pace.keep(AT_MS + 61_000, lambda: False)
    assert time.now_s - began_s == pytest.approx(1, abs=0.01)


def test_a_replay_looks_for_a_signal_five_times_a_second_and_then_waits_no_longer(time: Time) -> None:
    assert took_s(time, 1, 3_600, stopped=True) == 0
    took_s(time, 1, 10)
    assert time.longest_ms == 200


def test_before_the_first_record_nothing_is_waited_for(time: Time) -> None:
    replay_topics.Pace(1).keep(0, lambda: False)
    assert time.now_s == 50.0


def test_a_negative_speed_is_refused(time: Time) -> None:
    with pytest.raises(JobFailed, match="--speed is a multiple of real time"):
        replay_topics.Pace(-1)


@pytest.mark.parametrize(("rate_per_s", "seconds"), [(10, 0.9), (0.5, 18), (0, 0)])
def test_ten_records_are_sent_at_the_rate(time: Time, rate_per_s: float, seconds: float) -> None:
    pace = kafka_sends.Pace(rate_per_s)
    for _ in range(10):
        pace.wait()
    assert time.now_s - 50.0 == pytest.approx(seconds)
