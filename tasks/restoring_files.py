"""Restore a data directory into an installation: extract beside, prove on a private server, swap, keep the old."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from datetime import datetime

from tasks.adapters import application, docker_engine
from tasks.adapters.archive_reader import Archive, CheckedArchive
from tasks.adapters.postgres import server_of, session, wait_until_ready
from tasks.core.errors import BackupError
from tasks.core.installation import Installation
from tasks.directory_swap import KeptDirectories, swap_directories_back, swap_directories_in
from tasks.installations import reread
from tasks.physical import (
    Copy,
    check_physical_target,
    copy_beside,
    extract_copy,
    host_place,
    private_server,
    prove_copy,
    verify_base_backup,
)
from tasks.restoring import Restored, RestoreOptions, start_and_probe, wants_quarantine
from tasks.step import step
from tasks.stopped_services import stopped

logger = logging.getLogger(__name__)

LOGIN_SECONDS = 120.0


def restore_copy(
    installation: Installation, archive: Archive, options: RestoreOptions, *, now: datetime
) -> tuple[Restored, CheckedArchive]:
    """Extract the archive's data directory beside the current one while it is checked, prove it, swap it in, and see the stack answer.

    Nothing current changes unless the copy is proven. A stack that does not answer afterwards gets its former data back, and BackupError
    is raised.
    """
    begun = time.monotonic()
    check_physical_target(installation, archive)
    keys_place = installation.keys_mount.host_path if installation.keys_mount else None

    with copy_beside(installation, host_place(installation), keys_place, now=now) as copy:
        checked = extract_copy(archive, copy)
        wrong = verify_base_backup(installation, checked, copy)
        quarantined = 0
        if not wrong:
            with private_server(installation, archive, copy) as view:
                _, wrong = prove_copy(view, archive, thorough=False)
                if not wrong and wants_quarantine(checked, options.quarantine, now):
                    quarantined = quarantine_copy(view)
        kept, downtime = None, 0.0
        if not wrong:
            kept, downtime = _replace_current(installation, checked, copy, options, now)

    restored = Restored(
        backup=archive.name,
        kept=kept,
        differences=tuple(wrong),
        downtime_seconds=round(downtime, 3),
        seconds=round(time.monotonic() - begun, 3),
        quarantined=quarantined,
        rows=0,
        tables=0,
    )
    return restored, checked


@step(name="quarantine mail accounts")
def quarantine_copy(view: Installation) -> int:
    """Disable the copy's mail accounts until `lift_quarantine`; return how many."""
    with server_of(view) as server, session(server, view.database.name, purpose="quarantine") as opened:
        return application.quarantine(opened)


def _replace_current(
    installation: Installation, archive: CheckedArchive, copy: Copy, options: RestoreOptions, now: datetime
) -> tuple[KeptDirectories, float]:
    both = [installation.application, installation.postgres]
    with stopped(installation, both, reason=f"restore of {archive.name}") as loan:
        kept = swap_directories_in(installation, copy, backup=archive.name)
    try:
        probe_stack(installation, start=options.start_application)
    except BackupError as error:
        with stopped(installation, both, reason="taking the restore back"):
            swap_directories_back(installation, kept, now=now)
        error.add_note("The former data was put back in place; the restored one is kept until `commit`.")
        raise
    return kept, loan.downtime_seconds


def put_directories_back(installation: Installation, kept: KeptDirectories, *, now: datetime) -> KeptDirectories:
    """Swap back what a full restore had put aside, and see the stack answer if it ran; return what is now kept instead."""
    with stopped(installation, [installation.application, installation.postgres], reason="rollback"):
        undone = swap_directories_back(installation, kept, now=now)
    probe_stack(installation, start=False)
    return undone


@step(name="probe stack", retries=0)
def probe_stack(installation: Installation, *, start: bool) -> None:
    """Log in over TCP as the application does, then see it answer; what did not run before is left alone unless `start`.

    A password that the restored data does not know is pointed out, with the way to set it.
    """
    if start:
        docker_engine.start_container(installation.postgres.container_id)
    current = reread(installation)
    if current.postgres.state not in ("running", "restarting"):
        return
    database = current.database
    with server_of(current) as superuser:
        as_application = replace(superuser, user=database.user, password=database.password, superuser=False)
        wait_until_ready(as_application, database.name, timeout_seconds=LOGIN_SECONDS)
    if start or installation.application.state in ("running", "restarting"):
        start_and_probe(installation)
