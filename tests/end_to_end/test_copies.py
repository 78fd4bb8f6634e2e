"""Copies as an operator sees them: the night's own, a target that is away, and what status, report and doctor say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli import PROGRAM, run_program
from tests.settings import write_settings
from tests.stack.stack import Stack, content
from tests.targets import serving

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]


@pytest.fixture
def run(small_stack: Stack, tmp_path: Path) -> Any:
    """Give who runs commands with two targets, a disk and a place that does not answer."""
    settings = {
        "directory": small_stack.directory, "repository": tmp_path / "backups", "rclone_config": str(tmp_path / "rclone.conf"),
        "metrics_directory": str(tmp_path / "metrics"),
        "copies": [
            {"name": "disk", "remote": str(tmp_path / "disk")},
            {"name": "away", "remote": "away:mail", "off_site": True},
        ],
    }  # fmt: skip
    (tmp_path / "disk").mkdir()
    (tmp_path / "rclone.conf").write_text("[away]\ntype = alias\nremote = /nowhere/at/all\n")
    (tmp_path / "rclone.conf").chmod(0o600)
    write_settings(tmp_path / "settings.yaml", {"main": settings})

    def command(*words: str) -> tuple[int, Any, str]:
        code, out, err = run_program([PROGRAM, *words, "--settings", str(tmp_path / "settings.yaml"), "--json"])
        return code, json.loads(out) if out.strip() else None, err

    return command


def test_a_night_copies_its_backup_and_a_target_that_fails_repeats_no_dump(run: Any, tmp_path: Path) -> None:
    """The backup and the other target's copy are whole; the next `copy` has nothing to do but what failed."""
    (tmp_path / "rclone.conf").chmod(0o644)
    code, _, err = run("backup", "auto")
    assert code == 1
    assert "others may read or write the rclone configuration" in err

    (archive,) = (tmp_path / "backups").glob("*.tar.gz")
    assert (tmp_path / "disk" / archive.name).read_bytes() == archive.read_bytes()
    code, value, _ = run("doctor")
    assert any("this machine could wipe the copies at disk, away" in each["what"] for each in value["problems"])

    (tmp_path / "rclone.conf").write_text(f"[away]\ntype = alias\nremote = {tmp_path / 'far'}\n")
    (tmp_path / "rclone.conf").chmod(0o600)
    code, value, err = run("copy")
    assert code == 0, err
    assert [(each["target"], each["sent"]) for each in value["targets"]] == [
        ("disk", []), ("away", [archive.name.removesuffix(".tar.gz")]),
    ]  # fmt: skip
    assert (tmp_path / "far" / "mail" / archive.name).read_bytes() == archive.read_bytes()

    code, value, err = run("status")
    assert (code, value["problems"]) == (0, []), err
    page = (tmp_path / "backups" / "report-main.html").read_text()
    assert "3-2-1-0-0" in page
    assert 'class="night green"' in page
    assert (
        'mailarchiver_backup_copies{installation="main"} 3.0'
        in (tmp_path / "metrics" / "mailarchiver_backup_main.prom").read_text()
    )
    assert [each["verified"] for each in run("list")[1]] == [True], "and one dump was all"


@pytest.mark.parametrize(
    "kind", ["openssh", pytest.param("webdav", marks=pytest.mark.long), pytest.param("s3", marks=pytest.mark.long)]
)
def test_what_only_a_target_has_is_listed_checked_proven_and_restored_from_there(
    run: Any, small_stack: Stack, tmp_path: Path, kind: str
) -> None:
    """Streamed from a server: the repository is lost, nothing is fetched, and the verdict stands at the target."""
    with serving(tmp_path, kind) as server:
        lines = [f"{key} = {value}" for key, value in ({**server.section}).items()]
        (tmp_path / "rclone.conf").write_text("\n".join(["[away]", *lines]) + "\n")
        (server.files / "mail").mkdir()
        code, made, err = run("backup", "hot")
        assert code == 0, err
        before = content(small_stack)
        code, _, err = run("copy", "away")
        assert code == 0, err
        for each in (tmp_path / "backups").glob("mailarchiver-backup-*"):
            each.unlink()

        code, listed, err = run("list", "--from", "away")
        assert [(each["name"], each["authenticity"], each["verified"]) for each in listed] == [
            (made["name"], "authentic", False)
        ], err
        code, checked, err = run("check", "latest", "--from", "away")
        assert (code, checked["sha256"], checked["authenticity"]) == (0, made["sha256"], "authentic"), err
        code, verified, err = run("verify", made["name"], "--from", "away")
        assert (code, verified["verdict"]) == (0, "verified"), err
        record = json.loads((server.files / "mail" / f"{made['name']}.manifest.json").read_text())
        assert record["verification"]["verdict"] == "verified"
        assert [each["verified"] for each in run("list", "--from", "away")[1]] == [True]

        small_stack.psql('DELETE FROM mail_archiver."ArchivedEmails" WHERE "Id" % 2 = 0')
        assert content(small_stack) != before
        code, restored, err = run("restore", "latest", "--from", "away", "--yes", "--no-quarantine")
        assert (code, restored and restored["restored"]) == (0, made["name"]), err
        assert content(small_stack) == before
        assert list((tmp_path / "backups").glob("*.tar.gz")) == []

        path = server.files / "mail" / Path(made["archive"]).name
        damaged = bytearray(path.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        path.write_bytes(damaged)
        assert run("check", "latest", "--from", "away")[0] == 1
        code, _, err = run("check", "/etc/passwd", "--from", "away")
        assert (code, "is no backup's name" in err) == (2, True)


def test_a_fresh_host_needs_only_a_copy(
    run: Any, small_stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P19, from away: another host with the target's settings and the public key sets the whole stack up, streamed."""
    (tmp_path / "rclone.conf").write_text(f"[away]\ntype = alias\nremote = {tmp_path / 'far'}\n")
    code, made, err = run("backup", "hot")
    assert (code, run("copy", "away")[0]) == (0, 0), err
    key = json.loads(Path(made["archive"].removesuffix(".tar.gz") + ".manifest.json").read_text())["signature"]["key"]
    before = content(small_stack)
    monkeypatch.setenv("MAILARCHIVER_BACKUP_STATE", str(tmp_path / "another host"))
    place, project = tmp_path / "fresh", f"{small_stack.project}-fresh"
    settings = yaml.safe_load((tmp_path / "settings.yaml").read_text())
    settings["installations"]["main"] |= {
        "directory": str(place),
        "project": project,
        "repository": str(tmp_path / "new"),
    }
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings))
    small_stack.compose("stop")  # one machine has each port once
    fresh = Stack(place, project, small_stack.app_url)
    try:
        code, _, err = run(
            "restore", "latest", "--from", "away", "--into", str(place), "--trusted-key", key, "--no-quarantine"
        )
        assert code == 0, err
        fresh.wait_app()
        assert content(fresh) == before
    finally:
        fresh.destroy()
        small_stack.compose("start")
        small_stack.wait_app()
