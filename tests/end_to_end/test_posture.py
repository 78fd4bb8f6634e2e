"""Mail at risk and the posture of the backups, as `doctor`, `status` and `watch` tell them of a real stack."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flows.watch import watch
from tasks.adapters.archive.identity import private_key
from tasks.adapters.archive.repository import list_backups, write_record
from tasks.core.archive.authenticity import sign_record
from tasks.run.context import config_of
from tests.cli import PROGRAM, run_program
from tests.receiver import Receiver, receiver
from tests.settings import write_settings
from tests.stack.stack import Stack

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

Run = Callable[..., Any]


@pytest.fixture
def heard() -> Iterator[Receiver]:
    with receiver() as found:
        yield found


@pytest.fixture
def write(small_stack: Stack, tmp_path: Path, heard: Receiver, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Give who writes the settings: a target elsewhere (a directory stands for it), and more."""
    (tmp_path / "away").mkdir(mode=0o700)
    settings = tmp_path / "settings.yaml"
    monkeypatch.setenv("MAILARCHIVER_BACKUP_SETTINGS", str(settings))

    def settings_with(**more: Any) -> None:
        common = {
            "directory": small_stack.directory, "repository": tmp_path / "backups", "metrics_directory": tmp_path / "metrics",
            "copies": [{"name": "away", "remote": str(tmp_path / "away"), "off_site": True}],
            "notifications": heard.settings(events=["mail_at_risk"]),
        }  # fmt: skip
        write_settings(settings, {"main": {**common, **more}})

    settings_with()
    return settings_with


def run(*words: str, code: int = 0) -> Any:
    got, out, err = run_program([PROGRAM, *words, "--json"])
    assert got == code, f"{words}: {out} {err}"
    return json.loads(out)


def weak(told: Any) -> dict[str, list[str]]:
    """Give the weaknesses that a doctor's answer names, by their kinds."""
    found: dict[str, list[str]] = {}
    for each in told["problems"]:
        if each["severity"] == "weakness":
            assert each["why"]
            assert each["hint"]
            found.setdefault(each["kind"], []).append(each["what"])
    return found


def test_mail_that_its_server_deletes_before_a_proven_copy_is_away(
    small_stack: Stack, write: Callable[..., None], tmp_path: Path, heard: Receiver
) -> None:
    """Until a backup is both proven and away, and again once that one is older than the days; `watch` raises the alarm and takes it back."""

    def at_risk(told: Any) -> list[str]:
        return [each["text"] for each in told["problems"] if each["kind"] == "mail_at_risk"]

    (told,) = weak(run("doctor", code=1))["mail_at_risk"]
    assert told == "mail is deleted on the server after 30 days (1 account); there is no proven copy away from here"
    run("backup", "hot")
    run("copy")
    assert "there is no proven copy" in at_risk(run("status", code=1))[0], "away, and not proven"
    watch.fn("main")
    assert [title for title in heard.titles() if "mail_at_risk" in title]

    run("verify")
    run("copy")
    told = run("status")
    assert at_risk(told) == []
    assert "the newest proven copy away from here is" in told["mail_on_servers"]
    assert "mail_at_risk" not in weak(run("doctor", code=1))
    assert heard.titles()[-1].endswith("mail_at_risk of main is over")

    aged(timedelta(days=5))
    small_stack.psql('UPDATE mail_archiver."MailAccounts" SET "DeleteAfterDays" = 3 WHERE "DeleteAfterDays" = 30')
    words = (
        "mail is deleted on the server after 3 days (1 account); the newest proven copy away from here is 5 days old"
    )
    assert weak(run("doctor", code=1))["mail_at_risk"] == [words]
    told = run("status", code=1)
    assert at_risk(told) == [words]
    assert words in Path(told["report"]).read_text()
    metrics = (tmp_path / "metrics" / "mailarchiver_backup_main.prom").read_text()
    assert 'mailarchiver_backup_server_deletion_seconds{installation="main"} 259200.0' in metrics
    watch.fn("main")
    assert heard.titles()[-1].endswith("mail_at_risk of main")

    write(accept_risks=["mail_at_risk"])
    assert at_risk(run("status", code=1)) == []  # its age is an alarm all the same
    write()
    small_stack.compose("stop", "postgres")
    try:
        (told,) = weak(run("doctor", code=1))["mail_at_risk"]
        assert "as of" in told, "nobody can look, and what was seen last still holds"
    finally:
        small_stack.compose("start")
        small_stack.wait_app()
    small_stack.psql('UPDATE mail_archiver."MailAccounts" SET "IsEnabled" = false WHERE "DeleteAfterDays" = 3')
    assert at_risk(run("status", code=1)) == []
    small_stack.psql(
        'UPDATE mail_archiver."MailAccounts" SET "IsEnabled" = true, "DeleteAfterDays" = 30 WHERE "DeleteAfterDays" = 3'
    )


