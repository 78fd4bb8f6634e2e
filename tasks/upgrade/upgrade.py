"""The upgrade itself: the last dump, a new data directory beside the old, and the turn to it."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from tasks.backup.hot import dump_into_archive
from tasks.core.errors import Refused
from tasks.core.stack.beside import Mark
from tasks.core.stack.installation import Installation
from tasks.recovery.stopped_services import stopped
from tasks.restore.check_archive import check_backup
from tasks.restore.directory_beside import copy_beside
from tasks.restore.probe import probe_stack, taken_back_unless_it_answers
from tasks.run.config import InstallationConfig
from tasks.upgrade.carry import keep_access
from tasks.upgrade.data_turn import plan_data
from tasks.upgrade.files import new_files
from tasks.upgrade.kept import turn_back
from tasks.upgrade.new_cluster import Before, load_and_prove, look_before, new_server, require_start
from tasks.upgrade.new_image import under_new_image
from tasks.upgrade.old_server import nobody_writes
from tasks.upgrade.place import data_place
from tasks.upgrade.plan import Ahead, UpgradePlan
from tasks.upgrade.turn import Turn, plan_turn, take_turn
from tasks.verification.sealed import opened_for_verification

logger = logging.getLogger(__name__)


WHOLE_COPIES = (
    "complete and online backups from before hold the older version's data and cannot be restored under the new image:"
    " take a new one; hot backups can"
)


@dataclass(frozen=True, slots=True)
class Upgraded:
    """What an upgrade did."""

    installation: str
    from_image: str
    to_image: str
    backup: str
    kept: str
    files: tuple[str, ...]
    downtime_seconds: float
    expected_seconds: float
    seconds: float
    notes: tuple[str, ...]


def upgrade(
    config: InstallationConfig, stack: Installation, ahead: Ahead, plan: UpgradePlan, *, now: datetime
) -> Upgraded:
    """Dump, load beside under the new image, prove, turn, and see the stack answer; the old stays until `commit`.

    Nothing current changes before the new data is proven equal. A stack that does not answer afterwards gets its former
    data, image and compose file back, and BackupError is raised.
    """
    require_as_planned(ahead, plan)
    begun = time.monotonic()
    before = look_before(stack)
    with stopped(stack, [stack.application], reason=f"upgrade to {ahead.new.name}") as loan:
        turn, backup, notes = _make_and_turn(config, stack, ahead, before, now)
        loan.start_all()
        downtime_seconds = loan.downtime_seconds
        back = partial(turn_back, stack, turn.kept, now=now)
        with taken_back_unless_it_answers(loan, turn.content.aside, back):
            probe_stack(stack, start=False)
    return Upgraded(
        config.id, turn.from_image, turn.to_image, backup, turn.content.aside, tuple(each.aside for each in turn.files),
        round(downtime_seconds, 3), round(plan.rehearsal.downtime_seconds, 3), round(time.monotonic() - begun, 3),
        (*ahead.notes, *notes, WHOLE_COPIES),
    )  # fmt: skip


def require_as_planned(ahead: Ahead, plan: UpgradePlan) -> None:
    """Raise Refused where what would be done now is not what was rehearsed and approved."""
    if ahead.new.image_id != plan.rehearsal.image_id or ahead.files != plan.ahead.files:
        raise Refused(
            f"the image {ahead.new.name} or the compose file is not what was rehearsed",
            hint="start the upgrade again; it is rehearsed anew",
        )


def _make_and_turn(
    config: InstallationConfig, stack: Installation, ahead: Ahead, before: Before, now: datetime
) -> tuple[Turn, str, tuple[str, ...]]:
    """Make the new data directory of a dump after which nobody writes, prove it, and turn to it."""
    place, new = data_place(stack), under_new_image(stack, ahead.new)
    with nobody_writes(stack, wait_seconds=config.dump_limits.lock_wait_seconds):
        backup = dump_into_archive(config, stack).manifest.name
        with (
            stopped(stack, [stack.postgres], reason=f"upgrade to {ahead.new.name}"),
            opened_for_verification(config, backup, recovery_key=False),
            copy_beside(stack, place, None, now=now) as copy,
        ):
            archive = check_backup(config.archives, backup)
            with new_server(new, archive, copy) as view:
                notes = load_and_prove(view, archive, before, config.dump_limits)
            keep_access(stack, new, copy, before.settings)
            require_start(new, archive, copy)
            incoming = Mark("restored", copy.stamp)
            with new_files(stack, ahead.files, incoming):
                data = plan_data(stack, Mark("before", copy.stamp), incoming)
                turn = plan_turn(
                    stack, data, [each.path for each in ahead.files],
                    from_image=ahead.old_image, to_image=ahead.new.name, now=now,
                )  # fmt: skip
                take_turn(stack, turn)
    return turn, backup, notes
