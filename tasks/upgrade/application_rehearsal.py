"""Rehearse an upgrade of the application: a backup of now is proven on isolated staging, and then the new version started on it."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

from tasks.adapters.archive.reader import CheckedArchive
from tasks.core.archive.manifest import OpenedWith, Record
from tasks.core.errors import BackupError, Refused
from tasks.core.stack.application_upgrade import changes, went_back
from tasks.core.stack.beside import Mark, stamp_of
from tasks.core.stack.installation import Installation
from tasks.restore.check_archive import check_backup
from tasks.restore.origin import why_not_own
from tasks.run.config import InstallationConfig
from tasks.run.installations import reread
from tasks.upgrade.application_plan import ApplicationAhead, ApplicationRehearsal
from tasks.upgrade.application_start import Content, look_at_content, refuse_accounts_at_large, start_and_migrate
from tasks.upgrade.database_copy import copy_database
from tasks.upgrade.rehearsals import keep_rehearsal, kept_rehearsal
from tasks.verification.sealed import end_of_verification, opened_for_verification
from tasks.verification.staging import change_application, staging_installation
from tasks.verification.verify import RestoreTest, check_attachments, conclude, record_verdict, run_restore_test

logger = logging.getLogger(__name__)

# The backup that it proves is the one from before the upgrade: an hour for reading the plan, and no more mail than that is without one.
HOLDS_FOR = timedelta(hours=1)
UNTOUCHED = "nothing of the installation was touched; the backup that was taken is in the repository"


def rehearse_application(
    config: InstallationConfig, stack: Installation, ahead: ApplicationAhead, record: Record
) -> ApplicationRehearsal:
    """Prove a backup of now on staging, start the new version on what was restored, and remember what that showed.

    Raise Refused where the backup is not proven, or the new version does not answer, fails to migrate, or loses anything.
    Nothing of production is touched, and no mailbox: staging has no way out, and its accounts are disabled before any
    application starts.
    """
    now, name = datetime.now(UTC), record.manifest.name
    with opened_for_verification(config, name, recovery_key=False) as opened_with:
        archive = check_backup(config.archives, name)
        why = why_not_own(config, stack, archive)
        if why:
            raise Refused(f"{name} is not known as this installation's own: {why}", hint="see `doctor`")
        with staging_installation(stack, archive, config.staging_limits) as staging:
            begun = time.monotonic()
            tested = run_restore_test(staging, archive, config.dump_limits, now=now)
            _record(config, archive, tested, now, begun, opened_with)
            found = _run_new_version(replace(reread(staging), limits=stack.limits), stack, ahead, name, now)
    keep_rehearsal(config.directory, "application", asdict(found))
    return found


def last_application_rehearsal(
    config: InstallationConfig, stack: Installation, ahead: ApplicationAhead
) -> ApplicationRehearsal | None:
    """Give the last rehearsal of this very change, where it is less than an hour old."""
    found = kept_rehearsal(
        config.directory, "application", image_id=ahead.new.image_id, old_image_id=stack.application.image_id, holds_for=HOLDS_FOR
    )  # fmt: skip
    try:
        return ApplicationRehearsal(**found) if found is not None else None
    except TypeError as error:
        logger.info("the last rehearsal cannot be read: %s", error)
        return None


def _record(
    config: InstallationConfig,
    archive: CheckedArchive,
    tested: RestoreTest,
    now: datetime,
    begun: float,
    opened_with: OpenedWith,
) -> None:
    """Write the verdict on the backup into its record; raise Refused where it is not proven equal."""
    verified = conclude(archive, tested, now=now, begun=begun, opened_with=opened_with)
    record_verdict(config, verified)
    end_of_verification(config, verified)
    if verified.verification.verdict != "verified":
        raise Refused(
            f"the backup from before the upgrade is not proven: {verified.problem}", hint=f"{UNTOUCHED}; see its record"
        )


def _run_new_version(
    staging: Installation, stack: Installation, ahead: ApplicationAhead, backup: str, now: datetime
) -> ApplicationRehearsal:
    """Do on staging what is to be done: copy the database, start the new version, and compare what it made of the data."""
    database = staging.database.name
    begun = time.monotonic()
    view = replace(change_application(staging, ahead.new.image_id), limits=staging.limits)
    exchange_seconds = time.monotonic() - begun
    refuse_accounts_at_large(view)
    begun = time.monotonic()
    before = look_at_content(view, database)
    look_seconds = time.monotonic() - begun
    begun = time.monotonic()
    try:
        copy_database(view, Mark("restored", stamp_of(now)).database(database))
        copy_seconds = time.monotonic() - begun + 2 * look_seconds  # current and copy are compared
        start_seconds = exchange_seconds + start_and_migrate(view) + look_seconds
    except BackupError as error:
        raise Refused(f"on staging, {error.message}", hint=UNTOUCHED) from error
    after = look_at_content(view, database)
    attachments, wrong = check_attachments(view, database)
    wrong = [*_differences(before, after), *wrong]
    if wrong:
        raise Refused(f"on staging, {ahead.new.name} changed what it must keep: {'; '.join(wrong)}", hint=UNTOUCHED)
    return ApplicationRehearsal(
        now, backup, ahead.new.image_id, stack.application.image_id, before.schema or "", after.schema or "", round(copy_seconds, 3),
        round(start_seconds, 3), after.mails, attachments,
    )  # fmt: skip


def _differences(before: Content, after: Content) -> list[str]:
    found = changes(before.rows, after.rows)
    if not found and before.mails_digest != after.mails_digest:
        found.append("as many mails, but others")
    if went_back(before.schema, after.schema):
        found.append(f"the schema went back from {before.schema} to {after.schema or 'no version'}")
    return found
