"""Guests of this host: what their programs say, where their files are, the way back, and a second life under another name."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from tasks.core.archive.manifest import NO_DATABASE, Record
from tasks.core.archive.system_contents import GuestFacts
from tasks.core.errors import ArchiveDamaged, BackupError, Refused, UsageError
from tasks.core.guests.container import mounts_left_out, read_state, root_directory
from tasks.core.guests.container_config import OFF, rewrite_config
from tasks.core.guests.former_state import Asked, Former, Now, Seen, Step, way_back
from tasks.core.guests.judge import guest_notes, guest_problems
from tasks.core.guests.listing import differences, entry_line
from tasks.core.guests.machine import disks_of, parsed, read_domain_info, rewrite_domain
from tasks.core.policy.settings import parse_settings
from tests.unit.values import NOW, record

ROOT = PurePosixPath("/var/lib/lxc/new/rootfs")
FORMER_PLACE = PurePosixPath("/srv/lxc/mail")
ASKED = Asked("77", 1000.0, 60.0)


def rewritten(text: str, *, with_network: bool = False) -> tuple[list[str], tuple[str, ...]]:
    """Rewrite a configuration; give its lines and the notes."""
    done = rewrite_config(
        text,
        name="new",
        root=ROOT,
        former_place=FORMER_PLACE,
        with_network=with_network,
        new_mac=lambda: "00:16:3e:00:00:01",
    )
    return done.text.splitlines(), done.notes


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("State:          RUNNING\nPID:            31176\n", Seen("running", "31176")),
        ("State:          STOPPED\n", Seen("stopped")),
        ("State: FROZEN\nPID: 9\n", Seen("other", "9")),
        ("State: STOPPING\nPID: 9\n", Seen("between", "9")),
    ],
)
def test_what_lxc_says_is_read(text: str, seen: Seen) -> None:
    assert read_state(text, "mail")[0] == seen


@pytest.mark.parametrize("text", ["", "State: SLEEPY\n", "State: RUNNING\nPID: many\n", "RUNNING\n", "PID: 7\n"])
def test_what_lxc_does_not_say_is_no_state(text: str) -> None:
    with pytest.raises(BackupError):
        read_state(text, "mail")


@pytest.mark.parametrize(
    "value",
    [
        "overlay:/a:/b",
        "loop:/x.img",
        "zfs:tank/mail",
        "lvm:/dev/vg/mail",
        "btrfs:/x",
        "",
        "rootfs",
        "/",
        "dir:/a/../b",
        "nbd:x",
    ],
)
def test_only_a_directory_is_a_root(value: str) -> None:
    """A hint says what else could be done."""
    with pytest.raises(Refused) as refused:
        root_directory(value, "mail")

    assert refused.value.hint


def test_places_of_the_host_are_named_as_left_out() -> None:
    lines = [
        "proc proc proc nodev,noexec 0 0", "/dev/net/tun dev/net/tun none bind,create=file 0 0", "/sys/fs sys/fs none rbind 0 0",
        "/srv/mail srv/mail none rw,bind 0 0", "/usr/lib usr/lib none ro,bind 0 0", "/a\\040b mnt none bind 0 0", "nonsense",
    ]  # fmt: skip

    assert mounts_left_out(lines, ROOT) == [
        "/srv/mail of the host, mounted at /srv/mail", "/usr/lib of the host, mounted at /usr/lib (read only)", "/a b of the host, mounted at /mnt",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("former", "state", "run", "clock", "step"),
    [
        ("running", "stopped", "", 1001.0, "start"),
        ("running", "running", "77", 1001.0, "wait"),  # it may yet shut down
        ("running", "running", "77", 1000 + 2 * 60 + 31.0, "done"),  # it never did
        ("running", "running", "78", 1001.0, "done"),  # it runs anew
        ("running", "between", "77", 1001.0, "wait"),
        ("running", "other", "78", 1001.0, "done"),  # somebody froze it
        ("stopped", "stopped", "", 1001.0, "done"),
        ("stopped", "running", "5", 1001.0, "done"),  # somebody started it: that is theirs
        ("running", "running", "77", 999.0, "done"),  # a clock that was set back holds nobody up
    ],
)
def test_the_way_back(former: Former, state: Now, run: str, clock: float, step: Step) -> None:
    assert way_back(former, Seen(state, run), ASKED, clock) == step


def test_a_second_life_has_another_name_and_place_and_no_network() -> None:
    lines, notes = rewritten(
        "# of mail\nlxc.rootfs.path = dir:/srv/lxc/mail/rootfs\nlxc.uts.name = mail\nlxc.start.auto = 1\nlxc.group = onboot\n"
        "lxc.net.0.type = veth\nlxc.net.0.hwaddr = 00:16:3e:aa:bb:cc\nlxc.log.file = /srv/lxc/mail/log\n"
        "lxc.include = /usr/share/lxc/config/common.conf\nlxc.idmap = u 0 100000 65536\n"
    )

    assert "lxc.uts.name = new" in lines
    assert f"lxc.rootfs.path = dir:{ROOT}" in lines
    assert "lxc.start.auto = 0" in lines
    assert "lxc.log.file = /var/lib/lxc/new/log" in lines
    assert "lxc.idmap = u 0 100000 65536" in lines
    assert lines[-2:] == ["lxc.net =", "lxc.net.0.type = empty"], "without any line it would share the host's network"
    assert not [each for each in lines if "mail" in each and not each.startswith("#")]
    assert any("no network" in each for each in notes)


def test_with_a_network_it_has_another_hardware_address() -> None:
    lines, notes = rewritten(
        "lxc.net.0.type = veth\nlxc.net.0.hwaddr = 00:16:3e:aa:bb:cc\nlxc.net.0.ipv4.address = 10.0.3.7/24\n",
        with_network=True,
    )

    assert "lxc.net.0.hwaddr = 00:16:3e:00:00:01" in lines
    assert "lxc.net.0.type = veth" in lines
    assert any("10.0.3.7/24" in each for each in notes)


def test_no_second_container_writes_to_a_place_of_the_host() -> None:
    """Two database servers on one directory ruin it."""
    lines, notes = rewritten(
        "lxc.mount.entry = /srv/data srv/data none bind 0 0\nlxc.mount.entry = /lib lib none ro,bind 0 0\nlxc.mount.fstab = /srv/lxc/mail/fstab\n"
    )

    assert OFF + "lxc.mount.entry = /srv/data srv/data none bind 0 0" in lines
    assert "lxc.mount.entry = /lib lib none ro,bind 0 0" in lines
    assert OFF + "lxc.mount.fstab = /srv/lxc/mail/fstab" in lines
    assert any("/srv/data" in each for each in notes)


@pytest.mark.parametrize("line", ["lxc.network.type = veth", "lxc.rootfs = /x", "what is this", "lxc.utsname = x"])
def test_a_line_that_is_not_understood_is_refused(line: str) -> None:
    with pytest.raises(ArchiveDamaged):
        rewritten(f"lxc.arch = x86_64\n{line}\n")


def test_lists_of_files_are_compared() -> None:
    def line(path: bytes, **changes: object) -> bytes:
        ordinary = {"mode": 0o100644, "owner": 0, "group": 0, "size": 1, "moment_ns": 1} | changes
        return entry_line(path, **ordinary)  # type: ignore[arg-type]

    before = [line(b"./a"), line(b"./b", attributes={"user.x": b"\0"})]

    assert differences(before, before) == ""
    assert "./b" in differences(before, [before[0]])
    assert "user.x=00" in differences(before, [before[0], line(b"./b")])
    assert line(b"./a\nb").count(b"\n") == 1


@pytest.mark.parametrize(
    ("section", "word"),
    [
        ({"containers": []}, "containers"),
        ({"containers": ["../mail"]}, "containers"),
        ({"containers": ["-n"]}, "containers"),
        ({"containers": ["a", "a"]}, "twice"),
        ({"containers": ["a"], "path": "lxc"}, "path"),
        ({"containers": ["a"], "when_it_stays_up": "ask"}, "when_it_stays_up"),
        ({"containers": ["a"], "mode": "stop"}, "mode"),
    ],
)
def test_settings_that_name_no_container_are_refused(section: dict[str, object], word: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_settings(
            {"installations": {"main": {"directory": "/a", "repository": "/b", "lxc": section}}}, source="it"
        )

    assert word in str(refused.value)


def of_guest(name: str, hours: float) -> Record:
    """Make the record of a container's backup of so many hours ago."""
    return record(hours, method="lxc", guest=GuestFacts(name=name), database=NO_DATABASE, images=[])


