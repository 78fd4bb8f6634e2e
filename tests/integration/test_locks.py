"""P8: one at a time, told who holds it, and the lock dies with its process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.adapters.host import state
from tasks.adapters.host.locks import installation_lock, lock_holder
from tasks.core.errors import Busy, Refused
from tests.stack.stack import wait_until

HOLDER = """
import sys, threading
from pathlib import Path
from tasks.adapters.host.locks import installation_lock
from tasks.core.errors import BackupError
from tests.stack.stack import wait_until
try:
    with installation_lock(Path(sys.argv[1]), sys.argv[2], wait_seconds=float(sys.argv[4])):
        print("won", flush=True)
        threading.Event().wait(float(sys.argv[3]))
except BackupError as error:
    print(error, flush=True)
    sys.exit(error.exit_code)
"""


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep holder files out of the machine's state directory."""
    monkeypatch.setenv(state.STATE_VARIABLE, str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def installation(tmp_path: Path) -> Path:
    """Make a directory to lock."""
    place = tmp_path / "installation"
    place.mkdir()
    return place


@pytest.fixture
def holder(installation: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a process that holds the lock for long."""
    process = start(installation, "a long backup", seconds=300)
    assert process.stdout is not None
    assert process.stdout.readline() == "won\n"
    yield process
    process.kill()
    process.wait()


def start(
    directory: Path, purpose: str, *, seconds: float, wait_seconds: float = 0, cwd: Path | None = None
) -> subprocess.Popen[str]:
    """Start a process that takes the lock, says so, and keeps it for some seconds."""
    command = [sys.executable, "-c", HOLDER, str(directory), purpose, str(seconds), str(wait_seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=cwd)


def test_of_twenty_at_once_one_wins(installation: Path) -> None:
    """Nineteen leave with 75, each told who holds the lock, and take nothing from the winner."""
    runs = [start(installation, f"run {number}", seconds=120) for number in range(20)]
    # The winner holds the lock until all others have come and gone.
    wait_until(lambda: sum(run.poll() is not None for run in runs) >= 19, 100, "nineteen did not leave")
    losers = [run for run in runs if run.poll() is not None]
    winner = next(run for run in runs if run.poll() is None)
    still_locked = start(installation, "a late one", seconds=0)
    late = still_locked.communicate()[0]

    assert len(losers) == 19
    assert {run.returncode for run in losers} == {75}
    for run in losers:
        assert f"process {winner.pid}" in run.communicate()[0]
    assert still_locked.returncode == 75
    assert f"process {winner.pid}" in late
    winner.terminate()
    assert winner.communicate()[0] == "won\n"
    assert list(installation.iterdir()) == []


def test_the_loser_is_told_who_why_and_since_when(installation: Path, holder: subprocess.Popen[str]) -> None:
    """The message names process, command, purpose and time, and carries a hint."""
    with pytest.raises(Busy) as caught, installation_lock(installation, "mine"):
        pass

    for fact in (str(installation), f"process {holder.pid}", "a long backup", sys.executable, "UTC", "HINT"):
        assert fact in str(caught.value)


def test_a_stopped_holder_still_holds(installation: Path, holder: subprocess.Popen[str]) -> None:
    """SIGSTOP does not make a run dead."""
    os.kill(holder.pid, signal.SIGSTOP)
    try:
        with pytest.raises(Busy, match=f"process {holder.pid}"), installation_lock(installation, "mine"):
            pass
    finally:
        os.kill(holder.pid, signal.SIGCONT)


def test_leftovers_of_a_killed_holder_do_not_matter(
    installation: Path, holder: subprocess.Popen[str], own_state: Path
) -> None:
    """After SIGKILL the holder file lies about, and the next run gets the lock at once."""
    holder.kill()
    holder.wait()

    assert list((own_state / "locks").iterdir()) != []
    with installation_lock(installation, "mine"):
        found = lock_holder(installation)
    assert found is not None
    assert (found.pid, found.purpose) == (os.getpid(), "mine")
    assert lock_holder(installation) is None


def test_children_do_not_keep_the_lock(installation: Path) -> None:
    """A program, and a forked child, started under the lock live on without it."""
    with installation_lock(installation, "mine"):
        program = subprocess.Popen(["sleep", "60"])
        child = os.fork()
        if child == 0:
            signal.pause()
            os._exit(0)
    try:
        with installation_lock(installation, "mine again"):
            pass
    finally:
        program.kill()
        os.kill(child, signal.SIGKILL)
        program.wait()
        os.waitpid(child, 0)


def test_a_forked_child_that_ends_first_leaves_the_lock_with_us(installation: Path) -> None:
    """A child's exit is not the holder's."""
    with installation_lock(installation, "mine"):
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        other = start(installation, "other", seconds=0)

        assert f"process {os.getpid()}" in other.communicate()[0]
        assert other.returncode == 75


def test_a_flow_called_by_the_holder_enters(installation: Path, tmp_path: Path) -> None:
    """A guided restore calls the restore flow: the same lock, also through a symbolic link, until the outer one ends."""
    link = tmp_path / "link"
    link.symlink_to(installation)
    with installation_lock(installation, "outer"):
        with installation_lock(link, "inner"):
            pass
        other = start(installation, "other", seconds=0)
        other.communicate()

        assert other.returncode == 75


def test_an_unrelated_thread_of_the_holder_does_not_enter(installation: Path) -> None:
    """Two flows in one process exclude each other as two processes do."""
    seen: list[BaseException] = []

    def enter() -> None:
        try:
            with installation_lock(installation, "thread"):
                pass
        except Busy as error:
            seen.append(error)

    with installation_lock(installation, "outer"):
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()

    assert len(seen) == 1


def test_waiting_for_the_lock(installation: Path) -> None:
    """A run that may wait gets it when the holder is done."""
    short = start(installation, "short", seconds=1)
    assert short.stdout is not None
    short.stdout.readline()
    began = time.monotonic()
    with installation_lock(installation, "mine", wait_seconds=20):
        waited = time.monotonic() - began
    short.wait()

    assert 0.3 < waited < 10


def test_a_missing_directory_is_refused(tmp_path: Path) -> None:
    """A path that is not there is a guard's no, in words."""
    with pytest.raises(Refused, match="cannot be opened: No such file"), installation_lock(tmp_path / "no", "mine"):
        pass


def test_an_unusable_state_directory_does_not_matter(installation: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock is the kernel's; the holder file is only for telling. The loser still learns the process id."""
    monkeypatch.setenv(state.STATE_VARIABLE, "/proc/nowhere")
    with installation_lock(installation, "mine"):
        other = start(installation, "other", seconds=0)

        assert f"process {os.getpid()}" in other.communicate()[0]
        assert other.returncode == 75
