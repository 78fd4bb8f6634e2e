"""The way back from an upgrade of the application: its database, its image and its compose file, and a last dump of what goes."""

from __future__ import annotations

import logging
from datetime import datetime
from pathlib import Path

from tasks.backup.free_space import require_room_for_dump
from tasks.backup.hot import dump_into_archive
from tasks.core.errors import BackupError, Refused
from tasks.core.stack.beside import Mark, stamp_of
from tasks.core.stack.installation import Installation, ServiceState, left_down
from tasks.recovery.stopped_services import stopped
from tasks.restore.database_swap import check_swap
from tasks.restore.kept import holdings
from tasks.restore.kept_database import Kept
from tasks.restore.probe import put_back_also_where_it_does_not_answer, require_answer
from tasks.restore.rollback import RolledBack
from tasks.run.config import InstallationConfig
from tasks.upgrade.application_image import require_image
from tasks.upgrade.application_start import look_at_content
from tasks.upgrade.database_turn import plan_return
from tasks.upgrade.files_back import require_files, take_later_edits
from tasks.upgrade.kept_list import KeptApplication, KeptUpgrade
from tasks.upgrade.turn import plan_turn, take_turn

logger = logging.getLogger(__name__)


def put_application_back(
    config: InstallationConfig, stack: Installation, kept: KeptUpgrade, old: KeptApplication, *, now: datetime
) -> RolledBack:
    """Bring back the database, the files and the image from before an upgrade, and see the application answer if it ran.

    The application is stopped first; then a last dump of the upgraded database goes to the repository, so that mail that came
    since is there when `commit` has dropped what is kept.
    """
    check_swap(stack, kept_database(stack, kept).database, kept_database(stack, kept))
    require_image(kept.from_image, old.image_id, old.digest)
    require_files(kept)
    take_later_edits(stack, kept, stack.application.name)
    with stopped(stack, [stack.application], reason="rollback of an upgrade") as loan:
        told = mails_that_go(stack, old)
        backup, problem = _last_dump(config, stack)
        view, aside = turn_application_back(stack, kept, now=now)
        loan.start_all()
        with put_back_also_where_it_does_not_answer(aside):
            require_answer(view)
    notes = (
        told,
        *([problem] if problem else [f"The last dump of the upgraded database is {backup}."]),
        *left_down(stack),
    )
    return RolledBack(kept.to_image, stack.database.name, aside, "upgrade to", notes, backup)


def turn_application_back(
    stack: Installation, kept: KeptUpgrade, *, now: datetime, was: ServiceState | None = None
) -> tuple[Installation, str]:
    """Exchange what is in place for what an upgrade put aside; return the installation as it is then, and what is kept instead."""
    if kept.application is None:
        raise Refused(f"{kept.mark} is of no upgrade of the application")
    old = kept.application
    require_image(kept.from_image, old.image_id, old.digest)
    content = plan_return(
        stack, kept_database(stack, kept), Mark("undone", stamp_of(now)), image_id=old.image_id, now=now
    )
    mails, schema = _mails_and_schema(stack)
    new = KeptApplication(stack.application.image_id, stack.application.image_digest or "", mails or 0, schema)
    turn = plan_turn(
        stack, content, [Path(each) for each in kept.files], from_image=kept.to_image, to_image=kept.from_image, now=now, was=was,
        application=new,
    )  # fmt: skip
    return take_turn(stack, turn), turn.content.aside


def kept_database(stack: Installation, kept: KeptUpgrade) -> Kept:
    """Find the database that an upgrade keeps; raise Refused where it is gone."""
    found = [each for each in holdings(stack).databases if each.mark == kept.mark]
    if not found:
        raise Refused(
            f"database {kept.mark.database(stack.database.name)} is gone, which the upgrade to {kept.to_image} had kept",
            hint=f"was a commit begun? then end it: mailarchiver-backup commit; to go back, restore a backup with {kept.from_image}",
        )
    return found[0]


def mails_that_go(stack: Installation, old: KeptApplication) -> str:
    """Say how many mails came since an upgrade, which a rollback goes back before."""
    mails, _ = _mails_and_schema(stack)
    if mails is None:
        return f"How many mails came since the upgrade cannot be told; there were {old.mails:,} before it."
    return f"{old.mails:,} mails before the upgrade, {mails:,} now: those that came since are in what is kept, not in what comes back."


def _mails_and_schema(stack: Installation) -> tuple[int | None, str]:
    """Look at the current database; what an upgrade has spoilt may not let itself be looked at."""
    try:
        found = look_at_content(stack, stack.database.name)
    except BackupError as error:
        logger.warning("The upgraded database cannot be looked at: %s", error.message)
        return None, ""
    return found.mails, found.schema or ""


def _last_dump(config: InstallationConfig, stack: Installation) -> tuple[str, str]:
    """Take a hot backup of the upgraded database; give its name, or why there is none: that must keep nobody from going back."""
    try:
        require_room_for_dump(stack, config.repository, config.settings.minimum_free_bytes)
        return dump_into_archive(config, stack).manifest.name, ""
    except BackupError as error:
        logger.warning("No last dump of the upgraded database: %s", error.message)
        return (
            "",
            f"No last dump of the upgraded database could be taken ({error.message}): it is in what is kept alone.",
        )
