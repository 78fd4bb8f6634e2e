"""What copies decide: how archives are divided, what is sent and what goes, and what is wrong at a target."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.archive.manifest import Record
from tasks.core.copies.judge import SeenCopies, copy_counts_of, copy_problems, is_kept, require_problems, wipeable
from tasks.core.copies.parts import PARTS_MAXIMUM, RemoteFile, is_whole, parts_of, stored_backups
from tasks.core.copies.plan import plan_removal, plan_sending
from tasks.core.copies.rclone_words import fault_of, last_words, secrets_in, without_secrets
from tasks.core.copies.state import CopyEntry, TargetState, due_for_reading
from tasks.core.policy.copy_counts import SystemPlace
from tasks.core.policy.retention import Candidate
from tasks.core.policy.settings import CopyTarget, Require, Retention
from tests.unit.values import NOW, record

NAME = "mailarchiver-backup-20260301-020005"
AWAY = CopyTarget(name="away", remote="away:mail", off_site=True)


def entry(of: Record, **changes: object) -> CopyEntry:
    """Make the memory of a copy that arrived an hour after its backup."""
    at = of.manifest.created_at
    ordinary = {
        "file": of.file,
        "bytes": of.bytes,
        "sha256": of.sha256,
        "created_at": at,
        "copied_at": at + timedelta(hours=1),
    }
    return CopyEntry.model_validate(ordinary | changes)


def seen(*entries: CopyEntry, target: CopyTarget = AWAY, **state: object) -> SeenCopies:
    """Make a target with these copies."""
    copies = {each.file.removesuffix(".tar.gz"): each for each in entries}
    return SeenCopies(target, TargetState.model_validate({"copies": copies} | state))


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 2**36) | st.integers(2**43, 2**44), st.integers(2**20, 2**32), st.booleans())
def test_parts_cover_an_archive_and_are_found_again(size: int, part_bytes: int, locked: bool) -> None:
    """Whatever the sizes: no byte twice, none left out, and a listing in any order gives them back."""
    parts = parts_of(f"{NAME}.tar.gz", size, part_bytes, locked=locked)
    ends = [each.offset + each.bytes for each in parts]
    assert [each.offset for each in parts] == [0, *ends[:-1]]
    assert ends[-1] == size
    assert len(parts) <= PARTS_MAXIMUM
    (stored,) = stored_backups(RemoteFile(each.name, each.bytes) for each in reversed(parts)).values()
    assert is_whole(stored, f"{NAME}.tar.gz", size)
    assert not is_whole(stored, f"{NAME}.tar.zst", size)


def test_a_gap_between_parts_is_no_archive() -> None:
    files = [RemoteFile(each.name, each.bytes) for each in parts_of(f"{NAME}.tar.gz", 30, 10)]
    for gone in files:
        (stored,) = stored_backups([each for each in files if each != gone]).values()
        assert not is_whole(stored, f"{NAME}.tar.gz", 30)
    assert stored_backups([RemoteFile("else.tar.gz", 3), RemoteFile(".mailarchiver-backup-target", 3)]) == {}


def test_what_rclone_had_begun_of_a_record_goes_with_its_copy() -> None:
    record = RemoteFile(f"{NAME}.manifest.json", 9)
    begun = RemoteFile(f"{NAME}.manifest.json.0a1b2c3d.partial", 4)
    foreign = RemoteFile("else.manifest.json.0a1b2c3d.partial", 4)
    (stored,) = stored_backups([record, begun, foreign]).values()
    assert (stored.record, stored.others) == (record, (begun,))


def candidates(*days: float, proof: str = "verified") -> list[Candidate]:
    return [Candidate(f"b{day:g}", NOW - timedelta(days=day), proof) for day in days]  # type: ignore[arg-type]


def test_only_what_the_targets_own_retention_keeps_is_sent_the_newest_first() -> None:
    """What would be removed again is not worth the way; nor is what a verification has refuted, or another's."""
    keeps = Retention(keep_last=3, minimum_verified=1)
    local = [
        *candidates(0, 1, 2, 3, 4),
        Candidate("foreign", NOW, foreign="another's"),
        *candidates(0.5, proof="refuted"),
    ]

    assert plan_sending(local, [], keeps, now=NOW, whole=()).send == ("b0", "b1")
    assert plan_sending(local, candidates(0), keeps, now=NOW, whole={"b0"}).send == ("b1",)


