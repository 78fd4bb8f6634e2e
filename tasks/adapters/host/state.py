"""The state directory: where runs leave word for those that come after them.

It is local to the machine and private to the user (0700, files 0600): what others own or may write to, a link too, is
refused. What is written here is on the disk before the call returns.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tasks.adapters.host.outside_files import STATE, read_outside
from tasks.core.errors import BackupError, Refused

STATE_VARIABLE = "MAILARCHIVER_BACKUP_STATE"
SYSTEM_STATE_DIRECTORY = Path("/var/lib/mailarchiver-backup")
PROGRAM = "mailarchiver-backup"


def state_directory() -> Path:
    """Give the state directory, made with mode 0700 where it is missing.

    It is what MAILARCHIVER_BACKUP_STATE names; else `/var/lib/mailarchiver-backup` for root; else
    `mailarchiver-backup` below XDG_STATE_HOME or `~/.local/state`. Raise Refused where it cannot be made or is not private.
    """
    return _private_directory(_state_place())


def state_subdirectory(name: str) -> Path:
    """Give a directory of this name inside the state directory, made with mode 0700 where it is missing."""
    return _private_directory(state_directory() / name)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object so that after any crash `path` holds either this object or what it held before.

    The bytes and the name are fsynced before the return. Raise BackupError where the disk does not take them.
    """
    descriptor = write_json_open(path, value)
    os.close(descriptor)


def write_json_open(path: Path, value: Mapping[str, Any], *, lock: bool = False) -> int:
    """Write like `write_json` and return the open descriptor; with `lock`, its `flock` is held before the name appears."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    descriptor = -1
    try:
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        if lock:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _write_all(descriptor, json.dumps(dict(value), indent=1).encode() + b"\n")
        os.fsync(descriptor)
        os.rename(temporary, path)
        fsync_directory(path.parent)
    except BaseException as error:
        if descriptor >= 0:
            os.close(descriptor)
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise BackupError(
                f"cannot write {path}: {error.strerror}",
                hint=f"is there room on its file system? ${STATE_VARIABLE} names another state directory",
            ) from error
        raise
    return descriptor


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON object; None where there is no such file. Raise BackupError where it is not one or cannot be read."""
    try:
        content, found = read_outside(path, STATE)
        _refuse_others(path, found)
        value = json.loads(content)
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise BackupError(f"{path} is not JSON: {error}", hint="read it; when it is worthless, remove it") from error
    if not isinstance(value, dict):
        raise BackupError(f"{path} holds {type(value).__name__}, not an object", hint="when it is worthless, remove it")
    return value


def remove(path: Path) -> None:
    """Remove a file and sync its directory; one that is gone already is a success."""
    try:
        path.unlink(missing_ok=True)
        fsync_directory(path.parent)
    except OSError as error:
        raise BackupError(f"cannot remove {path}: {error.strerror}") from error


def fsync_directory(directory: Path) -> None:
    """Bring a directory's names to the disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _state_place() -> Path:
    named = os.environ.get(STATE_VARIABLE, "")
    if named:
        place = Path(named)
        if not place.is_absolute():
            raise Refused(f"{STATE_VARIABLE}={named} is not an absolute path")
        return place
    if os.geteuid() == 0:
        return SYSTEM_STATE_DIRECTORY
    home = os.environ.get("XDG_STATE_HOME", "")
    # The XDG rules say that a relative value is to be ignored.
    base = Path(home) if home.startswith("/") else Path.home() / ".local" / "state"
    return base / PROGRAM


def _private_directory(directory: Path) -> Path:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.stat()
        _refuse_others(directory, found)
        if found.st_mode & 0o077 and found.st_uid == os.geteuid():
            directory.chmod(0o700)
    except OSError as error:
        raise Refused(
            f"the state directory {directory} cannot be used: {error.strerror}",
            hint=f"set ${STATE_VARIABLE} to a directory of your own",
        ) from error
    return directory


def _refuse_others(path: Path, found: os.stat_result) -> None:
    """Raise Refused where somebody else could have written what runs as us act upon."""
    if found.st_uid not in (os.geteuid(), 0):
        raise Refused(
            f"{path} belongs to user {found.st_uid}, not to user {os.geteuid()} that runs this: what is in it is not trusted",
            hint=f"run as user {found.st_uid}, or let ${STATE_VARIABLE} name a directory of your own",
        )
    if found.st_mode & 0o022:
        raise Refused(
            f"others may write to {path} (mode {stat.S_IMODE(found.st_mode):04o}): what is in it is not trusted",
            hint=f"look at what is in it; then chmod go-w {path}",
        )


def _write_all(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
