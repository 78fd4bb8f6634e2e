"""The program's shape, read off its imports: which wing a module lives in, what it imports, and which imports the house forbids.

    python -m tests.structure

prints the wings, from how many of them a restore and a verification are made, and the sizes of the modules.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]
FOLDERS = ("tasks", "flows", "deployments")

# From the bottom up: a module imports from its own wing and from those before it.
WINGS = (
    "tasks.core",
    "tasks.core.archive",
    "tasks.core.dump",
    "tasks.core.policy",
    "tasks.core.copies",
    "tasks.core.proxmox",
    "tasks.core.guests",
    "tasks.core.stack",
    "tasks.core.report",
    "tasks.core.machine",
    "tasks.adapters.host",
    "tasks.adapters.engine",
    "tasks.adapters.archive",
    "tasks.adapters.copies",
    "tasks.adapters.proxmox",
    "tasks.adapters.guests",
    "tasks.adapters.postgres",
    "tasks.adapters.machine",
    "tasks.adapters.stack",
    "tasks.adapters.outbox",
    "tasks",
    "tasks.recovery",
    "tasks.run",
    "tasks.copies",
    "tasks.proxmox",
    "tasks.backup",
    "tasks.restore",
    "tasks.guests",
    "tasks.machine",
    "tasks.rewrite",
    "tasks.verification",
    "tasks.oversight",
    "tasks.upgrade",
    "tasks.watchdog",
    "flows",
    "deployments",
    "deployments.cli",
)
# A program that the steps start by its name, and which starts their settling: above them, though it lies beside them.
PROGRAMS = {"tasks.watchdog"}
SIBLINGS = ("tasks.backup", "tasks.restore")
DOORS = {
    "docker": "tasks.adapters.engine.",
    "proxmoxer": "tasks.adapters.proxmox.session",
    "psycopg": "tasks.adapters.postgres.session",
    "subprocess": "tasks.adapters.host.processes",
}
BELOW_PREFECT = ("tasks.core", "tasks.adapters")

Imports = Mapping[str, Collection[str]]


def sources() -> dict[str, Path]:
    """Find the program's modules by their dotted names."""
    found = {}
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_in(text: str) -> list[str]:
    """List what a module's text imports, wherever it does; a name from a module stands as `module.name`.

    >>> imports_in("from tasks.core import errors\\nimport os")
    ['tasks.core.errors', 'os']
    """
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names]
    return found


def read_imports() -> dict[str, list[str]]:
    """Read what each module of the program imports."""
    return {name: imports_in(path.read_text()) for name, path in sources().items()}


def module_of(imported: str, modules: Collection[str]) -> str | None:
    """Name the module of ours that an import reaches; None for anybody else's."""
    while imported:
        if imported in modules:
            return imported
        imported = imported.rpartition(".")[0]
    return None


def wing_of(module: str) -> str:
    """Name the wing of a module: its folder, or the module itself where it is a wing of its own.

    >>> wing_of("tasks.core.dump.sql")
    'tasks.core.dump'
    """
    if module in PROGRAMS or module in WINGS:
        return module
    return module.rpartition(".")[0]


def unplaced(imports: Imports) -> list[str]:
    """Find modules that live in no wing."""
    return [
        f"{module} lives in no wing"
        for module in imports
        if wing_of(module) not in WINGS and "." in module and module != "tasks.adapters"
    ]


def upward(imports: Imports) -> list[str]:
    """Find imports of a wing further up."""
    breaches = []
    for module, reached in _edges(imports):
        mine, theirs = wing_of(module), wing_of(reached)
        if reached == "tasks" or mine not in WINGS or theirs not in WINGS:
            continue  # the package itself only tells where it lies
        if WINGS.index(theirs) > WINGS.index(mine):
            breaches.append(f"{module} imports {reached}, and {theirs} stands above {mine}")
    return breaches


