"""What is decided about guests that are restored as a test, from values alone."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.archive.manifest import Census, TableCensus
from tasks.core.errors import BackupError, NoMailArchiver, Refused, UsageError
from tasks.core.proxmox.proofs import GuestProof, GuestProofs, mails_before, proof_problems, too_few
from tasks.core.proxmox.replies import Guest, GuestCopy, StorageNow
from tasks.core.proxmox.seen import SeenCopy
from tasks.core.proxmox.trial import (
    bears,
    config_in,
    config_now,
    disk_bytes,
    free_id,
    links_up,
    marked,
    newest_of,
    obstacle_to_trial,
    require_alone,
    ties,
    unlinked,
)
from tasks.core.stack.guest_stacks import containers_in, stacks_in
from tests.unit.test_proxmox import section
from tests.unit.values import NOW as VALUES_NOW
from tests.unit.values import record

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
MACHINE = Guest(102, "qemu", "pve1", "mailvm")


def test_links_are_down_on_every_device_and_nothing_else_changes() -> None:
    config = {
        "net0": "virtio=BC:24:11:00:00:01,bridge=vmbr0,tag=5", "net12": "name=eth0,link_down=0,bridge=vmbr1", "netfs": "x", "cores": "2",
    }  # fmt: skip

    changes = unlinked(config)

    assert changes == {
        "net0": "virtio=BC:24:11:00:00:01,bridge=vmbr0,tag=5,link_down=1", "net12": "name=eth0,bridge=vmbr1,link_down=1",
    }  # fmt: skip
    assert links_up(config) == ["net0", "net12"]
    assert links_up({**config, **changes}) == []


@given(st.lists(st.sampled_from(["virtio=AA", "link_down=0", "link_down=1", "bridge=b", "xlink_down=1"]), min_size=1))
def test_a_device_that_was_unlinked_is_never_taken_for_up(words: list[str]) -> None:
    config = {"net3": ",".join(words)}
    assert links_up(unlinked(config)) == []
    assert (links_up(config) == []) == ("link_down=1" in words)


@pytest.mark.parametrize(
    ("name", "value", "reaches"),
    [
        ("scsi0", "local-lvm:vm-9000-disk-0,size=4G", False), ("scsi0", "local:9000/vm-9000-disk-0.qcow2,size=4G", False),
        ("rootfs", "local-zfs:subvol-9000-disk-1,size=8G", False), ("efidisk0", "local-lvm:vm-9000-disk-2,size=4M", False),
        ("ide2", "local:iso/debian.iso,media=cdrom", False), ("ide2", "none,media=cdrom", False), ("usb0", "spice", False), ("serial0", "socket", False),
        ("lxc.apparmor.profile", "unconfined", False), ("net0", "virtio=AA,link_down=1", False), ("description", "dev0", False),
        ("scsi1", "shared:vm-102-disk-1,size=1T", True), ("scsi1", "/dev/disk/by-id/ata-X,size=1T", True), ("scsi1", "local:102/vm-102-disk-0.raw", True),
        ("scsi1", "shared:vm-90001-disk-1", True), ("mp0", "/srv/mail,mp=/srv", True), ("mp1", "local-lvm:vm-101-disk-3,mp=/x", True),
        ("hostpci0", "0000:01:00.0", True), ("usb1", "host=1234:5678", True), ("virtiofs0", "share", True), ("args", "-device x", True),
        ("hookscript", "local:snippets/x.sh", True), ("dev0", "/dev/dri", True), ("serial1", "/dev/ttyS0", True), ("lxc.mount.entry", "/srv srv none", True),
        ("lxc.net.0.type", "veth", True),
    ],
)  # fmt: skip
def test_what_reaches_out_of_a_guest(name: str, value: str, reaches: bool) -> None:
    """Another's disk, a device or a directory of the node: the guest that still runs may be using it."""
    assert ties({name: value}, 9000) == ([name] if reaches else [])
    if reaches:
        with pytest.raises(Refused, match="is not started"):
            require_alone("guest 9000", {name: value}, 9000)


def test_only_the_mark_makes_a_guest_ours() -> None:
    assert bears({"description": f"notes\n{marked('ab' * 16)}\n"}, "ab" * 16)
    assert not bears({"description": marked("cd" * 16)}, "ab" * 16)
    assert not bears({"description": marked("")}, "")
    assert not bears({}, "ab" * 16)