def test_a_guest_without_a_recent_backup_is_an_alarm() -> None:
    """Each guest for itself: another one's newer backup is none of its own."""
    records = [of_guest("mail", 5), of_guest("web", 60), of_guest("mail", 90)]

    assert guest_problems("lxc mail", records, 48, now=NOW) == []
    assert guest_problems("lxc web", records, 48, now=NOW) == [
        "the newest backup of lxc web is 2 d 12 h old, more than 48 hours"
    ]
    assert "no backup of vm mail" in guest_problems("vm mail", records, 48, now=NOW)[0]
    assert [each.split(",")[0] for each in guest_notes(records, now=NOW)] == [
        f"lxc mail as a whole: {records[0].manifest.name}", f"lxc web as a whole: {records[1].manifest.name}",
    ]  # fmt: skip


DOMINFO = "Id:             {id}\nName:           mail\nState:          {state}\nPersistent:     {persistent}\nManaged save:   {saved}\n"


@pytest.mark.parametrize(
    ("state", "number", "seen"),
    [
        ("running", "3", Seen("running", "3")),
        ("idle", "3", Seen("running", "3")),
        ("shut off", "-", Seen("stopped")),
        ("in shutdown", "3", Seen("between", "3")),
        ("paused", "3", Seen("other", "3")),
        ("crashed", "-", Seen("other")),
    ],
)
def test_what_libvirt_says_is_read(state: str, number: str, seen: Seen) -> None:
    found = read_domain_info(DOMINFO.format(id=number, state=state, persistent="yes", saved="no"), "mail")

    assert (found.seen, found.word, found.is_persistent, found.has_saved_memory) == (seen, state, True, False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "State: sleepy\nId: 3\nPersistent: yes\n",
        "State: running\nId: three\nPersistent: yes\n",
        "State: running\nId: 3\n",
    ],
)
def test_what_libvirt_does_not_say_is_no_state(text: str) -> None:
    with pytest.raises(BackupError):
        read_domain_info(text, "mail")


