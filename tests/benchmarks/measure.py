"""Measure a command from outside: wall time, downtime of the application, peak of extra disk, peak memory of our processes."""

from __future__ import annotations

import os
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

from tests.stack.stack import Stack, wait_until

POLL_SECONDS = 0.05
SAMPLE_SECONDS = 0.25
QUIET = "SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'autovacuum worker'"


@dataclass(frozen=True)
class Measured:
    """One command's figures; `memory_mb` is of the process tree that was started, without Docker's and PostgreSQL's."""

    name: str
    seconds: float
    downtime_seconds: float
    extra_disk_mb: float
    result_mb: float
    memory_mb: float


def settle(stack: Stack) -> None:
    """Let the server finish what the command before has left it to do, so that none pays for another's."""
    stack.wait_app()
    stack.psql("CHECKPOINT")
    wait_until(lambda: stack.psql(QUIET)[0][0], 300, "autovacuum does not end")
    os.sync()


def measure(
    name: str,
    command: Sequence[str],
    *,
    directory: Path,
    url: str,
    environment: dict[str, str] | None = None,
    result: Callable[[], Path | None],
) -> Measured:
    """Run a command to its end while polling the application every 50 ms; raise AssertionError where the command fails."""
    over = threading.Event()
    unanswered = _Unanswered(url)
    disk = _Disk(directory)
    watchers = [
        threading.Thread(target=unanswered.watch, args=(over,)),
        threading.Thread(target=disk.watch, args=(over,)),
    ]
    for watcher in watchers:
        watcher.start()
    with TemporaryFile() as said:
        begun = time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=directory,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.PIPE,
        )
        memory = 0
        while process.poll() is None:
            memory = max(memory, _tree_bytes(process.pid))
            with suppress(subprocess.TimeoutExpired):
                process.wait(SAMPLE_SECONDS)
        seconds = time.monotonic() - begun
        assert process.stderr is not None
        errors = process.stderr.read().decode(errors="replace")
        said.seek(0)
        answer = said.read()[-2000:].decode(errors="replace")
    deadline = time.monotonic() + 120
    while unanswered.since is not None and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    over.set()
    for watcher in watchers:
        watcher.join()
    assert process.returncode == 0, f"{name}: {answer} {errors[-2000:]}"
    made = result()
    return Measured(
        name, seconds, unanswered.seconds, disk.peak / 1e6, made.stat().st_size / 1e6 if made else 0.0, memory / 1e6
    )


class _Unanswered:
    """Sum the time in which the application did not answer 200."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.seconds = 0.0
        self.since: float | None = None

    def watch(self, over: threading.Event) -> None:
        while not over.is_set():
            asked = time.monotonic()
            answered = False
            with suppress(OSError), urllib.request.urlopen(self._url + "/Auth/Login", timeout=5) as answer:
                answered = answer.status == 200
            now = time.monotonic()
            if answered and self.since is not None:
                self.seconds += now - self.since
                self.since = None
            elif not answered and self.since is None:
                self.since = asked
            time.sleep(max(0.0, POLL_SECONDS - (now - asked)))


class _Disk:
    """The file system's use above that at the beginning, at its highest."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._begin = self._used()
        self.peak = 0

    def watch(self, over: threading.Event) -> None:
        while not over.wait(SAMPLE_SECONDS):
            self.peak = max(self.peak, self._used() - self._begin)

    def _used(self) -> int:
        found = os.statvfs(self._directory)
        return (found.f_blocks - found.f_bfree) * found.f_frsize


def _tree_bytes(root: int) -> int:
    """Sum the resident memory of a process and all below it."""
    parents: dict[int, int] = {}
    resident: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, IndexError, ValueError):
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                parents[int(entry.name)], resident[int(entry.name)] = int(fields[1]), int(fields[21]) * 4096
    total = 0
    for process in parents:
        current = process
        while current not in (root, 0):
            current = parents.get(current, 0)
        if current == root:
            total += resident[process]
    return total
