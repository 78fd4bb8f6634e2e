"""The upgrade of the application itself: the database is copied, the copy kept, and the new version started on the current one."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from tasks.core.errors import BackupError, ProgramFailed, Refused
from tasks.core.stack.application_upgrade import losses
from tasks.core.stack.installation import Installation
from tasks.recovery.stopped_services import stopped
from tasks.restore.probe import taken_back_unless_it_answers
from tasks.run.config import InstallationConfig
from tasks.upgrade.application_back import turn_application_back
from tasks.upgrade.application_plan import ApplicationAhead, ApplicationPlan
from tasks.upgrade.application_start import Content, look_at_content, start_and_migrate
from tasks.upgrade.database_copy import database_copied
from tasks.upgrade.database_turn import plan_keeping
from tasks.upgrade.files import new_files
from tasks.upgrade.kept_list import KeptApplication
from tasks.upgrade.turn import Turn, plan_turn, take_turn

logger = logging.getLogger(__name__)

LOCK_NOT_AVAILABLE = "55P03"


@dataclass(frozen=True, slots=True)
class ApplicationUpgraded:
    """What an upgrade of the application did."""

    installation: str
    from_image: str
    to_image: str
    digest: str
    backup: str
    schema_before: str
    schema_after: str
    mails: int
    kept: str
    files: tuple[str, ...]
    downtime_seconds: float
    expected_seconds: float
    seconds: float
    notes: tuple[str, ...]


def upgrade_application(
    config: InstallationConfig, stack: Installation, ahead: ApplicationAhead, plan: ApplicationPlan, *, now: datetime
) -> ApplicationUpgraded:
    """Keep a copy of the database, turn to the new image, and see it answer with its migrations done and every mail there.

    Where it does not, image, compose file and database are put back, and BackupError is raised.
    """
    require_as_rehearsed(ahead, plan)
    begun = time.monotonic()
    with stopped(stack, [stack.application], reason=f"upgrade to {ahead.new.name}") as loan:
        view, turn, before, notes = _keep_and_turn(stack, ahead, plan, now)
        loan.start_all()
        back = partial(turn_application_back, view, turn.kept, now=now, was=stack.application.state)
        with taken_back_unless_it_answers(loan, turn.content.aside, back):
            start_and_migrate(view, schema=plan.rehearsal.schema_after or None)
            downtime_seconds = time.monotonic() - begun
            told = _require_nothing_lost(view, before)
    return ApplicationUpgraded(
        config.id, turn.from_image, turn.to_image, ahead.new.digest or ahead.new.image_id, plan.rehearsal.backup, before.schema or "",
        plan.rehearsal.schema_after, before.mails, turn.content.aside, tuple(each.aside for each in turn.files), round(downtime_seconds, 3),
        round(plan.rehearsal.downtime_seconds, 3), round(time.monotonic() - begun, 3), (*ahead.notes, *notes, *told),
    )  # fmt: skip


def require_as_rehearsed(ahead: ApplicationAhead, plan: ApplicationPlan) -> None:
    """Raise Refused where what would be done now is not what was rehearsed and approved."""
    now = ahead.new.image_id, ahead.old.image_id, ahead.files
    if now != (plan.rehearsal.image_id, plan.rehearsal.old_image_id, plan.ahead.files):
        raise Refused(
            f"the image {ahead.new.name}, the one that runs, or the compose file is not what was rehearsed",
            hint="start the upgrade again; it is rehearsed anew",
        )


def _keep_and_turn(
    stack: Installation, ahead: ApplicationAhead, plan: ApplicationPlan, now: datetime
) -> tuple[Installation, Turn, Content, tuple[str, ...]]:
    """Copy the database, see the copy equal, and turn to the new image; nothing current changes before."""
    name = stack.database.name
    with database_copied(stack, now=now) as (copy, notes):
        before = look_at_content(stack, name)
        if look_at_content(stack, copy.database(name)) != before:
            raise BackupError("the copy of the database is not what was copied: something else writes", hint="see who is connected to it")  # fmt: skip
        with new_files(stack, ahead.files, copy):
            old = KeptApplication(ahead.old.image_id, ahead.old.digest, before.mails, before.schema or "")
            content = plan_keeping(stack, copy, image_id=ahead.new.image_id, backup=plan.rehearsal.backup, now=now)
            turn = plan_turn(
                stack, content, [each.path for each in ahead.files], from_image=ahead.old.name, to_image=ahead.new.name, now=now,
                application=old,
            )  # fmt: skip
            return take_turn(stack, turn), turn, before, notes


def _require_nothing_lost(view: Installation, before: Content) -> tuple[str, ...]:
    """Raise BackupError where rows that count are fewer than before; say where that could not be seen yet."""
    try:
        after = look_at_content(view, view.database.name)
    except ProgramFailed as error:
        if error.sqlstate != LOCK_NOT_AVAILABLE:
            raise
        # After some upgrades the application rewrites a table whole (VACUUM FULL), which may take hours and loses nothing.
        return (f"the rows were not counted under the new version, which is at work on a table: {error.message}",)
    if lost := losses(before.rows, after.rows):
        raise BackupError(
            f"under {view.application.image} there is less than before: {'; '.join(lost)}", hint="see its log"
        )
    return ()
