"""The step that turns a file into a checked archive: nothing else makes one, and restores accept nothing else."""

from __future__ import annotations

from pathlib import Path

from tasks.adapters.archive_reader import CheckedArchive, check_archive
from tasks.adapters.repository import find_backup
from tasks.progress import progress
from tasks.step import step


@step(name="check archive", run_name="check {backup}")
def check_backup(repository: Path, backup: str) -> CheckedArchive:
    """Find a backup ("latest", a name, or a path) and read it from its first byte to its last.

    Raise ArchiveDamaged where a byte is not as it was sealed, UsageError where there is no such backup.
    """
    path = find_backup(repository, backup)
    with progress("check", expected_bytes=path.stat().st_size):
        return check_archive(path)
