"""The steps of retention: look at what is there, plan, and remove what the plan lets go."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime

from tasks.adapters.archive.identity import read_identity
from tasks.adapters.archive.ownership import forget_removed, mark_removing
from tasks.adapters.archive.repository import accept_content, finish_removals, list_backups, remove_backup
from tasks.adapters.archive.repository_marker import require_repository
from tasks.adapters.outbox.history_file import read_history
from tasks.core.archive.authenticity import authenticity_of
from tasks.core.archive.manifest import Record
from tasks.core.errors import UsageError
from tasks.core.policy.history import Entry, last_backup_failed
from tasks.core.policy.retention import RetentionPlan, plan_retention
from tasks.run.config import InstallationConfig
from tasks.run.own_backups import OwnBackups, look_at, own_records, resign
from tasks.step import step

logger = logging.getLogger(__name__)


@step(name="plan retention")
def plan_prune(config: InstallationConfig, *, now: datetime) -> RetentionPlan:
    """Plan which backups of an installation are kept, and which go; nothing goes while its last backup failed.

    Raise Refused where the repository is not the one that backups went to before.
    """
    require_repository(config.repository)
    return plan_for(config, look_at(config, list_backups(config.repository), now=now), read_history(config.id), now=now)


def plan_for(config: InstallationConfig, own: OwnBackups, entries: Sequence[Entry], *, now: datetime) -> RetentionPlan:
    """Plan for backups and a history that were read already."""
    failed = last_backup_failed(entries)
    paused = [f"the last {failed.run} ({failed.at:%Y-%m-%d %H:%M} UTC) {failed.outcome}"] if failed else []
    runs = [each.at for each in entries]
    return plan_retention(own.candidates, config.settings.retention, now=now, paused=paused, runs=runs)


@step(name="remove backups")
def remove_planned(config: InstallationConfig, plan: RetentionPlan, *, now: datetime) -> int:
    """Remove what the plan lets go; return the freed bytes. Each is looked at again: one that is no longer the same is left."""
    backups = list_backups(config.repository)
    own = look_at(config, backups, now=now)
    there = {each.name: each for each in backups}
    ours = {each.name for each in own.candidates if not each.foreign}
    place = read_identity(config.id, config.directory).place

    def is_own(record: Record) -> bool:
        return authenticity_of(own.trust, record).counts

    freed = finish_removals(config.repository, is_own)
    mark_removing(place, config.repository, [name for name in plan.removed if name in ours])
    for name in plan.removed:
        if name not in ours:
            logger.warning("%s is not what it was when the plan was made; it is left alone", name)
            continue
        freed += remove_backup(there[name])
        logger.info("Removed %s (%d bytes)", there[name].path.name, there[name].bytes)
    forget_removed(place, config.repository)
    return freed


@step(name="accept content")
def accept_newest(config: InstallationConfig, *, now: datetime) -> str:
    """Take the newest backup's content as the new measure of what is normal; return its name."""
    require_repository(config.repository)
    ours = own_records(config, now=now)
    if not ours:
        raise UsageError(f"there is no backup of {config.id} in {config.repository}")
    accept_content(config.repository / ours[0].file, resign(config))
    return ours[0].manifest.name
