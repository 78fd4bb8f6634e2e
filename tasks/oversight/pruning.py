"""The steps of retention: look at what is there, plan, and remove what the plan lets go."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime

from tasks.adapters.archive.repository import Backup, accept_content, finish_removals, list_backups, remove_backup
from tasks.adapters.archive.repository_marker import require_repository
from tasks.adapters.outbox.history_file import read_history
from tasks.core.archive.manifest import Record
from tasks.core.errors import UsageError
from tasks.core.policy.history import Entry, last_backup_failed
from tasks.core.policy.retention import Candidate, RetentionPlan, Standing, plan_retention
from tasks.run.config import Work
from tasks.step import step

logger = logging.getLogger(__name__)


def candidates_of(work: Work, backups: Sequence[Backup]) -> list[Candidate]:
    """See backups as retention does. What this program did not make for this installation is foreign, whatever its name says."""
    return [_candidate(work, each) for each in backups]


def own_records(work: Work, backups: Sequence[Backup]) -> list[Record]:
    """Give the records of the backups that this program made for this installation, newest first."""
    own = {each.name for each in candidates_of(work, backups) if not each.foreign}
    return [each.record for each in backups if each.record is not None and each.name in own]


@step(name="plan retention")
def plan_prune(work: Work, *, now: datetime) -> RetentionPlan:
    """Plan which backups of an installation are kept, and which go; nothing goes while its last backup failed.

    Raise Refused where the repository is not the one that backups went to before.
    """
    require_repository(work.repository)
    return plan_for(work, list_backups(work.repository), read_history(work.id), now=now)


def plan_for(work: Work, backups: Sequence[Backup], entries: Sequence[Entry], *, now: datetime) -> RetentionPlan:
    """Plan for backups and a history that were read already."""
    failed = last_backup_failed(entries)
    paused = [f"the last {failed.run} ({failed.at:%Y-%m-%d %H:%M} UTC) {failed.outcome}"] if failed else []
    return plan_retention(candidates_of(work, backups), work.retention, now=now, paused=paused)


@step(name="remove backups")
def remove_planned(work: Work, plan: RetentionPlan) -> int:
    """Remove what the plan lets go; return the freed bytes. Each is looked at again: one that is no longer the same is left."""
    backups = {each.name: each for each in list_backups(work.repository)}
    freed = finish_removals(work.repository, work.id)
    for name in plan.removed:
        found = backups.get(name)
        if found is None or _candidate(work, found).foreign:
            logger.warning("%s is not what it was when the plan was made; it is left alone", name)
            continue
        freed += remove_backup(found)
        logger.info("Removed %s (%d bytes)", found.path.name, found.bytes)
    return freed


@step(name="accept content")
def accept_newest(work: Work) -> str:
    """Take the newest backup's content as the new measure of what is normal; return its name."""
    require_repository(work.repository)
    ours = [each for each in list_backups(work.repository) if not _candidate(work, each).foreign]
    if not ours:
        raise UsageError(f"there is no backup of {work.id} in {work.repository}")
    accept_content(ours[0].path)
    return ours[0].name


def _candidate(work: Work, backup: Backup) -> Candidate:
    record = backup.record
    if record is None:
        created = backup.created or datetime.fromtimestamp(backup.path.stat().st_mtime, UTC)
        return Candidate(backup.name, created, foreign="it has no record of this program: not ours to remove")
    manifest, found = record.manifest, record.verification
    foreign = ""
    if manifest.installation != work.id:
        foreign = f"it is of the installation {manifest.installation!r}, not of {work.id!r}"
    elif manifest.name != backup.name or record.bytes != backup.bytes:
        foreign = "it is not the file that its record describes"
    standing: Standing = "unverified"
    if record.verified:
        standing = "verified"
    elif found is not None and found.verdict in ("different", "failed"):
        standing = "refuted"
    rows = None
    if record.verified and found is not None:
        rows = found.rows
    elif manifest.census is not None:
        rows = sum(table.rows for table in manifest.census.tables.values())
    return Candidate(
        backup.name, manifest.created_at, standing, foreign=foreign, rows=rows,
        database_bytes=manifest.database.size_bytes or None, accepted=record.content_accepted,
    )  # fmt: skip
