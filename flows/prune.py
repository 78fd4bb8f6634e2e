"""Retention: remove the backups that no rule keeps, and say of each why it stays or goes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from tasks.core.policy.retention import RetentionPlan
from tasks.oversight.pruning import accept_newest, plan_prune, remove_planned
from tasks.oversight.reports import report_retention
from tasks.prefect_objects import flow
from tasks.run.context import locked_config


@dataclass(frozen=True, slots=True)
class Pruned:
    """The plan, how many bytes its removals freed, and the backup whose content was accepted, if any."""

    plan: RetentionPlan
    freed_bytes: int
    accepted: str | None


@flow(name="prune", flow_run_name="prune of {installation}")
def prune(installation: str = "main", dry_run: bool = False, accept_shrink: bool = False) -> Pruned:
    """Remove what no rule of the retention keeps; never the last good backups, and nothing while something is odd.

    Args:
        installation: Which installation, by its id in the settings file.
        dry_run: Only show the plan with its reasons.
        accept_shrink: Take the newest backup's content as the new measure: what the archive lost was meant to go.
    """
    with locked_config(installation, "prune") as config:
        now = datetime.now(UTC)
        accepted = accept_newest(config, now=now) if accept_shrink and not dry_run else None
        plan = plan_prune(config, now=now)
        freed_bytes = 0 if dry_run else remove_planned(config, plan, now=now)

    report_retention(config, plan)
    return Pruned(plan, freed_bytes, accepted)