def between_siblings(imports: Imports) -> list[str]:
    """Find imports between backup and restore."""
    return [
        f"{module} imports {reached}: siblings never do"
        for module, reached in _edges(imports)
        if {wing_of(module), wing_of(reached)} == set(SIBLINGS)
    ]


def circles(imports: Imports) -> list[str]:
    """Find modules that import each other, over however many others; what a function imports when called counts too."""
    edges: dict[str, set[str]] = {}
    for module, reached in _edges(imports):
        edges.setdefault(module, set()).add(reached)
    done: set[str] = set()
    found = []

    def follow(module: str, way: tuple[str, ...]) -> None:
        if module in way:
            found.append(" -> ".join([*way[way.index(module) :], module]))
        elif module not in done:
            for each in sorted(edges.get(module, ())):
                follow(each, (*way, module))
            done.add(module)

    for module in sorted(edges):
        follow(module, ())
    return found


def prefect_below(imports: Imports) -> list[str]:
    """Find imports of Prefect in the core and the adapters."""
    return [
        f"{module} imports {imported}: Prefect stays above {' and '.join(BELOW_PREFECT)}"
        for module, found in imports.items()
        for imported in found
        if imported.partition(".")[0] == "prefect" and module.startswith(BELOW_PREFECT)
    ]


def past_the_door(imports: Imports) -> list[str]:
    """Find imports of a foreign thing outside the one place that knows it."""
    return [
        f"{module} imports {imported}: only {DOORS[foreign].rstrip('.')} does; add a function there, in our words"
        for module, found in imports.items()
        for imported in found
        if (foreign := imported.partition(".")[0]) in DOORS and not module.startswith(DOORS[foreign])
    ]


def relative(imports: Imports) -> list[str]:
    """Find relative imports, which do not work in a Prefect worker."""
    return [
        f"{module} imports {imported}: relative imports do not work in a Prefect worker"
        for module, found in imports.items()
        for imported in found
        if imported.startswith(".")
    ]


RULES = (unplaced, upward, between_siblings, circles, prefect_below, past_the_door, relative)


def wings_crossed(start: str, imports: Imports) -> list[str]:
    """List the wings of a flow's own steps: those of `tasks` (not its core, nor adapters) that it reaches, and how deep it goes."""
    reached, todo = set(), [start]
    edges: dict[str, set[str]] = {}
    for module, other in _edges(imports):
        edges.setdefault(module, set()).add(other)
    while todo:
        module = todo.pop()
        for each in edges.get(module, ()):
            if each not in reached:
                reached.add(each)
                todo.append(each)
    wings = {wing_of(each) for each in reached}
    return [
        each for each in WINGS if each in wings and each.startswith("tasks.") and not each.startswith(BELOW_PREFECT)
    ]


def _edges(imports: Imports) -> Iterable[tuple[str, str]]:
    for module, found in imports.items():
        for imported in found:
            reached = module_of(imported, imports.keys())
            if reached is not None and reached != module:
                yield module, reached


def main(arguments: Sequence[str]) -> int:
    """Print the shape and what is wrong with it; the exit code tells whether anything is."""
    imports = read_imports()
    lines = {name: len(path.read_text().splitlines()) for name, path in sources().items() if path.name != "__init__.py"}
    for wing in WINGS:
        inside = [name for name in lines if wing_of(name) == wing]
        if inside:
            print(f"{wing:26}{len(inside):4} modules, {sum(lines[each] for each in inside):6} lines")
    print(
        f"median module: {median(lines.values()):g} lines; longest: {', '.join(f'{name} {count}' for name, count in sorted(lines.items(), key=lambda each: -each[1])[:5])}"
    )
    for flow in ("full_restore", "sql_dump_restore", "restore_verification"):
        crossed = wings_crossed(f"flows.{flow}", imports)
        print(f"{flow} crosses {len(crossed)} wings: {', '.join(crossed)}")
    wrong = [each for rule in RULES for each in rule(imports)]
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
