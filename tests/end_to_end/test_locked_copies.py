"""A bucket with object lock gives back what it keeps: listed, checked, proven and restored from there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli import PROGRAM, run_program
from tests.integration.test_copies_are_locked import s3  # noqa: F401 - the server, a fixture
from tests.settings import write_settings
from tests.stack.stack import Stack, content
from tests.targets import write_config

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300), pytest.mark.long]


def test_a_locked_copy_is_listed_checked_proven_and_restored(
    small_stack: Stack,
    s3: dict[str, str],  # noqa: F811 - the fixture
    tmp_path: Path,
) -> None:
    """The verdict is written beside an archive that nobody can change."""
    config = write_config(tmp_path / "rclone.conf", {"away": s3})
    main = {
        "directory": small_stack.directory, "repository": tmp_path / "backups", "rclone_config": config,
        "copies": [{"name": "away", "remote": "away:locked/mail", "lock_days": 2}],
    }  # fmt: skip
    settings = write_settings(tmp_path / "settings.yaml", {"main": main})

    def must(*words: str) -> Any:
        code, out, err = run_program([PROGRAM, *words, "--settings", str(settings), "--json"])
        assert code == 0, f"{words}: {out} {err}"
        return json.loads(out)

    made = must("backup", "hot")
    before = content(small_stack)
    must("copy")
    for each in (tmp_path / "backups").glob("mailarchiver-backup-*"):
        each.unlink()

    assert [each["name"] for each in must("list", "--from", "away")] == [made["name"]]
    assert must("check", "latest", "--from", "away")["sha256"] == made["sha256"]
    assert must("verify", "latest", "--from", "away")["verdict"] == "verified"
    assert [each["verified"] for each in must("list", "--from", "away")] == [True]
    small_stack.psql('DELETE FROM mail_archiver."ArchivedEmails" WHERE "Id" % 2 = 0')
    assert content(small_stack) != before
    must("restore", "latest", "--from", "away", "--yes", "--no-quarantine")
    assert content(small_stack) == before
