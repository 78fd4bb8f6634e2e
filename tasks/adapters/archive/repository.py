"""The directory of archives: list what is there, find one, and keep the records beside them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

from tasks.adapters.archive.archive_source import read_record_beside, record_path_of
from tasks.adapters.archive.repository_marker import require_repository
from tasks.adapters.host.files import fsync_directory, write_atomically
from tasks.core.archive.manifest import Record, RestoredCensus, Verification, written
from tasks.core.archive.names import REMOVING_EXTENSION, is_sealed, split_archive_name, time_in_name
from tasks.core.errors import BackupError, Refused, UsageError

logger = logging.getLogger(__name__)

Signer: TypeAlias = Callable[[Record, Record], Record | None]
"""Signs a record (before, after) that is to be written; None where it must not be changed."""


@dataclass(frozen=True, slots=True)
class Backup:
    """One archive in the repository; `record` is None for a legacy archive, or one whose record cannot be read."""

    path: Path
    name: str
    method: str
    format: str
    bytes: int
    created: datetime | None
    verified: bool
    record: Record | None

    @property
    def is_encrypted(self) -> bool:
        """Tell whether it is an encrypted archive."""
        return is_sealed(self.path.name)

    @property
    def subject(self) -> str:
        """Name what of the system around it is of ("lxc mail"); "" for the mail database."""
        return self.record.manifest.subject if self.record else ""


def list_backups(repository: Path) -> list[Backup]:
    """List the archives of a repository, newest first; only names of ours or the guide's count, in this directory alone."""
    if not repository.is_dir():
        return []
    found = []
    for path in repository.iterdir():
        split = split_archive_name(path.name)
        if split is None or path.is_symlink() or not path.is_file():
            continue
        try:
            record = read_record(path)
            found.append(
                Backup(
                    path,
                    split[0],
                    record.manifest.method if record else "legacy",
                    split[1],
                    path.stat().st_size,
                    record.manifest.created_at if record else _moment_of_legacy(path, split[0]),
                    bool(record and record.verified),
                    record,
                )
            )
        except FileNotFoundError:  # pruned by another run since the directory was read
            continue
    return sorted(
        found, key=lambda backup: (backup.created or datetime.min.replace(tzinfo=UTC), backup.name), reverse=True
    )


def find_backup(repository: Path, backup: str) -> Path:
    """Find an archive by its path, its name, or as "latest"; raise UsageError where there is none.

    Raise Refused where the repository is not the one that backups went to before (a path needs no repository).
    """
    if "/" not in backup and not Path(backup).is_file():
        require_repository(repository)
    if backup == "latest":
        listed = [each for each in list_backups(repository) if not each.subject]
        if not listed:
            raise UsageError(f"there is no backup in {repository}", hint="mailarchiver-backup backup hot")
        return listed[0].path
    if "/" in backup or Path(backup).is_file():
        path = Path(backup).resolve()
        if not path.is_file():
            raise UsageError(f"there is no archive {backup}", hint="mailarchiver-backup list")
        return path
    for path in sorted(repository.iterdir()) if repository.is_dir() else []:
        split = split_archive_name(path.name)
        if split is not None and backup in (split[0], path.name):
            return path
    raise UsageError(f"there is no backup {backup!r} in {repository}", hint="mailarchiver-backup list")


def read_record(path: Path) -> Record | None:
    """Read an archive's record; None where it has none, or one that cannot be understood (which is logged)."""
    try:
        record = read_record_beside(path)
    except BackupError as error:
        logger.warning("%s", error.message)
        return None
    return record if record is not None and record.file == path.name else None


def write_verification(path: Path, verification: Verification, sign: Signer) -> None:
    """Put a verdict into an archive's record; one without a record keeps none. Raise Refused where the record is of another file."""
    record = read_record_beside(path)
    if record is None:
        logger.info("%s has no record; its verdict is not kept", path.name)
        return
    if record.file != path.name:
        raise Refused(f"{record_path_of(path)} is the record of {record.file}, not of {path.name}")
    change_record(path, record, {"verification": verification}, sign)


def write_restored_census(path: Path, found: RestoredCensus, sign: Signer) -> None:
    """Keep in an archive's record what its first verification found in it; one without a record keeps none."""
    record = read_record(path)
    if record is not None:
        change_record(path, record, {"restored_census": found}, sign)


def accept_content(path: Path, sign: Signer) -> None:
    """Note in an archive's record that its content, however little, is right. Raise Refused where it has no record of its own."""
    record = read_record(path)
    if record is None:
        raise Refused(f"{path.name} has no record")
    change_record(path, record, {"content_accepted": True}, sign)


def change_record(path: Path, record: Record, changes: Mapping[str, object], sign: Signer) -> None:
    """Write a record with some fields changed, signed anew; log it and leave the record where it may not be signed here."""
    changed = sign(record, record.model_copy(update=dict(changes)))
    if changed is None:
        logger.warning("%s is signed by a key that is not ours; its record is not changed", path.name)
        return
    write_record(path, changed)


def write_record(path: Path, record: Record) -> None:
    """Write an archive's record."""
    write_atomically(record_path_of(path), written(record))


def remove_backup(backup: Backup) -> int:
    """Remove an archive, then its record; return the freed bytes. A crash in between leaves what `finish_removals` takes away.

    The archive loses its final name first: what has that name is complete. Raise BackupError where the file system refuses.
    """
    going = backup.path.with_name(backup.path.name + REMOVING_EXTENSION)
    try:
        backup.path.rename(going)
        fsync_directory(going.parent)
        going.unlink()
        record_path_of(backup.path).unlink(missing_ok=True)
        fsync_directory(going.parent)
    except OSError as error:
        raise BackupError(f"{backup.path} cannot be removed: {error.strerror}") from error
    return backup.bytes


def finish_removals(repository: Path, is_own: Callable[[Record], bool]) -> int:
    """Finish an installation's removals that a crash cut short; return the freed bytes. The caller holds the installation's lock.

    Only a file goes whose own record, still beside it, `is_own`.
    """
    freed = 0
    for going in sorted(repository.glob(f"*{REMOVING_EXTENSION}")) if repository.is_dir() else []:
        archive = going.with_name(going.name.removesuffix(REMOVING_EXTENSION))
        if split_archive_name(archive.name) is None or going.is_symlink() or not going.is_file() or archive.exists():
            continue
        record = read_record(archive)
        if (
            record is not None
            and record.manifest.name == split_name(archive)
            and is_own(record)
            and record.bytes == going.stat().st_size
        ):
            freed += record.bytes
            going.unlink()
            record_path_of(archive).unlink(missing_ok=True)
    return freed


def split_name(archive: Path) -> str:
    """Give the backup's name in an archive's file name; "" where it is none."""
    split = split_archive_name(archive.name)
    return split[0] if split else ""


def _moment_of_legacy(path: Path, name: str) -> datetime | None:
    """The guide's names carry local time without a zone; good enough to sort by, and the file's own time where there is none."""
    return time_in_name(name) or datetime.fromtimestamp(path.stat().st_mtime, UTC)
