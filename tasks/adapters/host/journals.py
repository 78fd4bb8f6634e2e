"""Journals: what a run has borrowed or begun, on the disk before it does so, for the process that must finish it after a crash.

A run keeps its open journal's `flock` for as long as it lives. So "is the owner dead?" is a question to the kernel: a reused
process id, a process in another container, or one that is stopped cannot mislead. A process that settles a journal takes the same
lock first; so two settlers never work on one journal, and the later finds it gone.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.adapters.host import state
from tasks.adapters.host.process_identity import this_process
from tasks.core.errors import BackupError
from tasks.core.stack.journal_bodies import is_text

_POLL_SECONDS = 0.05
_PARTIAL_KEPT_SECONDS = 3600
_HEAD = {
    "kind": str, "installation_id": str, "installation_directory": str, "owner": str, "number": int, "pid": int, "created_at": str,
    "body": dict,
}  # fmt: skip
_open_journals: dict[Path, OpenJournal] = {}
_owner = ""
_opened = 0


@dataclass(frozen=True, slots=True)
class Journal:
    """A journal as read from the disk.

    `owner` is the same for all journals of one process, and `number` counts them in the order of their making: what a
    dead process began is undone in reverse. `body` is the business of its `kind`.
    """

    path: Path
    kind: str
    installation_id: str
    installation_directory: Path
    owner: str
    number: int
    pid: int
    created_at: str
    body: Mapping[str, Any]


class OpenJournal:
    """A journal of this process. It lasts until `remove`; after the process's death it is anybody's to settle."""

    def __init__(self, path: Path, head: Mapping[str, Any], body: Mapping[str, Any]) -> None:
        self.path = path
        self._head = dict(head)
        self._descriptor = -1
        self.rewrite(body)

    def rewrite(self, body: Mapping[str, Any]) -> None:
        """Replace what the journal says; on the disk, whole, before the return. It is never unlocked in between."""
        before = self._descriptor
        self._descriptor = state.write_json_open(self.path, {**self._head, "body": dict(body)}, lock=True)
        _open_journals[self.path] = self
        if before >= 0:
            os.close(before)

    def remove(self) -> None:
        """Remove the journal: what it told of is settled. A second call does nothing."""
        if self._descriptor >= 0:
            # The name goes first: unlocked and still there, it would look like a dead run's.
            state.remove(self.path)
            self.abandon()

    def abandon(self) -> None:
        """Leave the journal on the disk, unlocked, for the watchdog or the next run to settle."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        _open_journals.pop(self.path, None)


def _forget_in_child() -> None:
    global _owner, _opened
    for journal in list(_open_journals.values()):
        with suppress(OSError):
            journal.abandon()
    _owner, _opened = "", 0


os.register_at_fork(after_in_child=_forget_in_child)


def open_journal(
    kind: str, body: Mapping[str, Any], *, installation_id: str, installation_directory: Path
) -> OpenJournal:
    """Write a new journal, on the disk before the return, and keep it locked.

    `kind` selects who settles it after our death: see `tasks/recovery/recover.py`.
    """
    global _owner, _opened
    us = this_process()
    _owner = _owner or f"{us.pid}-{secrets.token_hex(4)}"
    _opened += 1
    head = {
        "kind": kind,
        "installation_id": installation_id,
        "installation_directory": str(installation_directory.resolve()),
        "owner": _owner,
        "number": _opened,
        "pid": us.pid,
        "started_ticks": us.started_ticks,
        "created_at": datetime.now(UTC).isoformat(),
    }
    return OpenJournal(_journals_directory() / f"{_owner}-{_opened:04d}-{kind}.json", head, body)


def list_journals() -> list[Path]:
    """List the journals of all processes, dead or alive; those of one process newest first."""
    return sorted((path for path in _journals_directory().iterdir() if path.suffix == ".json"), reverse=True)


def remove_partials() -> None:
    """Remove what runs that were killed while writing a journal left of it; they had not begun what it would have told."""
    for path in _journals_directory().glob(".*.partial"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _PARTIAL_KEPT_SECONDS:
                path.unlink()


def owner_in_name(path: Path) -> str:
    """Read whose journal it is from its name alone, for one that cannot be read or claimed."""
    return "-".join(path.name.split("-")[:2])


def is_ours(path: Path) -> bool:
    """Tell whether this process has that journal open."""
    return path in _open_journals


def read_journal(path: Path) -> Journal | None:
    """Read a journal; None where it is gone. Raise BackupError where it cannot be understood."""
    content = state.read_json(path)
    if content is None:
        return None
    wrong = [name for name, kind in _HEAD.items() if not _is(kind, content.get(name))]
    if wrong:
        raise BackupError(
            f"{path} is not a journal of this program: its {', '.join(map(repr, wrong))} {'is' if len(wrong) == 1 else 'are'} not what we write",
            hint="read it; when it is worthless, remove it",
        )
    told = {name: content[name] for name in _HEAD}
    return Journal(path=path, **{**told, "installation_directory": Path(told["installation_directory"])})


def _is(kind: type, value: object) -> bool:
    return is_text(value) if kind is str else isinstance(value, kind)


@contextmanager
def claimed(path: Path, *, wait_seconds: float = 0.0) -> Iterator[Journal | None]:
    """Hold a dead run's journal alone and give what it says; None where it is gone, or its owner (or a settler) lives.

    The caller removes the file once it is settled; else it stays for the next try.
    """
    descriptor = _claim(path, wait_seconds)
    if descriptor is None:
        yield None
        return
    try:
        yield read_journal(path)
    finally:
        os.close(descriptor)


def _claim(path: Path, wait_seconds: float) -> int | None:
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BackupError(f"cannot open the journal {path}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _still_named(descriptor, path):
                return descriptor
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(descriptor)
                return None
        os.close(descriptor)
        time.sleep(_POLL_SECONDS)


def _still_named(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _journals_directory() -> Path:
    return state.state_subdirectory("journals")
