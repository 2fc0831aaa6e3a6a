"""What waits for MLflow: nothing lost but the oldest metric points, nobody held up, found again by the next life."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from stream_rec.io.registry_outbox import NAME, News, Outbox, Point, read_columns

LIMIT_S = 10.0
AT_ONCE = (0.001, 0.001)


class Kept:
    """A sink in memory that may be down or hang."""

    def __init__(self, *, down: bool = False) -> None:
        self.down, self.ended = down, False
        self.taken: list[Point] = []
        self.batches: list[int] = []
        self.said: list[tuple[int, dict | None]] = []
        self.tried = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def begin(self, waiting, before):
        self.tried.set()
        self.go_on.wait()
        if self.down:
            raise ConnectionError("nobody answers")

    def points(self, points):
        self.batches.append(len(points))
        self.taken += points

    def news(self, news, statistics):
        self.said.append((news.tick, None if statistics is None else read_columns(statistics)))

    def end(self):
        self.ended = True

    def drop(self):
        self.down = True
        self.go_on.set()


def points(low: int, high: int) -> list[Point]:
    return [Point("eval/x", float(n), n, n) for n in range(low, high)]


def news(tick: int) -> News:
    return News(tick, tick, tick, [{"version": f"v{tick}", "event": "promote"}])


def test_everything_is_delivered_in_order_in_batches_of_a_thousand(tmp_path):
    sink = Kept()
    box = Outbox(tmp_path, sink, back_off_s=AT_ONCE)
    box.points(points(0, 2_500))
    box.news(news(1))
    box.news(news(2))
    assert box.close(LIMIT_S)
    assert sink.taken == points(0, 2_500)
    assert max(sink.batches) <= 1_000
    assert [tick for tick, _ in sink.said] == [1, 2]
    assert sink.ended


def test_statistics_are_those_of_the_call_whatever_changes_after_settle(tmp_path):
    sink, state = Kept(), np.arange(5)
    box = Outbox(tmp_path, sink, back_off_s=AT_ONCE)
    box.news(news(1), lambda: {"state": state.copy(), "": {"n": 1}}, lambda columns: columns)
    box.settle()
    state += 1
    assert box.close(LIMIT_S)
    assert sink.said[0][1]["state"].tolist() == [0, 1, 2, 3, 4]


def test_only_metric_points_are_dropped_the_oldest_first_and_counted(tmp_path):
    sink = Kept(down=True)
    box = Outbox(tmp_path, sink, max_points=100, back_off_s=AT_ONCE)
    for low in range(0, 1_000, 50):
        box.points(points(low, low + 50))
        box.news(news(low))
    sink.down = False
    assert box.close(LIMIT_S)
    assert [tick for tick, _ in sink.said] == list(range(0, 1_000, 50))
    assert sink.taken == points(900, 1_000)
    assert box.told.n_dropped == 900


def test_a_sink_that_hangs_holds_nobody_up_and_loses_nothing(tmp_path):
    sink = Kept()
    sink.go_on.clear()
    box = Outbox(tmp_path, sink, back_off_s=AT_ONCE)
    box.news(news(1), lambda: {"state": np.arange(3), "": {}}, lambda columns: columns)
    assert sink.tried.wait(LIMIT_S)
    box.points(points(0, 10))
    box.settle()
    assert not box.close(0.01)
    after = Kept()
    assert Outbox(tmp_path, after, back_off_s=AT_ONCE).close(LIMIT_S)
    assert [(tick, columns["state"].tolist()) for tick, columns in after.said] == [(1, [0, 1, 2])]
    assert after.taken == points(0, 10)


def test_what_was_delivered_leaves_no_file_behind(tmp_path):
    box = Outbox(tmp_path, Kept(), back_off_s=AT_ONCE)
    box.news(news(1))
    assert box.close(LIMIT_S)
    assert not (tmp_path / NAME).exists()


def test_it_catches_up_by_itself_when_the_sink_is_back(tmp_path):
    sink = Kept(down=True)
    box = Outbox(tmp_path, sink, back_off_s=AT_ONCE)
    box.points(points(0, 10))
    assert sink.tried.wait(LIMIT_S)
    sink.down = False
    assert box.close(LIMIT_S)
    assert sink.taken == points(0, 10)
    assert box.told.error == ""


@pytest.mark.parametrize("torn", [b"", b"{", b'{"tick":1}'])
def test_a_torn_file_of_an_earlier_life_is_passed_over(tmp_path, torn):
    (tmp_path / NAME / "000000000007").mkdir(parents=True)
    (tmp_path / NAME / "000000000007" / "news.json").write_bytes(torn)
    sink = Kept()
    box = Outbox(tmp_path, sink, back_off_s=AT_ONCE)
    box.news(news(8))
    assert box.close(LIMIT_S)
    assert [tick for tick, _ in sink.said] == [8]