def test_what_the_repository_no_longer_has_stays_at_a_target_that_keeps_it_longer() -> None:
    there = candidates(*range(40))
    keeps = Retention(keep_days=30, minimum_verified=3)
    plan = plan_removal(there, candidates(0, 1), keeps, now=NOW, whole=[each.name for each in there], locked=("b35",))

    assert set(plan.removed) == {f"b{day}" for day in range(31, 40)} - {"b35"}
    assert {each.reasons for each in plan.decisions if each.name == "b35"} == {("it is locked there",)}


def test_the_floors_hold_for_what_is_really_there() -> None:
    """A copy that is not whole fills no place, and an unverified one pushes no verified one out."""
    keeps = Retention(keep_last=1, minimum_verified=2)
    there = [*candidates(0, 1, proof="unverified"), *candidates(2, 3, 4)]
    plan = plan_removal(there, [], keeps, now=NOW, whole=["b0", "b1", "b3", "b4"], locked=())

    assert set(plan.removed) == {"b1"}


def test_a_night_that_failed_removes_nothing_at_a_target_either() -> None:
    there = candidates(*range(10))
    plan = plan_removal(
        there, [], Retention(keep_last=1, minimum_verified=1), now=NOW, whole=[each.name for each in there], locked=(), paused=["the last run failed"]
    )  # fmt: skip

    assert plan.removed == ()


def test_forty_nights_with_a_target_away_for_a_week() -> None:
    """Overdue on the right night and only then, everything caught up afterwards, nothing sent twice."""
    target = AWAY.model_copy(update={"within_hours": 50, "retention": Retention(keep_days=20, minimum_verified=3)})
    first = datetime(2026, 3, 1, 3, 30, tzinfo=UTC)
    made: list[Record] = []
    state, sent, alarms, removed = TargetState(), list[str](), list[int](), set[str]()
    for night in range(40):
        at = first + timedelta(days=night)
        made.insert(0, record((NOW - at).total_seconds() / 3600, verdict="verified"))
        local = [Candidate(each.manifest.name, each.manifest.created_at, "verified") for each in made[:30]]
        for hours in (1, 7, 13, 19):
            now = at + timedelta(hours=hours)
            if not 10 <= night < 17:
                there = [Candidate(name, each.created_at, "verified") for name, each in state.copies.items()]
                for name in plan_sending(local, there, target.retention, now=now, whole=state.copies).send:  # type: ignore[arg-type]
                    sent.append(name)
                    state = state.with_copy(name, entry(next(each for each in made if each.manifest.name == name)))
                there = [Candidate(name, each.created_at, "verified") for name, each in state.copies.items()]
                gone = plan_removal(there, local, target.retention, now=now, whole=state.copies, locked=()).removed  # type: ignore[arg-type]
                removed |= set(gone)
                state = state.without(gone)
            problems = copy_problems(made[:30], [SeenCopies(target, state)], now)
            if problems:
                assert "overdue at target away" in problems[0].text
                alarms.append(night)

    # The newest copy is of night 9; 50 hours later it is night 11, 05:30, which the look at 10:30 is the first to see.
    assert sorted(set(alarms)) == [11, 12, 13, 14, 15, 16]
    assert len(sent) == len(set(sent)) == 40
    assert state.copies.keys() == {each.manifest.name for each in made[:21]}
    assert removed == {each.manifest.name for each in made[21:]}


