"""`topics` and `send` against a real broker."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from tests.integration.broker import Broker, free_port
from tests.integration.cli_shop import AT_MS, TOPICS, Shop


@pytest.fixture
def bare(broker: Broker, names: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """Without topics."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "250")
    return Shop(broker.bootstrap, names)


@pytest.fixture
def shop(bare: Shop) -> Shop:
    """With its topics."""
    assert bare.create().exit_code == 0
    return bare


@pytest.fixture
def admin(broker: Broker) -> Iterator[KafkaAdminClient]:
    made = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    yield made
    made.close()


def lines_of(path: Path, *lines: bytes | dict[str, Any]) -> str:
    path.write_bytes(
        b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)
    )
    return str(path)


def click(n: int, **fields: Any) -> dict[str, Any]:
    said = {"event_id": f"e{n}", "event_type": "click", "event_at": AT_MS + 1_000 * n}
    return said | {"user_id": f"u{n % 5}", "item_id": f"i{n}"} | fields


# ---- topics


def test_created_topics_pass_their_check(bare: Shop) -> None:
    made = bare.create("--json")
    assert made.exit_code == 0, made.stderr
    assert {row["what"] for row in map(json.loads, made.stdout.splitlines())} == {"made"}
    rows = {row["topic"]: row for row in map(json.loads, bare.run("topics", "describe", "--json").stdout.splitlines())}
    assert {name: rows[bare.name(name)]["partitions"] for name in TOPICS} == {
        "events": 3, "items": 3, "slates": 3, "control": 1, "versions": 1, "ledger": 1, "dead_letters": 1,
    }  # fmt: skip
    assert {row["state"] for row in rows.values()} == {"ok"}
    assert rows[bare.name("items")]["cleanup"] == "compact"
    assert rows[bare.name("items")]["compaction_lag_ms"] == 30 * 86_400_000


def test_topics_that_are_there_stay(shop: Shop) -> None:
    again = shop.create("--json")
    assert again.exit_code == 0
    assert {row["what"] for row in map(json.loads, again.stdout.splitlines())} == {"there already"}


def test_a_lowered_compaction_lag_is_named_by_create_and_describe(shop: Shop, admin: KafkaAdminClient) -> None:
    lowered = ConfigResource(ConfigResourceType.TOPIC, shop.name("items"), {"min.compaction.lag.ms": "5000"})
    admin.alter_configs([lowered])
    for words in (("topics", "describe"), ("topics", "create", "--replication", "1")):
        told = shop.run(*words)
        wrong = next(line for line in told.stdout.splitlines() if line.startswith(shop.name("items")))
        assert told.exit_code == 1
        assert "min.compaction.lag.ms=5000 and needs 2592000000" in wrong
        assert shop.name("items") in told.stderr


def test_missing_topics_are_named(bare: Shop) -> None:
    told = bare.run("topics", "describe")
    assert told.exit_code == 1
    assert told.stdout.count("is not there") == len(TOPICS)


def test_more_copies_than_brokers_are_refused_with_what_to_do(bare: Shop) -> None:
    told = bare.run("topics", "create")
    assert (told.exit_code, told.stderr.count("\n")) == (1, 1)
    assert "--replication 1" in told.stderr


# ---- send


def test_events_are_keyed_by_user_and_items_by_item_with_a_tombstone_for_a_deleted_one(
    shop: Shop, tmp_path: Path
) -> None:
    events = lines_of(tmp_path / "e.jsonl", *(click(n) for n in range(20)), click(20, user_id=None, session_id="s"))
    items = lines_of(tmp_path / "i.jsonl", {"item_id": "i1", "title": "Cup"}, {"item_id": "i2", "deleted": True})
    sent = shop.run("send", events, "--items", items)
    assert sent.exit_code == 0, sent.stderr
    assert sent.stdout == (
        f"2 items (1 taken off sale) to topic {shop.name('items')}, 21 events to topic {shop.name('events')}\n"
    )
    stored = shop.stored("events")
    assert sorted(r.value for r in stored) == sorted(Path(events).read_bytes().splitlines())
    said = [(r.key, json.loads(r.value or b"")) for r in stored]
    assert all(key == (event["user_id"] or event["session_id"]).encode() for key, event in said)
    assert len({(r.key, r.partition) for r in stored}) == 6
    by_key = {r.key: r.value for r in shop.stored("items")}
    assert by_key == {b"i1": b'{"item_id": "i1", "title": "Cup"}', b"i2": None}


def test_broken_lines_are_sent_too_so_that_they_are_counted(shop: Shop, tmp_path: Path) -> None:
    broken = (b"{", b"", b"\xff\xfe")
    sent = shop.run("send", lines_of(tmp_path / "e.jsonl", *broken), "--items", lines_of(tmp_path / "i.jsonl", *broken))
    assert sent.exit_code == 0, sent.stderr
    for topic in ("events", "items"):
        assert sorted(r.value or b"" for r in shop.stored(topic)) == sorted(broken)


