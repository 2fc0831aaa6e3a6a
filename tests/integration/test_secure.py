"""A broker that asks for a login: with the right one everything works, without it nobody learns a secret."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from stream_rec.events import Topic
from tests.integration.broker import Broker
from tests.integration.ground import KEY, Ground, Process, event, item, until
from tests.integration.origins import Origin
from tests.integration.secure import LOOKING, OUTPUTS, PASSWORD, WRONG, Operation, Secured, secure_broker

TRANSACTIONAL_ID = "transactional id"


@pytest.fixture(scope="module")
def guarded(kafka_origin: Origin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with secure_broker(kafka_origin, tmp_path_factory.mktemp("secure")) as started:
        yield started


@pytest.fixture
def secured(guarded: Broker, names: str, tmp_path: Path) -> Iterator[Secured]:
    made = Secured(guarded, names, tmp_path)
    yield made
    made.close()


def run(ground: Ground, *words: str, password: str = PASSWORD) -> Process:
    return ground.process(*words, given={"STREAM_REC_KAFKA__SASL_PASSWORD": password})


def tells_no_secret(*texts: str) -> bool:
    return not any(secret in text for secret in (PASSWORD, WRONG, KEY) for text in texts)


def is_refused(process: Process, ground: Ground, protocol: str) -> bool:
    """Whether it ended at once, with the address, the protocol and no secret."""
    status, words = process.wait(), process.words()
    told = f"Kafka at {ground.bootstrap} ({protocol}) is not reachable or not authorised; check kafka.bootstrap_servers"
    return status == 1 and told in words and "error: " in words and tells_no_secret(words)


# ---- let in


@pytest.mark.parametrize("protocol", ["SASL_SSL", "SASL_PLAINTEXT"])
def test_with_the_rights_that_the_readme_names_a_worker_takes_publishes_and_stops(
    secured: Secured, protocol: str
) -> None:
    secured.grant()
    secured.owner.put([item(n) for n in range(3)])
    secured.owner.put_events(20)
    worker = run(secured.ground(protocol), "worker", "--start", "earliest")
    secured.owner.await_taken(20)
    status = worker.asked("/status")[1]
    assert worker.stop() == 0, worker.words()
    assert secured.owner.totals()["accepted"] == 23
    assert len(secured.owner.values(Topic.SLATES)) >= 7
    assert tells_no_secret(status, worker.words())


def test_whoever_may_make_a_topic_makes_describes_fills_and_reads_them(secured: Secured, tmp_path: Path) -> None:
    secured.grant()
    secured.allow(Topic.EVENTS, Operation.WRITE)
    other = f"topics.control={secured.prefix}.another"
    ground = secured.ground("SASL_SSL", other)
    secured.allow_named(f"{secured.prefix}.another", Operation.CREATE, *LOOKING)
    events = tmp_path / "events.jsonl"
    events.write_bytes(b"".join(event(n) + b"\n" for n in range(4)))
    for words in (
        ("topics", "create", "--partitions", "1", "--replication", "1"),
        ("topics", "describe"),
        ("send", str(events)),
        ("slates", "tail", "--from-beginning", "--no-follow"),
    ):
        command = run(ground, *words)
        assert command.wait() == 0, command.words()
        assert tells_no_secret(command.words())
    assert len(secured.owner.values(Topic.EVENTS)) == 4


# ---- not let in


@pytest.mark.parametrize("protocol", ["SASL_SSL", "SASL_PLAINTEXT"])
@pytest.mark.parametrize("words", [("worker", "--start", "earliest"), ("topics", "describe")], ids=" ".join)
def test_a_wrong_password_ends_with_address_and_protocol(
    secured: Secured, protocol: str, words: tuple[str, ...]
) -> None:
    ground = secured.ground(protocol)
    assert is_refused(run(ground, *words, password=WRONG), ground, protocol)


def test_an_unknown_user_is_told_the_same(secured: Secured) -> None:
    ground = secured.ground("SASL_SSL", user="nobody-we-know")
    assert is_refused(run(ground, "worker", "--start", "earliest"), ground, "SASL_SSL")


def test_a_broker_whose_certificate_nobody_vouches_for_is_not_talked_to(secured: Secured) -> None:
    secured.grant()
    ground = secured.ground("SASL_SSL", trusting=False)
    assert is_refused(run(ground, "worker", "--start", "earliest"), ground, "SASL_SSL")


def test_a_login_without_its_password_is_named_as_a_setting(secured: Secured) -> None:
    command = secured.ground("SASL_SSL").process("worker", "--start", "earliest")
    assert command.wait() == 2
    assert "kafka.sasl_password (environment STREAM_REC_KAFKA__SASL_PASSWORD)" in command.words()


@pytest.mark.parametrize("topic", [Topic.EVENTS, Topic.CONTROL, *OUTPUTS])
def test_a_topic_that_the_login_may_not_see_ends_the_start(secured: Secured, topic: str) -> None:
    secured.grant(topic)
    ground = secured.ground("SASL_SSL")
    command = run(ground, "topics", "describe")
    assert is_refused(command, ground, "SASL_SSL")
    assert f"TopicAuthorizationFailedError: topic {secured.owner.name(topic)})" in command.words()


def test_a_forbidden_topic_stops_a_worker_before_it_writes(secured: Secured) -> None:
    secured.grant(Topic.EVENTS)
    ground = secured.ground("SASL_SSL")
    assert is_refused(run(ground, "worker", "--start", "earliest"), ground, "SASL_SSL")
    assert secured.owner.entries() == []


# ---- rights that a running worker turns out to lack


def told(worker: Process) -> tuple[str, str]:
    """State and detail."""
    table = msgspec.json.decode(worker.asked("/status")[1] or b"{}")
    return table.get("state", ""), table.get("detail", "")


def test_the_right_to_the_transactional_id_is_waited_for_with_what_is_missing(secured: Secured) -> None:
    secured.grant(TRANSACTIONAL_ID)
    secured.owner.put_events(3)
    worker = run(secured.ground("SASL_SSL"), "worker", "--start", "earliest")
    worker.await_state("waiting")
    assert "(SASL_SSL) is not reachable or not authorised" in told(worker)[1]
    assert secured.owner.entries() == []
    secured.grant()
    secured.owner.await_taken(3)
    assert worker.stop() == 0, worker.words()
    assert tells_no_secret(worker.words())


def test_the_right_to_write_to_a_topic_is_waited_for_and_nothing_is_there_twice(secured: Secured) -> None:
    secured.grant(Topic.SLATES)
    secured.allow(Topic.SLATES, *LOOKING)
    secured.owner.put_events(7)
    worker = run(secured.ground("SASL_SSL"), "worker", "--start", "earliest")
    missing = f"TopicAuthorizationFailedError: topic {secured.owner.name(Topic.SLATES)})"
    until(lambda: missing in told(worker)[1], "it says what is missing")
    assert told(worker)[0] == "waiting" and worker.asked("/readyz")[0] == 503
    assert secured.owner.n_taken() == 0
    secured.grant()
    secured.owner.await_taken(7)
    assert worker.stop() == 0, worker.words()
    assert secured.owner.totals()["accepted"] == 7
    assert tells_no_secret(worker.words())