def aged(by: timedelta) -> None:
    """Make the backup older, by a date that is signed as `adopt` signs one; its copy keeps its place."""
    config = config_of("main")
    (backup,) = list_backups(config.repository)
    key = private_key(config.id, config.directory)
    assert key is not None
    assert backup.record is not None
    write_record(backup.path, sign_record(backup.record.model_copy(update={"dated": datetime.now(UTC) - by}), key))


def test_what_makes_a_bad_day_worse_is_named_until_it_is_mended_or_accepted(
    small_stack: Stack, write: Callable[..., None], tmp_path: Path
) -> None:
    """Each weakness with why and what to do; exit code 1 until the settings accept what is left."""
    found = weak(run("doctor", code=1))
    assert set(found) == {"mail_at_risk", "no_off_site_copy", "unlocked_target", "unencrypted", "default_password"}
    names = ("Authentication__Password", "POSTGRES_PASSWORD")
    assert found["default_password"] == [f"{name} is the guide's well-known default" for name in names]
    assert found["no_off_site_copy"] == ["no copy is at away yet"]

    key = tmp_path / "backups" / "recovery-key.txt"
    key.parent.mkdir(mode=0o700)
    recipient = run("keygen", "--output", str(key))["recipient"]
    write(encryption={"recipients": [recipient]})
    run("backup", "hot")
    run("verify", "--identity", str(key))
    run("copy")
    found = weak(run("doctor", code=1))
    assert set(found) == {"unlocked_target", "key_beside_backups", "default_password"}
    assert str(key) in found["key_beside_backups"][0]
    key.unlink()

    told = weak(run("doctor", code=1))
    assert "key_beside_backups" not in told
    write(encryption={"recipients": [recipient]}, accept_risks=["unlocked_target", "default_password"])
    told = run("doctor")
    assert (weak(told), {each["kind"] for each in told["accepted"]}) == ({}, {"unlocked_target", "default_password"})


def test_files_that_every_user_may_read_are_named(
    small_stack: Stack, write: Callable[..., None], tmp_path: Path
) -> None:
    """A closed directory above protects them; the settings, archives here and at a target, and the stack's own files are looked at."""
    run("backup", "hot")
    run("copy")
    compose = small_stack.directory / "docker-compose.yml"
    compose.chmod(0o644)
    archives = [*(tmp_path / "backups").glob("*.tar.gz"), *(tmp_path / "away").glob("*.tar.gz")]
    for each in archives:
        each.chmod(0o644)
    assert "readable_by_others" not in weak(run("doctor", code=1))
    above = {*tmp_path.parents, *compose.parents, tmp_path, tmp_path / "backups", tmp_path / "away"}
    opened = [each for each in above if not each.stat().st_mode & 0o001]
    before = {each: each.stat().st_mode for each in opened}
    try:
        for each in opened:
            each.chmod(before[each] | 0o001)
        told = "\n".join(weak(run("doctor", code=1))["readable_by_others"])
    finally:
        for each in opened:
            each.chmod(before[each])
    for each in (compose, *archives):
        assert f"{each} can be read by every user" in told
    assert str(tmp_path / "settings.yaml") not in told  # 0600


LISTENING = """
import socket, sys
taken = socket.create_server((sys.argv[1], 0))
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(("host", "is_weak"), [("127.0.0.1", False), ("0.0.0.0", True)])
def test_prefect_that_others_reach_without_tls_is_named(
    small_stack: Stack,
    write: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    is_weak: bool,
) -> None:
    """By what really listens, and by the address that worker and units are given."""
    with subprocess.Popen(
        [sys.executable, "-c", LISTENING, host, "deployments.server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as listening:
        assert listening.stdout is not None
        assert listening.stdout.readline() == b"ready\n"
        told = weak(run("doctor", code=1)).get("prefect_without_tls", [])
        assert any("listens at 0.0.0.0:" in each for each in told) == is_weak
        assert listening.stdin is not None
        listening.stdin.close()
    (tmp_path / "prefect.env").write_text(f"PREFECT_API_URL=http://{host if not is_weak else '10.1.2.3'}:4200/api\n")
    told = weak(run("doctor", code=1)).get("prefect_without_tls", [])
    assert any("asked at http://10.1.2.3:4200/api" in each for each in told) == is_weak
