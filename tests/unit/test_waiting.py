"""Tests wait for what they mean, with a deadline: a pause is too short on a busy machine and too long on every other."""

from __future__ import annotations

import ast
from pathlib import Path

TESTS = Path(__file__).parents[1]
# Where a pause is what is meant.
PAUSES = {
    "stack/stack.py": "`wait_until` itself",
    "prefect_server.py": "asks a server again, with a deadline",
    "links.py": "carries bytes at a rate",
    "stack/images/app/standin.py": "works at a rate, as the application does",
    "benchmarks/operation.py": "measures at intervals",
    "benchmarks/measure.py": "measures at intervals",
    "campaigns/copies.py": "breaks copies off at random moments",
    "campaigns/chains.py": "kills at random moments",
    "campaigns/kills.py": "kills at random moments",
    "campaigns/guests.py": "kills at random moments",
    "campaigns/proxmox.py": "kills at random moments",
    "integration/test_proxmox_verification.py": "in which an account that is enabled is logged in to",
    "campaigns/soak.py": "threads delayed at random",
    "integration/test_archive.py": "kills at random moments",
    "integration/test_never_left_down.py": "kills at random moments",
    "unit/test_interruption.py": "lets a signal arrive that is on its way",
    "end_to_end/test_prefect_dies.py": "an outage has a length",
    "end_to_end/test_prefect_deployments.py": "reads a program's output as it comes",
}


def test_nothing_else_sleeps() -> None:
    """A test that sleeps hopes; `wait_until` asks, and says what did not come."""
    sleepers = {
        str(path.relative_to(TESTS))
        for path in TESTS.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("time.sleep", "sleep")
    }

    assert sleepers <= PAUSES.keys(), "wait for what you mean: `wait_until` in tests/stack/stack.py"
