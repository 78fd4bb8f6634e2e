"""Prove a backup by restoring it: on a private stack, with the very code that a bad day would use."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from tasks.copies.view import archives_from
from tasks.core.errors import BackupError
from tasks.oversight.run_page import report_verification
from tasks.prefect_objects import flow
from tasks.restore.check_archive import check_backup
from tasks.restore.origin import why_not_own
from tasks.run.context import config_of
from tasks.run.history import remembered
from tasks.run.installations import read_installation
from tasks.run.own_backups import choose_backup
from tasks.verification.sealed import (
    NotVerifiableHere,
    can_be_opened,
    end_of_verification,
    not_verifiable,
    opened_for_verification,
)
from tasks.verification.staging import staging_installation
from tasks.verification.verify import (
    Verified,
    conclude,
    conclude_failure,
    record_verdict,
    run_restore_test,
)


@flow(name="restore-verification", flow_run_name="verification of {backup} of {installation}")
def restore_verification(
    installation: str = "main", backup: str = "latest", with_recovery_key: bool = False, from_target: str = ""
) -> Verified:
    """Restore a backup on an isolated staging stack, compare it with what was backed up, and record the verdict.

    Production is not touched, so its lock is not taken. A verdict other than "verified" ends the run as failed (NotProven, which
    carries the verdict). An encrypted backup is opened with the key that was made for this one verification; where that is not here (any more),
    it is "not verifiable": no verdict, neither good nor bad.

    Args:
        installation: Which installation, by its id in the settings file.
        backup: A backup's name, "latest", or "stalest" (the one verified longest ago).
        with_recovery_key: Open an encrypted backup with the operator's own key alone (MAILARCHIVER_BACKUP_IDENTITY): the yearly drill.
        from_target: Which target of its settings to read the backup from, streamed; empty means the repository.
    """
    begun, now = time.monotonic(), datetime.now(UTC)
    home = config_of(installation)
    with remembered(home, "verification") as run, archives_from(home, from_target, backup) as config:
        production = read_installation(config)
        chosen = choose_backup(config, backup, can_be_opened(config))
        try:
            with opened_for_verification(config, chosen, recovery_key=with_recovery_key) as opened_with:
                archive = check_backup(config.archives, chosen, chain=False)  # the restore checks its links
                foreign = why_not_own(config, production, archive)
                with staging_installation(production, archive, config.staging_limits) as staging:
                    tested = run_restore_test(staging, archive, config.dump_limits, now=now, foreign=foreign)
            verified = conclude(archive, tested, now=now, begun=begun, opened_with=opened_with)
        except NotVerifiableHere as error:
            verified = not_verifiable(error, now=now, begun=begun)
        except BackupError as error:
            verified = conclude_failure(config.archives, chosen, error, now=now, begun=begun)
        if not verified.is_open:
            record_verdict(config, verified)
            end_of_verification(config, verified)
            if not verified.holds:
                run.fail(verified.problem)

    report_verification(home.at_home, verified)
    return verified
