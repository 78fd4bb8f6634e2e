"""A copy of the current database beside it, made while nobody is in it: what an upgrade of the application goes back to.

A copy by files is exact, takes the time of copying files, and is back by a rename; a dump would have to be loaded.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from tasks.adapters.host.journals import Journal, open_journal
from tasks.adapters.postgres import databases
from tasks.adapters.postgres.facts import apply_attributes, database_facts
from tasks.adapters.postgres.server import server_of
from tasks.adapters.postgres.session import LONG_ANSWER_SECONDS, MAINTENANCE_DATABASE, session
from tasks.core.errors import BackupError, Refused
from tasks.core.stack.beside import Mark, mark_of_database, stamp_of
from tasks.core.stack.installation import Installation
from tasks.recovery.journalled import journalled
from tasks.restore.database_beside import COMMENT
from tasks.restore.kept_database import server_for
from tasks.run.installations import installation_of
from tasks.step import step

logger = logging.getLogger(__name__)

KIND = "database-copy"
END_SECONDS = 60.0


@contextmanager
def database_copied(stack: Installation, *, now: datetime) -> Iterator[tuple[Mark, tuple[str, ...]]]:
    """Copy the current database, and give the copy's mark, with what it could not be given in words.

    A copy that still bears that mark at the end of the block is dropped; one that is kept has another name by then. A
    journal sees to the same after a crash.
    """
    mark = Mark("restored", stamp_of(now))
    name = mark.database(stack.database.name)
    journal = open_journal(
        KIND, {"database": name, "project": stack.project}, installation_id=stack.id, installation_directory=stack.directory
    )  # fmt: skip
    with journalled(journal, lambda: _drop(stack, name)):
        yield mark, copy_database(stack, name)


@step(name="copy database", retries=0)
def copy_database(stack: Installation, name: str) -> tuple[str, ...]:
    """Copy the current database with all that belongs to it; return in words what the copy could not be given."""
    with server_of(stack) as server:
        with session(server, stack.database.name, purpose="upgrade") as opened:
            facts = database_facts(opened)
        with session(server, MAINTENANCE_DATABASE, purpose="upgrade", answer_seconds=LONG_ANSWER_SECONDS) as opened:
            databases.copy_database(opened, stack.database.name, name, owner=facts.owner, comment=COMMENT)
            refused = apply_attributes(opened, name, facts, owner=facts.owner)
            replication = databases.replication_of(opened, stack.database.name)
    stays = (
        f"{each} stays with the database that is upgraded: a rollback comes back without it" for each in replication
    )
    return (*refused, *stays)


def settle(journal: Journal) -> str:
    """Drop the copy that a dead run had made, or was making; what is kept has another name."""
    stack, name = installation_of(journal), str(journal.body["database"])
    mark = mark_of_database(name, stack.database.name)
    if mark is None or mark.word != "restored":
        raise Refused(
            f"{name}: this is not the name that an upgrade of {stack.id} gives to a copy, so nothing is dropped",
            hint="has the compose file changed since? then give it back what it said, and try again",
        )
    with server_for(stack):
        _drop(stack, name)
    return f"dropped the copy {name}, if there was one"


def _drop(stack: Installation, name: str) -> None:
    """Drop a copy, and end first who still makes it: PostgreSQL goes on when its client is dead."""
    deadline = time.monotonic() + END_SECONDS
    with (
        server_of(stack) as server,
        session(server, MAINTENANCE_DATABASE, purpose="clean up", answer_seconds=LONG_ANSWER_SECONDS) as opened,
    ):
        while databases.end_making_of(opened, name):
            if time.monotonic() > deadline:
                raise BackupError(f"database {name} is still being made, though its maker is dead", transient=True)
            time.sleep(0.1)
        databases.drop_database(opened, name)
