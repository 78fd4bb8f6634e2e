"""Restore a dump into an installation, production or staging: prove, swap, keep the old."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime

from tasks.adapters.archive.reader import Archive, CheckedArchive
from tasks.adapters.engine import containers
from tasks.adapters.postgres.server import server_of
from tasks.adapters.postgres.session import MAINTENANCE_DATABASE, session, wait_until_ready
from tasks.adapters.stack import mail_archiver
from tasks.core.archive.manifest import is_older_than
from tasks.core.archive.names import time_in_name
from tasks.core.dump.census import row_count
from tasks.core.errors import Refused
from tasks.core.stack.installation import Installation
from tasks.recovery.stopped_services import stopped
from tasks.restore.check_target import check_target
from tasks.restore.database_beside import Replacement, replacement
from tasks.restore.database_commit import drop_kept
from tasks.restore.database_load import load_replacement
from tasks.restore.database_proof import apply_attributes, prove_replacement
from tasks.restore.database_swap import check_swap, swap_back, swap_in
from tasks.restore.expected import expected_content
from tasks.restore.hand_over import hand_over_replacement
from tasks.restore.kept_database import POSTGRES_START_SECONDS, Kept
from tasks.restore.outcome import QUARANTINE_AFTER_HOURS, Restored, RestoreOptions
from tasks.restore.probe import (
    put_back_also_where_it_does_not_answer,
    require_answer,
    start_and_probe,
    taken_back_unless_it_answers,
)
from tasks.restore.roles import provide_roles
from tasks.run.installations import reread
from tasks.step import step

logger = logging.getLogger(__name__)
# Whether the replacement holds a stranger's code comes last: then nothing may be run that could call it.
Proof = Callable[[Installation, Replacement, bool], Sequence[str]]


ROWS_NOT_READ = "the rows were not compared: reading rows of INSERT statements back would run that code"
CODE_NOT_RUN = "the application was not started on it, since it would run that code with all rights"


@contextmanager
def running_postgres(installation: Installation, *, leave_running: bool = False) -> Iterator[Installation]:
    """Give the installation with its PostgreSQL running and answering; one that was stopped is stopped again afterwards.

    Unless it is to be left running: on a fresh host. Raise Refused where it has no container: making one is the operator's decision.
    """
    service = installation.postgres
    if service.state == "absent":
        raise Refused(
            f"PostgreSQL (service {service.name}) has no container",
            hint=f"docker compose -p {installation.project} up -d {service.name}",
        )
    if service.state in ("running", "restarting"):
        yield installation
        return
    if leave_running:
        containers.start_container(service.container_id)
        yield _ready(reread(installation))
        return
    with stopped(installation, [service], reason="PostgreSQL started for a restore") as loan:
        loan.start(service.name)
        yield _ready(reread(installation))


def _ready(installation: Installation) -> Installation:
    with server_of(installation) as server:
        wait_until_ready(server, MAINTENANCE_DATABASE, timeout_seconds=POSTGRES_START_SECONDS)
    return installation


def drop_empty_former(installation: Installation, restored: Restored) -> Restored:
    """Drop the empty database that a fresh image had made; there is nothing in it to go back to."""
    if isinstance(restored.kept, Kept):
        drop_kept(installation, restored.kept)
    return replace(restored, kept=None)


def put_back(installation: Installation, kept: Kept, *, now: datetime) -> Kept:
    """Swap back what a restore had put aside, and see the application answer if it ran; return what is now kept instead."""
    check_swap(installation, kept.database, kept)
    with stopped(installation, [installation.application], reason="rollback") as loan:
        undone = swap_back(installation, kept, now=now)
        loan.start_all()
        with put_back_also_where_it_does_not_answer(undone.database):
            require_answer(installation)
    return undone


@step(name="lift quarantine")
def end_quarantine(installation: Installation) -> int:
    """Give the quarantined accounts their settings back; return how many."""
    with server_of(installation) as server, session(server, installation.database.name, purpose="quarantine") as opened:
        return mail_archiver.lift_quarantine(opened)


def restore_dump(
    installation: Installation,
    archive: Archive,
    options: RestoreOptions,
    *,
    now: datetime,
    proofs: Sequence[Proof] = (),
) -> tuple[Restored, CheckedArchive]:
    """Load the archive beside the current data while it is checked, prove it, swap it in, and see the application answer.

    Nothing current changes unless the replacement's content equals the archive's census and every proof is content;
    else `differences` says why, and the installation is as it was. An application that does not answer afterwards gets
    its former data back, and BackupError is raised. Staging asks nobody about a stranger's code, so nothing there calls
    it: the replacement is proven, not swapped in.
    """
    begun = time.monotonic()
    check_target(installation, archive)
    replication = check_swap(installation)
    expected = expected_content(installation, archive)
    make_roles = options.neutralise or options.start_application  # staging, or a fresh host: nobody else's server
    provide_roles(installation, expected, create=make_roles)

    with replacement(installation, archive, now=now, foreign=bool(options.foreign)) as new:
        loaded = load_replacement(
            installation, archive, new, options.limits, without=options.without, is_staging=options.neutralise
        )
        checked = loaded.archive
        brought = hand_over_replacement(
            installation,
            loaded,
            new,
            with_code=options.with_code,
            make_roles=make_roles,
            is_staging=options.neutralise,
        )
        is_held_back = options.neutralise and bool(brought)
        if is_held_back and expected.shape is not None and expected.shape.inserts:
            # Rows are read in the words of INSERT by a SELECT, and planning one runs what an index calls, as the one who asks.
            expected = replace(expected, census=None, note=ROWS_NOT_READ)
        found = [
            *prove_replacement(installation, loaded, new, expected, options.limits),
            *(difference for proof in proofs for difference in proof(installation, new, bool(brought))),
        ]
        kept, downtime, quarantined = None, 0.0, 0
        if not found and not is_held_back:
            quarantined = guard_accounts(installation, new.database, checked, options, now)
            # A restore goes on without what this server refuses; a verification says so.
            not_kept = apply_attributes(installation, checked, new, foreign=bool(options.foreign))
            found += not_kept if options.neutralise else []
        if not found and not is_held_back:
            kept, downtime = _replace_current(installation, checked, new, options, now)

    restored = Restored(
        backup=archive.name,
        kept=kept,
        differences=tuple(found),
        downtime_seconds=round(downtime, 3),
        seconds=round(time.monotonic() - begun, 3),
        quarantined=quarantined,
        rows=row_count(expected.census) if expected.census is not None else 0,
        tables=len(expected.census.tables) if expected.census is not None else 0,
        comparisons=("census",) if expected.census is not None else (),
        left_out=options.without,
        notes=(
            *loaded.notes,
            *brought,
            *([CODE_NOT_RUN] if is_held_back else []),
            *([expected.note] if expected.note else []),
            *replication,
        ),
    )
    return restored, checked


def guard_accounts(
    installation: Installation, database: str, archive: CheckedArchive, options: RestoreOptions, now: datetime
) -> int:
    """Disable restored mail accounts where wanted: for good on staging, else in quarantine; return how many are in it."""
    if options.neutralise:
        neutralise_accounts(installation, database)
        return 0
    wanted = bool(options.foreign) or wants_quarantine(archive, options.quarantine, now)
    return quarantine_accounts(installation, database) if wanted else 0


@step(name="quarantine mail accounts")
def quarantine_accounts(installation: Installation, database: str) -> int:
    """Disable a restored database's mail accounts until `lift_quarantine`; return how many."""
    with server_of(installation) as server, session(server, database, purpose="quarantine") as opened:
        return mail_archiver.quarantine(opened)