def test_the_numbers_of_a_backup_count_what_is_really_its_copy() -> None:
    """3-2-1-1-0; a copy that is missing, of other bytes, or whose lock has ended does not count as one, or as immutable."""
    proven = record(1, verdict="verified")
    usb = CopyTarget(name="usb", remote="/mnt/usb/mail")
    locked = seen(entry(proven, locked_until=NOW + timedelta(days=3)))

    assert str(copy_counts_of(proven, [locked, seen(entry(proven), target=usb)], NOW)) == "3-2-1-1-0"
    assert str(copy_counts_of(record(1), [], NOW)) == "1-1-0-0-?"
    at = proven.manifest.created_at
    around = SystemPlace("local", "proxmox", False, ((at + timedelta(hours=1),),), timedelta(hours=50))
    away = SystemPlace(
        "pbs", "backup-server", True, ((at + timedelta(hours=9), at - timedelta(hours=9)),), timedelta(hours=50)
    )
    older = SystemPlace("old", "proxmox", True, ((at - timedelta(hours=1),),), timedelta(hours=50))
    assert str(copy_counts_of(proven, [], NOW, [around, away, older])) == "3-3-1-0-0"
    assert str(copy_counts_of(record(1, verdict="different", verified_sha="a"), [], NOW)) == "1-1-0-0-1"
    assert str(copy_counts_of(proven, [seen(entry(proven, locked_until=NOW - timedelta(days=3)))], NOW)) == "2-2-1-0-0"
    assert str(copy_counts_of(proven, [seen(entry(proven), refused="it refused")], NOW)) == "2-2-1-1-0"
    for lost in (
        entry(proven, problem="missing"),
        entry(proven, problem="damaged"),
        entry(proven, sha256="b"),
        entry(proven, copied_at=None),
    ):
        assert str(copy_counts_of(proven, [seen(lost)], NOW)) == "1-1-0-0-0"


def test_a_target_that_this_machine_could_wipe_is_named() -> None:
    """Locked is what the target answers of the newest copy; a lock that was only asked for, or has ended, is none."""
    locking = AWAY.model_copy(update={"lock_days": 30})
    old, newest = record(2000), record(1)
    ended, holds = (
        entry(old, locked_until=NOW - timedelta(days=1)),
        entry(newest, locked_until=NOW + timedelta(days=29)),
    )

    assert not wipeable(seen(ended, holds, target=locking), NOW)
    assert wipeable(seen(ended, target=locking), NOW)
    assert wipeable(seen(entry(newest), target=locking), NOW)
    assert wipeable(seen(holds), NOW), "the next one will not be locked"
    assert not wipeable(seen(entry(newest), refused="append-only"), NOW)


def test_a_broken_rule_is_an_alarm_once_no_backup_of_the_last_hours_keeps_it() -> None:
    rule = Require(copies=2, off_site=1, verified=True, within_hours=50)
    newest, before, old = record(1), record(26, verdict="verified"), record(60, verdict="verified")

    assert require_problems(rule, [newest, before, old], [seen(entry(before))], NOW) == []
    (found,) = require_problems(rule, [newest, before, old], [seen(entry(old))], NOW)
    assert found.kind == "require"
    assert "1 of 2 copies, 0 of 1 off-site, no verification" in found.text
    assert "1-1-0-0-?" in found.text
    assert require_problems(rule, [newest], [], NOW) == [], "the first backup's copies may still be on their way"
    assert require_problems(Require(), [old], [], NOW) == []
    assert is_kept(Require(), copy_counts_of(newest, [], NOW))


@pytest.mark.parametrize(
    ("entries", "state", "told"),
    [
        ([], {"error": "it does not answer"}, "overdue at target away: there is no copy at all"),
        (["copied"], {"error": "it refuses us", "error_is_lasting": True}, "it refuses us"),
        (["copied"], {"error": "it does not answer"}, ""),
        (["missing"], {}, "missing at target away although nobody here removed them"),
        (["damaged"], {}, "damaged at target away"),
    ],
)
def test_what_is_wrong_at_a_target_is_told(entries: list[str], state: dict[str, object], told: str) -> None:
    """A cut connection is none of it before the copy is overdue; a wrong password is at once."""
    old, newest = record(60), record(1)
    found = (
        [entry(newest)] if entries == ["copied"] else [entry(newest), *(entry(old, problem=each) for each in entries)]
    )
    problems = copy_problems([newest, old], [seen(*(found if entries else []), **state)], NOW)

    assert [each.kind for each in problems] == (["copies"] if told else [])
    assert all(told in each.text for each in problems)


