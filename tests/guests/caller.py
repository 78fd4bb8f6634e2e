"""Somebody at a terminal with a settings file that names guests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli import PROGRAM, run_program
from tests.settings import write_settings


class Caller:
    """Somebody at a terminal, whose settings name guests."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **more: object) -> None:
        (tmp_path / "installation").mkdir(exist_ok=True)
        self.repository = tmp_path / "backups"
        main = {
            "directory": tmp_path / "installation",
            "repository": self.repository,
            "format": "fast",
            **more,
        }
        self.settings = write_settings(tmp_path / "settings.yaml", {"main": main})
        monkeypatch.setenv("MAILARCHIVER_BACKUP_SETTINGS", str(self.settings))

    def run(self, *words: str) -> tuple[int, Any]:
        """Run a command; give its exit code and its JSON."""
        code, stdout, stderr = run_program([PROGRAM, *words, "--json"])
        assert stdout, stderr
        return code, json.loads(stdout)

    def must(self, *words: str) -> Any:
        """Run a command that has to succeed."""
        code, told = self.run(*words)
        assert code == 0, told
        return told
