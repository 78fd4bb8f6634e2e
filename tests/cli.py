"""Call the command line as an operator does: a process of its own, its answer as JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAM = str(Path(sys.executable).with_name("mailarchiver-backup"))


@dataclass(frozen=True)
class Answer:
    """What a command left: its exit code, its JSON, and what it told people."""

    code: int
    value: Any
    stderr: str


@dataclass(frozen=True)
class Operator:
    """Somebody at a terminal with a stack's directory and a repository."""

    directory: Path
    repository: Path

    def command(self, *words: str) -> list[str]:
        """Write a whole command line."""
        return [PROGRAM, *words, "--directory", str(self.directory), "--repository", str(self.repository), "--json"]

    def run(self, *words: str, timeout_seconds: float = 180) -> Answer:
        """Run a command without a terminal; stdout must be one JSON value and nothing else."""
        done = subprocess.run(
            self.command(*words),
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            stdin=subprocess.DEVNULL,
            env=os.environ,
            check=False,
        )
        return Answer(done.returncode, json.loads(done.stdout) if done.stdout.strip() else None, done.stderr)

    def must(self, *words: str) -> Any:
        """Run a command that has to succeed; return its value."""
        answer = self.run(*words)
        assert answer.code == 0, f"{answer.value} {answer.stderr}"
        return answer.value

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a command and do not wait for it."""
        return subprocess.Popen(
            self.command(*words),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            env=os.environ,
        )
