"""Programs that tests write as text import what exists: no type checker reads them, and some run only with a Docker engine."""

from __future__ import annotations

import ast
import importlib
import re

import pytest

from tests.structure import ROOT

IMPORT = re.compile(r"^\s*from ((?:tasks|flows|deployments|tests)(?:\.\w+)*) import (\w+(?:, \w+)*)\s*$", re.MULTILINE)


def imports_in_strings(text: str) -> set[tuple[str, str]]:
    """Find what the string constants of a module's text import from the project, as module and name."""
    texts = (node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant))
    return {
        (module, name)
        for text in texts
        if isinstance(text, str)
        for module, names in IMPORT.findall(text)
        for name in names.split(", ")
    }


def missing(module: str, name: str) -> bool:
    try:
        return not hasattr(importlib.import_module(module), name) and not importlib.import_module(f"{module}.{name}")
    except ModuleNotFoundError:
        return True


def test_what_they_import_exists() -> None:
    found = {
        (path.name, *imported)
        for path in (ROOT / "tests").rglob("*.py")
        if path.name != "test_programs_in_strings.py"
        for imported in imports_in_strings(path.read_text())
    }

    assert len(found) > 5
    assert not [each for each in sorted(found) if missing(*each[1:])]


@pytest.mark.parametrize("line", ["from tasks.attic import trunk", "from tasks.step import trunk"])
def test_one_that_does_not_is_found(line: str) -> None:
    (imported,) = imports_in_strings(f'program = f"""\n    {line}\n    print({{1}})\n"""')

    assert missing(*imported)