def test_configurations() -> None:
    """A backup's, without its snapshots' own; the API's, where a container's raw lines are pairs."""
    carried = config_in(
        "#a: b\nnet0: virtio=AA\nscsi0: a:vm-1-disk-0,size=4G\nunused\n\n[before]\nscsi0: a:vm-1-disk-0,size=400G\n"
    )
    assert carried == {"net0": "virtio=AA", "scsi0": "a:vm-1-disk-0,size=4G"}
    assert disk_bytes(carried) == 4 << 30
    assert disk_bytes({"rootfs": "a:b,size=8G", "mp0": "a:c,mp=/x,size=1T", "mp1": "a:d,backup=1,size=512M"}) == (
        8 << 30
    ) + (512 << 20)
    found = config_now({"onboot": 1, "lxc": [["lxc.net.0.type", "veth"]], "digest": "x", "description": "two\nlines"})
    assert found == {"onboot": "1", "lxc.net.0.type": "veth", "description": "two\nlines"}


@pytest.mark.parametrize(
    ("answer", "found"),
    [("9000", 9000), (9000, 9000), (None, None), ("99", None), ("1; x", None), (True, None), ([], None)],
)
def test_free_ids(answer: Any, found: int | None) -> None:
    assert free_id(answer) == found


def test_the_newest_that_holds_something_is_tried() -> None:
    old, new, empty = (
        GuestCopy(102, name, NOW - timedelta(days=days), size)
        for name, days, size in (("o", 2, 5), ("n", 1, 5), ("e", 0, 0))
    )
    assert newest_of([old, new, empty]) == new
    assert newest_of([empty]) is None


@pytest.mark.parametrize(
    ("storage", "words"),
    [
        (StorageNow("dir", ("images",), False, 10**12), "is not usable"), (StorageNow("dir", ("backup", "rootdir"), True, 10**12), "not images"),
        (StorageNow("dir", ("images",), True, 10**9), "1.0 GB are free"), (StorageNow("dir", ("images",), True, 10**12), ""),
    ],
)  # fmt: skip
def test_where_a_guest_cannot_be_restored(storage: StorageNow, words: str) -> None:
    obstacle = obstacle_to_trial(MACHINE, 4 * 10**9, "disks", storage)
    assert (words in obstacle.what) if obstacle else not words


@pytest.mark.parametrize(
    "wrong",
    [
        {"ids": [9010, 9000]}, {"ids": [9000]}, {"ids": [100, 200]}, {"storage": "../x"}, {"pool": "a/b"}, {"start_minutes": 0}, {"password": "x"},
        {"ssh": {"key_file": "/k"}}, {"ssh": {"key_file": "/k", "known_hosts_file": "/h", "user": "-oProxyCommand=x"}},
        {"ssh": {"key_file": "/k", "known_hosts_file": "/h", "addresses": {"pve1": "-oProxyCommand=x"}}},
    ],
)  # fmt: skip
def test_settings_that_are_refused(wrong: dict[str, Any]) -> None:
    """Among them ids where a guest of the settings is, for what is restored there is removed."""
    with pytest.raises(UsageError):
        section(verification={"storage": "local-lvm", **wrong})


def test_settings_that_are_taken() -> None:
    wanted = section(verification={"storage": "local-lvm", "ids": [9000, 9000], "limit_hours": 100})
    assert wanted.verification is not None
    assert wanted.verification.ids == (9000, 9000)
    assert wanted.limit_seconds > 200 * 3600
    assert section().verification is None


def container(name: str, **more: Any) -> str:
    """Write a line as Docker does."""
    plain: dict[str, Any] = {
        "id": f"{abs(hash(name)):064x}"[-64:], "name": f"/{name}", "image": "postgres:17", "environment": ["A=b"], "labels": {}, "state": "running",
        "mounts": [], "networks": {"n": {"IPAddress": "172.18.0.2", "Aliases": [name]}}, "ports": {"5000/tcp": {}},
    }  # fmt: skip
    return json.dumps(plain | more)


