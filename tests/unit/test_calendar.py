"""The calendar of nights tells at a glance which nights are proven, and hides none."""

from __future__ import annotations

from datetime import timedelta

from tasks.core.policy.history import Entry
from tasks.core.report.calendar import Night, nights
from tests.unit.values import NOW, record


def failed(days: float) -> Entry:
    return Entry(run="hot backup", at=NOW - timedelta(days=days), seconds=1, outcome="failed", message="no")


def test_each_night_has_its_colour() -> None:
    records = [
        record(24, verdict="verified"),
        record(48),
        record(72, verdict="different"),
        record(120, verdict="verified"),
    ]
    found = nights(records, [failed(6)], now=NOW, is_daily=True, days=9)

    assert [each.colour for each in found] == ["none", "none", "red", "green", "red", "red", "yellow", "green", "none"]
    assert [each.why.rpartition(": ")[2] for each in found[2:8]] == [
        "hot backup failed",
        "verified",
        "no backup",
        "different",
        "not verified",
        "verified",
    ]
    assert found[-1] == Night(NOW.date(), "none", "")


def test_a_second_backup_of_a_day_makes_it_good() -> None:
    found = nights(
        [record(1, verdict="verified"), record(2, verdict="failed")], [failed(0)], now=NOW, is_daily=True, days=1
    )

    assert [each.colour for each in found] == ["green"]


def test_a_proven_night_that_is_not_kept_as_asked_is_yellow() -> None:
    found = nights([record(1, verdict="verified")], [], now=NOW, is_daily=True, is_kept=lambda _: False, days=1)

    assert [each.colour for each in found] == ["yellow"]


def test_where_no_backup_is_wanted_each_day_none_is_missed() -> None:
    found = nights([record(72, verdict="verified")], [], now=NOW, is_daily=False, days=4)

    assert [each.colour for each in found] == ["green", "none", "none", "none"]
