"""Nobody is told that this program is used. Prefect's library would do so from a terminal, outside CI."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

from tests.cli import PROGRAM


def test_the_command_line_reports_its_use_to_nobody(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    environment = {"HOME": str(home), "PATH": os.environ["PATH"], "MAILARCHIVER_BACKUP_STATE": str(tmp_path / "state")}
    mother, child = pty.openpty()
    missing = ["--directory", str(tmp_path / "nowhere"), "--repository", str(tmp_path / "backups")]

    done = subprocess.run(
        [PROGRAM, "backup", "hot", *missing], stdin=child, stdout=child, stderr=child, env=environment, check=False
    )
    os.close(child)
    said = os.read(mother, 100_000).decode()

    assert done.returncode == 1
    assert "HINT" in said
    assert "telemetry" not in said.lower()
    assert not list(home.rglob("notice_shown"))