def test_a_history_is_sent_with_its_own_times(shop: Shop, admin: KafkaAdminClient, tmp_path: Path) -> None:
    for_ever = ConfigResource(ConfigResourceType.TOPIC, shop.name("events"), {"retention.ms": "-1"})
    admin.alter_configs([for_ever])
    in_future = click(3, event_at="2099-01-01T00:00:00Z")
    events = lines_of(tmp_path / "e.jsonl", click(0), click(1), b"{", in_future, click(4))
    items = lines_of(
        tmp_path / "i.jsonl",
        {"item_id": "i1", "updated_at": AT_MS},
        {"item_id": "i2"},
        {"item_id": "i3", "updated_at": 0},
    )
    before_ms = round(1_000 * time.time())
    sent = shop.run("send", events, "--items", items, "--times", "event")
    assert sent.exit_code == 0, sent.stderr
    times = {r.value: r.timestamp - AT_MS for r in shop.stored("events")}
    assert [times[line] for line in Path(events).read_bytes().splitlines()] == [0, 1_000, 1_000, 1_000, 4_000]
    of_items = {r.key: r.timestamp for r in shop.stored("items")}
    assert of_items[b"i1"] == AT_MS
    assert min(of_items[b"i2"], of_items[b"i3"]) >= before_ms


def test_records_are_of_now_unless_told(shop: Shop, tmp_path: Path) -> None:
    before_ms = round(1_000 * time.time())
    assert shop.run("send", lines_of(tmp_path / "e.jsonl", click(0))).exit_code == 0
    assert shop.stored("events")[0].timestamp >= before_ms


def test_a_history_that_its_topic_would_delete_is_refused(shop: Shop, tmp_path: Path) -> None:
    refused = shop.run("send", lines_of(tmp_path / "e.jsonl", click(0)), "--times", "event")
    assert (refused.exit_code, "retention.ms" in refused.stderr) == (2, True)
    assert shop.stored("events") == []


def test_a_line_that_is_too_large_is_named(shop: Shop, tmp_path: Path) -> None:
    events = lines_of(tmp_path / "e.jsonl", click(0), click(1, query="x" * 3_000))
    refused = shop.run("send", events, sets=["kafka.max_message_bytes=2048"])
    assert (refused.exit_code, refused.stderr.strip().count("\n")) == (1, 0)
    assert "e.jsonl line 2 has" in refused.stderr
    assert "kafka.max_message_bytes is 2048" in refused.stderr


def test_a_record_that_brokers_refuse_for_its_size_is_one_clear_error(
    shop: Shop, admin: KafkaAdminClient, tmp_path: Path
) -> None:
    small = ConfigResource(ConfigResourceType.TOPIC, shop.name("events"), {"max.message.bytes": "1000"})
    admin.alter_configs([small])
    text = "".join(chr(33 + zlib.crc32(b"%d" % n) % 90) for n in range(5_000)).replace('"', "").replace("\\", "")
    refused = shop.run("send", lines_of(tmp_path / "e.jsonl", click(0, query=text)))
    assert (refused.exit_code, refused.stderr.strip().count("\n")) == (1, 0)
    assert "max.message.bytes" in refused.stderr


def test_a_rate_is_held(shop: Shop, tmp_path: Path) -> None:
    began_s = time.monotonic()
    sent = shop.run("send", lines_of(tmp_path / "e.jsonl", *(click(n) for n in range(30))), "--rate", "20")
    assert sent.exit_code == 0
    assert time.monotonic() - began_s >= 29 / 20
    assert len(shop.stored("events")) == 30


def test_more_lines_than_are_ever_on_their_way_arrive_in_order(shop: Shop, tmp_path: Path) -> None:
    lines = [json.dumps(click(n, user_id="u")).encode() for n in range(9_000)]
    assert shop.run("send", lines_of(tmp_path / "e.jsonl", *lines)).exit_code == 0
    assert [r.value for r in shop.stored("events")] == lines


def test_sending_to_a_topic_that_is_not_there_says_how_to_make_it(bare: Shop, tmp_path: Path) -> None:
    refused = bare.run("send", lines_of(tmp_path / "e.jsonl", click(0)))
    assert (refused.exit_code, "topics create" in refused.stderr) == (1, True)


def test_an_address_without_a_broker_is_named(shop: Shop, tmp_path: Path) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    away = [f"kafka.bootstrap_servers={nowhere}", "kafka.connect_timeout_ms=1000"]
    events = lines_of(tmp_path / "e.jsonl", click(0))
    for words in (
        ("topics", "create"), ("topics", "describe"), ("send", events), ("slates", "tail"), ("control", "freeze"),
        ("dead-letters", "list"), ("versions", "list"),
    ):  # fmt: skip
        refused = shop.run(*words, sets=away)
        assert (refused.exit_code, refused.stderr.count("\n")) == (1, 1), words
        assert f"Kafka at {nowhere} (PLAINTEXT) is not reachable or not authorised" in refused.stderr
