"""A container of LXC backed up as a whole and restored under a new name, for real; its former state afterwards, whatever happens."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tasks.adapters.archive.repository import find_backup, list_backups
from tasks.adapters.host.journals import list_journals
from tasks.adapters.outbox.history_file import read_history
from tasks.core.errors import Refused
from tasks.guests.check import check_guests
from tasks.oversight.status import read_status
from tasks.recovery.recover import recover
from tasks.restore.check_archive import check_backup, find_archive
from tasks.run.context import config_of
from tasks.run.own_backups import choose_backup, look_at
from tests.campaigns import guests as campaign
from tests.cli import PROGRAM, start_program
from tests.guests.caller import Caller
from tests.guests.containers import (
    Container,
    containers_of,
    fill_with_odd_files,
    make_container,
    require_lxc,
    what_is_there,
)
from tests.integration.archives import back_up
from tests.stack.stack import wait_until

HOST_DEVICES = {each.name for each in Path("/sys/class/net").iterdir()} - {"lo"}


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """Give a place of containers of its own, which mapped users get through; what runs there at the end is ended."""
    require_lxc()
    found = Path(tempfile.mkdtemp(dir="/var/tmp"))
    found.chmod(0o711)
    with containers_of(found):
        yield found
    shutil.rmtree(found)


@pytest.fixture(scope="module")
def mail(place: Path) -> Container:
    """Give a container with one of everything a file system can hold."""
    made = make_container(place, "mail", more=f"lxc.mount.entry = {place} srv none rw,bind,optional 0 0")
    fill_with_odd_files(made.root)
    return made


def section(*containers: Container, **more: object) -> dict[str, Any]:
    return {
        "containers": [each.name for each in containers], "path": str(containers[0].place), "stop_seconds": 10, **more,
    }  # fmt: skip


def test_a_container_comes_back_identical_under_a_new_name(
    mail: Container, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs again after its backup; the new one has all of its files, its own name, no network, no writable place of the host, and starts."""
    caller = Caller(tmp_path, monkeypatch, lxc=section(mail))
    mail.start()
    before = mail.pid()

    (made,) = caller.must("backup", "lxc")["guests"]

    assert mail.state() == "RUNNING"
    assert mail.pid() != before, "it was stopped for the copy"
    assert 0 < made["downtime_seconds"] < made["seconds"]
    assert any(str(mail.place) in each for each in made["left_out"]), "what it has of the host is named"
    assert not list_journals()
    assert caller.must("check", made["name"])["kind"] == "system"
    assert [each["of"] for each in caller.must("list")] == ["lxc mail"]

    told = caller.must("restore", "lxc", "--name", "mail-2", "--start")

    restored = Container(mail.place, "mail-2")
    assert told["started"]
    assert restored.state() == "RUNNING"
    assert restored.run("lxc-attach", "--", "/bin/busybox", "hostname") == "mail-2"
    devices = restored.run("lxc-attach", "--", "/bin/busybox", "cat", "/proc/net/dev").splitlines()
    assert not {each.split(":")[0].strip() for each in devices[2:]} & HOST_DEVICES, "the host's network is not its own"
    assert "lxc.net.0.type = empty" in restored.config
    assert f"\nlxc.mount.entry = {mail.place}" not in restored.config
    restored.end()
    odd = "srv/odd"
    assert what_is_there(restored.root / odd) == what_is_there(mail.root / odd)
    assert len(what_is_there(restored.root / odd)) == 12
    assert (restored.root / odd / "holes").stat().st_blocks < 100, "the holes are holes again"
    assert (restored.root / odd / "owned").samefile(restored.root / odd / "second name")

    assert caller.run("restore", "lxc", "--name", "mail-2")[0] == 1, "nothing is restored over what is there"


