"""The recovery key is tried each year: overdue is told, measured from the last drill or from the first archive encrypted to it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tasks.core.policy.drill import DrillState, drill_problem, recipients_digest

NOW = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("since_days", "drilled_days", "within", "words"),
    [
        (10, None, 365, ""),
        (365, None, 365, ""),
        (366, None, 365, "never drilled"),
        (900, 100, 365, ""),
        (900, 366, 365, "last drilled"),
        (900, None, 0, ""),
        (8, None, 7, "never drilled"),
    ],
)
def test_when_a_drill_is_overdue(since_days: int, drilled_days: int | None, within: int, words: str) -> None:
    drilled = NOW - timedelta(days=drilled_days) if drilled_days is not None else None
    told = drill_problem(DrillState("x", NOW - timedelta(days=since_days), drilled), within_days=within, now=NOW)
    assert (words in told) if words else (told == "")
    assert not told or "--with-recovery-key" in told


def test_recipients_are_the_same_in_any_order() -> None:
    assert recipients_digest(["a", "b"]) == recipients_digest(["b", "a", "b"])
    assert recipients_digest(["a"]) != recipients_digest(["a", "b"])
