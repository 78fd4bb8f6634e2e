"""Start the application on restored data, and see whether it answers; put the former data back where it does not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tasks.adapters.engine import containers
from tasks.adapters.stack import mail_archiver
from tasks.core.errors import BackupError
from tasks.core.stack.installation import Installation
from tasks.recovery.stopped_services import Loan
from tasks.run.installations import reread, wait_for_login
from tasks.step import step


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


@contextmanager
def taken_back_unless_it_answers(loan: Loan, kept: str, swap_back: Callable[[], object]) -> Iterator[None]:
    """Take a restore back where the block, which sees the stack answer on the new data, fails; say in notes which data is in place."""
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


@step(name="probe stack", retries=0)
def probe_stack(installation: Installation, *, start: bool) -> None:
    """Log in over TCP as the application does, then see it answer; what did not run before is left alone unless `start`.

    `installation` is as it was before anything was stopped: what ran then must run and answer now. A password that the
    restored data does not know is pointed out, with the way to set it.
    """
    if start:
        containers.start_container(installation.postgres.container_id)
    if not start and installation.postgres.state not in ("running", "restarting"):
        return
    wait_for_login(
        lambda: reread(installation),
        timeout_seconds=LOGIN_SECONDS,
        database=installation.database.name,
        application=True,
    )
    if start or installation.application.state == "running":
        start_and_probe(installation)


LOGIN_SECONDS = 120.0