def test_a_guests_backup_is_none_of_the_database(
    mail: Container, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not the latest, no restore or verification of the database takes it, and retention counts it apart."""
    caller = Caller(tmp_path, monkeypatch, lxc=section(mail), retention={"keep_last": 1, "minimum_verified": 1})
    config = config_of("main")
    database = back_up(config, campaign.now() - timedelta(days=1))
    mail.end()
    names = [caller.must("backup", "lxc", "mail")["guests"][0]["name"] for _ in range(2)]

    assert mail.state() == "STOPPED", "it was stopped before"
    assert choose_backup(config, "latest") == choose_backup(config, "stalest") == database.manifest.name
    assert find_backup(config.repository, "latest").name == database.file
    for refuses in (check_backup, find_archive):
        with pytest.raises(Refused, match="lxc mail"):
            refuses.fn(config.repository, names[0])
    own = look_at(config, list_backups(config.repository), now=campaign.now())
    assert [each.manifest.name for each in own.system] == names[::-1]
    assert not any(each.manifest.is_system for each in own.records)

    caller.must("prune")

    assert {each.name for each in list_backups(config.repository)} == {database.manifest.name, names[1]}


def test_a_container_with_mapped_ids_comes_back_mapped(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its root is nobody on the host: the files keep the owners that they have there, and it starts."""
    mapped = make_container(place, "mapped", more="lxc.idmap = u 0 100000 65536\nlxc.idmap = g 0 100000 65536")
    for path in [mapped.root, *mapped.root.rglob("*")]:
        os.lchown(path, 100_000, 100_000)
    mapped.start()
    caller = Caller(tmp_path, monkeypatch, lxc=section(mapped))

    caller.must("backup", "lxc")
    caller.must("restore", "lxc", "--name", "mapped-2", "--start")

    assert mapped.state() == "RUNNING"
    restored = Container(place, "mapped-2")
    assert restored.state() == "RUNNING"
    assert restored.run("lxc-attach", "--", "/bin/busybox", "stat", "-c", "%u", "/bin/init") == "0"
    assert (restored.root / "bin/init").stat().st_uid == 100_000
    restored.end()
    mapped.end()


def test_what_cannot_be_backed_up_is_left_alone(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frozen container stays frozen; one on another backing, one that is not there: a clear word, and the others have their backups."""
    frozen, looped, well = (make_container(place, each) for each in ("frozen", "looped", "well"))
    frozen.start()
    frozen.run("lxc-freeze")
    config = place / "looped/config"
    config.write_text(config.read_text().replace("dir:", "overlay:/nowhere:"))
    caller = Caller(tmp_path, monkeypatch, lxc=section(frozen, looped, Container(place, "absent"), well))

    seen = check_guests(config_of("main"))
    assert [each["guest"] for each in seen.told] == ["lxc well"], "what `doctor` tells beforehand"
    assert len(seen.obstacles) == 3
    assert all(hint for _, hint in seen.obstacles)

    code, told = caller.run("backup", "lxc")

    errors = {each["guest"]: each["error"] for each in told["guests"]}
    assert code == 1
    assert "FROZEN" in errors["lxc frozen"]
    assert "lxc-unfreeze" in errors["lxc frozen"]
    assert frozen.state() == "FROZEN"
    assert "overlay" in errors["lxc looped"]
    assert "there is no container absent" in errors["lxc absent"]
    assert errors["lxc well"] is None
    assert len(list_backups(caller.repository)) == 1
    assert caller.run("backup", "lxc", "mail")[0] == 2, "the settings do not name it"
    failed = next(each for each in read_history("main") if each.run == "lxc backup")
    assert failed.outcome == "failed", "anyone who is told of failures is told of this one"
    problems = {
        each.text.split(" yet")[0]
        for each in read_status.fn(config_of("main"), now=campaign.now()).problems
        if each.kind == "guests"
    }
    assert problems == {f"there is no backup of lxc {each}" for each in ("frozen", "looped", "absent")}


def test_one_that_does_not_shut_down_is_left_alone_or_killed_as_the_settings_say(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stubborn = make_container(place, "stubborn", stubborn=True)
    stubborn.start()
    before = stubborn.pid()
    caller = Caller(tmp_path, monkeypatch, lxc=section(stubborn, stop_seconds=1))

    code, told = caller.run("backup", "lxc")

    assert code == 1
    assert "did not shut down within 1 s" in told["guests"][0]["error"]
    assert (stubborn.state(), stubborn.pid()) == ("RUNNING", before)
    assert not list_backups(caller.repository)
    # It may yet shut down: the watchdog looks after it for a while, and starts it then.
    (journal,) = list_journals()
    stubborn.run("lxc-stop", "-k")
    wait_until(lambda: stubborn.state() == "RUNNING" and not journal.exists(), 30, "it was left down")

    caller = Caller(tmp_path, monkeypatch, lxc=section(stubborn, stop_seconds=1, when_it_stays_up="kill"))
    caller.must("backup", "lxc")
    assert stubborn.state() == "RUNNING"
    stubborn.end()


def test_an_encrypted_backup_comes_back_from_a_copy(
    mail: Container, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Encrypted and copied as every archive is; with the key it is restored from the target, and with an altered byte it is not."""
    pyrage = pytest.importorskip("pyrage")
    key = pyrage.x25519.Identity.generate()
    identity = tmp_path / "key"
    identity.write_text(f"{key}\n")
    identity.chmod(0o600)
    away = tmp_path / "away"
    away.mkdir()
    caller = Caller(tmp_path, monkeypatch, lxc=section(mail), encryption={"recipients": [str(key.to_public())]},
        copies=[{"name": "away", "remote": str(away)}],
    )  # fmt: skip
    mail.end()
    (made,) = caller.must("backup", "lxc")["guests"]
    caller.must("copy", "away")

    told = caller.must(
        "restore", "lxc", made["name"], "--name", "from-away", "--from", "away", "--identity", str(identity)
    )

    assert not told["started"]
    assert what_is_there(mail.place / "from-away/rootfs/srv") == what_is_there(mail.root / "srv")

    archive = Path(made["archive"])
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    archive.write_bytes(content)
    code, _ = caller.run("restore", "lxc", made["name"], "--name", "altered", "--identity", str(identity))
    assert code == 1
    assert not [each for each in mail.place.iterdir() if "altered" in each.name], "nothing of it stays"
    assert not list_journals()


def test_of_a_restore_that_is_killed_nothing_stays(
    mail: Container, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = Caller(tmp_path, monkeypatch, lxc=section(mail))
    mail.end()
    ballast = mail.root / "ballast"
    ballast.write_bytes(os.urandom(60 << 20))
    try:
        caller.must("backup", "lxc")
    finally:
        ballast.unlink()
    child = start_program([PROGRAM, "restore", "lxc", "--name", "half"])
    wait_until(lambda: any("half" in each.name for each in mail.place.iterdir()), 30, "no restore began")
    os.kill(child.pid, signal.SIGKILL)
    child.wait(30)

    assert [each.settled for each in recover()] == [True]
    assert not [each for each in mail.place.iterdir() if "half" in each.name]


def test_a_backup_that_is_killed_leaves_the_container_as_it_was(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three of the campaign's kills: `python -m tests.campaigns.guests lxc` has more."""
    begun = time.monotonic()
    kills = campaign.run_lxc(3, seed=7, place=tmp_path, containers=place, set_variable=monkeypatch.setenv)

    assert len(kills) == 3
    assert time.monotonic() - begun < 120
