"""A test that guards the shape: which way imports may point."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
ADVICE = """
Imports point one way: deployments -> flows -> tasks/*.py -> tasks.adapters -> tasks.core.
Decisions without disk, clock, network or Prefect live in tasks/core; one foreign thing each in tasks/adapters; what Prefect shows as a
step in tasks/*.py; the order of steps in flows. If you need something from a higher layer, pass it in as an argument, or move the decision down.
"""
LAYERS = ("tasks.core", "tasks.adapters", "tasks", "flows", "deployments")
ONE_DOOR = {
    "docker": {"tasks/adapters/engine/docker_engine.py"},
    "psycopg": {"tasks/adapters/postgres/session.py"},
    "subprocess": {"tasks/adapters/host/processes.py"},
}


def layer_of(module: str) -> int | None:
    for number, name in enumerate(LAYERS):
        if name == "tasks" and (module.startswith(("tasks.core", "tasks.adapters"))):
            continue
        if module == name or module.startswith(f"{name}."):
            return number
    return None


def imports_of(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports do not work in a Prefect worker"
            assert node.module is not None
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return found


def sources() -> list[Path]:
    return [path for folder in ("tasks", "flows", "deployments") for path in sorted((ROOT / folder).rglob("*.py"))]


def test_imports_point_downwards() -> None:
    breaches = []
    for path in sources():
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        mine = layer_of(module)
        assert mine is not None
        for imported in imports_of(path):
            theirs = layer_of(imported)
            if (
                imported != "tasks" and theirs is not None and theirs > mine
            ):  # the package itself only tells where it lies
                breaches.append(f"{module} imports {imported}")

    assert not breaches, f"{breaches}\n{ADVICE}"


def test_prefect_stays_above_core_and_adapters() -> None:
    breaches = [
        f"{path.relative_to(ROOT)} imports {imported}"
        for path in sources()
        if path.parts[-2] in ("core", "adapters")
        for imported in imports_of(path)
        if imported.split(".")[0] == "prefect"
    ]

    assert not breaches, f"{breaches}\n{ADVICE}"


def test_each_foreign_thing_has_one_door() -> None:
    breaches = [
        f"{path.relative_to(ROOT)} imports {imported}"
        for path in sources()
        for imported in imports_of(path)
        if imported.split(".")[0] in ONE_DOOR and str(path.relative_to(ROOT)) not in ONE_DOOR[imported.split(".")[0]]
    ]

    assert not breaches, (
        f"{breaches}\nEach of {', '.join(ONE_DOOR)} is imported by one module; add a function there, in our words."
    )
