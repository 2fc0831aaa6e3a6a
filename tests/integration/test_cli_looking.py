"""`slates tail`, `control`, `dead-letters` and `versions` against a real broker."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer

from stream_rec.events import Record
from stream_rec.io.kafka import Sending
from stream_rec.io.kafka_lines import REDRIVEN
from stream_rec.stream.privacy import MAX_SEALED_BYTES
from tests.integration.broker import Broker
from tests.integration.cli_shop import AT_MS, WAIT_S, Shop

TAIL = ("slates", "tail", "--from-beginning", "--no-follow")


@pytest.fixture
def shop(broker: Broker, names: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "250")
    made = Shop(broker.bootstrap, names)
    assert made.create().exit_code == 0
    return made


# ---- slates tail


def slate(key: str, n: int) -> dict[str, Any]:
    slots = [{"item_id": f"i{n}", "score": 1.5}]
    return {"user_key": key, "event_at": AT_MS, "cause": "touched", "model_version": "v3-0a", "slots": slots}


def put_slates(shop: Shop, *slates: tuple[str, int | None], end: str = "commit") -> KafkaProducer:
    """Slates in a transaction that ends so, or stays open."""
    producer = KafkaProducer(
        bootstrap_servers=list(shop.access.bootstrap),
        transactional_id=f"{shop.prefix}-{end}",
        transaction_timeout_ms=60_000,
    )
    producer.init_transactions()
    producer.begin_transaction()
    for key, n in slates:
        value = None if n is None else json.dumps(slate(key, n)).encode()
        producer.send(shop.name("slates"), value, key=key.encode(), partition=0)
    producer.flush(WAIT_S)
    if end == "commit":
        producer.commit_transaction()
    elif end == "abort":
        producer.abort_transaction()
    return producer


def test_the_tail_shows_what_is_committed_and_nothing_else(shop: Shop) -> None:
    producers = [
        put_slates(shop, ("a" * 32, 1), ("*", 2)),
        put_slates(shop, ("a" * 32, 3), end="abort"),
        put_slates(shop, ("a" * 32, None), ("b" * 32, 4), end="commit"),
        put_slates(shop, ("a" * 32, 5), end="open"),
    ]
    told = shop.run(*TAIL)
    assert told.exit_code == 0, told.stderr
    shown = [" ".join(line.split()[2:]) for line in told.stdout.splitlines()]
    assert shown == [f"{'a' * 12} touched v3 i1 1.50", "* touched v3 i2 1.50", f"{'a' * 12} withdrawn",
                     f"{'b' * 12} touched v3 i4 1.50"]  # fmt: skip
    in_json = [json.loads(line) for line in shop.run(*TAIL, "--json", "--user-key", "a" * 32).stdout.splitlines()]
    assert in_json == [slate("a" * 32, 1), {"key": "a" * 32, "tombstone": True}]
    assert len(shop.run(*TAIL, "--limit", "3").stdout.splitlines()) == 3
    for producer in producers:
        producer.close(timeout=1)


def test_the_tail_follows_from_the_end(shop: Shop) -> None:
    put_slates(shop, ("a" * 32, 1)).close(timeout=1)
    stop = threading.Event()

    def go_on() -> None:
        n = 2
        while not stop.wait(0.2):
            put_slates(shop, ("a" * 32, n)).close(timeout=1)
            n += 1

    writing = threading.Thread(target=go_on)
    writing.start()
    try:
        told = shop.run("slates", "tail", "--limit", "2", "--json")
    finally:
        stop.set()
        writing.join()
    first, second = (json.loads(line)["slots"][0]["item_id"] for line in told.stdout.splitlines())
    assert told.exit_code == 0
    assert (first != "i1", int(second[1:]) - int(first[1:])) == (True, 1)


# ---- control


def test_a_command_that_no_worker_answers_times_out_and_stays(shop: Shop) -> None:
    told = shop.run("control", "freeze", "--timeout-s", "0.5")
    assert (told.exit_code, told.stderr.count("\n")) == (1, 1)
    assert f"no answer to freeze within 0.5 s; the command is in topic {shop.name('control')}" in told.stderr
    (record,) = shop.stored("control")
    said = json.loads(record.value or b"")
    assert (said["command"], len(said["command_id"])) == ("freeze", 16)


@pytest.mark.parametrize(("status", "exit_code"), [("done", 0), ("refused", 1)])
def test_the_answer_to_a_command_is_the_notice_with_its_id(shop: Shop, status: str, exit_code: int) -> None:
    shop.put(Sending(shop.name("versions"), b"v", json.dumps({"command_id": None, "status": "old"}).encode()))

    def answer() -> None:
        deadline = time.monotonic() + WAIT_S
        while not (found := shop.stored("control")) and time.monotonic() < deadline:
            time.sleep(0.05)
        told = {"event": "command", "status": status, "command_id": json.loads(found[0].value or b"")["command_id"]}
        other = told | {"command_id": "another", "status": "wrong"}
        notices = [json.dumps(notice).encode() for notice in (other, told)]
        shop.put(*(Sending(shop.name("versions"), b"command-pin", notice) for notice in (*notices, b"{")))

    worker = threading.Thread(target=answer)
    worker.start()
    told = shop.run("control", "pin", "--version", "v3-0a")
    worker.join()
    assert told.exit_code == exit_code, told.stderr
    assert json.loads(told.stdout)["status"] == status
    assert ("refused pin" in told.stderr) == (status == "refused")


# ---- dead letters and versions


def dead(n: int, *, value: bytes = b"\xff{", key: bytes | None = b"\x00u", topic: str = "events") -> Record:
    return Record(topic, 1, n, AT_MS, key, value, (("trace", b"t%d" % n),))


def test_redrive_puts_back_the_same_bytes_and_says_where_they_died(shop: Shop) -> None:
    item = dead(3, topic="items", key=b"i1")
    shop.bury((dead(1), "not_utf8"), (dead(2, key=None), "not_json"), (item, "not_json"))
    redriven = shop.run("dead-letters", "redrive", "events/1/1", "items/1/3")
    assert (redriven.exit_code, redriven.stdout) == (0, "2 put back, 0 left\n")
    (event,) = shop.stored("events")
    assert (event.key, event.value) == (b"\x00u", b"\xff{")
    assert event.headers == (("trace", b"t1"), (REDRIVEN, b"events/1/1"))
    assert [(r.key, r.value) for r in shop.stored("items")] == [(b"i1", b"\xff{")]


def test_redrive_by_reason_takes_each_position_once_and_a_dry_run_nothing(shop: Shop) -> None:
    shop.bury((dead(1), "not_utf8"), (dead(2), "not_json"), (dead(3), "not_json"), (dead(2), "not_json"))
    dry = shop.run("dead-letters", "redrive", "--reason", "not_json", "--dry-run")
    assert (dry.exit_code, dry.stdout) == (0, "events/1/2\nevents/1/3\n2 would be put back, 0 left\n")
    assert shop.stored("events") == []
    assert shop.run("dead-letters", "redrive", "--reason", "not_json").stdout == "2 put back, 0 left\n"
    assert len(shop.stored("events")) == 2


def test_what_cannot_be_put_back_is_named_and_the_rest_goes(shop: Shop) -> None:
    cut, nothing = dead(2, value=b"x" * (MAX_SEALED_BYTES + 1)), Record("events", 1, 3, AT_MS, None, None)
    shop.bury((dead(1), "not_utf8"), (cut, "too_large"), (nothing, "no_value"))
    shop.bury((dead(4), "not_json"), key="another key")
    redriven = shop.run("dead-letters", "redrive", "--all")
    assert (redriven.exit_code, redriven.stdout) == (1, "1 put back, 3 left\n")
    assert [line.split(":")[0] for line in redriven.stderr.splitlines()[:3]] == [
        "left events/1/2", "left events/1/3", "left events/1/4",
    ]  # fmt: skip
    assert [r.value for r in shop.stored("events")] == [b"\xff{"]


def test_a_position_without_a_dead_letter_leaves_everything_where_it_is(shop: Shop) -> None:
    shop.bury((dead(1), "not_utf8"))
    refused = shop.run("dead-letters", "redrive", "events/1/1", "events/1/9")
    assert (refused.exit_code, "no dead letter events/1/9" in refused.stderr) == (2, True)
    assert shop.stored("events") == []


def test_dead_letters_of_the_topic_are_listed_and_opened_without_a_run_folder(shop: Shop) -> None:
    shop.bury((dead(1), "not_utf8"), (dead(2), "not_json"))
    shop.put(Sending(shop.name("dead_letters"), None, b"not ours"), Sending(shop.name("dead_letters"), None, b"{}"))
    listed = shop.run("dead-letters", "list", "--json")
    assert [json.loads(line)["position"] for line in listed.stdout.splitlines()] == ["events/1/1", "events/1/2"]
    shown = shop.run("dead-letters", "show", "events/1/2")
    assert "value: \\xff{" in shown.stdout
    missing = shop.run("dead-letters", "show", "events/1/9")
    assert (missing.exit_code, f"in topic {shop.name('dead_letters')}" in missing.stderr) == (2, True)


def test_a_named_run_folder_is_read_instead_of_the_topic(shop: Shop, tmp_path: Path) -> None:
    shop.bury((dead(1), "not_utf8"))
    assert shop.run("dead-letters", "list", "--out", str(tmp_path / "none")).exit_code == 2


def test_versions_of_the_topic_are_listed_and_shown(shop: Shop) -> None:
    notice = {"version": "v1-0a", "event": "promote", "event_at": AT_MS}
    pointer = {"version": "v1-0a", "event": "champion"}
    shop.put(
        Sending(shop.name("versions"), b"v1-0a", json.dumps(notice).encode()),
        Sending(shop.name("versions"), b"champion", json.dumps(pointer).encode()),
        Sending(shop.name("versions"), b"pinned", None),
    )
    assert [json.loads(line) for line in shop.run("versions", "list", "--json").stdout.splitlines()] == [
        notice,
        pointer,
    ]
    shown = json.loads(shop.run("versions", "show", "champion", "--json").stdout)
    assert {name: shown[name] for name in notice} == notice
