"""Start a version of the application on a database, and see what it made of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass

from tasks.adapters.engine import containers
from tasks.adapters.postgres import databases
from tasks.adapters.postgres.facts import migration_head
from tasks.adapters.postgres.server import server_of
from tasks.adapters.postgres.session import LONG_ANSWER_SECONDS, session
from tasks.adapters.stack import mail_archiver
from tasks.core.errors import BackupError, Refused
from tasks.core.stack.application_upgrade import failed_migrations
from tasks.core.stack.installation import Installation
from tasks.run.installations import LOG_LINES
from tasks.step import step

logger = logging.getLogger(__name__)

# A statement that has been at work for so long is a migration, or what follows one: then nobody gives up yet.
AT_WORK_SECONDS = 3.0
LONGEST_SECONDS = 24 * 3600.0
WHOLE_LOG_LINES = 5000
PAUSE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Content:
    """What an upgrade compares of the application's data: rows that count, which mails, and the schema's version."""

    rows: Mapping[str, int]
    mails_digest: str
    schema: str | None

    @property
    def mails(self) -> int:
        """Tell how many mails there are."""
        return self.rows.get(mail_archiver.MAILS, 0)


@step(name="count mails", run_name="count mails in {database}")
def look_at_content(view: Installation, database: str) -> Content:
    """Count what an upgrade must not lose in a database."""
    with (
        server_of(view) as server,
        session(server, database, purpose="look", answer_seconds=LONG_ANSWER_SECONDS) as opened,
    ):
        rows = mail_archiver.count_what_counts(opened)
        if mail_archiver.MAILS not in rows:
            raise Refused(f"database {database} has no table {mail_archiver.MAILS}", hint="is it Mail Archiver's?")
        return Content(rows, mail_archiver.mails_digest(opened), migration_head(opened))


def refuse_accounts_at_large(view: Installation) -> None:
    """Raise Refused where a mail account of staging could still reach a mailbox: then nothing is started there."""
    with server_of(view) as server, session(server, view.database.name, purpose="look") as opened:
        if left := mail_archiver.accounts_at_large(opened):
            raise Refused(
                f"{left} mail accounts on staging could still reach a mailbox; nothing was started", hint="report this"
            )


@step(name="start application", retries=0)
def start_and_migrate(view: Installation, *, schema: str | None = None) -> float:
    """Start the application, see it answer and its migrations done; return after how many seconds.

    With `schema`, wait for that very version of it, else until nothing long is at work any more. While the database is at work longer than a page takes, a migration
    runs: the time that an application has to answer begins anew. Raise BackupError, with the end of its log, where it
    ends, does not answer in time, or tells of a failed migration.
    """
    name = view.application.container_id
    begun = last = time.monotonic()
    containers.start_container(name)
    while True:
        found = containers.container(name)
        if found is None or found.state in ("exited", "dead"):
            raise _failed(view, "ended at once")
        problem = (
            mail_archiver.ask_login_page(found.addresses, view.application_port) if found.addresses else "no address"
        )
        version, at_work = _look(view)
        if not problem and (not at_work if schema is None else version == schema):
            break
        now = time.monotonic()
        last = now if at_work else last
        if now - last > view.limits.application_start_seconds or now - begun > LONGEST_SECONDS:
            raise _failed(
                view,
                f"does not answer: {problem}"
                if problem
                else f"its migrations stop at {version}, which were to reach {schema}",
            )
        time.sleep(PAUSE_SECONDS)
    if told := failed_migrations(containers.logs(name, WHOLE_LOG_LINES).splitlines()):
        raise _failed(view, f"tells of a failed migration: {'; '.join(told)}")
    return round(time.monotonic() - begun, 3)


def _look(view: Installation) -> tuple[str | None, bool]:
    """Read the schema's version, and whether something long is at work; a locked history is at work too."""
    try:
        with (
            server_of(view) as server,
            session(server, view.database.name, purpose="look", settings={"lock_timeout": "1s"}) as opened,
        ):
            at_work = bool(databases.exclusive_work_in_progress(opened)) or bool(
                databases.long_statements(opened, of=view.database.user, seconds=AT_WORK_SECONDS)
            )
            try:
                return migration_head(opened), at_work
            except BackupError as error:
                if not error.transient:
                    raise
                return None, True
    except BackupError as error:
        if not error.transient:
            raise
        logger.info("The database cannot be asked: %s", error.message)
        return None, False


def _failed(view: Installation, what: str) -> BackupError:
    log = containers.logs(view.application.container_id, LOG_LINES).strip()
    return BackupError(f"the application ({view.application.image}) {what}; its log ends: {log}", hint="see its log")
