"""What others do for the guests is seen: backups, jobs and tasks of Proxmox VE, snapshots and tasks of a backup server (P18)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flows.watch import watch
from tasks.adapters.proxmox.guests_state import read_guests_seen
from tasks.oversight.system import SystemStatus, system_status
from tasks.proxmox.look import look_at_guests
from tasks.run.context import config_of
from tasks.surroundings import run_flow
from tests.proxmox.backup_server import FakeBackupServer, fake_backup_server
from tests.proxmox.fake import GUEST, MACHINE, FakeProxmox, fake_proxmox, nights_ago
from tests.receiver import receiver
from tests.settings import write_settings


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeProxmox]:
    with fake_proxmox(tmp_path_factory.mktemp("proxmox")) as fake:
        yield fake


@pytest.fixture
def proxmox(shared: FakeProxmox) -> Iterator[FakeProxmox]:
    """Lend the module's Proxmox: a backup of last night, made by a job in the guide's mode."""
    shared.volumes.clear()
    shared.tasks.clear()
    shared.add_volume(nights_ago(1))
    shared.jobs = [
        {"id": "backup-1", "enabled": 1, "vmid": "101,102", "mode": "stop", "storage": "local", "type": "vzdump"}
    ]
    shared.not_backed_up = []
    yield shared
    shared.forbidden.clear()
    shared.token_works = True


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FakeBackupServer]:
    with fake_backup_server(tmp_path / "pbs") as fake:
        fake.add_snapshot(nights_ago(1), state="ok")
        yield fake


@pytest.fixture
def section(
    proxmox: FakeProxmox, server: FakeBackupServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """Write settings with both servers."""
    monkeypatch.setenv("MAILARCHIVER_BACKUP_SETTINGS", str(tmp_path / "settings.yaml"))
    (tmp_path / "installation").mkdir()
    found = {
        **proxmox.settings(), "guests": [GUEST], "storage": "local", "within_hours": 50, "backup_servers": [{**server.settings(), "off_site": True}],
    }  # fmt: skip
    use(found, tmp_path)
    return found


def use(section: dict[str, Any], place: Path, **more: Any) -> None:
    """Write the settings file."""
    main = {"directory": place / "installation", "repository": place / "backups", "proxmox": section, **more}
    write_settings(place / "settings.yaml", {"main": main})


def looked() -> SystemStatus:
    """Look, and judge what was seen."""
    config, now = config_of("main"), datetime.now(UTC)
    look_at_guests(config, now)
    return system_status(config, now)


def test_all_is_well(section: dict[str, Any], server: FakeBackupServer) -> None:
    found = looked()

    assert (found.problems, found.notes) == ((), ())
    (guest,) = found.guests
    assert (guest.name, guest.copies) == ("guest 101 (mail)", 2)
    assert {each.location: each.verdict for each in found.lines} == {
        "local": "not verified", "127.0.0.1:store1": "verified by the backup server",
    }  # fmt: skip
    assert {method for method, _ in server.requests} == {"GET"}, "nothing is changed there"


def test_not_backed_up_at_all(section: dict[str, Any], proxmox: FakeProxmox, server: FakeBackupServer) -> None:
    proxmox.volumes.clear()
    server.snapshots.clear()
    proxmox.not_backed_up = [{"vmid": GUEST, "type": "lxc", "name": "mail"}]

    (problem,) = looked().problems

    assert "guest 101 (mail) is not backed up at all" in problem
    assert "no backup job of Proxmox names it, and `schedule.proxmox` is not set" in problem


def test_each_guest_is_judged(section: dict[str, Any], tmp_path: Path) -> None:
    """One guest's backup is no other's."""
    use({**section, "guests": [GUEST, MACHINE]}, tmp_path)

    (problem,) = looked().problems

    assert "guest 102 (mailvm) is not backed up at all" in problem


def test_too_old(section: dict[str, Any], proxmox: FakeProxmox, server: FakeBackupServer) -> None:
    """What a wrong clock dates after now makes nothing fresh."""
    proxmox.volumes.clear()
    server.snapshots.clear()
    proxmox.add_volume(nights_ago(9))
    server.add_snapshot(nights_ago(-3), state="ok")

    (problem,) = looked().problems

    assert "the newest backup of guest 101 (mail) is 9" in problem
    assert "at local; at most 50 hours were asked for" in problem


def test_a_verification_that_failed(section: dict[str, Any], server: FakeBackupServer) -> None:
    server.add_snapshot(nights_ago(0), state="failed")
    server.add_task(
        nights_ago(0), "verificationjob", "store1:v-1", "verification failed - please check the log for details"
    )

    found = looked()

    assert [each for each in found.problems if "failed their verification: ct/101/" in each]
    assert [each for each in found.notes if "the last verification at 127.0.0.1:store1 failed" in each]
    assert found.guests[0].copies == 2, "a refuted one counts for nothing"


@pytest.mark.parametrize("worker_id", ["store1:ct/101", "store1:ns/offsite:ct/101"])
def test_a_backup_that_failed_after_the_newest(
    section: dict[str, Any], server: FakeBackupServer, worker_id: str
) -> None:
    server.add_task(nights_ago(2), "backup", worker_id, "connection error: broken pipe")
    assert looked().problems == (), "a backup is newer"
    server.add_task(datetime.now(UTC), "backup", worker_id, "connection error: broken pipe\x1b]0;x\x07")

    (problem,) = looked().problems

    assert "the last backup task of guest 101 (mail) at 127.0.0.1:store1 failed" in problem
    assert "broken pipe\\x1b]0;x\\x07" in problem


def test_a_task_of_proxmox_that_failed(section: dict[str, Any], proxmox: FakeProxmox) -> None:
    """A job of several guests does not say whose backup failed; one of ours that is newer clears it."""
    task = proxmox.new_task("vzdump", "")
    task.exit = "job errors"
    task.started -= 60

    assert "the last backup task that may concern guest 101 (mail)" in looked().problems[0]

    proxmox.add_volume(datetime.now(UTC))
    assert looked().problems == ()


def test_a_server_that_is_away(section: dict[str, Any], server: FakeBackupServer) -> None:
    """It is told, and what was seen there before still counts until it is too old."""
    assert looked().problems == ()
    server.token_works = False

    found = looked()

    (problem,) = found.problems
    assert problem.startswith("127.0.0.1:store1: 127.0.0.1:")
    assert "does not accept the API token" in problem
    assert found.guests[0].copies == 2
    later = system_status(config_of("main"), datetime.now(UTC) + timedelta(days=9))
    assert "is 10" in " ".join(later.problems)


def test_what_the_token_may_not_see_is_said(section: dict[str, Any], proxmox: FakeProxmox) -> None:
    proxmox.forbidden[("GET", "/cluster/backup")] = "Permission check failed (/, Sys.Audit)"

    found = looked()

    assert found.problems == ()
    assert [each for each in found.notes if "Sys.Audit" in each]


def test_a_job_in_another_mode_than_the_guides(section: dict[str, Any], proxmox: FakeProxmox) -> None:
    proxmox.jobs = [{"id": "backup-1", "enabled": 1, "all": 1, "exclude": "200", "mode": "snapshot"}]

    assert looked().notes == ("Proxmox's job backup-1 backs up 101 in mode snapshot; the guide asks for stop",)


def test_a_namespace_is_a_place_of_its_own(section: dict[str, Any], server: FakeBackupServer, tmp_path: Path) -> None:
    server.add_snapshot(nights_ago(1), namespace="offsite/mail", state="ok")
    use({**section, "backup_servers": [{**server.settings(), "namespace": "offsite/mail"}]}, tmp_path)

    assert "127.0.0.1:store1/offsite/mail" in {each.location for each in looked().lines}


def test_it_counts_as_the_copies_do(section: dict[str, Any], tmp_path: Path) -> None:
    """A place holds a backup's data when each guest was backed up at its moment or soon after."""
    system = looked()
    at = {each.name: each for each in system.places}

    assert (at["local"].medium, at["local"].off_site) == ("proxmox", False)
    assert (at["127.0.0.1:store1"].medium, at["127.0.0.1:store1"].off_site) == ("backup-server", True)
    assert at["local"].holds(nights_ago(1) - timedelta(hours=1))
    assert not at["local"].holds(nights_ago(0)), "the backup is older than these data"
    assert not at["local"].holds(nights_ago(30)), "much has been deleted since"
    use({**section, "guests": [GUEST, MACHINE]}, tmp_path)
    assert not any(each.holds(nights_ago(2)) for each in looked().places), "the other guest is nowhere"