def in_project(project: str) -> dict[str, Any]:
    """Label a container as one of a compose project."""
    return {"labels": {"com.docker.compose.project": project}}


def test_every_mail_archiver_of_a_guest_is_found() -> None:
    """By its compose project; a forgotten second one too, for it has accounts as well."""
    setting = ["ConnectionStrings__DefaultConnection=Host=db;Database=Mail;Username=u;Password=p"]
    lines = [
        container("app", image="s1t5/mailarchiver", environment=setting, **in_project("a")), container("db", **in_project("a")),
        container("old", image="s1t5/mailarchiver", environment=[s.replace("=db;", "=old-db;") for s in setting], state="created", **in_project("b")),
        container("old-db", state="exited", **in_project("b")), container("watchtower", image="containrrr/watchtower"),
    ]  # fmt: skip

    first, second = stacks_in(containers_in("\n".join(lines)))

    assert (first.application.name, first.postgres.name, first.port, first.database) == ("app", "db", 5000, "Mail")
    assert (second.application.name, second.application.runs, second.postgres.runs) == ("old", False, False)
    assert first.application.runs
    assert "Password" not in repr(first)


def test_guests_without_one() -> None:
    with pytest.raises(NoMailArchiver, match="watchtower"):
        stacks_in(containers_in(container("watchtower", image="containrrr/watchtower")))
    with pytest.raises(NoMailArchiver, match="no container"):
        stacks_in(containers_in(""))


@pytest.mark.parametrize("line", ["x", "[]", "{}", container("a", id="x; reboot"), container("a", networks={"n": {"IPAddress": "$(reboot)"}}), "[" * 5000])  # fmt: skip
def test_what_is_no_container(line: str) -> None:
    """A guest's words become no program's."""
    with pytest.raises(BackupError, match="cannot be understood"):
        containers_in(line)


def proof(days: float, verdict: Any = "verified") -> GuestProof:
    """Make the verdict of a test so many days ago."""
    return GuestProof(
        guest=102,
        at=NOW - timedelta(days=days),
        verdict=verdict,
        problem="" if verdict == "verified" else "too bad",
        backup="b",
    )


@pytest.mark.parametrize(
    ("last", "proven", "first_backup_days", "words"),
    [
        (None, None, 1, []), (None, None, 50, ["no backup of guest 102 was proven"]), (proof(1), proof(1), 50, []),
        (proof(40), proof(40), 50, ["was last proven by restoring it"]), (proof(1, "failed"), proof(9), 50, ["the test of b of guest 102 failed"]),
        (proof(1, "failed"), proof(40), 50, ["failed", "was last proven"]),
    ],
)  # fmt: skip
def test_what_is_wrong_with_proofs(
    last: GuestProof | None, proven: GuestProof | None, first_backup_days: float, words: list[str]
) -> None:
    copies = [SeenCopy(guest=102, place="local", name="b", at=NOW - timedelta(days=first_backup_days), bytes=5)]
    found = proof_problems("guest 102", last, proven, copies, 800, NOW)
    assert len(found) == len(words)
    assert all(word in text for word, text in zip(words, found, strict=True))


def test_a_failure_does_not_make_an_earlier_proof_forgotten() -> None:
    known = GuestProofs().after(proof(9)).after(proof(1, "failed"))
    assert (known.proven["102"], known.last["102"].verdict) == (proof(9), "failed")


def test_mails_are_compared_with_the_backup_before() -> None:
    """Not with a later one, which holds more, nor with one of which nothing is known."""
    schema = '"mail_archiver"."ArchivedEmails" ("Id", "a (b")'
    census = {name: Census(tables={schema: TableCensus(rows=rows, digest="d")}, sequences={}, large_objects=TableCensus(rows=0, digest=""), schema_objects={}) for name, rows in (("new", 30), ("old", 20))}  # fmt: skip
    records = [record(1, census=census["new"]), record(5), record(9, census=census["old"])]

    before = mails_before(records, VALUES_NOW - timedelta(hours=3))

    assert before == (20, records[2].manifest.name)
    assert mails_before(records, VALUES_NOW - timedelta(hours=99)) is None
    assert too_few(15, 20, 20)
    assert not too_few(16, 20, 20)
    assert not too_few(25, 20, 20)
