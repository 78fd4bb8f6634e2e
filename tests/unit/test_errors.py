"""Errors: what is, what to try, and the exit code that scripts rely on."""

from __future__ import annotations

import pytest

from tasks.core import errors


@pytest.mark.parametrize(
    ("kind", "exit_code"),
    [
        (errors.BackupError, 1),
        (errors.UsageError, 2),
        (errors.Refused, 1),
        (errors.ArchiveDamaged, 1),
        (errors.Busy, 75),
        (errors.ProgramFailed, 1),
    ],
)
def test_each_kind_has_its_exit_code(kind: type[errors.BackupError], exit_code: int) -> None:
    """0 is proven success, 1 failure, 2 wrong usage or settings, 75 busy; nothing is retried unless it says so."""
    error = kind("the disk is full", hint="make room")

    assert (error.exit_code, error.transient) == (exit_code, False)
    assert str(error) == "the disk is full\nHINT: make room"
    assert str(kind("the disk is full")) == "the disk is full"
    assert kind("not yet", transient=True).transient


def test_a_damaged_archive_is_a_refusal_and_a_taken_name_too() -> None:
    """Who catches refusals catches these."""
    assert issubclass(errors.ArchiveDamaged, errors.Refused)
    assert issubclass(errors.NameTaken, errors.Refused)


def test_a_failed_program_keeps_what_it_said() -> None:
    """The command, its exit code and its last words are there for the log."""
    error = errors.ProgramFailed("pg_dump failed", command=("pg_dump", "-Fc"), exit_code_seen=1, stderr="no such table")

    assert (error.command, error.exit_code_seen, error.stderr) == (("pg_dump", "-Fc"), 1, "no such table")
