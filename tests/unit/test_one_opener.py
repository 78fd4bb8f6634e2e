"""Guard that files of outside are opened in one way: by `tasks/adapters/host/outside_files.py`."""

from __future__ import annotations

import ast

from tests.structure import sources

ADVICE = (
    "A file that somebody else may have put there is read by read_outside or open_outside of tasks/adapters/host/outside_files.py:"
    " a FIFO would hang, a device never end. If the file is the program's own or the kernel's, add the module here and say why."
)
READING = {"open", "read_text", "read_bytes", "fdopen"}
ALLOWED = {
    "tasks.adapters.host.outside_files": "the opener itself",
    "tasks.adapters.host.files": "writes, locks, and opens directories; follows no link",
    "tasks.adapters.host.state": "writes new files, opens directories",
    "tasks.adapters.host.locks": "opens directories, reads /proc/locks",
    "tasks.adapters.host.journals": "locks journals; reads them through the opener",
    "tasks.adapters.host.own_directories": "opens directories, and follows no link",
    "tasks.adapters.host.tree_walk": "opens relative to directory handles, judged by fstat",
    "tasks.adapters.host.directory_copy": "makes files below a directory of its own",
    "tasks.adapters.host.processes": "writes a log",
    "tasks.adapters.host.exposure": "reads /proc",
    "tasks.adapters.host.memory_place": "reads /proc",
    "tasks.adapters.host.process_identity": "reads /proc",
    "tasks.adapters.host.virtual": "reads /proc, /sys and systemd's /run",
    "tasks.adapters.archive.extraction": "makes files below a new directory",
    "tasks.adapters.archive.segment": "opens without following links, judged by fstat",
    "tasks.adapters.archive.verification_keys": "makes and overwrites files of a directory of its own; reads them through the opener",
    "tasks.adapters.archive.writer": "makes the archive under construction",
    "tasks.adapters.engine.container_files": "reads a tar from memory",
    "tasks.adapters.machine.host_files": "opens relative to directory handles, follows no link, judged by stat",
    "tasks.adapters.machine.placing": "makes files beside their places; reads a regular one without following a link",
    "tasks.adapters.postgres.fifo": "opens a FIFO, on purpose and without waiting",
    "tasks.backup.archive": "reads a tar from Docker's stream",
    "tasks.restore.private_server": "opens a directory",
    "tasks.oversight.crashed_runs": "reads /proc",
    "tasks.watchdog": "writes a log",
    "deployments.init": "reads files of the program's own package",
    "deployments.serve": "reads files of the program's own package",
    "deployments.worker": "reads files of the program's own package",
}


def _opens(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if isinstance(called, ast.Name) and called.id == "open":
            found.append(f"line {node.lineno}: open")
        if isinstance(called, ast.Attribute) and called.attr in READING:
            found.append(f"line {node.lineno}: {ast.unparse(called)}")
    return found


def test_nobody_else_opens_files() -> None:
    found = {name: _opens(path.read_text()) for name, path in sources().items()}
    breaches = {name: lines for name, lines in found.items() if lines and name not in ALLOWED}

    assert not breaches, f"{breaches}\n{ADVICE}"
    assert {name for name, lines in found.items() if lines} >= ALLOWED.keys(), "take away what opens nothing any more"


def test_a_breach_is_found() -> None:
    for line in ("open('x')", "os.open(path, 0)", "Path('x').read_text()", "place.open()", "tarfile.open(x)"):
        assert _opens(line)
