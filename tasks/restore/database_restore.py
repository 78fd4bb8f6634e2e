"""Restore a dump into an installation, production or staging: prove, swap, keep the old."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime

from tasks.adapters.archive.reader import Archive, CheckedArchive
from tasks.adapters.engine import containers
from tasks.adapters.postgres.session import server_of, session, wait_until_ready
from tasks.adapters.stack import mail_archiver
from tasks.core.archive.manifest import is_older_than
from tasks.core.archive.names import time_in_name
from tasks.core.dump.census import row_count
from tasks.core.errors import BackupError, Refused
from tasks.core.policy.limits import DumpLimits
from tasks.core.report.comparisons import Comparison
from tasks.core.stack.installation import Installation
from tasks.recovery.stopped_services import Loan, stopped
from tasks.restore.database_beside import (
    MAINTENANCE_DATABASE,
    Replacement,
    apply_attributes,
    check_target,
    expected_content,
    load_replacement,
    prove_replacement,
    provide_roles,
    replacement,
)
from tasks.restore.database_swap import POSTGRES_START_SECONDS, Kept, check_swap, drop_kept, swap_back, swap_in
from tasks.restore.directory_swap import KeptDirectories
from tasks.run.installations import reread
from tasks.step import step

logger = logging.getLogger(__name__)

QUARANTINE_AFTER_HOURS = 24

Proof = Callable[[Installation, Replacement], Sequence[str]]


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """How to restore: `quarantine` None decides by the backup's age; `neutralise` is for staging alone.

    `start_application` starts an application that did not run before (staging, a fresh host). `without` names objects of the dump that are left
    out, as `tasks/core/dump/left_out.py` says.
    """

    quarantine: bool | None = None
    neutralise: bool = False
    start_application: bool = False
    limits: DumpLimits = field(default_factory=DumpLimits)
    without: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did. `kept` is what was in place before, None where a difference stopped it before the swap.

    `comparisons` names what was compared (`tasks/core/report/comparisons.py`); `left_out` names what was left out, `notes` say what was out of the
    ordinary.
    """

    backup: str
    kept: Kept | KeptDirectories | None
    differences: tuple[str, ...]
    downtime_seconds: float
    seconds: float
    quarantined: int
    rows: int
    tables: int
    configuration: dict[str, str] = field(default_factory=dict)
    comparisons: tuple[Comparison, ...] = ()
    attachments: int = 0
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


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


def require_equal(restored: Restored) -> None:
    """Raise Refused where the replacement differed from the backup, so that nothing was swapped."""
    if restored.differences:
        raise Refused(
            f"{restored.backup} did not restore to what was backed up; the current data was left in place: "
            + "; ".join(restored.differences),
            hint="verify another backup: mailarchiver-backup list",
        )


def drop_empty_former(installation: Installation, restored: Restored) -> Restored:
    """Drop the empty database that a fresh image had made; there is nothing in it to go back to."""
    if isinstance(restored.kept, Kept):
        drop_kept(installation, restored.kept)
    return replace(restored, kept=None)


def put_back(installation: Installation, kept: Kept, *, now: datetime) -> Kept:
    """Swap back what a restore had put aside, and see the application answer if it ran; return what is now kept instead."""
    check_swap(installation, kept.database)
    with stopped(installation, [installation.application], reason="rollback") as loan:
        undone = swap_back(installation, kept, now=now)
        loan.start_all()
        with put_back_also_where_it_does_not_answer(undone.database):
            require_answer(installation)
    return undone


@contextmanager
def put_back_also_where_it_does_not_answer(kept: str) -> Iterator[None]:
    """Say, where the block that sees the stack answer after a rollback fails, that the data was put back all the same."""
    try:
        yield
    except BaseException as error:
        error.add_note(
            f"The data from before the restore is back in place, as was asked; what the restore had brought is kept as {kept} until `commit`."
        )
        raise


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

    Nothing current changes unless the replacement's content equals the archive's census and every proof is content; else `differences`
    says why, and the installation is as it was. An application that does not answer afterwards gets its former data back, and
    BackupError is raised.
    """
    begun = time.monotonic()
    check_target(installation, archive)
    replication = check_swap(installation)
    expected = expected_content(installation, archive)
    provide_roles(installation, expected, create=options.neutralise)

    with replacement(installation, archive, now=now) as new:
        loaded = load_replacement(
            installation, archive, new, options.limits, without=options.without, is_staging=options.neutralise
        )
        checked = loaded.archive
        found = [
            *prove_replacement(installation, loaded, new, expected, options.limits),
            *(difference for proof in proofs for difference in proof(installation, new)),
        ]
        kept, downtime, quarantined = None, 0.0, 0
        if not found:
            quarantined = guard_accounts(installation, new.database, checked, options, now)
            # A restore goes on without what this server refuses; a verification says so.
            not_kept = apply_attributes(installation, checked, new)
            found += not_kept if options.neutralise else []
        if not found:
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
        notes=(*loaded.notes, *([expected.note] if expected.note else []), *replication),
    )
    return restored, checked


def guard_accounts(
    installation: Installation, database: str, archive: CheckedArchive, options: RestoreOptions, now: datetime
) -> int:
    """Keep restored mail accounts from the outside world where that is wanted: for good on staging, else in quarantine; return how many in quarantine."""
    if options.neutralise:
        neutralise_accounts(installation, database)
        return 0
    return quarantine_accounts(installation, database) if wants_quarantine(archive, options.quarantine, now) else 0


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


@contextmanager
def taken_back_unless_it_answers(loan: Loan, kept: str, swap_back: Callable[[], object]) -> Iterator[None]:
    """Take a restore back where the block, which sees the stack answer on the new data, fails; say in notes what became of the data."""
    try:
        yield
    except BackupError as error:
        try:
            loan.stop_all()
            swap_back()
        except BackupError as second:
            error.add_note(f"Then taking the restore back failed: {second}")
            error.add_note(
                f"The restored data is in place; the former data is kept as {kept}: mailarchiver-backup rollback"
            )
        else:
            error.add_note("The former data was put back in place; the restored one is kept until `commit`.")
        raise
    except BaseException as error:
        error.add_note(
            f"The restored data is in place, but was not yet seen to answer; the former data is kept as {kept}:"
            " mailarchiver-backup rollback"
        )
        raise


def require_answer(installation: Installation) -> None:
    """Wait until an application that ran before answers again; one that did not run is left alone."""
    if installation.application.state == "running":
        start_and_probe(installation)


@step(name="start and probe application", retries=0)
def start_and_probe(installation: Installation) -> float:
    """Start the application unless it runs, and return after how many seconds its login page answered."""
    begun = time.monotonic()
    containers.start_container(installation.application.container_id)
    deadline = time.monotonic() + installation.limits.application_start_seconds
    while True:
        found = containers.container(installation.application.container_id)
        if found is not None and found.addresses:
            break
        if time.monotonic() > deadline:
            raise BackupError(
                f"container {installation.application.container_name} gets no address", hint="docker compose logs"
            )
        time.sleep(0.1)
    mail_archiver.wait_until_answers(
        found.addresses, installation.application_port, timeout_seconds=deadline - time.monotonic()
    )
    return round(time.monotonic() - begun, 3)
