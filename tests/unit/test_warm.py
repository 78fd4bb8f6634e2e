"""The tests start the program warm, also after they have imported all of it."""

from __future__ import annotations

import os

import pytest

import deployments.cli.program
from tests import warm
from tests.cli import PROGRAM, run_program


def test_a_program_imported_here_is_started_warm_all_the_same() -> None:
    assert deployments.cli.program.app is not None
    assert warm.can_be_warm(os.environ)


def test_what_prefect_reads_at_its_start_wants_a_cold_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", "/elsewhere")

    assert not warm.can_be_warm(os.environ)


def test_a_warm_program_ends_as_a_cold_one() -> None:
    """Its exit code, its answer and its errors are those of a process of its own."""
    code, stdout, stderr = run_program(
        [PROGRAM, "restore", "nothing", "--directory", "/nonexistent", "--json", "--yes"]
    )

    assert code == 2
    assert '"exit_code": 2' in stdout
    assert stderr.startswith("error: ")
