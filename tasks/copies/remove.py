"""The step of a target's own retention: what no rule keeps goes, unless the target refuses."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from tasks.adapters.archive.repository import list_backups
from tasks.adapters.copies.rclone import Remote, TargetFailed, remove
from tasks.adapters.copies.target import There
from tasks.adapters.copies.target_state import write_target_state
from tasks.adapters.outbox.history_file import read_history
from tasks.copies.targets import reach_target, see_target, wanted_targets
from tasks.core.copies.parts import Stored
from tasks.core.copies.plan import plan_removal
from tasks.core.copies.state import is_locked
from tasks.core.policy.history import last_backup_failed
from tasks.core.policy.retention import RetentionPlan
from tasks.run.config import InstallationConfig
from tasks.run.own_backups import look_at
from tasks.step import step

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TargetPruned:
    """The plan for a target, what went there, and why it refused to remove more ("" where it did not)."""

    plan: RetentionPlan
    removed: tuple[str, ...]
    refused: str = ""


@step(name="prune copies", run_name="prune copies at {target}")
def prune_target(config: InstallationConfig, target: str, *, now: datetime) -> TargetPruned:
    """Remove the copies that no rule of the target's retention keeps; never below its floors, and none that is locked.

    A target that refuses to remove anything is told, and is no failure: that is what a locked one is for.
    """
    (wanted,) = wanted_targets(config, target)
    remote = reach_target(config, wanted)
    seen = see_target(config, wanted, remote, now=now)
    local = look_at(config, list_backups(config.repository), now=now)
    entries = read_history(config.id)
    failed = last_backup_failed(entries)
    state = seen.state
    plan = plan_removal(
        seen.candidates, local.candidates, wanted.retention or config.settings.retention, now=now, whole=seen.whole,
        locked=[name for name, each in state.copies.items() if is_locked(each, now)],
        paused=[f"the last {failed.run} {failed.outcome}"] if failed else [], runs=[each.at for each in entries],
    )  # fmt: skip
    removed, refused = _remove_all(remote, [seen.whole[name] for name in plan.removed if name in seen.whole])
    # What a cut send has left of a backup that is no longer wanted: nobody counts it, and nobody else would remove it.
    begun = [name for name, each in state.copies.items() if each.copied_at is None and name not in seen.content.backups]
    unwanted = [name for name in begun if name not in {each.name for each in local.candidates}]
    for name in unwanted if not refused else ():
        refused = refused or _remove_files(remote, seen.content.stored.get(name))
    state = state.without([*removed, *(unwanted if not refused else ())])
    if refused or removed:
        state = state.model_copy(update={"refused": refused, "refused_at": now if refused else None})
    write_target_state(config.id, target, state)
    return TargetPruned(plan, tuple(removed), refused)


def _remove_all(remote: Remote, copies: Sequence[There]) -> tuple[list[str], str]:
    removed: list[str] = []
    for each in copies:
        if refused := _remove_files(remote, each.stored):
            return removed, refused
        removed.append(each.stored.name)
        logger.info("Removed the copy of %s from %s", each.record.file, remote.target)
    return removed, ""


def _remove_files(remote: Remote, stored: Stored | None) -> str:
    """Remove a copy, its record first: what has a record there is whole. Return why the target refused, or ""."""
    if stored is None:
        return ""
    try:
        for each in [*([stored.record] if stored.record else []), *stored.parts, *stored.others]:
            remove(remote, each.name)
    except TargetFailed as error:
        if not error.is_refusal:
            raise
        logger.warning("%s", error.message)
        return error.message
    return ""
