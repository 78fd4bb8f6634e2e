"""The guide's restore script: look at the archive, then run the restore that fits it."""

from __future__ import annotations

from pathlib import Path

from tasks.checking import check_backup
from tasks.configuration import given_works
from tasks.core.errors import Refused
from tasks.fresh_host import set_up_fresh_host
from tasks.restoring import Restored
from tasks.work import Work


def restore_here(
    installation: str, backup: str, *, confirm: str, quarantine: bool | None, restore_config: bool
) -> Restored:
    """Restore a backup into an installation by the method that fits it."""
    from flows.sql_dump_restore import sql_dump_restore

    return sql_dump_restore.fn(installation, backup, confirm, quarantine, restore_config)


def restore_fresh_host(work: Work | None, backup: str, directory: Path, *, quarantine: bool | None) -> Restored:
    """Set a stack up from an archive in an empty directory, and restore its data into it."""
    repository = work.repository if work else Path.cwd()
    archive = check_backup(repository, backup)
    if archive.kind == "physical":
        raise Refused(f"{archive.name} holds a data directory: that is the full restore's")
    fresh = set_up_fresh_host(archive, directory, repository, project=work.project if work else None)
    with given_works({fresh.id: fresh}):
        return restore_here(fresh.id, str(archive.path), confirm=fresh.id, quarantine=quarantine, restore_config=False)
