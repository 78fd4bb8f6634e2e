"""The backup of a guest that a restore is to take, and whether it may."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from tasks.adapters.archive.ownership import authenticity_of_archive
from tasks.adapters.archive.repository import list_backups, read_record
from tasks.adapters.archive.repository_marker import require_repository
from tasks.core.archive.manifest import Record
from tasks.core.archive.system_contents import GuestFacts, SystemMethod
from tasks.core.errors import Refused, UsageError
from tasks.restore.check_archive import wanted_backup
from tasks.run.config import InstallationConfig
from tasks.run.own_backups import look_at, trust_of


def find_guest_backup(
    config: InstallationConfig, method: SystemMethod, backup: str, *, foreign: bool = False
) -> tuple[Path, Record, GuestFacts]:
    """Find a guest's backup by its name, or as "latest" where the own ones are of one guest; with what its record says of it.

    Raise Refused for one that is not known as the installation's own, unless it may be `foreign`, and for a backup of anything else.
    """
    path = wanted_backup(config.archives, _newest(config, method) if backup == "latest" else backup)
    record = read_record(path)
    if record is None:
        raise Refused(
            f"{path.name} has no record: nothing says what it is a backup of",
            hint="`mailarchiver-backup list` shows those that have one",
        )
    manifest = record.manifest
    if manifest.method != method or manifest.guest is None:
        raise Refused(
            f"{manifest.name} is a backup of {manifest.subject or 'the mail database'}, not of a guest of {method}",
            hint="`mailarchiver-backup list` says what each is of",
        )
    found = authenticity_of_archive(trust_of(config), path)
    if not found.is_own and not foreign:
        raise Refused(
            f"{manifest.name} is not known as this installation's own: {found.reason or found}",
            hint="--foreign restores it all the same: its programs will run as its maker wants",
        )
    return path, record, manifest.guest


def _newest(config: InstallationConfig, method: SystemMethod) -> str:
    require_repository(config.archives)
    own = look_at(config, list_backups(config.archives), now=datetime.now(UTC)).system
    ours = [each.manifest for each in own if each.manifest.method == method]
    subjects = sorted({each.subject for each in ours})
    if len(subjects) != 1:
        raise UsageError(
            f"there are backups of several guests: {', '.join(subjects)}"
            if subjects
            else f"there is no backup of a guest of {method}",
            hint="name the backup: `mailarchiver-backup list` shows them"
            if subjects
            else f"mailarchiver-backup backup {method}",
        )
    return ours[0].name
