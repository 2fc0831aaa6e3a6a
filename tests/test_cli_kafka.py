"""The commands around a pipeline on Kafka: what they refuse before anything is sent, and what they print."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import stream_rec
from stream_rec import cli, cli_topics
from stream_rec.cli_kafka import TAKES, Word, command_of, slate_line
from stream_rec.errors import SettingsError

USER_KEY = "f056549d55e7ebb07598c301633f5153"
AT_MS = 1_298_937_600_000


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("STREAM_REC_PRIVACY__KEY", raising=False)


def run(*words: str) -> Result:
    return CliRunner().invoke(cli.app, list(words))


def replace(monkeypatch: pytest.MonkeyPatch, name: str, **contents: Any) -> None:
    module = ModuleType(f"stream_rec.{name}")
    vars(module).update(contents)
    monkeypatch.setitem(sys.modules, f"stream_rec.{name}", module)
    monkeypatch.setattr(stream_rec, name, module, raising=False)


COMMANDS = [
    ("topics", "create"), ("topics", "describe"), ("send",), ("slates", "tail"), ("control",),
    ("dead-letters", "list"), ("dead-letters", "show"), ("dead-letters", "redrive"),
    ("versions", "list"), ("versions", "show"),
]  # fmt: skip


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_takes_settings_and_shows_an_example(words: tuple[str, ...]) -> None:
    result = run(*words, "--help")
    assert result.exit_code == 0
    assert "--config" in result.stdout
    assert "--set" in result.stdout
    assert f"Example: stream-rec {' '.join(words)}" in " ".join(result.stdout.split())


@pytest.mark.parametrize(
    ("word", "arguments", "body"),
    [
        (Word.FREEZE, {}, {}),
        (Word.UNFREEZE, {}, {}),
        (Word.PROMOTE, {"version": "v3-0a"}, {"version": "v3-0a"}),
        (Word.PIN, {"version": "v3-0a"}, {"version": "v3-0a"}),
        (Word.ROLLBACK, {"version": "v3-0a"}, {"version": "v3-0a"}),
        (Word.ROLLBACK, {"at": "2011-03-01"}, {"event_at": AT_MS}),
        (Word.EXPLORE, {"on": False}, {"explore": False}),
        (Word.FORGET, {"user_key": USER_KEY}, {"user_key": USER_KEY}),
    ],
)
def test_a_command_is_sent_as_the_worker_reads_it(word: Word, arguments: dict[str, Any], body: dict[str, Any]) -> None:
    assert command_of(word, **arguments) == {"command": str(word), **body}


@pytest.mark.parametrize(
    ("word", "arguments", "told"),
    [
        (Word.FREEZE, {"version": "v1"}, "leave out --version"),
        (Word.PROMOTE, {}, "none was given"),
        (Word.PROMOTE, {"at": "2011-03-01"}, "leave out --at"),
        (Word.PIN, {"version": ""}, "not ''"),
        (Word.PIN, {"version": "v" * 300}, "--version takes"),
        (Word.ROLLBACK, {}, "--version or --at, and none was given"),
        (Word.ROLLBACK, {"version": "v1", "at": "2011-03-01"}, "not both"),
        (Word.ROLLBACK, {"at": "yesterday"}, "--at takes a time"),
        (Word.ROLLBACK, {"at": "1970-01-02"}, "--at takes a time"),
        (Word.EXPLORE, {}, "--on or --off"),
        (Word.FORGET, {"user_key": USER_KEY.upper()}, "32 hex digits"),
        (Word.FORGET, {"user_key": "*"}, "32 hex digits"),
    ],
)
def test_a_command_with_other_arguments_than_it_takes_is_refused(
    word: Word, arguments: dict[str, Any], told: str
) -> None:
    with pytest.raises(SettingsError) as refusal:
        command_of(word, **arguments)
    assert told in str(refusal.value)


def test_every_word_says_what_it_takes() -> None:
    assert set(TAKES) == set(Word)


def test_a_wrong_user_key_is_not_repeated_for_it_may_be_an_id() -> None:
    result = run("control", "forget", "--user-key", "jane@shop.example")
    assert (result.exit_code, "jane" in result.stderr) == (2, False)


def test_an_answer_is_printed_and_a_refusal_ends_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[dict[str, Any] | None] = [
        {"status": "done"},
        {"status": "refused", "reason": "no such version"},
        None,
    ]
    seen: list[Any] = []

    def command(settings: Any, body: Any, *, timeout_ms: int | None) -> Any:
        seen.append((body, timeout_ms))
        return answers.pop(0)

    replace(monkeypatch, "assemble_watch", command=command)
    done = run("control", "freeze", "--timeout-s", "1.5")
    refused = run("control", "pin", "--version", "v9")
    unasked = run("control", "unfreeze", "--no-wait")
    assert (done.exit_code, done.stdout) == (0, '{"status": "done"}\n')
    assert (refused.exit_code, "refused pin: no such version" in refused.stderr) == (1, True)
    assert (unasked.exit_code, unasked.stdout) == (0, "unfreeze is in topic control\n")
    assert seen == [
        ({"command": "freeze"}, 1_500), ({"command": "pin", "version": "v9"}, 30_000), ({"command": "unfreeze"}, None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [
        ("send", "none.jsonl"), ("control", "stop"), ("slates", "tail", "--no-follow"),
        ("topics", "create", "--replication", "1", "--min-isr", "2"), ("topics", "create", "--partitions", "0"),
        ("dead-letters", "redrive", "--set", "privacy.key=k"),
        ("dead-letters", "redrive", "--all", "--reason", "not_json", "--set", "privacy.key=k"),
        ("dead-letters", "redrive", "events/0/1", "--all", "--set", "privacy.key=k"),
        ("dead-letters", "redrive", "--reason", "bogus", "--set", "privacy.key=k"),
        ("dead-letters", "redrive", "--all"),
    ],
)  # fmt: skip
def test_wrong_usage_exits_2_before_a_broker_is_asked(words: tuple[str, ...]) -> None:
    assert run(*words, "--set", "kafka.bootstrap_servers=127.0.0.1:1").exit_code == 2


def test_a_slate_is_a_line_of_when_whom_why_version_and_first_items() -> None:
    slots = [{"item_id": f"i{n}", "score": n / 4} for n in range(7)]
    slate = {"event_at": AT_MS, "cause": "touched", "model_version": "v12-0a1b", "slots": slots}
    assert slate_line(USER_KEY, 0, slate) == (
        "2011-03-01 00:00:00  f056549d55e7  touched    v12   i0 0.00, i1 0.25, i2 0.50, i3 0.75, i4 1.00 and 2 more"
    )


def test_a_withdrawn_slate_says_so() -> None:
    assert slate_line(USER_KEY, AT_MS, None) == "2011-03-01 00:00:00  f056549d55e7  withdrawn"


def test_a_foreign_slate_leaves_empty_what_it_does_not_say() -> None:
    assert slate_line("k\x1b[2J", AT_MS, {"slots": [{"item_id": "a"}]}).split() == [
        "2011-03-01", "00:00:00", "k\\x1b[2J", "a",
    ]  # fmt: skip


TOPICS = [
    {"topic": "events", "partitions": 6, "replication": 3, "cleanup": "delete", "retention_ms": 2_592_000_000,
     "compaction_lag_ms": 0, "state": "ok"},
    {"topic": "items", "partitions": 6, "replication": 3, "cleanup": "compact", "retention_ms": 604_800_000,
     "compaction_lag_ms": 0, "state": "needs more"},
    {"topic": "control", "partitions": None, "replication": None, "cleanup": None, "retention_ms": None,
     "compaction_lag_ms": None, "state": "is not there"},
]  # fmt: skip


def test_topics_are_described_for_people_and_a_fault_exits_1(monkeypatch: pytest.MonkeyPatch) -> None:
    replace(monkeypatch, "assemble_tools", describe_topics=lambda _: TOPICS)
    result = run("topics", "describe")
    rows = [" ".join(row.split()) for row in result.stdout.splitlines()]
    assert rows[1:] == [
        "events 6 3 delete 30 d - ok", "items 6 3 compact - 0 ms needs more", "control - - is not there",
    ]  # fmt: skip
    assert (result.exit_code, "items, control: not kept" in result.stderr) == (1, True)


def test_topics_that_are_right_exit_0(monkeypatch: pytest.MonkeyPatch) -> None:
    replace(monkeypatch, "assemble_tools", describe_topics=lambda _: TOPICS[:1])
    assert run("topics", "describe").exit_code == 0


@pytest.mark.parametrize(
    ("given", "asked"), [((), (6, 3, 2)), (("--replication", "1"), (6, 1, 1)), (("--min-isr", "3"), (6, 3, 3))]
)
def test_topics_have_three_copies_and_two_in_step_unless_told(
    given: tuple[str, ...], asked: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, ...]] = []

    def create_topics(_: Any, *, n_partitions: int, replication: int, min_isr: int) -> list[Any]:
        seen.append((n_partitions, replication, min_isr))
        return []

    replace(monkeypatch, "assemble_tools", create_topics=create_topics)
    assert run("topics", "create", *given).exit_code == 0
    assert seen == [asked]


def test_no_duration_is_rounded() -> None:
    assert cli_topics.duration_text(86_400_001) == "86400001 ms"