def test_no_target_is_overdue_for_backups_that_were_never_made_or_are_refuted() -> None:
    """Another alarm tells of those."""
    old, refuted = record(300), record(100, verdict="failed")

    assert copy_problems([old], [seen(entry(old))], NOW) == []
    assert copy_problems([refuted, old], [seen(entry(old))], NOW) == []
    assert copy_problems([], [seen()], NOW) == []


def test_the_copy_that_was_read_longest_ago_is_read_first() -> None:
    long_ago, lately, never = record(3000), record(2000), record(1000)
    copies = seen(
        entry(long_ago, read_at=NOW - timedelta(days=31)), entry(lately, read_at=NOW - timedelta(days=3)), entry(never), entry(record(5))
    ).state.copies  # fmt: skip

    assert due_for_reading(copies, NOW, 30) == [never.manifest.name, long_ago.manifest.name]
    assert due_for_reading(copies, NOW, 0) == []


@pytest.mark.parametrize(
    ("said", "told", "transient"),
    [
        ("dial tcp 127.0.0.1:1: connect: connection refused", "does not answer", True),
        ("operation error S3: PutObject, https response error StatusCode: 503, SlowDown", "does not answer", True),
        ("ssh: unable to authenticate, attempted methods [none password], no supported methods remain", "refuses us", False),
        ("ssh: handshake failed: ssh: unexpected message type 51 (expected 60)", "refuses us", False),
        ("couldn't connect to ssh-agent: SSH agent requested but SSH_AUTH_SOCK not-specified", "no key for it", False),
        ("failed to read private key file: open /root/.ssh/id: no such file or directory", "no key for it", False),
        ("ssh: handshake failed: knownhosts: key is unknown", "a host key that is not the one we know", False),
        ("ssh: handshake failed: knownhosts: key mismatch", "a host key that is not the one we know", False),
        ("https response error StatusCode: 403, api error SignatureDoesNotMatch", "refuses us", False),
        ("read metadata failed: 401 Unauthorized: 401 Unauthorized", "refuses us", False),
        ("write /mnt/usb/f: no space left on device", "is full", False),
        ("api error RequestTimeTooSkewed: The difference between the request time and the current time is too large.", "clocks differ", False),
        ("api error AccessDenied: The difference between the request time and the server's time exceeds the maximum allowed.", "clocks differ", False),
        ("InvalidRequest: Bucket is missing ObjectLockConfiguration", "cannot lock copies", False),
        ("didn't find section in config file (\"nosuch\")", "is not in rclone's configuration", False),
        ("unknown flag: --s3-object-lock-mode", "is used with an option", False),
        ("remove /mnt/usb/f: operation not permitted", "refuses us", False),
        ("NewFs: couldn't initialise SFTP: ssh: unexpected packet in response to channel open: <nil>", "connection was cut", True),
        ("something that nobody has seen before", "could not be used", False),
    ],
)  # fmt: skip
def test_rclones_words_become_ours(said: str, told: str, transient: bool) -> None:
    """And only what waiting can cure is tried again."""
    found = fault_of(said)

    assert told in found.what
    assert found.transient is transient
    assert found.hint


def test_nothing_that_rclone_keeps_secret_is_told() -> None:
    config = '[a]\ntype = s3\naccess_key_id = AKIA77\nsecret_access_key = s3cr3t-s3cr3t\nendpoint = http://host\n[b]\npass = 0bscured\nuser = me\ntoken = {"x":1}\nenv_auth = false\n'
    secrets = secrets_in(config)

    assert secrets == ("AKIA77", "s3cr3t-s3cr3t", "0bscured", '{"x":1}')
    told = without_secrets("PUT https://me:pw@host/x with s3cr3t-s3cr3t of AKIA77 and 0bscured", secrets)
    assert told == "PUT https://*****@host/x with ***** of ***** and *****"


def test_the_last_error_is_what_is_told_of_a_log() -> None:
    log = [
        {"level": "notice", "msg": "No host key validation"},
        {"level": "error", "msg": "first"},
        {"level": "critical", "msg": "Failed: why"},
    ]

    assert last_words(log) == "Failed: why"
    assert last_words([]) == ""
