"""One at a time: the kernel's lock on an installation's directory.

The `flock` is taken on the directory's own descriptor. So it needs no file that could be left behind or removed, it means
the same to every user and to containers that mount the directory, a stopped (SIGSTOP) holder keeps it, and the kernel
releases it with the death of its process. The holder file in the state directory only helps to tell the loser who won.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tasks.adapters.host import state
from tasks.adapters.host.process_identity import ProcessIdentity, command_of, is_alive, this_process
from tasks.core.errors import BackupError, Busy, Refused

# Recovery holds the lock for seconds only; a run that comes meanwhile waits rather than failing for the night.
PASSING_HOLDER_WAIT_SECONDS = 60.0
_POLL_SECONDS = 0.1
_HOLDER_FILE_WAIT_SECONDS = 0.5

_Key = tuple[int, int]


@dataclass
class _Held:
    descriptor: int
    token: str


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds an installation's lock, as far as can be seen; `pid` is 0 where only the kernel knows.

    `passing` says that the holder needs it for seconds only.
    """

    pid: int
    command: str = ""
    purpose: str = ""
    since: str = ""
    passing: bool = False

    def __str__(self) -> str:
        """Name the holder in a sentence's middle."""
        if not self.pid:
            return "a process that cannot be seen from here (in a container, or another user's)"
        parts = [f"process {self.pid}"]
        parts += [f"({self.command})"] if self.command else []
        parts += [f"for {self.purpose}"] if self.purpose else []
        parts += [f"since {self.since}"] if self.since else []
        return " ".join(parts)


# What this process holds, and which of it the current flow of control took: a flow called by the holder may enter again,
# an unrelated thread of the same process may not.
_held_by_process: dict[_Key, _Held] = {}
_held_here: ContextVar[tuple[tuple[_Key, str], ...]] = ContextVar("installation_locks", default=())


def _forget_in_child() -> None:
    # A forked child shares our lock for as long as it keeps the descriptor; it must die with us alone.
    for held in _held_by_process.values():
        with suppress(OSError):
            os.close(held.descriptor)
    _held_by_process.clear()


os.register_at_fork(after_in_child=_forget_in_child)


@contextmanager
def installation_lock(
    installation_directory: Path, purpose: str, *, wait_seconds: float = 0.0, passing: bool = False
) -> Iterator[None]:
    """Hold an installation alone, for all processes of the machine, until the block ends or the process dies.

    Enter at once where the caller's own flow of control holds it already. Otherwise wait up to `wait_seconds` (longer only
    for a `passing` holder, such as recovery) and then raise Busy, which names the holder; nothing was touched then.
    Raise Refused where the directory is missing or its file system knows no locks.
    """
    descriptor = _open_directory(installation_directory)
    key = _key(descriptor)
    if _held_by_us(key):
        os.close(descriptor)
        yield
        return

    try:
        _take(descriptor, installation_directory, wait_seconds)
    except BaseException:
        os.close(descriptor)
        raise
    held = _Held(descriptor, secrets.token_hex(4))
    _held_by_process[key] = held
    before = _held_here.get()
    _held_here.set((*before, (key, held.token)))
    try:
        _write_holder(key, installation_directory, purpose, passing)
        yield
    finally:
        _held_here.set(before)
        if _held_by_process.pop(key, None) is not None:
            _remove_holder(key)
            os.close(descriptor)


def lock_holder(installation_directory: Path) -> Holder | None:
    """Tell who can be seen to hold an installation's lock now, or None.

    It only reads what the kernel lists: probing with a lock of our own could make somebody else's attempt fail.
    """
    descriptor = _open_directory(installation_directory)
    try:
        key = _key(descriptor)
    finally:
        os.close(descriptor)
    return _find_holder(key) if _pids_by_kernel(key) else None


def _open_directory(directory: Path) -> int:
    try:
        return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise Refused(
            f"the installation's directory {directory} cannot be opened: {error.strerror}",
            hint="is the path right, its file system mounted, and may this user read it?",
        ) from error


