"""What a restore keeps of the former database and keys, and how it is told from whatever else bears its name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tasks.adapters.engine import containers
from tasks.adapters.host.own_directories import Identity
from tasks.adapters.postgres import databases
from tasks.adapters.postgres.server import Server, server_of
from tasks.adapters.postgres.session import MAINTENANCE_DATABASE, Session, wait_until_ready
from tasks.core.errors import Refused
from tasks.core.stack.beside import Mark, mark_of_database, mark_of_directory
from tasks.core.stack.installation import Installation
from tasks.run.installations import reread

KEPT = "mailarchiver-backup kept "
POSTGRES_START_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Kept:
    """A database that a restore (or a rollback) put aside; `commit` drops it, `rollback` brings it back.

    `undone` marks what a rollback put aside. `keys` is where its keys were put, "" where they were not swapped.
    `number` is the database's own, 0 where there was none; `keys_identity` tells its keys from any other directory of
    that name.
    """

    database: str
    of: str
    at: str
    backup: str
    keys: str
    current_keys: str
    comment: str | None
    undone: bool = False
    number: int = 0
    keys_identity: Identity | None = None

    @property
    def mark(self) -> Mark:
        """Give the mark that the names of what is kept bear."""
        mark = mark_of_database(self.database, self.of)
        if mark is None:
            raise Refused(f"{self.database} is no name that a restore gives to what it puts aside")
        return mark


def require_computed(installation: Installation, kept: Kept, incoming: str = "", incoming_keys: str = "") -> None:
    """Raise Refused where a name or a path is not what is computed from the installation: then it is nothing of ours."""
    place = installation.keys_directory
    mark = mark_of_database(kept.database, kept.of)
    fits = (
        kept.of == installation.database.name
        and mark is not None
        and (not incoming or mark_of_database(incoming, kept.of) is not None)
        and kept.current_keys in ("", str(place))
        and kept.keys in ("", str(mark.directory(place)) if place else "")
        and (not incoming_keys or (place is not None and mark_of_directory(incoming_keys, place) is not None))
    )
    if not fits:
        names = ", ".join(each for each in (kept.database, kept.keys, incoming, incoming_keys) if each)
        raise Refused(
            f"{names}: these are not the names that a restore of {installation.id} gives (database {installation.database.name},"
            f" keys {place}), so nothing is done with them",
            hint="has the compose file changed since? then give it back what it said, and try again",
        )


@contextmanager
def server_for(installation: Installation) -> Iterator[Server]:
    """Give an installation's server, started where it was stopped, once it answers."""
    containers.start_container(installation.postgres.container_id)
    with server_of(reread(installation)) as server:
        wait_until_ready(server, MAINTENANCE_DATABASE, timeout_seconds=POSTGRES_START_SECONDS)
        yield server


def is_back(opened: Session, kept: Kept) -> bool:
    """Tell whether what was kept bears the current database's name again, as somebody renamed it by hand."""
    entry = databases.database_numbered(opened, kept.number) if kept.number else None
    return entry is not None and entry.name == kept.of


def require_number(opened: Session, kept: Kept) -> None:
    """Raise Refused where another database bears the name of what was kept; that it is gone is no matter."""
    entry = databases.database_entry(opened, kept.database)
    if entry is not None and entry.number != kept.number:
        raise Refused(
            f"database {kept.database} is not the one that a restore put aside: its number is {entry.number}, not {kept.number}",
            hint="it is left alone: see who made it, and rename or drop it",
        )
    numbered = databases.database_numbered(opened, kept.number) if kept.number and entry is None else None
    if numbered is not None:
        raise Refused(
            f"the database that a restore put aside as {kept.database} is called {numbered.name} now, and is left alone",
            hint="give it back its name: ALTER DATABASE ... RENAME TO ...",
        )