def domain(devices: str, more: str = "") -> str:
    """Write a machine's definition."""
    return (
        "<domain type='kvm'><name>mail</name><uuid>e09dca39-6717-4b41-a244-61657cc47766</uuid><title>Mail</title>"
        f"<os><type>hvm</type></os>{more}<devices>{devices}</devices></domain>"
    )


VDA = "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/srv/vm/a.qcow2' index='1'/><backingStore/><target dev='vda'/></disk>"
CDROM = "<disk type='file' device='cdrom'><source file='/srv/iso/x.iso'/><target dev='sda'/><readonly/></disk>"
NIC = (
    "<interface type='bridge'><mac address='52:54:00:11:22:33'/><source bridge='br0'/><target dev='vnet0'/></interface>"
)


def test_the_files_of_a_machine_are_found() -> None:
    """Its disks and the memory of its firmware; what is no file of its own is named."""
    xml = domain(VDA + CDROM + "<hostdev mode='subsystem'/><tpm model='tpm-crb'/>").replace(
        "</os>", "<nvram>/srv/vm/vars.fd</nvram></os>"
    )

    disks, left_out = disks_of(xml, "mail")

    assert [(each.target, str(each.file), each.format) for each in disks] == [
        ("vda", "/srv/vm/a.qcow2", "qcow2"), ("nvram", "/srv/vm/vars.fd", "raw"),
    ]  # fmt: skip
    assert "the medium in sda: /srv/iso/x.iso" in left_out
    assert any("hostdev" in each for each in left_out)
    assert any("TPM" in each for each in left_out)


@pytest.mark.parametrize(
    "disk",
    [
        "<disk type='block' device='disk'><source dev='/dev/vg/mail'/><target dev='vda'/></disk>",
        "<disk type='network' device='disk'><source protocol='rbd' name='x'/><target dev='vda'/></disk>",
        "<disk type='volume' device='disk'><source pool='default' volume='x'/><target dev='vda'/></disk>",
        "<disk type='file' device='disk'><driver type='vmdk'/><source file='/x'/><target dev='vda'/></disk>",
        "<disk type='file' device='disk'><driver type='raw'/><source file='x'/><target dev='vda'/></disk>",
        "<disk type='file' device='disk'><driver type='raw'/><source file='/a/../b'/><target dev='vda'/></disk>",
        "<disk type='file' device='disk'><driver type='raw'/><source file='/a'/><target dev='../a'/></disk>",
        CDROM,
    ],
)
def test_a_disk_that_is_no_file_is_refused(disk: str) -> None:
    with pytest.raises(Refused) as refused:
        disks_of(domain(disk), "mail")

    assert refused.value.hint


def test_a_machines_second_life_has_another_identity_and_its_links_down() -> None:
    xml = domain(
        VDA + CDROM + NIC + "<hostdev mode='subsystem'/><serial type='file'><source path='/var/log/mail'/></serial>"
        "<graphics type='vnc' port='5901' autoport='no'/>",
        "<sysinfo type='smbios'><system><entry name='uuid'>e09dca39-6717-4b41-a244-61657cc47766</entry></system></sysinfo>",
    )
    files = {"vda": PurePosixPath("/images/new/vda.qcow2")}

    text, notes = rewrite_domain(
        xml, name="new", uuid="00000000-0000-4000-8000-000000000001", files=files, with_network=False
    )

    assert "<name>new</name><uuid>00000000-0000-4000-8000-000000000001</uuid>" in text
    for gone in ("e09dca39", "/srv/", "52:54:00", "vnet0", "hostdev", "/var/log/mail", "5901", ">Mail<"):
        assert gone not in text
    assert '<source file="/images/new/vda.qcow2" />' in text
    assert '<link state="down" />' in text
    assert any("links" in each for each in notes)
    assert any("hostdev" in each for each in notes)

    linked, _ = rewrite_domain(
        xml, name="new", uuid="00000000-0000-4000-8000-000000000001", files=files, with_network=True
    )
    assert "down" not in linked
    assert "52:54:00" not in linked, "libvirt makes a new address"


@pytest.mark.parametrize(
    "text",
    [
        "", "<domain>", "<network/>", "no xml",
        "<!DOCTYPE domain [<!ENTITY a 'x'>]><domain><name>&a;</name></domain>",
        "<!DOCTYPE domain SYSTEM 'file:///etc/passwd'><domain/>",
    ],
)  # fmt: skip
def test_a_definition_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ArchiveDamaged):
        parsed(text)
