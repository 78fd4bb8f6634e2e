"""See that the roles a dump needs are on the server, and say who is to own what."""

from __future__ import annotations

import logging
import re

from tasks.adapters.archive.reader import (
    Archive,
    CheckedArchive,
    check_archive,
    read_small_member,
)
from tasks.adapters.postgres import databases
from tasks.adapters.postgres.facts import database_facts
from tasks.adapters.postgres.server import server_of
from tasks.adapters.postgres.session import MAINTENANCE_DATABASE, Session, session
from tasks.core.archive.layout import ROLES_MEMBER
from tasks.core.archive.manifest import DatabaseFacts
from tasks.core.byte_text import bytes_of, shown, text_of
from tasks.core.dump.events import Statement
from tasks.core.dump.sql import read_sql_dump
from tasks.core.errors import Refused
from tasks.core.quoting import quoted
from tasks.core.stack.compatibility import missing_roles
from tasks.core.stack.installation import Installation
from tasks.restore.expected import Expected
from tasks.step import step

logger = logging.getLogger(__name__)

ROLES_LIMIT_BYTES = 16 << 20


_ROLE_STATEMENT = re.compile(
    rb"""(?:CREATE\ ROLE|ALTER\ ROLE|COMMENT\ ON\ ROLE)\ (?P<role>"(?:[^"]|"")+"|[^\s;"]+)
       | GRANT\ (?P<group>"(?:[^"]|"")+"|[^\s;"]+)\ TO\ (?P<member>"(?:[^"]|"")+"|[^\s;"]+)""",
    re.VERBOSE,
)


@step(name="provide roles")
def provide_roles(installation: Installation, expected: Expected, *, create: bool) -> None:
    """See that the roles a legacy dump names exist: create them without login on staging, elsewhere raise Refused naming them."""
    with server_of(installation) as server, session(server, MAINTENANCE_DATABASE, purpose="roles") as opened:
        missing = sorted(role for role in expected.roles if not databases.role_exists(opened, role))
        if missing and not create:
            raise Refused(
                f"the dump belongs to roles that this server lacks: {', '.join(missing)}",
                hint="; ".join(f"CREATE ROLE {quoted(role)} NOLOGIN" for role in missing),
            )
        for role in missing:
            opened.execute(f"CREATE ROLE {quoted(role)} NOLOGIN")


def facts_of_archive(
    archive: Archive, opened: Session, installation: Installation, *, of_current: bool = False
) -> DatabaseFacts:
    """Give the facts of the database that was backed up; for a legacy archive, those of the one it replaces or of the server."""
    if archive.manifest is not None and not of_current:
        return archive.manifest.database
    name = installation.database.name
    place = name if databases.database_exists(opened, name) else MAINTENANCE_DATABASE
    with server_of(installation) as server, session(server, place, purpose="check") as current:
        return database_facts(current)


def owner_of(opened: Session, facts: DatabaseFacts, installation: Installation) -> str:
    """Give who is to own the replacement: the former owner, the superuser where the server has no such role."""
    return facts.owner if databases.role_exists(opened, facts.owner) else installation.database.superuser


def create_roles(opened: Session, archive: Archive, facts: DatabaseFacts) -> None:
    """Create the backup's roles that this server lacks, with their passwords and memberships; leave existing ones alone.

    They are the server's, and stay whatever becomes of the replacement: an archive that was not checked is checked first.
    """
    missing = missing_roles(facts, [name for (name,) in opened.execute("SELECT rolname FROM pg_roles")])
    if not missing or not any(member.name == ROLES_MEMBER for member in archive.members):
        return
    checked = archive if isinstance(archive, CheckedArchive) else check_archive(archive.source)
    statements = read_small_member(checked, ROLES_MEMBER, max_bytes=ROLES_LIMIT_BYTES)
    wanted = {bytes_of(name) for name in missing} | {bytes_of(quoted(name)) for name in missing}
    for event in read_sql_dump(iter((statements,))):
        if isinstance(event, Statement) and (found := _ROLE_STATEMENT.match(event.sql)):
            subject = found["role"] or found["member"]
            if subject in wanted and not opened.takes_any_bytes and (text := text_of(event.sql)) != shown(text):
                logger.warning(
                    "A role's name is no text for this server, and the role is not made: %s", shown(text_of(subject))
                )
            elif subject in wanted:
                # "GRANTED BY" names who once granted it, who may be unknown here.
                opened.run(re.sub(rb"\s+GRANTED BY [^;]+;$", b";", event.sql))
    logger.info("Created the missing roles %s", ", ".join(missing))
