"""The status tells what a bad day would cost, and what is wrong before that day."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tasks.core.archive.manifest import Record
from tasks.core.policy.retention import Candidate
from tasks.core.policy.settings import Alarms
from tasks.core.policy.status import Status, judge
from tests.unit.values import NOW, record


def status_of(records: list[Record], *, candidates: list[Candidate] | None = None, **facts: Any) -> Status:
    """Judge backups with much room and no other problem."""
    ordinary: dict[str, Any] = {"now": NOW, "free_bytes": 10**9, "minimum_free_bytes": 0, "shrink_limit_percent": 20}
    return judge("main", records, candidates or [], facts.pop("alarms", Alarms()), **(ordinary | facts))


def told(status: Status) -> list[str]:
    """Give the problems' texts."""
    return [each.text for each in status.problems]


def test_rto_and_rpo_are_of_the_newest_verified_backup() -> None:
    """Measured, not hoped: a newer backup that nobody has restored changes neither."""
    status = status_of([record(2), record(26, verdict="verified"), record(50, verdict="verified")])

    assert (status.rto_seconds, status.rpo_seconds) == (42, 26 * 3600)
    assert status.backups == 3
    assert str(status).splitlines() == [
        "main: a restore takes 42.0 s (RTO, measured) and brings back everything up to 26 h 0 min ago (RPO)",
        "3 backups; newest 2 h 0 min ago, newest verified 26 h 0 min ago; 1.0 GB free",
    ]


def test_without_a_verified_backup_nothing_is_promised() -> None:
    """A verdict on other bytes is none."""
    for records in ([], [record(1)], [record(1, verdict="verified", verified_sha="of other bytes")]):
        status = status_of(records)
        assert (status.rto_seconds, status.rpo_seconds) == (None, None)
        assert "no verified backup" in str(status).splitlines()[0]
        assert "newest verified never" in str(status)


def test_one_backup_is_one() -> None:
    """Words for people."""
    assert "1 backup;" in str(status_of([record(1)]))
    assert "0 backups; newest never" in str(status_of([]))


@pytest.mark.parametrize(("hours", "overdue"), [(30, False), (30.01, True), (-5, False)])
def test_a_backup_is_overdue_once_the_asked_hours_have_passed(hours: float, overdue: bool) -> None:
    """The last minute counts; a backup dated ahead is another problem."""
    alarms = Alarms(backup_within_hours=30, verified_within_hours=1000)
    found = status_of([record(hours, verdict="verified")], alarms=alarms).problems

    assert [each.kind for each in found] == (["overdue"] if overdue else [])


def test_a_shrink_is_told_until_the_content_is_back() -> None:
    """Only the newest of many is told."""
    history = [
        Candidate(f"b{age}", NOW - timedelta(days=age), "verified", rows=rows)
        for age, rows in ((9, 1000), (2, 10), (1, 9))
    ]
    verified = [record(1, verdict="verified")]

    assert told(status_of(verified, candidates=history)) == ["b1 holds 9 rows where b9 held 1,000 (99 % less)"]
    back = Candidate("b0", NOW, "verified", rows=1000)
    assert told(status_of(verified, candidates=[*history, back])) == []


@pytest.mark.parametrize(
    ("free", "minimum", "below", "wanted"),
    [(2000, 0, 0, ""), (999, 0, 0, "1.0 kB"), (1499, 500, 0, "1.5 kB"), (4999, 0, 5000, "5.0 kB")],
)
def test_room_is_wanted_for_one_more_backup_of_the_size(free: int, minimum: int, below: int, wanted: str) -> None:
    """Besides what must stay free, or what the alarm asks for where that is more."""
    status = status_of(
        [record(1, verdict="verified", size=1000)], free_bytes=free, minimum_free_bytes=minimum,
        alarms=Alarms(free_below_bytes=below),
    )  # fmt: skip

    assert [each.kind for each in status.problems] == (["space"] if wanted else [])
    assert all(f"{wanted} are wanted" in text for text in told(status))


def test_everything_wrong_is_told_at_once_the_overdue_first() -> None:
    """Nobody repairs a night one message at a time."""
    status = status_of([record(300, verdict="different")], last_failure="it failed", free_bytes=0)

    assert [each.kind for each in status.problems] == ["overdue", "overdue", "failure", "verification", "space"]
    assert str(status).splitlines()[2:] == [f"{each.kind.upper()}: {each.text}" for each in status.problems]
