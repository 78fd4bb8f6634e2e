"""Beyond the guide: copies of the backups away from this machine, each target with a retention of its own."""

from __future__ import annotations

from datetime import UTC, datetime

from tasks.adapters.archive.repository_marker import require_repository
from tasks.adapters.copies.target_state import copying_lock
from tasks.copies.copy import TargetCopied, copy_to_target, note_failure
from tasks.copies.read_back import ReadBack, read_back
from tasks.copies.remove import prune_target
from tasks.copies.targets import wanted_targets
from tasks.core.errors import BackupError, Refused
from tasks.oversight.copies import CopyRun, report_copies
from tasks.prefect_objects import flow
from tasks.run.config import InstallationConfig
from tasks.run.context import config_of
from tasks.run.history import remembered


@flow(name="copy-backups", flow_run_name="copies of {installation}")
def copy_backups(installation: str = "main", target: str = "", accept: bool = False) -> tuple[CopyRun, ...]:
    """Send each target the backups it lacks, apply its retention, and read back the copies that are due.

    A backup goes on beside it. A target that fails keeps no other from its copies; then the run ends as failed
    (CopiesFailed, which carries what was done). What has arrived is not sent again.

    Args:
        installation: Which installation, by its id in the settings file.
        target: Which target of its settings; empty means all.
        accept: Go on with a target as it is now, after it was emptied or replaced on purpose.
    """
    config = config_of(installation)
    targets = wanted_targets(config, target)
    with remembered(config, "copy") as run:
        require_repository(config.repository)
        with copying_lock(config.id):
            done = tuple(_bring_up_to_date(config, each.name, accept) for each in targets)
        if failed := [each.error.message for each in done if each.error is not None]:
            run.fail("; ".join(failed))

    report_copies(config, done)
    return done


def _bring_up_to_date(config: InstallationConfig, target: str, accept: bool) -> CopyRun:
    """Do all that is to be done at one target; a failure is noted and returned, for the other targets' sake."""
    copied, pruned, looked = TargetCopied(target), None, ReadBack()
    now = datetime.now(UTC)
    try:
        copied = copy_to_target(config, target, now=now, accept=accept)
        if copied.may_go:
            pruned = prune_target(config, target, now=now)
        looked = read_back(config, target, now=now)
    except BackupError as error:
        note_failure(config, target, error)
        return CopyRun(target, copied, pruned, looked, error)
    return CopyRun(target, copied, pruned, looked, Refused(copied.failed) if copied.failed else None)