@step(name="neutralise mail accounts")
def neutralise_accounts(installation: Installation, database: str) -> int:
    """Disable a restored database's mail accounts and blank their secrets, for good; return how many accounts."""
    with server_of(installation) as server, session(server, database, purpose="neutralise") as opened:
        return mail_archiver.neutralise(opened)


def wants_quarantine(archive: CheckedArchive, asked: bool | None, now: datetime) -> bool:
    """Decide whether restored mail accounts stay disabled: as asked, else when the backup is older than a day or of unknown age."""
    if asked is not None:
        return asked
    moment = archive.manifest.created_at if archive.manifest else time_in_name(archive.name)
    return moment is None or is_older_than(moment, now, hours=QUARANTINE_AFTER_HOURS)


def _replace_current(
    installation: Installation, archive: CheckedArchive, new: Replacement, options: RestoreOptions, now: datetime
) -> tuple[Kept, float]:
    """Swap the replacement in and see the application answer on it; else swap back, and give it the state it had before all this."""
    # One that restarted over and over did not answer before, and need not afterwards.
    was_running = installation.application.state == "running"
    comment = archive.manifest.database.comment if archive.manifest else None
    check_swap(installation, new.database)
    with stopped(installation, [installation.application], reason=f"restore of {archive.name}") as loan:
        kept = swap_in(installation, new, backup=archive.name, comment=comment)
        loan.start_all()
        downtime_seconds = loan.downtime_seconds
        with taken_back_unless_it_answers(loan, kept.database, lambda: swap_back(installation, kept, now=now)):
            if was_running or options.start_application:
                start_and_probe(installation)
    return kept, downtime_seconds
