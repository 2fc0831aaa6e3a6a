"""The command line: thin commands, one-line errors, the exit statuses that scripts rely on."""

from __future__ import annotations

import hmac
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

import stream_rec
from stream_rec import cli, cli_options, config, errors
from stream_rec.events import Record
from stream_rec.stream.privacy import Pseudonymiser, Sealer

KEY = "a-key-for-tests"
SET_KEY = ("--set", f"privacy.key={KEY}")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("STREAM_REC_PRIVACY__KEY", "STREAM_REC_DEBUG"):
        monkeypatch.delenv(name, raising=False)


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(cli.app, list(arguments), input=stdin)


def replace(monkeypatch: pytest.MonkeyPatch, name: str, **contents: Any) -> None:
    """Let `stream_rec.NAME` be a module that holds `contents`."""
    module = ModuleType(f"stream_rec.{name}")
    vars(module).update(contents)
    monkeypatch.setitem(sys.modules, f"stream_rec.{name}", module)
    monkeypatch.setattr(stream_rec, name, module, raising=False)


def opened(monkeypatch: pytest.MonkeyPatch, lines: Sequence[dict[str, Any]]) -> None:
    """Let every run folder hold these records."""

    def records(_: str) -> Iterator[dict[str, Any]]:
        return (dict(line) for line in lines)

    replace(monkeypatch, "assemble", open_run=lambda run_dir: SimpleNamespace(records=records))


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.JobFailed("the disk is full; make room"), 1),
        (errors.SettingsError("no"), 2),
        (errors.InputRefused("mostly dead"), 3),
        (errors.Fenced("another claimed it"), 4),
        (KeyboardInterrupt(), 130),
        (OSError(28, "No space left on device"), 1),
    ],
)
def test_what_a_command_raises_becomes_one_line_and_its_status(
    error: BaseException, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    replace(monkeypatch, "demo_run", run_demo=fail)
    result = run("demo")
    assert result.exit_code == status
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr


def test_a_bug_tells_its_place_and_not_its_message_which_may_quote_input(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        float("jane@example" + ".org")

    replace(monkeypatch, "demo_run", run_demo=fail)
    result = run("demo")
    assert result.exit_code == 1
    assert "ValueError" in result.stderr
    assert __file__ in result.stderr
    assert "jane@example.org" not in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["bogus"], ["demo", "--bogus"], ["import", "bogus", "a", "--out", "b"], ["replay"], ["config", "check"],
        ["demo", "--set", "slate.slots=3"], ["replay", "none.jsonl", *SET_KEY], ["report", "none"],
        ["versions", "list", "--out", "none"], ["config", "show", "--config", "none.toml"],
    ],
)  # fmt: skip
def test_wrong_usage_and_wrong_settings_exit_2(arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


def test_help_is_given_for_every_command_and_ends_0() -> None:
    for words in (
        [],
        ["demo"],
        ["import"],
        ["replay"],
        ["report"],
        ["user-key"],
        ["config", "show"],
        ["versions", "list"],
    ):
        result = run(*words, "--help")
        assert result.exit_code == 0
        assert not words or "Example" in result.stdout
        assert "`" not in result.stdout or not words


def test_replay_hands_over_settings_files_and_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def run_replay(settings: Any, **rest: Any) -> dict[str, Any]:
        seen.update(rest, run_dir=settings.run_dir)
        return {"consumed": 1_234, "accepted": 1_200}

    replace(monkeypatch, "replay", run_replay=run_replay)
    replace(monkeypatch, "report", draw=lambda _: [Path("r/figures/learning.png")], first_line=lambda _: "recall")
    events = tmp_path / "e.jsonl"
    events.touch()
    arguments = ("replay", "e.jsonl", "--out", "r", "--since", "2011-03-01", "--until", "2011-03-01T01:00:01+01:00")
    assert run(*arguments).exit_code == 2
    result = run(*arguments, *SET_KEY)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[:3] == ["consumed 1,234  accepted 1,200", "recall", "r/figures/learning.png"]
    assert seen == {
        "events": Path("e.jsonl"), "items": None, "since": 1298937600000, "until": 1298937601000, "run_dir": Path("r"),
    }  # fmt: skip
    assert json.loads(run(*arguments, *SET_KEY, "--json").stdout)["accepted"] == 1_200


def test_replay_refuses_a_time_it_cannot_read(tmp_path: Path) -> None:
    (tmp_path / "e.jsonl").touch()
    result = run("replay", "e.jsonl", "--since", "yesterday", *SET_KEY)
    assert (result.exit_code, "--since" in result.stderr) == (2, True)
    empty = run("replay", "e.jsonl", "--since", "2011-03-02", "--until", "2011-03-01", *SET_KEY)
    assert (empty.exit_code, "nothing is selected" in empty.stderr) == (2, True)


def test_the_demo_has_a_folder_and_a_key_of_its_own_from_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    replace(monkeypatch, "demo_run", run_demo=lambda settings, console, **_: seen.append(settings))
    run("demo")
    run("demo", "--seed", "1", "--out", "mine")
    run("demo", *SET_KEY)
    assert [str(s.run_dir) for s in seen] == ["runs/demo", "mine", "runs/demo"]
    assert len({s.privacy.key.get_secret_value() for s in seen}) == 3
    assert seen[2].privacy.key.get_secret_value() == KEY


def test_import_hands_over_dataset_files_and_column_map(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def import_dataset(name: str, files: list[Path], **rest: Any) -> str:
        rest.pop("told")(2_000, 50, 100)
        seen.update(rest, name=name, files=files)
        return "2 events"

    replace(monkeypatch, "assemble", import_dataset=import_dataset)
    result = run(
        "import", "csv", "a.csv", "b.csv", "--out", "e.jsonl", "--map", "item_id=sku", "--map", "event_at=when"
    )
    assert (result.exit_code, result.stdout) == (0, "2 events\n")
    assert result.stderr.startswith("import: 50%, 2,000 records")
    assert seen == {
        "name": "csv", "files": [Path("a.csv"), Path("b.csv")], "out": Path("e.jsonl"), "items_out": None,
        "column_map": {"item_id": "sku", "event_at": "when"},
    }  # fmt: skip
    assert run("import", "csv", "a.csv", "--out", "e.jsonl", "--map", "sku").exit_code == 2


def test_config_show_names_the_source_and_masks_the_key() -> None:
    result = run("config", "show", "--changed", "--set", "slate.n_slots=3", *SET_KEY, "--json")
    rows = {row["name"]: row for row in map(json.loads, result.stdout.splitlines())}
    assert set(rows) - {"model.encoder", "registry.enabled"} == {"slate.n_slots", "privacy.key"}
    assert (rows["slate.n_slots"]["value"], rows["slate.n_slots"]["source"]) == ("3", "--set")
    assert rows["privacy.key"]["value"] == "********"
    assert KEY not in run("config", "show", *SET_KEY).stdout


def test_config_check_is_quiet_about_the_key_and_ends_0() -> None:
    result = run("config", "check", *SET_KEY)
    assert (result.exit_code, KEY in result.stdout) == (0, False)


def test_user_key_is_the_first_128_bits_of_hmac_sha256() -> None:
    expected = hmac.digest(KEY.encode(), b"17850", "sha256").hex()[:32]
    assert run("user-key", "17850", *SET_KEY).stdout == expected + "\n"
    assert run("user-key", "-", *SET_KEY, stdin="17850\n").stdout == expected + "\n"


def test_user_key_repairs_an_id_as_a_replay_does_and_refuses_none() -> None:
    expected = run("user-key", "17850", *SET_KEY).stdout
    assert run("user-key", " 17850.0 ", *SET_KEY).stdout == expected
    for wrong in ("", "  ", "a\x07", "x" * 257):
        assert run("user-key", wrong, *SET_KEY).exit_code == 2


def test_user_key_of_a_session_is_the_one_that_stands_in_for_its_user() -> None:
    expected = Pseudonymiser(KEY.encode()).session("s-1").stand_in.hex()
    assert run("user-key", "--session", "s-1 ", *SET_KEY).stdout == expected + "\n"


@pytest.mark.parametrize("environment_has", ["key", "key_file"])
def test_the_later_source_of_the_key_wins_and_two_of_one_source_are_wrong(
    environment_has: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "k").write_text(KEY if environment_has == "key" else "weaker")
    expected = run("user-key", "17850", *SET_KEY).stdout
    own, set_own = (
        ("weaker", ("--set", "privacy.key_file=k")) if environment_has == "key" else (str(tmp_path / "k"), SET_KEY)
    )
    monkeypatch.setenv(f"STREAM_REC_PRIVACY__{environment_has.upper()}", own)
    result = run("user-key", "17850", *set_own)
    assert (result.exit_code, result.stdout) == (0, expected)
    both = run("user-key", "17850", "--set", "privacy.key_file=k", *SET_KEY)
    assert (both.exit_code, "keep one" in both.stderr) == (2, True)


def test_dead_letters_are_listed_filtered_and_opened_only_with_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Record("events", 0, 7, 1298937600000, b"jane", b'{"user":"jane\x1b[2J"', (("h", b"v"),))
    other = record._replace(offset=8)
    sealer = Sealer(KEY.encode())
    letters = [
        sealer.seal(record, reason="not_json", stage="decode"),
        sealer.seal(other, reason="bad_price", stage="v"),
    ]
    opened(monkeypatch, [json.loads(letter.value or b"") for letter in letters])
    listed = run("dead-letters", "list", "--out", str(tmp_path))
    assert "events/0/7" in listed.stdout
    assert "2011-03-01 00:00:00" in listed.stdout
    assert "jane" not in listed.stdout
    only = run("dead-letters", "list", "--out", str(tmp_path), "--reason", "bad_price", "--json")
    assert [json.loads(line)["position"] for line in only.stdout.splitlines()] == ["events/0/8"]
    show = ("dead-letters", "show", "events/0/7", "--out", str(tmp_path))
    assert run(*show).exit_code == 2
    assert run(*show, "--set", "privacy.key=another").exit_code == 2
    shown = run(*show, *SET_KEY)
    assert "key: jane" in shown.stdout
    assert "\\x1b[2J" in shown.stdout
    assert "\x1b" not in shown.stdout
    assert run("dead-letters", "show", "events/0/9", "--out", str(tmp_path), *SET_KEY).exit_code == 2


def test_versions_are_listed_and_the_champion_is_the_last_one_promoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notices: list[dict[str, Any]] = [
        {"version": "v1-aa", "event": "promote", "event_at": 1298937600000, "verdict": {"verdict": "promote"}},
        {"version": "v2-bb", "event": "promote", "event_at": 1298937660000},
        {"version": "v3-cc", "event": "refused"},
        {"key": "pinned", "tombstone": True},
    ]
    opened(monkeypatch, notices)
    out = ("--out", str(tmp_path))
    listed = run("versions", "list", *out).stdout
    assert listed.index("v1") < listed.index("v2")
    assert len(run("versions", "list", *out, "--json").stdout.splitlines()) == 3
    assert json.loads(run("versions", "show", "v1", *out, "--json").stdout)["version"] == "v1-aa"
    assert json.loads(run("versions", "show", "champion", *out, "--json").stdout)["version"] == "v2-bb"
    assert json.loads(run("versions", "show", "v1-aa", *out, "--json").stdout)["verdict"] == {"verdict": "promote"}
    assert run("versions", "show", "v9", *out).exit_code == 2


def test_an_empty_list_says_so_in_words_and_nothing_in_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(monkeypatch, [])
    assert run("dead-letters", "list", "--out", str(tmp_path)).stdout == "no dead letters\n"
    assert run("versions", "list", "--out", str(tmp_path), "--json").stdout == ""


@settings(derandomize=True, deadline=None)
@given(st.one_of(st.text(), st.binary()))
def test_nothing_printed_can_command_a_terminal(content: str | bytes) -> None:
    assert cli_options.printable(content).isprintable()


def test_versions_show_what_the_gate_found_on_80_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = {"verdict": "promote", "reasons": ["hard check passed"], "recall_difference": -0.00148}
    notice = {"version": "v12-5e8a85e495ae", "event": "promote", "tick": 9, "event_at": 1298937600000}
    whole = notice | {"verdict": gate | {"interval": [-0.0066, 0.0032]}, "n_examples": 10_096, "sha256": "f" * 64}
    opened(monkeypatch, [whole, {"version": "v12-5e8a85e495ae", "event": "champion", "tick": 9}])
    plain = run("versions", "list", "--out", str(tmp_path)).stdout.splitlines()
    assert len(plain) == 2
    assert " ".join(plain[1].split()) == (
        "v12 promote 2011-03-01 00:00 promote -0.0015 [-0.0066, +0.0032] 10,096 hard check passed"
    )
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    told = run("versions", "list", "--out", str(tmp_path)).stdout
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in told.splitlines()]
    assert max(map(len, lines)) <= 80
    words = " ".join(lines).split()
    assert {"v12", "promote", "2011-03-01", "00:00", "-0.0015", "10,096", "passed"} <= set(words)
    shown = json.loads(run("versions", "show", "champion", "--out", str(tmp_path), "--json").stdout)
    assert (shown["event"], shown["verdict"]["verdict"]) == ("promote", "promote")


def test_an_ambiguous_version_is_refused_with_those_it_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(monkeypatch, [{"version": "v1-aa", "event": "promote"}, {"version": "v1-ab", "event": "promote"}])
    result = run("versions", "show", "v1", "--out", str(tmp_path))
    assert (result.exit_code, "v1-aa or v1-ab" in result.stderr) == (2, True)
    assert run("versions", "show", "v1-aa", "--out", str(tmp_path)).exit_code == 0
    assert run("versions", "show", "v", "--out", str(tmp_path)).exit_code == 2


def test_a_list_that_was_cut_says_so_and_json_on_stderr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    letters = [{"topic": "events", "partition": 0, "offset": i, "reason": "not_json"} for i in range(5)]
    opened(monkeypatch, letters)
    command = ("dead-letters", "list", "--out", str(tmp_path), "--limit", "2")
    assert run(*command).stdout.splitlines()[-1] == "2 of 5; --limit 5 shows all"
    in_json = run(*command, "--json")
    assert len(in_json.stdout.splitlines()) == 2
    assert in_json.stderr == "2 of 5; --limit 5 shows all\n"
    unknown = run(*command, "--reason", "bogus")
    assert (unknown.exit_code, "there are not_json" in unknown.stderr) == (2, True)
    assert run(*command, "--reason", "bad_price").stdout == "no dead letters of this reason\n"


def test_settings_are_listed_a_line_each_when_piped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    lines = run("config", "show").stdout.splitlines()
    assert len(lines) == 1 + len(config.KNOBS)
    assert [line.split()[0] for line in lines[1:]] == list(config.KNOBS)


def test_a_report_is_of_the_folder_that_the_settings_name_and_of_run_folders_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("report", str(tmp_path)).exit_code == 2
    (tmp_path / "ledger.jsonl").touch()
    monkeypatch.setenv("STREAM_REC_RUN__DIR", str(tmp_path))
    result = run("report")
    assert (result.exit_code, "unfinished: 0 records so far" in result.stdout) == (0, True)
