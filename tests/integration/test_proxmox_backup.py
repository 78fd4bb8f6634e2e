"""A guest backed up by Proxmox: by the guide's mode, its former state afterwards, and a clear word on whatever is wrong."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.proxmox_backup import proxmox_backup
from tasks.adapters.host.journals import list_journals
from tasks.adapters.proxmox.virtual_environment import find_guests, guest_now
from tasks.core.errors import BackupError, Refused
from tasks.core.guests.failed import GuestsFailed
from tasks.proxmox import backup_guest as backup_guest_module
from tasks.proxmox.backup_guest import connected
from tasks.proxmox.check import check_proxmox
from tasks.proxmox.guest_loan import bring_back
from tasks.proxmox.report import GuestRun
from tasks.recovery.recover import recover
from tasks.run.context import config_of, notify_recovered
from tasks.surroundings import run_flow
from tests.cli import PROGRAM, run_program, start_program
from tests.proxmox.fake import GUEST, MACHINE, FakeProxmox, fake_proxmox, nights_ago
from tests.receiver import receiver
from tests.settings import write_settings
from tests.stack.stack import wait_until


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeProxmox]:
    with fake_proxmox(tmp_path_factory.mktemp("proxmox")) as fake:
        yield fake


@pytest.fixture
def proxmox(shared: FakeProxmox) -> Iterator[FakeProxmox]:
    """Lend the module's Proxmox, with nothing wrong and both guests running."""
    usual = {name: getattr(shared, name) for name in (
        "backup_seconds", "backup_end", "content", "free_bytes", "active", "node_away", "token_works", "restarts_after_end",
        "raw_answer", "redirect", "lock_lingers_seconds",
    )}  # fmt: skip
    token = shared.token_file.read_text()
    for vmid in (GUEST, MACHINE):
        shared.set_state("running", vmid)
    shared.volumes.clear()
    shared.requests.clear()
    shared.backup_lines = []
    yield shared
    for name, value in usual.items():
        setattr(shared, name, value)
    for each in shared.running_backups():
        each.told_to_end.set()
    wait_until(lambda: not shared.running_backups(), 10, "a backup of the test does not end")
    shared.forbidden.clear()
    shared.locks.clear()
    shared.token_file.write_text(token)
    shared.token_file.chmod(0o600)


