"""Call the command line as an operator does: a process of its own, its answer as JSON."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from tests import warm

PROGRAM = str(Path(sys.executable).with_name("mailarchiver-backup"))


def run_program(
    words: Sequence[str], *, timeout_seconds: float = 180, directory: Path | None = None, **more: str
) -> tuple[int, str, str]:
    """Run the program without a terminal, started warm where that changes nothing; return its exit code, stdout and stderr.

    `more` is added to the environment.
    """
    environment = {**os.environ, **more}
    if words[0] != PROGRAM or not warm.can_be_warm(environment):
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=timeout_seconds, stdin=subprocess.DEVNULL, check=False, env=environment, cwd=directory
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr
    with open(os.devnull, "rb") as nothing, TemporaryFile() as stdout, TemporaryFile() as stderr:
        descriptors = [each.fileno() for each in (nothing, stdout, stderr)]
        child = warm.start(words, environment, str(directory or os.getcwd()), descriptors)
        try:
            code = child.wait(timeout_seconds)
        except TimeoutError:
            os.kill(child.pid, signal.SIGKILL)
            raise
        stdout.seek(0)
        stderr.seek(0)
        return code, stdout.read().decode(), stderr.read().decode()


def start_program(words: Sequence[str]) -> warm.Child:
    """Start the program warm, with nothing to say to anybody, and do not wait for it."""
    with open(os.devnull, "r+b") as nothing:
        return warm.start(words, os.environ, os.getcwd(), [nothing.fileno()] * 3)


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
        code, stdout, stderr = run_program(self.command(*words), timeout_seconds=timeout_seconds)
        return Answer(code, json.loads(stdout) if stdout.strip() else None, stderr)

    def must(self, *words: str) -> Any:
        """Run a command that has to succeed; return its value."""
        answer = self.run(*words)
        assert answer.code == 0, f"{answer.value} {answer.stderr}"
        return answer.value

    def start(self, *words: str) -> warm.Child:
        """Start a command as `run` does, and do not wait for it."""
        return start_program(self.command(*words))
