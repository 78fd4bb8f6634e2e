"""The step that turns a file into a checked archive: nothing else makes one, and restores accept nothing else."""

from __future__ import annotations

from pathlib import Path

from tasks.adapters.archive_reader import CheckedArchive, check_archive
from tasks.adapters.repository import find_backup
from tasks.core.errors import UsageError
from tasks.progress import progress
from tasks.step import in_flow_run, step


@step(name="check archive", run_name="check {backup}")
def check_backup(repository: Path, backup: str) -> CheckedArchive:
    """Find a backup ("latest", a name, or a path) and read it from its first byte to its last.

    Raise ArchiveDamaged where a byte is not as it was sealed, UsageError where there is no such backup.
    """
    if in_flow_run() and "/" in backup:
        # Whoever reaches Prefect's API must not be able to name a file.
        raise UsageError(
            f"{backup!r} is a path; a flow run takes a backup's name", hint="see `mailarchiver-backup list`"
        )
    path = find_backup(repository, backup)
    with progress("check", expected_bytes=path.stat().st_size):
        return check_archive(path)
