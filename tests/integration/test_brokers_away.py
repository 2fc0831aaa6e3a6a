"""A running worker whose broker goes away and comes back, as probes and people see it."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import msgspec
import pytest

from tests.integration.broker import Broker
from tests.integration.ground import Ground, Process, until

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from kafka import KafkaAdminClient
    from kafka.admin import TransactionState

SELDOM = "worker.silence_ms=15000"
"""So that no tick is on the way when the brokers go, once all is told: one that is killed in a transaction may leave it
hanging for a person."""


def all_is_told(ground: Ground) -> bool:
    """Whether the tick that stored the first weights, the last for a while, is committed for the coordinator too."""
    if "weights_durable" not in ground.entries()[-1]["tick"]:
        return False
    admin = KafkaAdminClient(bootstrap_servers=ground.bootstrap)
    try:
        named = admin.describe_transactions([ground.prefix])
    finally:
        admin.close()
    return bool(named[ground.prefix].state is TransactionState.COMPLETE_COMMIT)


def told(worker: Process) -> dict[str, object]:
    """What /status says."""
    table: dict[str, object] = msgspec.json.decode(worker.asked("/status")[1] or b"{}")
    return table


@pytest.mark.parametrize("away", [Broker.stop, Broker.kill])
def test_status_and_probes_say_that_brokers_are_away_and_that_they_are_back(
    ground: Ground, broker: Broker, away: Callable[[Broker], None]
) -> None:
    ground.create_topics().put_events(10)
    worker = ground.process("worker", "--start", "earliest", sets=("kafka.connect_timeout_ms=1500", SELDOM))
    ground.await_taken(10)
    until(lambda: worker.asked("/readyz")[0] == 200, "it is ready")
    until(lambda: all_is_told(ground), "no transaction is on the way")

    away(broker)
    named = f"Kafka at {ground.bootstrap} (PLAINTEXT) is not reachable or not authorised"
    until(lambda: named in str(told(worker).get("detail")), "it says who is away")
    gone = told(worker)
    assert gone["state"] == "waiting"
    assert worker.asked("/healthz") == (200, f"waiting: {gone['detail']}\n"), "nobody shall restart it for that"
    assert worker.asked("/readyz")[0] == 503
    assert "stream_rec_ready 0.0" in worker.asked("/metrics")[1]

    broker.start()
    ground.put_events(5, first=10)
    ground.await_taken(15)
    until(lambda: worker.asked("/readyz")[0] == 200, "it is ready again")
    back = told(worker)
    assert (back["state"], back["detail"]) == ("running", "")
    assert int(str(back["rebuilds"])) >= 1
    assert worker.asked("/healthz") == (200, "running\n")
    assert worker.stop() == 0, worker.words()
    assert ground.totals()["accepted"] == 15 == ground.totals()["consumed"]


def test_a_worker_that_never_met_its_brokers_ends_with_their_address(ground: Ground, broker: Broker) -> None:
    broker.stop()
    worker = ground.process("worker", "--start", "earliest", sets=("kafka.connect_timeout_ms=1500",))
    assert worker.wait() == 1
    assert f"error: connecting: Kafka at {ground.bootstrap} (PLAINTEXT) is not reachable" in worker.words()


def test_a_worker_that_waits_for_its_brokers_stops_when_it_is_told(ground: Ground, broker: Broker) -> None:
    ground.create_topics().put_events(10)
    worker = ground.process("worker", "--start", "earliest", sets=("kafka.connect_timeout_ms=1500",))
    ground.await_taken(10)
    worker.await_state("running")
    broker.stop()
    worker.await_state("waiting")
    assert worker.stop() == 0, worker.words()
