"""The role that loads a stranger's dump: it owns the new database and has no right to anything else of the server."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tasks.adapters.postgres.databases import end_sessions, role_exists, set_password
from tasks.adapters.postgres.server import Server
from tasks.adapters.postgres.session import Session
from tasks.core.errors import ProgramFailed, Refused
from tasks.core.quoting import quoted

logger = logging.getLogger(__name__)

CONNECTIONS = 8
_NOTHING = f"NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS NOINHERIT CONNECTION LIMIT {CONNECTIONS}"
# What the dump could have changed of the database itself, whose owner the role is.
_ITSELF = """
    SELECT datacl::text, pg_get_userbyid(datdba), datconnlimit, shobj_description(d.oid, 'pg_database'),
           ARRAY(SELECT setconfig::text FROM pg_db_role_setting WHERE setdatabase = d.oid ORDER BY 1)
    FROM pg_database d WHERE datname = current_database()
"""
_SYSTEM = """
    SELECT array_agg(md5(each) ORDER BY each) FROM (
        SELECT 'f' || oid || proowner || coalesce(proacl::text, '') FROM pg_proc WHERE oid < 16384
        UNION ALL SELECT 'r' || oid || relowner || coalesce(relacl::text, '') FROM pg_class WHERE oid < 16384
        UNION ALL SELECT 'a' || attrelid || '.' || attnum || attacl::text FROM pg_attribute WHERE attrelid < 16384 AND attacl IS NOT NULL
        UNION ALL SELECT 't' || oid || typowner || coalesce(typacl::text, '') FROM pg_type WHERE oid < 16384
        UNION ALL SELECT 'l' || oid || lanowner || coalesce(lanacl::text, '') FROM pg_language WHERE oid < 16384
        UNION ALL SELECT 'n' || oid || nspowner || coalesce(nspacl::text, '') FROM pg_namespace WHERE oid < 16384 AND nspname <> 'public'
    ) s(each)
"""


@dataclass(frozen=True, slots=True)
class LoadingRole:
    """A role and its password, which nobody else is told."""

    name: str
    password: str = field(repr=False)

    def login(self, server: Server) -> Server:
        """Give the server with this login instead of the superuser's."""
        return replace(server, user=self.name, password=self.password, superuser=False)


def name_of(stamp: str) -> str:
    """Name the role that loads for the restore of a stamp."""
    return f"mailarchiver_backup_load_{stamp}"


def make_role(session: Session, name: str) -> LoadingRole:
    """Make the role, or give one that an attempt before has made another password."""
    if not role_exists(session, name):
        session.execute(f"CREATE ROLE {quoted(name)} NOLOGIN {_NOTHING}")
        session.execute(f"ALTER ROLE {quoted(name)} SET log_min_messages = fatal")  # no rows in the server's log
    role = LoadingRole(name, secrets.token_urlsafe(24))
    set_password(session, name, role.password)
    session.execute(f"ALTER ROLE {quoted(name)} LOGIN")
    return role


def close_role(session: Session, role: LoadingRole, database: str) -> None:
    """Let the role in no more, and end what it left running."""
    session.execute(f"ALTER ROLE {quoted(role.name)} NOLOGIN PASSWORD NULL")
    end_sessions(session, database)


def drop_role(session: Session, name: str) -> None:
    """Drop the role, which owns nothing any more; already gone is success."""
    session.execute(f"DROP ROLE IF EXISTS {quoted(name)}")


def take_public_schema(session: Session, role: LoadingRole) -> str:
    """Give the role the schema `public` where the server's superuser owns it (before PostgreSQL 15); return who owned it, "" for nobody."""
    owner = session.value("SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'public'")
    if owner in (None, "pg_database_owner", role.name):
        return ""
    session.execute(f"ALTER SCHEMA public OWNER TO {quoted(role.name)}")
    return str(owner)


def state_of_itself(session: Session) -> tuple[object, ...]:
    """Read what belongs to the session's database itself, to be compared."""
    return tuple(session.execute(_ITSELF)[0])


def hand_over(
    session: Session, role: LoadingRole, owner: str, public_owner: str, statements: Sequence[tuple[str, bytes]]
) -> None:
    """Give what the role has loaded to its owners, with the privileges that the dump says: all or nothing.

    Raise Refused where that would change PostgreSQL's own objects, ProgramFailed where PostgreSQL refuses a statement.
    """
    with session.transaction():
        before = session.value(_SYSTEM)
        if public_owner:
            session.execute(f"ALTER SCHEMA public OWNER TO {quoted(public_owner)}")
        session.execute(f"REASSIGN OWNED BY {quoted(role.name)} TO {quoted(owner)}")
        for about, statement in statements:
            try:
                session.run(statement)
            except ProgramFailed as error:
                error.about = error.about or about
                raise
        if session.value(_SYSTEM) != before:
            raise Refused("the dump gives away rights to PostgreSQL's own objects")
        session.execute(f"DROP OWNED BY {quoted(role.name)}")
