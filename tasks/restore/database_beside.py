"""Make room for a replacement beside the current database and keys, and take away what was not swapped in."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from tasks.adapters.archive.reader import Archive
from tasks.adapters.engine import containers
from tasks.adapters.host.files import remove_tree
from tasks.adapters.host.journals import Journal, open_journal
from tasks.adapters.postgres import databases, loading_role
from tasks.adapters.postgres.facts import tablespaces
from tasks.adapters.postgres.loading_role import LoadingRole
from tasks.adapters.postgres.server import Server, server_of
from tasks.adapters.postgres.session import LONG_ANSWER_SECONDS, MAINTENANCE_DATABASE, Session, session
from tasks.core.archive.layout import KEYS_DIRECTORY
from tasks.core.archive.manifest import DatabaseFacts
from tasks.core.dump.deferred import Deferred
from tasks.core.errors import BackupError, Refused
from tasks.core.stack.beside import Mark, mark_of_database, mark_of_directory, stamp_of
from tasks.core.stack.database_attributes import DEFAULT_TABLESPACE
from tasks.core.stack.installation import Installation
from tasks.recovery.journalled import journalled
from tasks.restore.roles import create_roles, facts_of_archive, owner_of
from tasks.run.installations import installation_of

logger = logging.getLogger(__name__)

KIND = "replacement"
COMMENT = "mailarchiver-backup: being restored, not in use"


@dataclass(frozen=True, slots=True)
class Replacement:
    """A database and a keys directory that stand beside the current ones, and what they are to be called after the swap.

    `keys` is None where the archive has none or the installation keeps none. `role` is the role without rights that
    loads a dump which is not known as the installation's own, "" for its own.
    """

    database: str
    current: str
    stamp: str
    keys: Path | None
    current_keys: Path | None
    role: str = ""

    @property
    def aside(self) -> str:
        """Name under which the current database is kept."""
        return Mark("before", self.stamp).database(self.current)

    @property
    def keys_aside(self) -> Path | None:
        """Name under which the current keys are kept."""
        current = self.current_keys
        return None if current is None else Mark("before", self.stamp).directory(current)


@contextmanager
def replacement(
    installation: Installation, archive: Archive, *, now: datetime, foreign: bool = False
) -> Iterator[Replacement]:
    """Give the names of a replacement; whatever still stands beside the current data at the end of the block is removed.

    What was swapped in by then has lost these names and stays. A journal sees to the same after a crash.
    """
    mark = Mark("restored", stamp_of(now))
    name = installation.database.name
    keys_place = installation.keys_directory
    has_keys = any(member.name.startswith(f"{KEYS_DIRECTORY}/") for member in archive.members)
    new = Replacement(
        database=mark.database(name),
        current=name,
        stamp=mark.stamp,
        keys=mark.directory(keys_place) if keys_place and has_keys else None,
        current_keys=keys_place,
        role=loading_role.name_of(mark.stamp) if foreign else "",
    )
    journal = open_journal(
        KIND,
        {
            "database": new.database,
            "keys": str(new.keys) if new.keys else None,
            "project": installation.project,
            "role": new.role,
        },
        installation_id=installation.id,
        installation_directory=installation.directory,
    )
    with journalled(journal, lambda: _remove(installation, new.database, new.keys, new.role)):
        yield new


def settle(journal: Journal) -> str:
    """Remove what a dead restore had built beside the current data; production was not touched by it."""
    installation = installation_of(journal)
    name, keys = str(journal.body["database"]), str(journal.body.get("keys") or "")
    place = installation.keys_directory
    marks = [mark_of_database(name, installation.database.name)]
    if keys:
        marks.append(mark_of_directory(keys, place) if place is not None else None)
    if marks[0] is None or any(mark is None or mark.word != "restored" for mark in marks):
        raise Refused(
            f"{name} and {keys or 'no keys'}: these are not the names that a restore of {installation.id} gives, so nothing is removed",
            hint="has the compose file changed since? then give it back what it said, and try again",
        )
    role = loading_role.name_of(marks[0].stamp) if journal.body.get("role") else ""
    _remove(installation, name, Path(keys) if keys else None, role)
    return f"removed the unfinished restore {name}"


@dataclass(frozen=True, slots=True)
class Guest:
    """The role that loads a stranger's dump, and what is to be said to PostgreSQL once it has.

    `public_owner` owned the schema `public` before; `itself` is the new database's own state before the load.
    """

    role: LoadingRole
    public_owner: str
    itself: tuple[object, ...]
    deferred: Deferred = field(default_factory=Deferred)


def make_database(
    installation: Installation, server: Server, archive: Archive, new: Replacement, *, make_roles: bool
) -> tuple[frozenset[str], Guest | None]:
    """Make the empty replacement and the roles it needs; return the tablespaces to load into, and who loads a stranger's dump."""
    with session(server, MAINTENANCE_DATABASE, purpose="restore", answer_seconds=LONG_ANSWER_SECONDS) as opened:
        _drop_unfinished(server, opened, new.database)
        facts = facts_of_archive(archive, opened, installation)
        if make_roles:
            with _reading_names_as(facts, server, opened, new.current) as reader:
                create_roles(reader, archive, facts)
        role = loading_role.make_role(opened, new.role) if new.role else None
        owner = owner_of(opened, facts, installation)
        databases.create_database(opened, new.database, facts, owner=role.name if role else owner, comment=COMMENT)
        places = tablespaces(opened)
    if missing := sorted(set(facts.tablespaces) - places):
        logger.warning("This server lacks the tablespaces %s; the default one takes their place", ", ".join(missing))
    if role is None:
        return places, None
    with session(server, new.database, purpose="restore") as opened:
        public_owner = loading_role.take_public_schema(opened, role)
        guest = Guest(role, public_owner, loading_role.state_of_itself(opened))
    return frozenset({DEFAULT_TABLESPACE}), guest


@contextmanager
def _reading_names_as(facts: DatabaseFacts, server: Server, opened: Session, current: str) -> Iterator[Session]:
    """Give a session that reads the names of roles as the backup's database does: in the current one, where that is in its encoding.

    `opened` will do where it is so itself.
    """
    encodings: dict[str, str] = dict(opened.execute("SELECT datname, pg_encoding_to_char(encoding) FROM pg_database"))
    if encodings.get(MAINTENANCE_DATABASE) == facts.encoding or encodings.get(current) != facts.encoding:
        yield opened
        return
    with session(server, current, purpose="roles") as reader:
        yield reader


def _remove(installation: Installation, database: str, keys: Path | None, role: str = "") -> None:
    if keys is not None:
        remove_tree(keys)
    found = containers.container(installation.postgres.container_id)
    if found is None or found.state != "running":
        raise BackupError(
            f"the unfinished database {database} cannot be dropped: PostgreSQL does not run",
            hint="start it",
            transient=True,
        )
    with (
        server_of(installation) as server,
        session(server, MAINTENANCE_DATABASE, purpose="clean up", answer_seconds=LONG_ANSWER_SECONDS) as opened,
    ):
        _drop_unfinished(server, opened, database)
        if role:
            loading_role.drop_role(opened, role)


def _drop_unfinished(server: Server, opened: Session, database: str) -> None:
    """Drop an unfinished replacement; the subscriptions that its dump made go first, with no word to other servers."""
    entry = databases.database_entry(opened, database)
    if entry is None:
        return
    if not entry.is_broken and databases.replication_of(opened, database):
        with session(server, database, purpose="clean up", answer_seconds=LONG_ANSWER_SECONDS) as inside:
            databases.forget_subscriptions(inside)
    databases.drop_database(opened, database)