@pytest.fixture
def settings(proxmox: FakeProxmox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Give the section of the settings as the file has it; `use` writes it anew."""
    section: dict[str, Any] = {**proxmox.settings(), "guests": [GUEST], "storage": "local"}
    (tmp_path / "installation").mkdir()
    monkeypatch.setenv("MAILARCHIVER_BACKUP_SETTINGS", str(tmp_path / "settings.yaml"))
    use(section, tmp_path)
    return section


def use(section: dict[str, Any], place: Path, **more: Any) -> Path:
    """Write the settings file."""
    return write_settings(
        place / "settings.yaml",
        {
            "main": {
                "directory": place / "installation",
                "repository": place / "backups",
                "proxmox": section,
                "log_file": place / "log",
                **more,
            }
        },
    )


def back_up() -> tuple[GuestRun, ...]:
    """Run the flow as the command line does."""
    return run_flow(proxmox_backup, "main")


def refusal() -> BackupError:
    """Run the flow, which has to fail; give the error of its only guest."""
    with pytest.raises(GuestsFailed) as caught:
        back_up()
    (run,) = caught.value.runs
    assert run.error is not None
    assert run.error.hint
    return run.error


def test_from_the_command_line(proxmox: FakeProxmox, settings: dict[str, Any], tmp_path: Path) -> None:
    """Stopped, copied, started; the new volume is told, the old ones go by Proxmox's own rules and with a reason; no secret is shown."""
    old = [proxmox.add_volume(nights_ago(count)) for count in (40, 30, 20)]
    kept = proxmox.add_volume(nights_ago(50), protected=1)
    place = use({**settings, "guests": [GUEST, MACHINE], "retention": {"keep_last": 2}}, tmp_path)

    code, stdout, stderr = run_program([PROGRAM, "backup", "proxmox", "--settings", str(place), "--json"])

    assert code == 0, stderr
    container, machine = json.loads(stdout)["guests"]
    assert (container["outcome"], machine["outcome"]) == ("succeeded", "succeeded")
    assert (proxmox.state(), proxmox.state(MACHINE)) == ("running", "running")
    there = {each["volid"] for each in proxmox.volumes}
    assert container["backup"] in there
    assert kept in there
    assert old[2] in there
    assert not {*old[:2]} & there
    reasons = {each["backup"]: each["reason"] for each in container["retention"]}
    assert reasons[kept] == "it is protected: Proxmox never prunes it"
    assert reasons[container["backup"]] == "keep-last=2: one of the newest"
    assert reasons[old[0]] == "no rule keeps it"
    log = (tmp_path / "log").read_text()
    assert "101: INFO: stopping vm" in log, "the task's log is part of the run's"
    assert "102: INFO:  " in log
    assert "all database transactions are completed" in log
    assert proxmox.secret not in stdout + stderr + log


def test_a_guest_that_was_stopped_stays_so(proxmox: FakeProxmox, settings: dict[str, Any]) -> None:
    proxmox.set_state("stopped")

    (run,) = back_up()

    assert run.made is not None
    assert (run.made.former, proxmox.state()) == ("stopped", "stopped")
    assert list_journals() == []


def test_warnings_are_no_success_and_remove_nothing(
    proxmox: FakeProxmox, settings: dict[str, Any], tmp_path: Path
) -> None:
    old = [proxmox.add_volume(nights_ago(count)) for count in (3, 2)]
    proxmox.backup_end, proxmox.backup_lines = "WARNINGS: 1", ["WARN: no valid efidisk\x1b[2J found"]
    use({**settings, "retention": {"keep_last": 1}}, tmp_path)

    (run,) = back_up()

    assert run.report.outcome == "warnings"
    assert run.report.paused == "the new backup ended with warnings"
    assert run.report.warnings == ("WARN: no valid efidisk\\x1b[2J found",)
    assert {*old} < {each["volid"] for each in proxmox.volumes}
    assert proxmox.state() == "running"


def test_what_the_new_backup_does_not_survive_is_not_done(
    proxmox: FakeProxmox, settings: dict[str, Any], tmp_path: Path
) -> None:
    """A volume that is dated after now would push the new one out."""
    ahead = proxmox.add_volume(nights_ago(-400))
    use({**settings, "retention": {"keep_last": 1}}, tmp_path)

    (run,) = back_up()

    assert "would remove the new backup" in run.report.paused
    assert {ahead, run.report.backup} == {each["volid"] for each in proxmox.volumes}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"locks": {GUEST: "migrate"}}, "container 101 (mail) is locked (migrate)"),
        ({"free_bytes": 10**9}, "1.0 GB are free on the storage local where 8.6 GB are wanted"),
        ({"content": "iso,vztmpl"}, "the storage local takes no backups: its content is iso, vztmpl"),
        ({"active": False}, "the storage local is not usable on node pve1"),
        ({"node_away": True}, "a node behind 127.0.0.1"),
        ({"token_works": False}, "does not accept the API token: authentication failure"),
        (
            {"forbidden": {("POST", "/vzdump"): "Permission check failed (/vms/101, VM.Backup)"}},
            "Permission check failed (/vms/101, VM.Backup)",
        ),
        ({"backup_end": "job errors"}, "the backup of container 101 (mail) failed: job errors"),
    ],
    ids=["locked", "full", "content", "inactive", "node", "token", "permission", "failed"],
)
def test_what_is_wrong_is_told(
    wrong: dict[str, Any], words: str, proxmox: FakeProxmox, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each by its name, with a hint; the guest runs as before, nothing is removed, and no journal stays."""
    monkeypatch.setattr("tasks.step.time.sleep", lambda seconds: None)
    former = proxmox.add_volume(nights_ago(1), size=3 * 10**10)
    for name, value in wrong.items():
        setattr(proxmox, name, value)

    assert words in refusal().message

    assert proxmox.state() == "running"
    assert [each["volid"] for each in proxmox.volumes] == [former]
    assert list_journals() == []


def test_a_lock_that_comes_late(
    proxmox: FakeProxmox, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Locked between our look and vzdump's: its own words are told."""
    shown = proxmox.answer

    def unlocked_to_look_at(method: str, path: str, values: dict[str, str]) -> Any:
        found = shown(method, path, values)
        return {name: value for name, value in found.items() if name != "lock"} if path.endswith("/current") else found

    monkeypatch.setattr(proxmox, "answer", unlocked_to_look_at)
    proxmox.locks[GUEST] = "snapshot-delete"

    assert "CT is locked (snapshot-delete)" in refusal().message
    assert proxmox.state() == "running"


def test_a_task_that_never_ends(proxmox: FakeProxmox, settings: dict[str, Any], tmp_path: Path) -> None:
    """It is ended when its time is up, and the guest that it left stopped is started."""
    proxmox.backup_seconds = 1000
    use({**settings, "limit_hours": 1.5 / 3600}, tmp_path)

    error = refusal()

    assert "does not end" in error.message
    assert proxmox.state() == "running"
    assert proxmox.running_backups() == []
    assert proxmox.volumes == []
    assert list_journals() == []


@pytest.mark.parametrize(
    ("left", "former", "steps"),
    [
        ("suspend", "running", ["resume"]),
        ("stop", "paused", ["start", "suspend"]),
        ("stop", "running", ["start"]),
        ("stop", "stopped", []),
    ],
)
def test_the_way_back_of_a_virtual_machine(
    left: str, former: Any, steps: list[str], proxmox: FakeProxmox, settings: dict[str, Any]
) -> None:
    """A backup that was cut off may leave a machine stopped, or paused in the middle; a second look finds nothing to do."""
    proxmox.ask("POST", f"/nodes/pve1/qemu/{MACHINE}/status/{left}", {})
    with connected(config_of("main")) as api:
        done = bring_back(api, MACHINE, former, "", "pve1", 10)
        assert done == [f"{step} virtual machine {MACHINE} (mailvm)" for step in steps]
        assert bring_back(api, MACHINE, former, "", "pve1", 10) == []
        (machine,) = find_guests(api, [MACHINE])
        assert guest_now(api, machine).state == former
    if former == "paused":
        proxmox.ask("POST", f"/nodes/pve1/qemu/{MACHINE}/status/resume", {})


def test_a_lock_that_outlives_its_task(
    proxmox: FakeProxmox, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is waited for; one that stays is told with the command that lifts it, and the watchdog goes on until it is gone."""
    proxmox.backup_seconds, proxmox.lock_lingers_seconds = 1000, 2.0
    use({**settings, "limit_hours": 0.5 / 3600}, tmp_path)
    assert "does not end" in refusal().message
    assert proxmox.state() == "running"

    monkeypatch.setattr("tasks.proxmox.guest_loan.GIVE_BACK_SECONDS", 1.5)
    proxmox.lock_lingers_seconds = 5.0
    error = refusal()

    assert "pct unlock 101" in " ".join(getattr(error, "__notes__", []))
    wait_until(lambda: proxmox.state() == "running", 30, "the watchdog does not start the guest")
    wait_until(lambda: list_journals() == [], 30, "a journal stays")


def test_a_guest_that_has_just_moved(
    proxmox: FakeProxmox, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proxmox says OK and does nothing."""
    monkeypatch.setattr(proxmox, "_vzdump", lambda *_: "OK")

    assert "is no longer on node pve1" in refusal().message
    assert list_journals() == []


def test_no_success_without_a_backup(
    proxmox: FakeProxmox, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that says OK and leaves nothing proves nothing."""
    monkeypatch.setattr(proxmox, "add_volume", lambda *_, **__: "")

    assert "no new backup is on the storage local" in refusal().message


def test_certificates(proxmox: FakeProxmox, settings: dict[str, Any], tmp_path: Path) -> None:
    """Known by its fingerprint or by a CA; else the token is not even sent, and the hint says which one is shown."""
    shown = ":".join(proxmox.fingerprint[place : place + 2] for place in range(0, 64, 2)).upper()
    for wrong in ({"fingerprint": "ab" * 32}, {"fingerprint": None}):
        use({**settings, **wrong}, tmp_path)
        proxmox.requests.clear()
        error = refusal()
        assert isinstance(error, Refused)
        assert "the certificate of 127.0.0.1" in error.message
        assert shown in error.hint
        assert proxmox.requests == []

    use({**settings, "fingerprint": None, "ca_file": str(proxmox.ca_file)}, tmp_path)
    (run,) = back_up()
    assert run.report.outcome == "succeeded"


def test_the_token_file(proxmox: FakeProxmox, settings: dict[str, Any]) -> None:
    """Readable by others, of another form, or gone: told by its path, and never by its content."""
    proxmox.token_file.chmod(0o640)
    assert "other users may read" in refusal().message
    proxmox.token_file.chmod(0o600)
    proxmox.token_file.write_text("root@pam:hunter2")
    error = refusal()
    assert "is no API token" in error.message
    assert "hunter2" not in str(error)
    proxmox.token_file.unlink()
    assert "there is no token file" in refusal().message


HOSTILE: list[Any] = [
    b"not json", b'{"data": ', b"[]", b'{"data": [{"type": "lxc", "vmid": 101, "node": "../../access/users"}]}',
    b'{"data": [{"type": "lxc", "vmid": 101, "node": "pve1\\u001b[2J"}]}', b'{"data": {"vmid": 101}}',
    b'{"data": [{"type": "lxc", "vmid": "101; reboot", "node": "pve1"}]}', b'{"data": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    b'{"data": "' + b"x" * (33 << 20) + b'"}',
]  # fmt: skip


@pytest.mark.parametrize("answer", HOSTILE, ids=range(len(HOSTILE)))
def test_answers_of_a_hostile_server(
    answer: bytes, proxmox: FakeProxmox, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it says becomes no path and no terminal's command, and nothing but an error of ours."""
    monkeypatch.setattr("tasks.step.time.sleep", lambda seconds: None)
    proxmox.raw_answer = answer

    error = refusal()

    assert "\x1b" not in str(error)
    assert len(str(error)) < 2000
    assert {path for _, path in proxmox.requests} == {"/cluster/resources"}


def test_no_token_goes_elsewhere(proxmox: FakeProxmox, settings: dict[str, Any]) -> None:
    """A redirect is not followed, to plain HTTP least of all."""
    proxmox.redirect = f"http://127.0.0.1:{proxmox.port}/api2/json/cluster/resources"

    assert "sends us elsewhere" in refusal().message
    assert proxmox.requests == []


def test_its_own_machine_is_not_stopped(
    proxmox: FakeProxmox, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup_guest_module.socket, "gethostname", lambda: "mail.example.org")
    monkeypatch.setattr(backup_guest_module, "runs_in", lambda: "lxc")

    assert "seems to be the machine that this runs on" in refusal().message
    assert proxmox.state() == "running"


def start_and_wait(proxmox: FakeProxmox, place: Path) -> int:
    """Start a backup in a process of its own and wait until the guest is down; give the process."""
    child = start_program([PROGRAM, "backup", "proxmox", "--settings", str(place), "--json"])
    wait_until(lambda: proxmox.state() == "stopped", 60, "the guest was not stopped")
    return child.pid


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "ended"])
def test_our_own_death_midway(
    how: signal.Signals, proxmox: FakeProxmox, settings: dict[str, Any], tmp_path: Path
) -> None:
    """The backup that nobody waits for any more is ended, and the guest started, although vzdump itself did not."""
    proxmox.backup_seconds = 1000
    pid = start_and_wait(proxmox, tmp_path / "settings.yaml")
    begun = time.monotonic()

    os.kill(pid, how)

    wait_until(lambda: proxmox.state() == "running", 60, "the guest does not run again")
    wait_until(lambda: list_journals() == [], 30, "a journal stays")
    assert time.monotonic() - begun < 60
    assert proxmox.running_backups() == []
    assert recover() == []


def test_a_proxmox_that_is_away_keeps_nobody_waiting(
    proxmox: FakeProxmox, settings: dict[str, Any], tmp_path: Path
) -> None:
    """What a dead run left there is not settled while it is away; backups here go on, and recover settles it later."""
    from tasks.adapters.host.journals import open_journal

    body = {
        "reason": "r", "host": f"127.0.0.1:{proxmox.port}", "node": "pve1", "guest": GUEST, "guest_kind": "lxc", "former": "running",
        "upid": "",
    }  # fmt: skip
    journal = open_journal(
        "proxmox-guest", body, installation_id="main", installation_directory=tmp_path / "installation"
    )
    path = journal.path.with_name("9-1-0001-proxmox-guest.json")
    path.write_text(journal.path.read_text().replace(journal.path.name.rsplit("-", 3)[0], "9-1"))
    path.chmod(0o600)
    journal.remove()
    proxmox.set_state("stopped")
    proxmox.node_away = True

    (left,) = recover(tmp_path / "installation")
    assert not left.settled
    assert "does not answer" in left.message
    with receiver() as heard:
        use(settings, tmp_path, notifications=heard.settings(events=["recovery"]))
        notify_recovered([left])
        notify_recovered(recover())
        assert len(heard.titles()) == 1, "the timer tries each minute, and tells once"
        proxmox.node_away = False
        (done,) = recover(tmp_path / "installation")
        notify_recovered([done])
        assert len(heard.titles()) == 2

    assert done.settled, done
    assert proxmox.state() == "running"


def test_what_doctor_says(proxmox: FakeProxmox, settings: dict[str, Any], tmp_path: Path) -> None:
    """What is fit in a line for each guest; what stands in the way with its hint; a mode that the guide does not ask for, and why."""
    server = {**proxmox.settings(), "datastore": "store1", "token_file": str(tmp_path / "nowhere")}
    use({**settings, "guests": [GUEST, MACHINE, 999], "mode": "snapshot", "backup_servers": [server]}, tmp_path)
    proxmox.locks[MACHINE] = "clone"

    found = check_proxmox(config_of("main"))

    (line,) = found.lines
    assert "container 101 (mail) on pve1: running" in line
    obstacles = " ".join(what for what, _ in found.obstacles)
    assert "virtual machine 102 (mailvm) is locked (clone)" in obstacles
    assert "knows no guest 999" in obstacles
    assert f"there is no token file {tmp_path}/nowhere" in obstacles
    assert [what for what, _ in found.notes] == ["guests are backed up in mode snapshot"]
