"""Rehearse an upgrade: a dump of now is loaded under the new image on isolated staging, compared, and the application started on it."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

from tasks.core.archive.manifest import Record
from tasks.core.errors import Refused
from tasks.core.stack.installation import Installation
from tasks.restore.check_archive import check_backup
from tasks.restore.origin import why_not_own
from tasks.run.config import InstallationConfig
from tasks.upgrade.new_image import NewImage, under_new_image
from tasks.upgrade.plan import Rehearsal
from tasks.upgrade.rehearsals import keep_rehearsal, kept_rehearsal
from tasks.verification.sealed import opened_for_verification
from tasks.verification.staging import staging_installation
from tasks.verification.verify import run_restore_test

logger = logging.getLogger(__name__)

HOLDS_FOR = timedelta(hours=24)


def rehearse(config: InstallationConfig, stack: Installation, new: NewImage, record: Record) -> Rehearsal:
    """Restore a backup of now under the new image, and remember what that showed.

    Raise Refused, with the differences, where the data is not the same there. Nothing of production is touched, and no
    mailbox: staging has no way out, and its accounts are disabled before the application starts.
    """
    now = datetime.now(UTC)
    name = record.manifest.name
    with opened_for_verification(config, name, recovery_key=False):
        archive = check_backup(config.archives, name)
        why = why_not_own(config, stack, archive)
        if why:
            raise Refused(f"{name} is not known as this installation's own: {why}", hint="see `doctor`")
        view, begun = under_new_image(stack, new), time.monotonic()
        with staging_installation(view, archive, config.staging_limits, postgres_image=new.image_id) as staging:
            start_seconds = round(time.monotonic() - begun, 3)
            tested = run_restore_test(staging, archive, config.dump_limits, now=now)
    restored = tested.restored
    if restored.differences:
        raise Refused(
            f"under {new.name} the data is not what it was: {'; '.join(restored.differences)}",
            hint="nothing of the installation was touched; another image may do",
        )
    if "census" not in restored.comparisons:
        raise Refused(
            f"{name} has no census: equal data cannot be shown", hint="; ".join(restored.notes) or "see the report"
        )
    found = Rehearsal(
        now, name, new.image_id, stack.postgres.image_id, record.seconds, start_seconds, restored.seconds, restored.rows, restored.tables,
        tested.attachments,
    )  # fmt: skip
    keep_rehearsal(config.directory, "postgres", asdict(found))
    return found


def last_rehearsal(config: InstallationConfig, stack: Installation, new: NewImage) -> Rehearsal | None:
    """Give the last rehearsal of this very change, where it is less than a day old."""
    found = kept_rehearsal(
        config.directory, "postgres", image_id=new.image_id, old_image_id=stack.postgres.image_id, holds_for=HOLDS_FOR
    )
    try:
        return Rehearsal(**found) if found is not None else None
    except TypeError as error:
        logger.info("the last rehearsal cannot be read: %s", error)
        return None
