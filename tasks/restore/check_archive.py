"""The steps that turn a backup's name into an archive: described by its record, or read from its first byte to its last."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from tasks.adapters.archive.chain import check_parents, parents_of
from tasks.adapters.archive.reader import Archive, CheckedArchive, check_archive, recorded_archive
from tasks.adapters.archive.repository import find_backup, read_record
from tasks.core.archive.manifest import Record
from tasks.core.archive.names import BACKUP_PARAMETER
from tasks.core.errors import Refused, UsageError
from tasks.progress import progress
from tasks.step import step
from tasks.surroundings import surroundings

_checked: ContextVar[CheckedArchive | None] = ContextVar("checked_archive", default=None)


@contextmanager
def already_checked(archive: CheckedArchive) -> Iterator[None]:
    """Let `find_archive` give this archive, which the caller has checked, within the block instead of checking it again.

    A later reader notices where the file has been replaced since.
    """
    token = _checked.set(archive)
    try:
        yield
    finally:
        _checked.reset(token)


def wanted_backup(repository: Path, backup: str) -> Path:
    """Find a backup ("latest", a name, or a path).

    Within a flow run only a name will do: a caller of Prefect's API must not be able to name a file, or learn whether there is one.
    """
    if not surroundings().takes_paths and not re.fullmatch(BACKUP_PARAMETER, backup):
        what = "a path" if "/" in backup else "no backup's name"
        raise UsageError(
            f"{backup!r} is {what}; a flow run takes a backup's name, or latest", hint="see `mailarchiver-backup list`"
        )
    return find_backup(repository, backup)


@step(name="check archive", run_name="check {backup}")
def check_backup(repository: Path, backup: str, *, chain: bool = True, of_system: bool = False) -> CheckedArchive:
    """Find a backup ("latest", a name, or a path) and read it from its first byte to its last.

    With `chain`, so are the archives that an incremental one needs; without, only that they are there. Raise ArchiveDamaged
    where a byte is not as it was sealed or a link is missing, UsageError where there is no such backup. One of the system
    around is refused unless it will do (`of_system`): it is no backup of the mail database.
    """
    path = wanted_backup(repository, backup)
    if not of_system:
        _refuse_system(read_record(path))
    try:
        expected_bytes = path.stat().st_size
    except FileNotFoundError as error:
        raise UsageError(
            f"{path} is gone", hint="another run may have pruned it; see `mailarchiver-backup list`"
        ) from error
    with progress("check", expected_bytes=expected_bytes):
        checked = check_archive(path)
        if not of_system:
            _refuse_system(checked)
        if chain:
            check_parents(checked)
        else:
            parents_of(checked)
        return checked


@step(name="find archive", run_name="find {backup}")
def find_archive(repository: Path, backup: str) -> Archive:
    """Find a backup and give its archive as its record describes it, to be checked while it is restored.

    One without a fitting record is checked at once.
    """
    path = wanted_backup(repository, backup)
    checked = _checked.get()
    if checked is not None and checked.path == path:
        return checked
    _refuse_system(read_record(path))
    return recorded_archive(path) or check_backup(repository, backup)


def _refuse_system(found: Record | CheckedArchive | None) -> None:
    """Raise Refused for a backup of the system around, where one of the mail database is wanted."""
    manifest = found.manifest if found is not None else None
    if manifest is not None and manifest.is_system:
        name = manifest.guest.name if manifest.guest else manifest.name
        raise Refused(
            f"{manifest.name} is a backup of {manifest.subject}, not of the mail database",
            hint=f"mailarchiver-backup restore {manifest.method} {manifest.name}{f' --name {name}-restored' if manifest.guest else ''}",
        )
