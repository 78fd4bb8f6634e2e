"""Restore a data directory into an installation: extract beside, prove on a private server, swap, keep the old."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial

from tasks.adapters.archive.reader import Archive, CheckedArchive
from tasks.adapters.postgres.databases import set_password
from tasks.adapters.postgres.server import server_of
from tasks.adapters.postgres.session import session
from tasks.core.report.comparisons import Comparison
from tasks.core.stack.installation import Installation
from tasks.recovery.stopped_services import stopped
from tasks.restore.database_restore import guard_accounts
from tasks.restore.directory_beside import (
    Copy,
    check_physical_target,
    copy_beside,
    extract_copy,
    host_place,
    is_base_backup,
    prove_copy,
    verify_base_backup,
)
from tasks.restore.directory_swap import KeptDirectories, check_directories, swap_directories_back, swap_directories_in
from tasks.restore.outcome import Restored, RestoreOptions
from tasks.restore.private_server import private_server
from tasks.restore.probe import (
    probe_stack,
    put_back_also_where_it_does_not_answer,
    taken_back_unless_it_answers,
)
from tasks.step import step

logger = logging.getLogger(__name__)

CopyProver = Callable[[Installation, CheckedArchive, Copy], Sequence[str]]


def restore_copy(
    installation: Installation,
    archive: Archive,
    options: RestoreOptions,
    *,
    now: datetime,
    proofs: Sequence[CopyProver] = (),
) -> tuple[Restored, CheckedArchive]:
    """Extract the archive's data directory beside the current one while it is checked, prove it, swap it in, and see the stack answer.

    Nothing current changes unless the copy is proven, also by further `proofs`, which see it through its private
    server; their time is not counted as the restore's, for a restore in need goes without. Where the mail accounts are
    to be neutralised (staging), this is done, and the superuser's password set, on the private server: before the
    application may start. A stack that does not answer afterwards gets its former data back, and BackupError is raised.
    """
    begun = time.monotonic()
    check_physical_target(installation, archive)
    keys_place = installation.keys_directory

    with copy_beside(installation, host_place(installation), keys_place, now=now) as copy:
        checked = extract_copy(installation, archive, copy)
        wrong = verify_base_backup(installation, checked, copy)
        compared: list[Comparison] = ["files", "base backup"] if is_base_backup(checked) else ["files"]
        quarantined, attachments, proofs_seconds = 0, 0, 0.0
        if not wrong:
            with private_server(installation, archive, copy) as view:
                proof = prove_copy(view, archive, thorough=options.neutralise)
                compared += proof.comparisons
                attachments = proof.attachments
                proofs_begun = time.monotonic()
                wrong = [*proof.wrong, *(line for prove in proofs for line in prove(view, checked, copy))]
                proofs_seconds = time.monotonic() - proofs_begun
                if not wrong:
                    quarantined = guard_accounts(view, view.database.name, checked, options, now)
                    if options.neutralise:
                        give_known_password(view, installation)
        kept, downtime = None, 0.0
        if not wrong:
            kept, downtime = _replace_current(installation, checked, copy, options, now)

    restored = Restored(
        backup=archive.name,
        kept=kept,
        differences=tuple(wrong),
        downtime_seconds=round(downtime, 3),
        seconds=round(time.monotonic() - begun - proofs_seconds, 3),
        quarantined=quarantined,
        rows=0,
        tables=0,
        comparisons=tuple(compared),
        attachments=attachments,
    )
    return restored, checked


@step(name="give superuser staging's password")
def give_known_password(view: Installation, staging: Installation) -> None:
    """Give the copy's superuser the password that staging knows: the copy brought production's."""
    with server_of(view) as server, session(server, view.database.name, purpose="neutralise") as opened:
        set_password(opened, staging.database.superuser, staging.database.superuser_password)


def _replace_current(
    installation: Installation, archive: CheckedArchive, copy: Copy, options: RestoreOptions, now: datetime
) -> tuple[KeptDirectories, float]:
    """Swap the copy in and see the stack answer on it; else swap back, and give it the state it had before all this."""
    both = [installation.application, installation.postgres]
    with stopped(installation, both, reason=f"restore of {archive.name}") as loan:
        kept = swap_directories_in(installation, copy, backup=archive.name)
        loan.start_all()
        downtime_seconds = loan.downtime_seconds
        swap_back = partial(swap_directories_back, installation, kept, now=now)
        with taken_back_unless_it_answers(loan, kept.database, swap_back):
            probe_stack(installation, start=options.start_application)
    return kept, downtime_seconds


def put_directories_back(installation: Installation, kept: KeptDirectories, *, now: datetime) -> KeptDirectories:
    """Swap back what a full restore had put aside, and see the stack answer if it ran; return what is now kept instead."""
    check_directories(kept)
    with stopped(installation, [installation.application, installation.postgres], reason="rollback") as loan:
        undone = swap_directories_back(installation, kept, now=now)
        loan.start_all()
        with put_back_also_where_it_does_not_answer(undone.database):
            probe_stack(installation, start=False)
    return undone
