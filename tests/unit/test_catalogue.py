"""The catalogue says of every backup what it is, whether it is proven, and whether it stays."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tasks.core.archive.manifest import Record
from tasks.core.policy.retention import Decision, RetentionPlan
from tasks.core.report.catalogue import CatalogueLine, Listed, catalogue
from tests.unit.values import NOW, record


def line_of(found: Record | None, *decisions: Decision, name: str = "b") -> CatalogueLine:
    """Write the line of one backup."""
    created = found.manifest.created_at if found else None
    listed = Listed(name, "/srv/backups/b.tar.gz", 1_500_000, created, found)
    return catalogue([listed], RetentionPlan(decisions), now=NOW)[0]


def test_a_verified_backup() -> None:
    """Everything is text for people."""
    found = record(25, verdict="verified", method="complete", downtime_seconds=90)

    assert line_of(found, Decision("b", True, ("the newest", "of the last 7 days"))) == CatalogueLine(
        backup="b", method="complete, guide", age="25 h 0 min", size="1.5 MB", verdict="verified", took="1.0 s", downtime="1 min 30 s",
        location="/srv/backups/b.tar.gz", kept="the newest; of the last 7 days",
    )  # fmt: skip


def test_a_legacy_archive_has_a_line_too() -> None:
    """Nothing is known of it but its file, and that is what is said."""
    found = line_of(None)

    assert (found.method, found.age, found.verdict, found.took) == ("legacy", "unknown", "not verified", "")
    assert (found.downtime, found.kept) == ("none", "not considered")


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (record(), "not verified"),
        (record(verdict="verified", verified_sha="of other bytes"), "not verified"),
        (record(verdict="different"), "different"),
        (record(verdict="failed"), "failed"),
    ],
)
def test_only_what_is_proven_of_these_bytes_is_called_verified(found: Record, verdict: str) -> None:
    """P5, as people see it."""
    assert line_of(found).verdict == verdict


def test_what_goes_says_so_with_the_reason() -> None:
    """A decision is that of the backup's own name."""
    decisions = (Decision("other", True, ("the newest",)), Decision("b", False, ("no rule keeps it",)))

    assert line_of(record(), *decisions).kept == "goes: no rule keeps it"
    assert line_of(record(), *decisions, name="other").kept == "the newest"
    assert line_of(record(), *decisions, name="third").kept == "not considered"


def test_lines_keep_their_order_and_an_age_may_lie_ahead() -> None:
    """A clock that was wrong is seen, not hidden."""
    ahead = Listed("ahead", "", 0, NOW + timedelta(hours=3), None)
    lines = catalogue([ahead, Listed("old", "", 0, NOW - timedelta(days=3), None)], RetentionPlan(()), now=NOW)

    assert [(line.backup, line.age) for line in lines] == [("ahead", "-3 h 0 min"), ("old", "3 d 0 h")]
