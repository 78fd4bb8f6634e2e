"""The log file that the settings may name."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.adapters.host.files import make_directory, write_atomically
from tasks.core.policy.settings import InstallationSettings
from tasks.run.config import config_at
from tasks.run.history import PrivateLog, remembered


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


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_modes_do_not_depend_on_the_mask(tmp_path: Path, mask: int) -> None:
    """What is ours alone is so under any mask; metrics stay readable to the exporter under a service's 0077."""
    settings = InstallationSettings.model_construct(log_file=tmp_path / "log" / "backup.log", notifications=[])
    config = replace(config_at("main", tmp_path, tmp_path), settings=settings)
    before = os.umask(mask)
    try:
        with remembered(config, "a run"):
            logging.getLogger("tasks").info("a\x1b[2Jb")
        make_directory(tmp_path / "metrics", 0o755)
        write_atomically(tmp_path / "metrics" / "a.prom", b"", 0o644)
        write_atomically(tmp_path / "record", b"")
    finally:
        os.umask(before)

    modes = {str(each.relative_to(tmp_path)): each.stat().st_mode & 0o777 for each in tmp_path.rglob("*")}
    assert modes == {"log": 0o700, "log/backup.log": 0o600, "metrics": 0o755, "metrics/a.prom": 0o644, "record": 0o600}
    assert "\x1b" not in (tmp_path / "log" / "backup.log").read_text()
