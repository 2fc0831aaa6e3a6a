"""The process of MLflow: it does what it is told, its refusals are heard, and a dead one is followed by another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stream_rec.io.registry_child import ChildSink, Refused, Start
from stream_rec.io.registry_outbox import News, Point

URI = "https://ml:hush@flow.shop"
ROOT = Path(__file__).parents[2]


def start(folder: Path) -> Start:
    return Start(str(folder), URI, "name", None, "worker", "file", True, False, {}, {}, {})


@pytest.fixture
def sink(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    child = ChildSink("tests.io.registry_echo", start(tmp_path), lambda before: [{"version": f"v{before}"}])
    yield child
    child.drop()
    with pytest.raises(Refused):
        child.begin(frozenset(), 0)
        child.points([Point("a", 1.0, 1, 1)])


def told(folder: Path) -> list:
    return [json.loads(line) for line in (folder / "told").read_text().splitlines()]


def test_it_does_what_it_is_told_in_order(sink, tmp_path):
    sink.begin(frozenset({"v7"}), 3)
    sink.begin(frozenset(), 3)
    sink.points([Point("a", 1.0, 1, 1)] * 3)
    sink.news(News(5, 5, 5, [{"version": "v7"}]), tmp_path / "statistics.safetensors")
    sink.end()
    assert told(tmp_path) == [
        ["look_back", ["v7"], ["v3"]],
        ["points", 3],
        ["news", 5, "statistics.safetensors"],
        ["end"],
    ]


def test_a_refusal_is_heard_and_the_next_call_is_done(sink, tmp_path):
    sink.begin(frozenset(), 3)
    with pytest.raises(Refused, match="no such metric"):
        sink.points([Point("refuse", 1.0, 1, 1)])
    sink.points([Point("a", 1.0, 1, 1)])
    assert told(tmp_path)[-1] == ["points", 1]


def test_a_refusal_says_nothing_that_logs_in(sink):
    sink.begin(frozenset(), 3)
    with pytest.raises(Refused, match=r"https://flow\.shop/api$") as caught:
        sink.points([Point("refuse", 1.0, 1, 1)])
    assert "hush" not in str(caught.value)


def test_a_dead_process_is_followed_by_another_which_looks_back(sink, tmp_path):
    sink.begin(frozenset(), 3)
    with pytest.raises(Refused, match="ended"):
        sink.points([Point("die", 1.0, 1, 1)])
    sink.begin(frozenset(), 3)
    sink.points([Point("a", 1.0, 1, 1)])
    assert told(tmp_path) == [["look_back", [], ["v3"]], ["look_back", [], ["v3"]], ["points", 1]]
