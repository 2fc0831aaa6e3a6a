"""The house rules that a machine can check: sizes, docstrings, names, arrows, settings that do something."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stream_rec import config

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "stream_rec").rglob("*.py"))
MAX_FILE_LINES = 400
MAX_BODY_LINES = 60
MAX_PARAMETERS = 6
MAX_OPTIONS = 12
"""A command's parameters are its command line; `replay` has the most."""
MAX_POSITIONAL = 3
VAGUE = re.compile(r"manager|handler|util|helper", re.IGNORECASE)

Function = ast.FunctionDef | ast.AsyncFunctionDef


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(path: Path) -> Iterator[Function]:
    return (node for node in ast.walk(parse(path)) if isinstance(node, Function))


def place(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)} {getattr(node, 'name', '')}"


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    long = {str(p.relative_to(ROOT)): n for p in SOURCES if (n := p.read_text().count("\n")) > MAX_FILE_LINES}
    assert long == {}


def test_no_function_body_is_longer_than_a_screen() -> None:
    long = []
    for path in SOURCES:
        for node in functions(path):
            first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
            assert node.end_lineno
            if node.end_lineno - first.lineno + 1 > MAX_BODY_LINES:
                long.append(place(path, node))
    assert long == []


def test_functions_take_few_parameters_and_few_by_position() -> None:
    many = []
    for path in SOURCES:
        is_command = path.name.startswith("cli_")
        for node in functions(path):
            positional = [a for a in node.args.posonlyargs + node.args.args if a.arg not in {"self", "cls"}]
            n = len(positional) + len(node.args.kwonlyargs)
            if n > (MAX_OPTIONS if is_command else MAX_PARAMETERS):
                many.append(f"{place(path, node)}: {n} parameters")
            elif n > MAX_PARAMETERS and len(positional) > MAX_POSITIONAL:
                many.append(f"{place(path, node)}: {len(positional)} by position")
    assert many == []


def test_every_module_and_every_public_name_has_a_docstring() -> None:
    bare = [str(p.relative_to(ROOT)) for p in SOURCES if not ast.get_docstring(parse(p))]
    bare += [
        place(path, node)
        for path in SOURCES
        for node in parse(path).body
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_") and not ast.get_docstring(node)
    ]
    assert bare == []


def test_no_name_is_vague() -> None:
    vague = [str(p.relative_to(ROOT)) for p in SOURCES if VAGUE.search(p.stem)]
    vague += [
        place(path, node)
        for path in SOURCES
        for node in ast.walk(parse(path))
        if isinstance(node, Function | ast.ClassDef) and VAGUE.search(node.name)
    ]
    assert vague == []


def test_packages_are_no_facades() -> None:
    facades = [
        place(p, node)
        for p in SOURCES
        if p.name == "__init__.py"
        for node in parse(p).body
        if isinstance(node, ast.Import | ast.ImportFrom) and getattr(node, "module", "") != "__future__"
    ]
    assert [f for f in facades if "adapters" not in f] == []


def test_no_source_names_a_place_of_one_machine() -> None:
    texts = [p for p in [*SOURCES, *(ROOT / "tests").rglob("*.py"), ROOT / "README.md"] if p != Path(__file__)]
    found = [str(p.relative_to(ROOT)) for p in texts if re.search(r"/(work|home|root)/", p.read_text(encoding="utf-8"))]
    assert found == []


def test_every_setting_is_read_somewhere() -> None:
    texts = "\n".join(p.read_text(encoding="utf-8") for p in SOURCES if not p.name.startswith("sections"))
    assert [name for name in config.KNOBS if not re.search(rf"\b{re.escape(name)}\b", texts)] == []


def test_the_dependencies_point_down() -> None:
    tool = Path(sys.executable).with_name("lint-imports")
    if not tool.exists():
        pytest.skip("import-linter is not installed; use the extra 'dev'")
    done = subprocess.run([tool, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
