"""The log file that the settings may name."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from tasks.run.history import PrivateLog


def test_only_the_owner_reads_the_log_also_after_it_was_rotated(tmp_path: Path) -> None:
    """One that a former version left readable is tightened, and what rotation keeps is as private."""
    path = tmp_path / "backup.log"
    path.write_text("of a former version\n")
    path.chmod(0o644)
    before = os.umask(0o022)
    try:
        handler = PrivateLog(path, maxBytes=50, backupCount=2)
        for number in range(6):
            handler.emit(logging.LogRecord("tasks", logging.INFO, "", 0, f"line {number} of a run", None, None))
        handler.close()
    finally:
        os.umask(before)
    modes = {each.name: each.stat().st_mode & 0o777 for each in tmp_path.iterdir()}
    assert modes == {"backup.log": 0o600, "backup.log.1": 0o600, "backup.log.2": 0o600}
