"""The failure of a run over several guests."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tasks.core.errors import BackupError, Refused, UsageError
from tasks.core.guests.failed import GuestsFailed


@dataclass(frozen=True)
class Run:
    """What was done at a guest."""

    name: str
    error: BackupError | None = None


BUSY = UsageError("no guest 9", hint="look at its number")
DOWN = Refused("guest 7 is locked", hint="wait for its migration")


@pytest.mark.parametrize(
    ("runs", "exit_code"),
    [
        # One error alone is what the command ends with; where something was done, it is a failure like any other.
        ([Run("9", BUSY)], 2),
        ([Run("9", BUSY), Run("7", DOWN)], 2),
        ([Run("1"), Run("9", BUSY)], 1),
    ],
)
def test_it_says_all_that_failed_and_ends_as_the_first_where_nothing_was_done(runs: list[Run], exit_code: int) -> None:
    failed = GuestsFailed(runs)

    assert (failed.exit_code, failed.hint, failed.runs) == (exit_code, "look at its number", tuple(runs))
    assert failed.message == "; ".join(each.error.message for each in runs if each.error)
