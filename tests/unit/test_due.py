"""What the automated backup decides: is a scheduled run still wanted, is a verification due, which backup is verified next."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tasks.core.archive.manifest import DatabaseFacts, Manifest, Method, Record, Verdict, Verification
from tasks.core.policy.due import already_done, stalest, verification_due
from tasks.core.policy.history import Entry, last_backup_failed, parse_history
from tasks.core.policy.retention import Candidate
from tasks.core.policy.settings import Alarms
from tasks.core.policy.settings import VerificationPolicy as Policy
from tasks.core.policy.status import judge

NOW = datetime(2026, 6, 30, 12, 0, tzinfo=UTC)
DATABASE = DatabaseFacts(
    name="m", owner="m", encoding="UTF8", collation="C", character_type="C", server_version="17.1", server_major=17
)


def record(hours: float, *, verdict: Verdict | None = None, method: Method = "hot", size: int = 100) -> Record:
    """Make the record of a backup of so many hours ago."""
    at = NOW - timedelta(hours=hours)
    manifest = Manifest(
        version=1, name=f"b{hours:g}", method=method, format="guide", installation="main", project="p", created_at=at,
        database=DATABASE, images=[], members=[],
    )  # fmt: skip
    verification = verdict and Verification(
        verdict=verdict, at=at + timedelta(hours=1), archive_sha256="a", rows=1, tables=1, attachments=1,
        differences=["a row"] if verdict == "different" else [], restore_seconds=42, seconds=50,
    )  # fmt: skip
    return Record(
        file=f"b{hours:g}.tar.gz", bytes=size, sha256="a", seconds=1, manifest=manifest, verification=verification
    )


def test_after_three_nights_without_power_one_backup_is_made() -> None:
    """The three missed runs come one after another; the first makes a backup, which the other two find."""
    missed = [NOW - timedelta(hours=hours) for hours in (56, 32, 8)]

    assert already_done([record(80)], "hot", missed[0]) is None
    made = [record(0.1), record(80)]
    assert [already_done(made, "hot", at) for at in missed[1:]] == [made[0], made[0]]
    assert already_done(made, "hot", NOW + timedelta(hours=1)) is None
    assert already_done(made, "complete", missed[1]) is None
    assert already_done(made, "hot", None) is None


@pytest.mark.parametrize(
    ("records", "every", "due"),
    [
        ([], 1, False),
        ([record(1)], 1, True),
        ([record(1, verdict="verified"), record(2)], 1, False),
        ([record(1), record(2, verdict="verified")], 2, False),
        ([record(1), record(2), record(3, verdict="different")], 2, True),
        ([record(1), record(2)], 3, False),
    ],
)
def test_each_nth_backup_is_verified(records: list[Record], every: int, due: bool) -> None:
    assert verification_due(records, Policy(every=every)) is due


def test_other_policies_verify_nothing_after_a_backup() -> None:
    assert not verification_due([record(1)], Policy(when="on_schedule"))
    assert not verification_due([record(1)], Policy(when="never"))


def test_the_drill_takes_what_was_verified_longest_ago() -> None:
    assert stalest([]) is None
    history = [record(1, verdict="verified"), record(2), record(3, verdict="verified"), record(4)]
    assert stalest(history) == history[3]
    assert stalest([history[0], history[2]]) == history[2]


def test_a_failed_backup_is_remembered_until_one_succeeds_and_busy_says_nothing() -> None:
    def entry(run: str, outcome: str) -> Entry:
        return Entry.model_validate({"run": run, "at": NOW, "seconds": 1, "outcome": outcome})

    failed, good, busy = entry("hot backup", "failed"), entry("online backup", "succeeded"), entry("hot backup", "busy")
    assert last_backup_failed([good, failed]) == failed
    assert last_backup_failed([good, failed, busy]) == failed
    assert last_backup_failed([failed, good, busy, entry("prune", "failed")]) is None
    assert last_backup_failed([]) is None


def test_a_line_cut_by_a_crash_is_passed_over() -> None:
    line = Entry(run="prune", at=NOW, seconds=1, outcome="succeeded").model_dump_json()

    assert len(parse_history([line, line[:30], "", line])) == 2


def status_of(
    records: list[Record], *, free: int = 10_000, minimum_free_bytes: int = 0, last_failure: str = ""
) -> list[str]:
    candidates = [Candidate(each.manifest.name, each.manifest.created_at, "verified") for each in records]
    status = judge(
        "main", records, candidates, Alarms(), now=NOW, free_bytes=free, minimum_free_bytes=minimum_free_bytes,
        shrink_limit_percent=20, last_failure=last_failure,
    )  # fmt: skip
    assert str(status).startswith("main: ")
    return [f"{problem.kind}: {problem.text}" for problem in status.problems]


def test_what_is_wrong_is_said() -> None:
    assert status_of([record(1, verdict="verified")]) == []
    assert status_of([]) == ["overdue: there is no backup at all", "overdue: there is no verified backup at all"]
    assert status_of([record(31), record(199, verdict="verified")]) == [
        "overdue: the newest backup is 31 h 0 min old; at most 30 hours were asked for"
    ]
    assert "the newest verified backup is 8 d 9 h old" in status_of([record(1), record(201, verdict="verified")])[0]
    assert status_of([record(1, verdict="different")]) == ["verification: b1.tar.gz is different: a row"]
    # A later backup that was not verified yet makes nothing good; one that was does.
    assert status_of([record(1), record(9, verdict="different")]) == ["verification: b9.tar.gz is different: a row"]
    assert status_of([record(1, verdict="verified"), record(9, verdict="different")]) == []
    assert status_of([record(1)], last_failure="the last hot backup failed") == ["failure: the last hot backup failed"]
    assert status_of([record(1, size=6000)], minimum_free_bytes=5000)[0].startswith(
        "space: 10.0 kB are free where 11.0 kB"
    )


def test_a_new_installation_has_time_for_its_first_verification() -> None:
    assert status_of([record(1), record(20)]) == []
    assert status_of([record(1), record(201)]) == ["overdue: there is no verified backup at all"]
