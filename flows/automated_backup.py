"""Method 3 of the guide: the backup of every night, from the look at the database to the copies and the report."""

from __future__ import annotations

from dataclasses import dataclass

from flows.complete_backup import complete_backup
from flows.copy_backups import copy_backups
from flows.hot_backup import hot_backup
from flows.online_backup import online_backup
from flows.prune import Pruned, prune
from flows.restore_verification import restore_verification
from flows.synthetic_full import synthetic_full
from tasks.backup.quiet_database import wait_for_quiet_database
from tasks.core.archive.manifest import Method, Record
from tasks.core.errors import BackupError, Busy
from tasks.oversight.copies import CopiesFailed
from tasks.oversight.nightly import (
    copies_are_ours,
    pinged,
    superseding_backup,
    synthetic_is_wanted,
    tell_overdue,
    verification_is_ours,
)
from tasks.oversight.run_page import status_shown
from tasks.prefect_objects import Flow, flow
from tasks.run.context import config_of
from tasks.run.history import remembered
from tasks.run.installations import read_installation
from tasks.surroundings import run_flow, surroundings
from tasks.verification.verify import NotProven, Verified

FLOWS: dict[Method, Flow[..., Record]] = {"hot": hot_backup, "online": online_backup, "complete": complete_backup}


@dataclass(frozen=True, slots=True)
class Night:
    """What a run did: the backup (or the later one that superseded it), its verification where that was due, and retention."""

    record: Record
    verified: Verified | None
    pruned: Pruned | None


def _run_name() -> str:
    """Name a run by its method too, which the settings may have chosen."""
    from prefect.runtime import flow_run

    parameters = flow_run.parameters
    installation, method = parameters.get("installation"), parameters.get("method")
    try:
        method = method or config_of(str(installation)).settings.method
    except BackupError:  # the run itself will say so
        method = ""
    return " ".join(f"automated {method} backup of {installation}".split())


@flow(name="automated-backup", flow_run_name=_run_name)
def automated_backup(installation: str = "main", method: Method | None = None) -> Night:
    """Wait for a quiet database, back up by the chosen method, verify when that is due, copy, apply retention, and report.

    In Prefect verification and copies are runs of their own, begun by this run's event. A scheduled run that a later
    backup has made unnecessary (the host was off for three nights, and all three runs come at once) makes none.

    Args:
        installation: Which installation, by its id in the settings file.
        method: "hot", "online" or "complete"; empty takes the setting.
    """
    config = config_of(installation)
    chosen = method or config.settings.method
    verified, refuted, not_copied, pruned = None, None, None, None
    with pinged(config), status_shown(config):
        with remembered(config, "automated backup") as run:
            tell_overdue(config)
            record = superseding_backup(config, chosen, surroundings().scheduled_time())
            if record is None:
                wait_for_quiet_database(read_installation(config), config.settings.timeouts.defer_seconds)
                record = run_flow(FLOWS[chosen], installation)
                if synthetic_is_wanted(config):
                    record = run_flow(synthetic_full, installation)
                if verification_is_ours(config):
                    try:
                        verified = run_flow(restore_verification, installation, record.manifest.name)
                    except NotProven as error:
                        refuted, verified = error, error.verified
                        run.fail(error.message)
                if copies_are_ours(config):
                    try:
                        run_flow(copy_backups, installation)
                    except Busy:  # another run copies: it, or the next one, sends this backup too
                        pass
                    except CopiesFailed as error:
                        not_copied = error
                        run.fail(error.message)
                pruned = run_flow(prune, installation)
        if refuted is not None:
            raise refuted
        if not_copied is not None:
            raise not_copied
    return Night(record, verified, pruned)
