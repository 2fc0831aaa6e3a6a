"""The fault proxy between real clients and a real broker: transparent without a fault, exact with one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from tests.integration.broker import Broker
from tests.integration.proxy import Action, Proxy

WAIT_S = 20.0
BOUNDS = {"request_timeout_ms": 3_000, "reconnect_backoff_max_ms": 500, "retry_backoff_ms": 10}
PATIENT = {"request_timeout_ms": 30_000}
"""For a call that is held while the test looks around."""


@contextmanager
def producer(proxy: Proxy, transactional_id: str | None = None, **settings: int) -> Iterator[KafkaProducer]:
    bounds = {**BOUNDS, "delivery_timeout_ms": 30_000, "max_block_ms": 15_000}
    if transactional_id:
        bounds["transaction_timeout_ms"] = 5_000
    made = KafkaProducer(bootstrap_servers=proxy.bootstrap, transactional_id=transactional_id, **(bounds | settings))
    try:
        if transactional_id:
            made.init_transactions()
        yield made
    finally:
        made.close(timeout=1)


@contextmanager
def consumer(bootstrap: str, topic: str) -> Iterator[KafkaConsumer]:
    """Reads what is committed, from the start."""
    bounds = {**BOUNDS, **PATIENT, "fetch_max_wait_ms": 25}
    made = KafkaConsumer(
        bootstrap_servers=bootstrap,
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="none",
        **bounds,
    )
    made.assign([TopicPartition(topic, 0)])
    made.seek(TopicPartition(topic, 0), 0)
    try:
        yield made
    finally:
        made.close()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"not so after {WAIT_S} s"


def read(reader: KafkaConsumer, n: int) -> list[bytes]:
    """At least n values; more when they come along."""
    values: list[bytes] = []

    def enough() -> bool:
        for records in reader.poll(timeout_ms=100).values():
            values.extend(record.value for record in records)
        return len(values) >= n

    until(enough)
    return values


def committed(broker: Broker, topic: str) -> list[bytes]:
    """Everything a reader past the proxy sees up to the last stable offset."""
    with consumer(broker.bootstrap, topic) as reader:
        partition = TopicPartition(topic, 0)
        end = reader.end_offsets([partition])[partition]
        values: list[bytes] = []

        def at_the_end() -> bool:
            for records in reader.poll(timeout_ms=100).values():
                values.extend(record.value for record in records)
            return bool(reader.position(partition) >= end)

        until(at_the_end)
        return values


def send_in_a_transaction(sender: KafkaProducer, topic: str, *values: bytes) -> None:
    """Everything of a transaction but its commit."""
    sender.begin_transaction()
    futures = [sender.send(topic, value) for value in values]
    sender.flush()
    assert [future.succeeded() for future in futures] == [True] * len(values)


@contextmanager
def commit_meanwhile(sender: KafkaProducer, proxy: Proxy) -> Iterator[Future[None]]:
    """A commit that goes on while the test looks around; it has no deadline, so the faults end with the block."""
    with ThreadPoolExecutor(1) as thread:
        try:
            yield thread.submit(sender.commit_transaction)
        finally:
            proxy.clear()


def test_records_pass_both_ways(proxy: Proxy, topic: str) -> None:
    with producer(proxy) as sender, consumer(proxy.bootstrap, topic) as reader:
        for number in range(100):
            sender.send(topic, b"%d" % number)
        assert read(reader, 100) == [b"%d" % number for number in range(100)]


def test_a_record_of_a_megabyte_passes(proxy: Proxy, topic: str) -> None:
    with producer(proxy) as sender, consumer(proxy.bootstrap, topic) as reader:
        sender.send(topic, b"x" * 1_000_000)
        assert read(reader, 1) == [b"x" * 1_000_000]


def test_a_transaction_passes(proxy: Proxy, broker: Broker, topic: str) -> None:
    with producer(proxy, topic) as sender:
        send_in_a_transaction(sender, topic, b"kept")
        sender.commit_transaction()
        send_in_a_transaction(sender, topic, b"dropped")
        sender.abort_transaction()
    assert committed(broker, topic) == [b"kept"]


def test_clients_stay_behind_the_proxy(proxy: Proxy, topic: str) -> None:
    with producer(proxy, topic) as sender:
        send_in_a_transaction(sender, topic, b"a")
        sender.commit_transaction()
    assert {"InitProducerId", "AddPartitionsToTxn", "Produce", "EndTxn"} <= proxy.seen.keys()
    assert proxy.fired == []


def test_a_commit_whose_answers_are_lost_is_done_before_the_client_knows(
    proxy: Proxy, broker: Broker, topic: str
) -> None:
    proxy.fault("EndTxn", action="drop_response", times=None)
    with producer(proxy, topic) as sender:
        send_in_a_transaction(sender, topic, b"a", b"b")
        with commit_meanwhile(sender, proxy) as commit:
            proxy.wait_fired(WAIT_S)
            with consumer(broker.bootstrap, topic) as reader:
                assert read(reader, 2) == [b"a", b"b"]
            assert not commit.done()
        commit.result()
    assert proxy.seen["EndTxn"] > len(proxy.fired) >= 1


def test_a_commit_raises_when_its_answer_is_late_though_it_is_done(proxy: Proxy, broker: Broker, topic: str) -> None:
    proxy.fault("EndTxn", action="delay_response")
    with producer(proxy, topic) as sender:
        send_in_a_transaction(sender, topic, b"a")
        with pytest.raises(KafkaError):
            sender.commit_transaction()
        assert [fault.action for fault in proxy.fired] == ["delay_response"]
    assert committed(broker, topic) == [b"a"]


def test_a_commit_that_is_never_forwarded_is_not_done(proxy: Proxy, broker: Broker, topic: str) -> None:
    fault = proxy.fault("EndTxn", action="hold_request")
    patient = {**PATIENT, "transaction_timeout_ms": 60_000, "delivery_timeout_ms": 60_000}
    with producer(proxy, topic, **patient) as sender:
        send_in_a_transaction(sender, topic, b"a")
        with commit_meanwhile(sender, proxy) as commit:
            proxy.wait_fired(WAIT_S)
            assert committed(broker, topic) == []
        commit.result()
    assert proxy.fired == [fault]
    assert committed(broker, topic) == [b"a"]


@pytest.mark.parametrize("action", ["drop_request", "drop_response"])
def test_a_lost_produce_is_sent_again_and_arrives_once(
    proxy: Proxy, broker: Broker, topic: str, action: Action
) -> None:
    fault = proxy.fault("Produce", action=action)
    with producer(proxy) as sender:
        sender.send(topic, b"a").get(WAIT_S)
    assert committed(broker, topic) == [b"a"]
    assert proxy.fired == [fault]
    assert proxy.seen["Produce"] == (1 if action == "drop_request" else 2)


def test_a_produce_that_comes_late_after_its_own_repetition_changes_nothing(
    proxy: Proxy, broker: Broker, topic: str
) -> None:
    proxy.fault("Produce", action="hold_request")
    with producer(proxy, request_timeout_ms=1_000) as sender:
        sender.send(topic, b"a").get(WAIT_S)
        assert len(proxy.fired) == proxy.seen["Produce"] == 1
        proxy.release()
        until(lambda: proxy.seen["Produce"] == 2)
        sender.send(topic, b"b").get(WAIT_S)
    assert committed(broker, topic) == [b"a", b"b"]


def test_a_held_fetch_stalls_a_consumer_until_the_release(proxy: Proxy, topic: str) -> None:
    with producer(proxy) as sender, consumer(proxy.bootstrap, topic) as reader:
        sender.send(topic, b"a").get(WAIT_S)
        assert read(reader, 1) == [b"a"]
        proxy.fault("Fetch", action="hold_request")
        until(lambda: reader.poll(timeout_ms=20) == {} and proxy.fired != [])
        sender.send(topic, b"b").get(WAIT_S)
        assert reader.poll(timeout_ms=300) == {}
        proxy.release()
        assert read(reader, 1) == [b"b"]


def test_a_delayed_answer_comes_by_itself(proxy: Proxy, topic: str) -> None:
    proxy.fault("Produce", action="delay_response", delay_ms=200)
    with producer(proxy) as sender:
        sender.send(topic, b"a").get(WAIT_S)
    assert proxy.seen["Produce"] == len(proxy.fired) == 1


def test_closing_every_connection_is_survived(proxy: Proxy, topic: str) -> None:
    with producer(proxy) as sender, consumer(proxy.bootstrap, topic) as reader:
        sender.send(topic, b"a").get(WAIT_S)
        assert read(reader, 1) == [b"a"]
        proxy.fault("Produce", action="close")
        sender.send(topic, b"b").get(WAIT_S)
        assert read(reader, 1) == [b"b"]


def test_nth_and_times_count_over_all_connections(proxy: Proxy, topic: str) -> None:
    fault = proxy.fault(0, action="delay_response", nth=2, times=2, delay_ms=1)
    for number in range(4):
        with producer(proxy) as sender:
            sender.send(topic, b"%d" % number).get(WAIT_S)
        assert len(proxy.fired) == min(number, 2)
    assert fault.n_requests == 4


def test_waiting_for_a_fault_that_does_not_fire_names_what_was_seen(proxy: Proxy) -> None:
    proxy.fault("EndTxn", action="close")
    with pytest.raises(TimeoutError, match=r"0 of 1 faults fired in 0\.01 s; seen: \{\}"):
        proxy.wait_fired(0.01)


def test_an_unknown_api_is_refused(proxy: Proxy) -> None:
    with pytest.raises(ValueError, match="api='Commit' is not known"):
        proxy.fault("Commit", action="close")
