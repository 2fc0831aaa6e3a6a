"""How the worker is, as probes, people and Prometheus are told over HTTP."""

from __future__ import annotations

import json
import logging
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from stream_rec import health
from stream_rec.effects import Effects
from stream_rec.health import Health
from stream_rec.io.telemetry import HealthServer
from stream_rec.stream.tick import Tick
from tests.integration.broker import free_port

Ask = Callable[[str], tuple[int, str, str]]


class Newest:
    """The health of the test that runs, so that one server does for all."""

    told = Health()

    def table(self) -> Mapping[str, Any]:
        return self.told.table()

    def is_alive(self) -> bool:
        return self.told.is_alive()

    def is_ready(self) -> bool:
        return self.told.is_ready()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Where the health of the test that runs is served."""
    port = free_port()
    server = HealthServer(Newest(), "127.0.0.1", port)
    yield port
    server.close()
    with pytest.raises(OSError, match="refused"):
        asked(port, "/healthz")


@pytest.fixture
def told() -> Health:
    Newest.told = Health()
    return Newest.told


@pytest.fixture
def ask(told: Health, port: int) -> Ask:
    return lambda page: asked(port, page)


def asked(port: int, page: str) -> tuple[int, str, str]:
    """Status, content type and body of a page."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{page}", timeout=5) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, refusal.headers["Content-Type"], refusal.read().decode()


def commit(told: Health, number: int, took_s: float = 0.25, **counts: int) -> None:
    """Tell of a committed tick."""
    told.committed(Tick(number, (), 1_000 * number), Effects(outputs=(), counts=Counter(counts)), took_s)


# ---- the record


@pytest.mark.parametrize(
    ("state", "ready"),
    [
        (health.STARTING, False),
        (health.STANDING_BY, False),
        (health.RECOVERING, False),
        (health.RUNNING, True),
        (health.WAITING, False),
        (health.STOPPING, False),
    ],
)
def test_whoever_moves_is_alive_in_every_state_and_ready_when_ticks_are_committed(
    told: Health, state: str, ready: bool
) -> None:
    told.says(state)
    assert (told.is_alive(), told.is_ready()) == (True, ready)


def test_a_loop_without_a_sign_is_stuck_and_a_sign_brings_it_back(told: Health) -> None:
    told.says(health.RUNNING)
    told.seen_s -= health.STUCK_S
    assert (told.is_alive(), told.is_ready()) == (False, False)
    told.alive()
    assert (told.is_alive(), told.is_ready()) == (True, True)


def test_a_commit_is_a_sign_and_its_records_add_up(told: Health) -> None:
    told.seen_s -= health.STUCK_S
    commit(told, 3, consumed=2, accepted=2)
    commit(told, 4, 0.75, consumed=3, late=3)
    assert told.is_alive()
    table = told.table()
    assert table["records"] == {"consumed": 5, "accepted": 2, "late": 3}
    assert (table["tick"], table["event_at"], table["ticks"], table["mean_tick_ms"]) == (4, 4_000, 2, 500.0)


def test_another_state_forgets_why_the_one_before_waited(told: Health) -> None:
    told.says(health.WAITING, "brokers are away")
    told.says(health.RUNNING)
    assert told.table()["detail"] == ""


# ---- the port


def test_healthz_says_yes_while_the_loop_waits_and_why(told: Health, ask: Ask) -> None:
    told.says(health.WAITING, "connecting: Kafka is not reachable")
    assert ask("/healthz") == (200, "text/plain", "waiting: connecting: Kafka is not reachable\n")


def test_healthz_says_no_when_the_loop_is_stuck(told: Health, ask: Ask) -> None:
    told.says(health.RUNNING)
    told.seen_s -= health.STUCK_S
    assert ask("/healthz") == (503, "text/plain", "running\n")


def test_readyz_says_yes_only_while_ticks_are_committed(told: Health, ask: Ask) -> None:
    told.says(health.RECOVERING, "tick 7")
    assert ask("/readyz") == (503, "text/plain", "recovering: tick 7\n")
    told.says(health.RUNNING)
    assert ask("/readyz")[0] == 200


def test_status_is_the_whole_table(told: Health, ask: Ask) -> None:
    told.version, told.lag = "v1-0", 12
    commit(told, 3, consumed=2)
    code, kind, body = ask("/status?pretty")
    assert (code, kind) == (200, "application/json")
    assert json.loads(body) == told.table()


def test_metrics_hold_the_same_figures_for_prometheus(told: Health, ask: Ask) -> None:
    told.says(health.RUNNING)
    told.lag, told.n_rebuilds = 12, 2
    commit(told, 3, consumed=2, accepted=1)
    code, kind, body = ask("/metrics")
    found = {
        (sample.name, sample.labels.get("outcome")): sample.value
        for family in text_string_to_metric_families(body)
        for sample in family.samples
    }
    assert (code, kind.partition(";")[0]) == (200, "text/plain")
    assert found == {
        ("stream_rec_records_total", "consumed"): 2,
        ("stream_rec_records_total", "accepted"): 1,
        ("stream_rec_ticks_total", None): 1,
        ("stream_rec_rebuilds_total", None): 2,
        ("stream_rec_ready", None): 1,
        ("stream_rec_tick", None): 3,
        ("stream_rec_lag_records", None): 12,
        ("stream_rec_tick_mean_ms", None): 250,
    }


def test_figures_that_are_not_known_yet_are_left_out_of_metrics(ask: Ask) -> None:
    body = ask("/metrics")[2]
    assert "lag_records" not in body and "tick_mean_ms" not in body and "stream_rec_ready 0.0" in body


def test_another_page_is_answered_with_those_there_are(ask: Ask) -> None:
    assert ask("/") == (404, "text/plain", "/healthz /readyz /status /metrics\n")


def test_a_port_that_is_taken_is_said_and_done_without(
    told: Health, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        HealthServer(told, "127.0.0.1", port).close()
    assert f"health is not served: 127.0.0.1:{port} is not free" in caplog.text
    assert "set health.port" in caplog.text


def test_port_0_serves_nothing_and_says_nothing(told: Health, caplog: pytest.LogCaptureFixture) -> None:
    HealthServer(told, "127.0.0.1", 0).close()
    assert caplog.text == ""
