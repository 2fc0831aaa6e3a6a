"""The broker of the tests: what it keeps, where it comes from, and that it never outlives its test."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaProducer
from kafka.errors import KafkaTimeoutError

from tests.integration import origins
from tests.integration.broker import Broker, free_port

pytestmark = pytest.mark.slow
WAIT_S = 20.0
DYING = """
import os, pathlib, signal, sys
from tests.integration.broker import Broker

class Nothing:
    def start(self, launch): pass
    def end(self, folder): return ["touch", str(folder / "ended")]

Broker(Nothing(), pathlib.Path(sys.argv[1])).start()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def sender(broker: Broker) -> Iterator[KafkaProducer]:
    made = KafkaProducer(bootstrap_servers=broker.bootstrap, reconnect_backoff_max_ms=500, request_timeout_ms=3_000)
    yield made
    made.close(timeout=1)


def next_offset(sender: KafkaProducer, topic: str) -> int:
    """The offset that one more record gets."""
    return int(sender.send(topic, b"x").get(WAIT_S).offset)


def test_a_crash_keeps_what_was_acknowledged_and_the_address(broker: Broker, sender: KafkaProducer, topic: str) -> None:
    assert next_offset(sender, topic) == 0
    broker.kill()
    broker.start()
    assert next_offset(sender, topic) == 1


def test_a_frozen_broker_answers_when_it_is_resumed(broker: Broker, sender: KafkaProducer, topic: str) -> None:
    assert next_offset(sender, topic) == 0
    broker.pause()
    waiting = sender.send(topic, b"x")
    with pytest.raises(KafkaTimeoutError):
        waiting.get(0.3)
    broker.resume()
    assert waiting.get(WAIT_S).offset == 1


def test_a_frozen_broker_can_be_stopped_and_started(broker: Broker, sender: KafkaProducer, topic: str) -> None:
    assert next_offset(sender, topic) == 0
    broker.pause()
    broker.restart()
    assert next_offset(sender, topic) == 1


def test_a_broker_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", DYING, tmp_path], cwd=origins.ROOT, check=False)
    deadline = time.monotonic() + WAIT_S
    while not (tmp_path / "ended").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_ports_are_given_once() -> None:
    assert len({free_port() for _ in range(20)}) == 20


def home(folder: Path) -> Path:
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "kafka").touch()
    return folder


def test_a_cluster_id_that_looks_like_an_option_is_drawn_again(tmp_path: Path) -> None:
    script = home(tmp_path / "mine") / "bin" / "kafka"
    script.write_text(
        "#!/bin/sh\necho $1 >> $2/calls; [ $(wc -l < $2/calls) -gt 1 ] || "
        '{ echo "error: argument --cluster-id/-t: expected one argument" >&2; exit 2; }\n'
    )
    script.chmod(0o755)
    origins.Scripts(tmp_path / "mine").start(origins.Launch(tmp_path, 1, tmp_path / "properties"))
    assert (tmp_path / "calls").read_text().split() == ["start", "start"]


def docker(folder: Path, status: int) -> Path:
    folder.mkdir()
    (folder / "docker").write_text(f"#!/bin/sh\nexit {status}\n")
    (folder / "docker").chmod(0o755)
    return folder


def test_kafka_home_wins_over_a_folder_beside_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(origins, "ROOT", tmp_path / "repository")
    beside = home(tmp_path / "shared" / "kafka")
    monkeypatch.delenv("KAFKA_HOME", raising=False)
    found = origins.find()
    assert found is not None
    assert found.end(tmp_path)[0] == str(beside / "bin" / "kafka")
    monkeypatch.setenv("KAFKA_HOME", str(home(tmp_path / "mine")))
    found = origins.find()
    assert found is not None
    assert found.end(tmp_path)[0] == str(tmp_path / "mine" / "bin" / "kafka")


@pytest.mark.parametrize(("status", "kind"), [(0, origins.Docker), (1, type(None))])
def test_without_scripts_a_docker_engine_serves_if_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, kind: type
) -> None:
    monkeypatch.setattr(origins, "ROOT", tmp_path / "repository")
    monkeypatch.setenv("KAFKA_HOME", str(tmp_path / "empty"))
    monkeypatch.setenv("PATH", str(docker(tmp_path / "bin", status)))
    assert type(origins.find()) is kind
