"""A virtual machine of libvirt backed up as a whole and restored under a new name, for real, under software emulation."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.adapters.archive.repository import list_backups
from tasks.adapters.host.journals import list_journals, open_journal
from tasks.guests.check import check_guests
from tasks.recovery.recover import recover
from tasks.run.context import config_of
from tests.campaigns import guests as campaign
from tests.guests.caller import Caller
from tests.guests.machines import Machine, make_machine, require_libvirt, running_libvirt, virsh
from tests.stack.stack import wait_until


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give a place for disks that libvirt's own user reaches, and run libvirt; the machines in it are removed at the end."""
    require_libvirt()
    place = Path(tempfile.mkdtemp(dir="/var/tmp"))
    place.chmod(0o755)
    with running_libvirt(tmp_path_factory.mktemp("libvirt")):
        yield place
        for each in place.iterdir():
            Machine(place, each.name).remove()
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def mail(images: Path) -> Machine:
    return make_machine(images, "mail")


def section(*machines: Machine, **more: object) -> dict[str, Any]:
    return {"domains": [each.name for each in machines], "images": str(machines[0].images), "stop_seconds": 15, **more}


def test_a_machine_comes_back_identical_under_a_new_name(
    mail: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs again after its backup; the new one has the same disks, its own identity and addresses, its network link down, and starts."""
    caller = Caller(tmp_path, monkeypatch, vm=section(mail))
    mail.start()
    before = mail.number()

    (made,) = caller.must("backup", "vm")["guests"]

    assert mail.state() == "RUNNING"
    assert mail.number() != before, "it was shut down for the copy"
    assert 0 < made["downtime_seconds"] < made["seconds"]
    assert not list_journals()
    assert [each["of"] for each in caller.must("list")] == ["vm mail"]
    mail.end()

    told = caller.must("restore", "vm", "--name", "mail-2", "--start")

    restored = Machine(mail.images, "mail-2")
    assert told["started"]
    assert restored.state() == "RUNNING"
    xml, first = restored.must("dumpxml", "--inactive"), mail.must("dumpxml", "--inactive")
    assert "<link state='down'/>" in xml
    assert "52:54:00:11:22:33" in first
    assert "52:54:00:11:22:33" not in xml
    assert mail.must("domuuid") != restored.must("domuuid")
    assert f"{mail.place}/" not in xml
    restored.end()
    assert digest(restored.place / "hda.qcow2") == digest(mail.place / "system.qcow2")
    assert digest(restored.place / "hdb.raw") == digest(mail.place / "data.raw")
    assert (restored.place / "hdb.raw").stat().st_blocks * 512 < 2 << 20, "the holes are holes again"

    assert caller.run("restore", "vm", "--name", "mail-2")[0] == 1, "nothing is restored over what is there"
    assert caller.run("restore", "vm", "--name", "mail")[0] == 1


def test_what_cannot_be_backed_up_is_left_alone(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A paused machine stays paused; one whose disk builds on another image, one that is not there: a clear word; one that is off stays off."""
    paused, built, off = (make_machine(images, each) for each in ("paused", "built", "off"))
    paused.start()
    paused.must("suspend")
    base = built.place / "base.qcow2"
    (built.place / "system.qcow2").rename(base)
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(base), "-F", "qcow2", str(built.place / "system.qcow2")], check=True, timeout=60
    )  # fmt: skip
    caller = Caller(tmp_path, monkeypatch, vm=section(paused, built, Machine(images, "absent"), off))

    seen = check_guests(config_of("main"))
    assert [each["guest"] for each in seen.told] == ["vm off"], "what `doctor` tells beforehand"
    assert len(seen.obstacles) == 3

    code, told = caller.run("backup", "vm")

    errors = {each["guest"]: each["error"] for each in told["guests"]}
    assert code == 1
    assert "paused" in errors["vm paused"]
    assert paused.state() == "PAUSED"
    assert str(base) in errors["vm built"]
    assert "there is no virtual machine absent" in errors["vm absent"]
    assert errors["vm off"] is None
    assert off.state() == "STOPPED"
    assert [each.method for each in list_backups(caller.repository)] == ["vm"]
    assert caller.run("backup", "vm", "mail")[0] == 2, "the settings do not name it"


def test_one_that_ignores_its_power_button_is_left_alone_or_unplugged_as_the_settings_say(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stubborn = make_machine(images, "stubborn", stubborn=True)
    stubborn.start()
    before = stubborn.number()
    caller = Caller(tmp_path, monkeypatch, vm=section(stubborn, stop_seconds=1))

    code, told = caller.run("backup", "vm")

    assert code == 1
    assert "did not shut down within 1 s" in told["guests"][0]["error"]
    assert (stubborn.state(), stubborn.number()) == ("RUNNING", before)
    assert not list_backups(caller.repository)
    # It may yet shut down: the watchdog looks after it for a while, and starts it then.
    (journal,) = list_journals()
    stubborn.end()
    wait_until(lambda: stubborn.state() == "RUNNING" and not journal.exists(), 30, "it was left down")

    caller = Caller(tmp_path, monkeypatch, vm=section(stubborn, stop_seconds=1, when_it_stays_up="kill"))
    caller.must("backup", "vm")
    assert stubborn.state() == "RUNNING"
    stubborn.end()


def test_of_a_restore_that_died_nothing_stays(mail: Machine, tmp_path: Path) -> None:
    """Killed between its definition and its disks' place: libvirt forgets it, and the first one stays what it is."""
    uuid, mark = "6a0af4e8-83e4-4ebe-b100-76d23ce063d0", "ab" * 8
    building = mail.images / f".half.restoring-{mark}"
    building.mkdir()
    definition = building / "domain.xml"
    definition.write_text(
        f"<domain type='qemu'><name>half</name><uuid>{uuid}</uuid><memory unit='MiB'>32</memory><os><type>hvm</type></os></domain>"
    )
    assert virsh("define", str(definition))[0] == 0
    body = {"uri": "qemu:///system", "images": str(mail.images), "name": "half", "uuid": uuid, "mark": mark}
    open_journal("vm-restore", body, installation_id="main", installation_directory=tmp_path).abandon()

    assert [each.settled for each in recover()] == [True]

    assert virsh("dominfo", "half")[0] != 0
    assert not building.exists()
    assert mail.state() in ("RUNNING", "STOPPED")


def test_a_backup_that_is_killed_leaves_the_machine_as_it_was(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of the campaign's kills: `python -m tests.campaigns.guests vm` has more."""
    assert len(campaign.run_vm(2, seed=7, place=tmp_path, images=images, set_variable=monkeypatch.setenv)) == 2


def digest(path: Path) -> str:
    """Give the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
