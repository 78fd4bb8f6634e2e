"""The examples in docstrings are true."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def modules_with_examples() -> list[str]:
    """List every module of the program with an example in it, and every one of the core."""
    return sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for folder in ("tasks", "flows", "deployments")
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "__init__.py" and ("core" in path.relative_to(ROOT).parts or ">>> " in path.read_text())
    )


@pytest.mark.parametrize("module", modules_with_examples())
def test_examples_in_docstrings_hold(module: str) -> None:
    """What a docstring shows is what happens; and a module of the core can be imported where there is no Docker."""
    found = doctest.testmod(importlib.import_module(module))

    assert found.failed == 0, f"{found.failed} of {found.attempted} examples in {module} do not hold"


def test_examples_are_found() -> None:
    """A change of the layout must not leave the examples untried."""
    shown = sum(path.read_text().count(">>> ") for path in (ROOT / "tasks").rglob("*.py"))
    tried = sum(
        len(test.examples)
        for module in modules_with_examples()
        for test in doctest.DocTestFinder().find(importlib.import_module(module))
    )

    assert tried == shown > 20