def test_hostile_answers_leave_what_was_seen(section: dict[str, Any], server: FakeBackupServer) -> None:
    looked()
    server.raw_answer = b'{"data": [{"backup-type": "ct", "backup-id": "101", "backup-time": "soon\\u001b[2J"}]}'

    (problem,) = looked().problems

    assert "is not what its API documents" in problem
    assert "\x1b" not in problem
    assert read_guests_seen("main").copies


def test_watch_tells(section: dict[str, Any], proxmox: FakeProxmox, server: FakeBackupServer, tmp_path: Path) -> None:
    """`watch` looks, raises the alarm, and writes status, metrics and the state for who judges between the looks."""
    proxmox.volumes.clear()
    server.snapshots.clear()
    (tmp_path / "backups").mkdir()
    with receiver() as heard:
        use(section, tmp_path, metrics_directory=tmp_path / "metrics", notifications=heard.settings(events=["proxmox"]))

        status = run_flow(watch, "main").status

        assert heard.titles() == ["mailarchiver-backup: proxmox of main"]
    assert "PROXMOX: guest 101 (mail) is not backed up at all" in str(status)
    assert "As a whole at Proxmox: guest 101 (mail): no backup" in str(status)
    metrics = (tmp_path / "metrics" / "mailarchiver_backup_main.prom").read_text()
    assert 'mailarchiver_backup_guest_backups{guest="101",installation="main"} 0.0' in metrics
    assert 'mailarchiver_backup_problem{installation="main",kind="proxmox"} 1.0' in metrics
    told = json.dumps(read_guests_seen("main").model_dump(mode="json")) + str(status) + metrics
    assert proxmox.secret not in told