def _take(descriptor: int, directory: Path, wait_seconds: float) -> None:
    began = time.monotonic()
    while not _try_exclusive(descriptor, directory):
        waited = time.monotonic() - began
        if waited < wait_seconds:
            time.sleep(_POLL_SECONDS)
            continue
        holder = _find_holder(_key(descriptor))
        if holder.passing and waited < max(wait_seconds, PASSING_HOLDER_WAIT_SECONDS):
            time.sleep(_POLL_SECONDS)
            continue
        # It may have been released while we asked who has it.
        if _try_exclusive(descriptor, directory):
            return
        raise Busy(
            f"the installation {directory} is in use by {holder}",
            hint="wait until it is done; nothing was touched by this run",
        )


def _try_exclusive(descriptor: int, directory: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise Refused(
            f"the directory {directory} cannot be locked: {error.strerror}",
            hint="network file systems may know no locks on directories; keep the installation on a local one",
        ) from error
    return True


def _key(descriptor: int) -> _Key:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


def _held_by_us(key: _Key) -> bool:
    held = _held_by_process.get(key)
    return held is not None and (key, held.token) in _held_here.get()


def _holder_file(key: _Key) -> Path:
    return state.state_subdirectory("locks") / f"{key[0]:x}-{key[1]}.json"


def _write_holder(key: _Key, directory: Path, purpose: str, passing: bool) -> None:
    # Best effort: a full disk must not keep a recovery from acting; the lock itself is the kernel's.
    us = this_process()
    with suppress(BackupError):
        state.write_json(
            _holder_file(key),
            {
                "pid": us.pid,
                "started_ticks": us.started_ticks,
                "command": command_of(us.pid),
                "purpose": purpose,
                "since": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
                "directory": str(directory),
                "passing": passing,
            },
        )


def _remove_holder(key: _Key) -> None:
    with suppress(BackupError):
        state.remove(_holder_file(key))


def _find_holder(key: _Key) -> Holder:
    """Say who holds the lock: the holder file where it proves to be of a living holder, else what the kernel lists."""
    deadline = time.monotonic() + _HOLDER_FILE_WAIT_SECONDS
    while True:
        pids = _pids_by_kernel(key)
        holder = _read_holder(key)
        if holder is not None and (not pids or holder.pid in pids):
            return holder
        # Between taking the lock and writing the file there is a moment: give the winner the time to sign.
        if time.monotonic() >= deadline:
            pid = next(iter(sorted(pids)), 0)
            return Holder(pid, command_of(pid) if pid else "")
        time.sleep(0.02)


def _read_holder(key: _Key) -> Holder | None:
    try:
        content = state.read_json(_holder_file(key))
        if content is None:
            return None
        if not is_alive(ProcessIdentity(int(content["pid"]), int(content["started_ticks"]))):
            return None
        return Holder(
            pid=int(content["pid"]),
            command=str(content["command"]),
            purpose=str(content["purpose"]),
            since=str(content["since"]),
            passing=bool(content["passing"]),
        )
    except (BackupError, KeyError, ValueError, TypeError):
        return None


def _pids_by_kernel(key: _Key) -> set[int]:
    """List the processes that `/proc/locks` shows with a `flock` on this inode."""
    device = f"{os.major(key[0]):02x}:{os.minor(key[0]):02x}"
    same_inode: set[int] = set()
    same_device: set[int] = set()
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return set()
    for line in lines:
        words = line.split()
        # `1: FLOCK  ADVISORY  WRITE 4242 fe:00:131 0 EOF`; waiters carry an extra `->` and are skipped.
        if len(words) < 6 or words[1] != "FLOCK" or words[3] != "WRITE":
            continue
        place, _, inode = words[5].rpartition(":")
        if inode == str(key[1]) and int(words[4]) > 0:
            same_inode.add(int(words[4]))
            if place == device:
                same_device.add(int(words[4]))
    # Btrfs and overlay file systems list another device number than `stat` gives.
    return same_device or same_inode
