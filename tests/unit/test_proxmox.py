"""What is decided about guests' backups, from values alone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.errors import BackupError, UsageError
from tasks.core.policy.proxmox_settings import Proxmox, ProxmoxRetention
from tasks.core.policy.settings import parse_settings
from tasks.core.proxmox import replies
from tasks.core.proxmox.judge_backup import names_this_machine, needed_bytes, obstacle_of, outcome_of, way_back
from tasks.core.proxmox.replies import Guest, GuestCopy, GuestNow, PruneMark, StorageNow
from tasks.core.proxmox.retention import decisions, may_prune, prune_text

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
CONTAINER = Guest(101, "lxc", "pve1", "mail")
ROOMY = StorageNow("dir", ("backup",), True, 10**12)
SECTION: dict[str, Any] = {
    "host": "pve.example",
    "token_file": "/etc/token",
    "guests": [101],
    "storage": "local",
}


def section(**own: Any) -> Proxmox:
    """Read the section as the settings file has it."""
    main = {"directory": "/srv/mail", "repository": "/srv/backups", "proxmox": {**SECTION, **own}}
    found = parse_settings({"installations": {"main": main}}, source="the test").installations["main"].proxmox
    assert found is not None
    return found


def copy_of(size: int, at: datetime = NOW) -> GuestCopy:
    """Make a backup of a size."""
    return GuestCopy(101, f"local:backup/{at:%d}", at, size)


def test_the_guides_mode_is_the_default() -> None:
    assert (section().mode, section().compression, section().port) == ("stop", "zstd", 8006)
    assert section(fingerprint=":".join(["AB"] * 32)).fingerprint == "ab" * 32


@pytest.mark.parametrize(
    "wrong",
    [
        {"host": "https://pve.example"}, {"host": "pve.example:8006"}, {"host": "a b"}, {"guests": []}, {"guests": [99]}, {"guests": [101, 101]},
        {"guests": ["101"]}, {"storage": "../local"}, {"storage": "a/b"}, {"mode": "none"}, {"fingerprint": "ab"}, {"notes": "two\nlines"},
        {"fingerprint": "ab" * 32, "ca_file": "/etc/ca.pem"}, {"retention": {}}, {"retention": {"keep_last": 0}}, {"token": "x"},
        {"token_file": "token"}, {"verify": False}, {"backup_servers": [{"host": "pbs.example", "token_file": "/t", "datastore": "a/../b"}]},
    ],
)  # fmt: skip
def test_settings_that_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        section(**wrong)


@pytest.mark.parametrize(
    ("now", "storage", "former", "words"),
    [
        (GuestNow("running", "", 10**9), ROOMY, (), ""),
        (GuestNow("running", "backup", 10**9), ROOMY, (), "is locked (backup)"),
        (GuestNow("running", "", 10**9), StorageNow("dir", ("iso",), True, 10**12), (), "takes no backups: its content is iso"),
        (GuestNow("running", "", 10**9), StorageNow("dir", ("backup",), False, 10**12), (), "is not usable"),
        (GuestNow("running", "", 10**9), StorageNow("dir", ("backup",), True, 10**8), (), "100.0 MB are free"),
        (GuestNow("running", "", 10**9), StorageNow("dir", ("backup",), True, 10**8), (copy_of(10**7),), ""),
    ],
)  # fmt: skip
def test_what_stands_in_the_way(now: GuestNow, storage: StorageNow, former: tuple[GuestCopy, ...], words: str) -> None:
    found = obstacle_of(CONTAINER, now, "local", storage, former)

    assert (words in found.what and found.hint) if found else not words


@given(
    size=st.integers(0, 10**13),
    former=st.lists(st.integers(1, 10**13), max_size=5),
    kind=st.sampled_from(["dir", "pbs"]),
)
def test_never_more_room_than_the_guest_is_large(size: int, former: list[int], kind: str) -> None:
    """And as much as that where nothing is known of how far it shrinks."""
    storage = StorageNow(kind, ("backup",), True, 0)
    needed = needed_bytes(GuestNow("running", "", size), storage, [copy_of(each) for each in former])

    assert needed == size if not former else size == 0 or needed <= size


@pytest.mark.parametrize(
    "exit_status", ["", "job errors", "unexpected status", "interrupted by signal", "WARNINGS: x", "ok", "OK "]
)
def test_only_ok_is_a_success(exit_status: str) -> None:
    assert outcome_of(exit_status) == "failed"


@pytest.mark.parametrize("former", ["running", "paused", "prelaunch", "stopped"])
@pytest.mark.parametrize("now", ["running", "paused", "prelaunch", "stopped"])
def test_the_way_back_ends(former: replies.State, now: replies.State) -> None:
    """Whatever a backup left: in a few steps what ran runs, what was paused is paused, and what was stopped was not started by us."""
    after = {"start": "running", "suspend": "paused", "resume": "running", "stop": "stopped"}
    state = now
    for _ in range(3):
        action = way_back(former, state)
        if action is None:
            break
        state = after[action]  # type: ignore[assignment]

    assert way_back(former, state) is None
    if now == "stopped":
        assert state == ("stopped" if former == "prelaunch" else former)
    if former == "running":
        assert state == "running"
    if former == "stopped" and now == "running":
        assert state == "running", "somebody else started it"


def test_a_machine_does_not_stop_itself() -> None:
    assert names_this_machine(CONTAINER, "stop", "Mail.example.org", "lxc")
    assert not names_this_machine(CONTAINER, "snapshot", "mail", "lxc")
    assert not names_this_machine(CONTAINER, "stop", "backup-host", "lxc")
    assert not names_this_machine(CONTAINER, "stop", "mail", ""), "another machine of the same name"


def marks(*ages: int, keep: int = 100) -> list[PruneMark]:
    """List backups of so many days ago, the first few kept."""
    return [
        PruneMark(f"b{age}", NOW - timedelta(days=age), "keep" if place < keep else "remove")
        for place, age in enumerate(ages)
    ]


def test_reasons_of_retention() -> None:
    """Each rule keeps what no rule before it has kept, as Proxmox's own do."""
    rules = ProxmoxRetention(keep_last=1, keep_weekly=2, keep_yearly=1)
    assert prune_text(rules) == "keep-last=1,keep-weekly=2,keep-yearly=1"
    found = decisions(marks(0, 1, 6, 14, 400, keep=5), rules)

    assert [each.reason for each in found] == [
        "keep-last=1: one of the newest", "Proxmox keeps it", "keep-weekly=2: the newest of week 2026-47",
        "keep-weekly=2: the newest of week 2026-46", "keep-yearly=1: the newest of 2025",
    ]  # fmt: skip
    assert decisions(marks(0), None)[0].reason == "a rule of the storage keeps it"


