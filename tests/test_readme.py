"""The README says what the code does: commands, settings, files and exit statuses. Run as a script it writes them."""

from __future__ import annotations

import ast
import os
import re
import subprocess
from pathlib import Path

import typer.main

from stream_rec import cli, config, errors

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"


def settings_table() -> str:
    rows = ["| setting | default | effect | what it does |", "|---|---|---|---|"]
    for knob in config.KNOBS.values():
        extra = knob.field.json_schema_extra
        assert isinstance(extra, dict)
        default = str(extra.get("shown") or config.shown(knob.field.default))
        rows.append(f"| `{knob.name}` | {default} | {knob.effect} | {knob.field.description} |")
    return "\n".join(rows)


def file_map() -> str:
    rows = ["```text"]
    for folder in ("", "adapters", "stream", "model", "explore", "learn", "io"):
        modules = sorted((ROOT / "stream_rec" / folder).glob("*.py"))
        if modules:
            rows.append(f"stream_rec/{folder}/" if folder else "stream_rec/")
        rows += [f"  {path.name:<24} {first_line(path)}" for path in modules if path.name != "__init__.py"]
    return "\n".join([*rows, "```"])


def first_line(path: Path) -> str:
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def with_part(text: str, name: str, content: str) -> str:
    return re.sub(
        rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", lambda m: f"{m[1]}{content}\n{m[2]}", text, flags=re.DOTALL
    )


def rewritten(text: str) -> str:
    return with_part(with_part(text, "settings", settings_table()), "files", file_map())


def commands() -> set[str]:
    found: set[str] = set()

    def walk(command: object, words: tuple[str, ...]) -> None:
        children = getattr(command, "commands", None)
        if children is None:
            found.add(" ".join(words))
        else:
            for name, child in children.items():
                walk(child, (*words, name))

    walk(typer.main.get_command(cli.app), ("stream-rec",))
    return found


def test_the_settings_table_and_the_file_map_are_current() -> None:
    text = README.read_text(encoding="utf-8")
    assert text == rewritten(text), "run: python tests/test_readme.py"


def test_every_command_stands_in_the_readme_and_every_command_of_the_readme_exists() -> None:
    table = set(re.findall(r"^\| `(stream-rec [a-z -]+)` \|", README.read_text(encoding="utf-8"), re.MULTILINE))
    assert table == commands()


def test_the_commands_of_the_code_blocks_exist_and_their_options_too() -> None:
    blocks = re.findall(r"```bash\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if "stream-rec " in line]
    assert lines
    for line in lines:
        words = line.partition("stream-rec ")[2].split()
        matching = [c for c in commands() if f"stream-rec {' '.join(words)}".startswith(c)]
        assert matching, line
        command: object = typer.main.get_command(cli.app)
        for word in matching[0].split()[1:]:
            command = command.commands[word]  # type: ignore[attr-defined]
        options = {option for parameter in command.params for option in parameter.opts}  # type: ignore[attr-defined]
        assert {word for word in words if word.startswith("--")} <= options, line


def test_the_first_screen_gives_two_one_line_commands_each_with_its_own_environment() -> None:
    first_screen = README.read_text(encoding="utf-8").partition("\n## ")[0]
    lines = re.findall(r"```bash\n(.*?)\n```", first_screen, re.DOTALL)
    assert len(lines) == 2
    assert all("\n" not in line and line.startswith("python3 -m venv .venv-") for line in lines)
    assert lines[0].endswith("stream-rec demo")
    assert lines[1].endswith("-m pytest")


def test_ci_takes_its_test_command_from_the_readme() -> None:
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    pattern = re.search(r"grep -m 1 -E '(.+?)' README.md", ci)
    assert pattern
    found = subprocess.run(["grep", "-c", "-E", pattern[1], str(README)], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "1"
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_the_exit_statuses_are_those_of_the_errors() -> None:
    table = {int(s) for s in re.findall(r"^\| (\d+) \|", README.read_text(encoding="utf-8"), re.MULTILINE)}
    kinds = (errors.StreamRecError, errors.SettingsError, errors.InputRefused, errors.Fenced)
    assert table == {0, 130} | {kind.exit_status for kind in kinds}


if __name__ == "__main__":
    README.write_text(rewritten(README.read_text(encoding="utf-8")), encoding="utf-8")
