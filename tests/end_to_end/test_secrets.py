"""P12: no password, token or key shows up where somebody may look: command lines, environments, logs, state, records, reports."""

from __future__ import annotations

import os
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.cli import PROGRAM
from tests.settings import write_settings
from tests.stack.stack import Stack

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

PASSWORD = "canary-p4ssw0rd-7d1f"
ADDRESS_TOKEN = "canary-t0ken-93ab"


def test_no_secret_is_left_anywhere(make_stack: Callable[..., Stack], tmp_path: Path, state_directory: Path) -> None:
    stack = make_stack(password=PASSWORD)
    key = next((stack.directory / "data-protection-keys").glob("*.xml")).read_bytes()[-60:]
    repository, log = tmp_path / "backups", tmp_path / "log" / "backup.log"
    settings = write_settings(
        tmp_path / "settings.yaml",
        {
            "main": {
                "directory": stack.directory, "repository": repository, "log_file": log, "metrics_directory": tmp_path / "metrics",
                # Nobody listens there: what cannot be sent is logged, and must not take the address along.
                "notifications": [{"kind": "apprise", "url": f"json://127.0.0.1:9/{ADDRESS_TOKEN}", "events": ["success", "overdue"]}],
            }
        },
    )  # fmt: skip
    words = ["--installation", "main", "--settings", str(settings), "--verbose"]
    said = b""
    with watched_processes() as seen:
        for command in (
            ["backup", "hot"], ["backup", "complete"], ["backup", "online"], ["backup", "auto"], ["verify"], ["status", "--alarm"],
            ["restore", "latest", "--yes"], ["rollback", "--yes"], ["commit", "--yes"], ["doctor"],
        ):  # fmt: skip
            done = subprocess.run(
                [PROGRAM, *command, *words], capture_output=True, stdin=subprocess.DEVNULL, check=False
            )
            assert done.returncode == 0, done.stderr.decode()[-2000:]
            said += done.stdout + done.stderr

    secrets = [PASSWORD.encode(), ADDRESS_TOKEN.encode(), key]
    assert seen.looked > 50
    for secret in secrets:
        assert secret not in said
        assert seen.found(secret) == []
        holding = [
            path.name
            for place in (state_directory, repository, log.parent, tmp_path / "metrics")
            for path in place.rglob("*")
            if path.is_file() and ".tar." not in path.name and secret in path.read_bytes()
        ]
        assert holding == []
    for path in [*repository.rglob("*"), *state_directory.rglob("*")]:
        assert not stat.S_IMODE(path.lstat().st_mode) & 0o077, path
    plain = list(Path("/dev/shm").glob("*mailarchiver*"))
    assert plain == []


class Seen:
    """Command lines of all processes, and environments of those that a command started on this side of the containers."""

    def __init__(self) -> None:
        self.texts: dict[bytes, str] = {}
        self.looked = 0

    def look(self) -> None:
        """Look at every process once."""
        own_root = os.readlink("/proc/self/root")
        namespace = os.readlink("/proc/self/ns/mnt")
        for place in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                command = (place / "cmdline").read_bytes()
                self.texts.setdefault(command, "a command line")
                # PostgreSQL's container has its password in its environment: that is the image's way, and the operator's.
                ours = os.readlink(place / "ns/mnt") == namespace and os.readlink(place / "root") == own_root
                if ours and b"mailarchiver-backup" in command:
                    self.texts.setdefault((place / "environ").read_bytes(), "an environment")
                self.looked += 1

    def found(self, secret: bytes) -> list[str]:
        """Name where a secret was seen; the commands of the test itself do not hold any."""
        return [f"{kind}: {text[:200]!r}" for text, kind in self.texts.items() if secret in text]


@contextmanager
def watched_processes() -> Iterator[Seen]:
    """Look at all processes again and again during the block."""
    seen, over = Seen(), threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            seen.look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join(10)