def test_nothing_goes_that_the_new_backup_is_among() -> None:
    rules = ProxmoxRetention(keep_last=1)
    assert may_prune(decisions(marks(0, 1, keep=1), rules), "b0") == ""
    assert "would remove the new backup" in may_prune(decisions(marks(0, 1, keep=1), rules), "b1")
    assert "does not list" in may_prune(decisions(marks(0, 1, keep=1), rules), "b2")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
        lambda inner: st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["type", "vmid", "node", "name", "status", "qmpstatus", "lock", "disk", "maxdisk", "volid", "ctime", "size", "upid", "exitstatus",
                 "backup-type", "backup-id", "backup-time", "verification", "state", "n", "t", "mark", "starttime", "endtime", "content"]
            ),
            inner, max_size=8,
        ),
        max_leaves=20,
    )
)  # fmt: skip
def test_any_answer_is_a_value_or_an_error_of_ours(answer: Any) -> None:
    """Nothing that a server says raises anything else, and no text of it moves a terminal's cursor."""
    readers: list[Callable[[Any], Any]] = [
        replies.guests, lambda each: replies.guest_now(each, "qemu"), replies.storage_now, lambda each: replies.volumes(each, 101),
        lambda each: replies.snapshots(each, [101]), replies.task_now, replies.tasks, replies.log_lines, replies.prune_marks, replies.upid,
    ]  # fmt: skip
    for read in readers:
        for value in (
            answer,
            [answer],
            [{"type": "lxc", "backup-type": "ct", "backup-id": "101", "vmid": 101, **answer}]
            if isinstance(answer, dict)
            else [],
        ):
            said = _read(read, value)
            assert "\x1b" not in said.replace("\\x1b", "")


def _read(read: Callable[[Any], Any], value: Any) -> str:
    """Give what was read, or what was said instead; any other error is the test's failure."""
    try:
        return repr(read(value))
    except BackupError as error:
        return str(error)


@pytest.mark.parametrize("value", ["UPID:pve1:00:1:2:vzdump:101:root@pam:", "UPID:../x:000003E8:00001B58:6B0B3418:vzdump:101:root@pam:", "x", None, 7,
                                   "UPID:pve1:000003E8:00001B58:6B0B3418:vzdump:1/../2:root@pam:"])  # fmt: skip
def test_task_ids_of_another_form_go_nowhere(value: Any) -> None:
    with pytest.raises(BackupError):
        replies.upid(value)


def test_a_task_id_of_a_token() -> None:
    mine = "UPID:pve1:000003E8:00001B58:6B0B3418:vzdump:101:backup@pve!archive:"
    assert replies.upid(mine) == mine
