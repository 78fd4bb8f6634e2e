"""The steps of retention: look at what is there, plan, and remove what the plan lets go."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime

from tasks.adapters.archive.repository import Backup, accept_content, finish_removals, list_backups, remove_backup
from tasks.adapters.archive.repository_marker import require_repository
from tasks.adapters.outbox.history_file import read_history
from tasks.core.errors import UsageError
from tasks.core.policy.history import Entry, last_backup_failed
from tasks.core.policy.retention import RetentionPlan, plan_retention
from tasks.run.config import InstallationConfig
from tasks.run.own_backups import candidate_of, candidates_of
from tasks.step import step

logger = logging.getLogger(__name__)


@step(name="plan retention")
def plan_prune(config: InstallationConfig, *, now: datetime) -> RetentionPlan:
    """Plan which backups of an installation are kept, and which go; nothing goes while its last backup failed.

    Raise Refused where the repository is not the one that backups went to before.
    """
    require_repository(config.repository)
    return plan_for(config, list_backups(config.repository), read_history(config.id), now=now)


def plan_for(
    config: InstallationConfig, backups: Sequence[Backup], entries: Sequence[Entry], *, now: datetime
) -> RetentionPlan:
    """Plan for backups and a history that were read already."""
    failed = last_backup_failed(entries)
    paused = [f"the last {failed.run} ({failed.at:%Y-%m-%d %H:%M} UTC) {failed.outcome}"] if failed else []
    return plan_retention(candidates_of(config, backups), config.settings.retention, now=now, paused=paused)


@step(name="remove backups")
def remove_planned(config: InstallationConfig, plan: RetentionPlan) -> int:
    """Remove what the plan lets go; return the freed bytes. Each is looked at again: one that is no longer the same is left."""
    backups = {each.name: each for each in list_backups(config.repository)}
    freed = finish_removals(config.repository, config.id)
    for name in plan.removed:
        found = backups.get(name)
        if found is None or candidate_of(config, found).foreign:
            logger.warning("%s is not what it was when the plan was made; it is left alone", name)
            continue
        freed += remove_backup(found)
        logger.info("Removed %s (%d bytes)", found.path.name, found.bytes)
    return freed


@step(name="accept content")
def accept_newest(config: InstallationConfig) -> str:
    """Take the newest backup's content as the new measure of what is normal; return its name."""
    require_repository(config.repository)
    ours = [each for each in list_backups(config.repository) if not candidate_of(config, each).foreign]
    if not ours:
        raise UsageError(f"there is no backup of {config.id} in {config.repository}")
    accept_content(ours[0].path)
    return ours[0].name
