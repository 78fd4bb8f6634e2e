"""What PostgreSQL says of a database besides its content, and how that is given to another one."""

from __future__ import annotations

import re
from typing import Any

from tasks.adapters.postgres.indexes import invalid_indexes
from tasks.adapters.postgres.session import Session
from tasks.core.archive.manifest import DatabaseFacts, Grant
from tasks.core.errors import BackupError
from tasks.core.quoting import quoted
from tasks.core.stack.database_attributes import attributes

# What objects of a database may need to be made again, besides what extensions define (`cron.database_name`). No
# addresses, no paths to data, no commands: these settings are given to servers on which backups are proven.
SERVER_SETTINGS = (
    "shared_preload_libraries", "session_preload_libraries", "local_preload_libraries", "dynamic_library_path", "extension_control_path",
    "max_prepared_transactions", "max_locks_per_transaction", "max_connections", "max_worker_processes", "track_commit_timestamp",
    "default_text_search_config", "icu_validation_level",
)  # fmt: skip
SECRET_SETTING = re.compile("password|passphrase|secret|token|key|salt|credential", re.IGNORECASE)


def database_facts(session: Session) -> DatabaseFacts:
    """Gather what a restore must compare, from the database that the session is in."""
    major = server_major(session)
    provider, locale, version, rules = "'c'", "NULL", "NULL", "NULL"
    if major >= 15:
        provider, version = "datlocprovider::text", "datcollversion"
        locale = "datlocale" if major >= 17 else "daticulocale"
        rules = "daticurules" if major >= 16 else rules
    (row,) = session.execute(
        f"SELECT datname, pg_get_userbyid(datdba), pg_encoding_to_char(encoding), datcollate, datctype, {provider}, {locale}, {version},"
        f" pg_database_size(d.oid), {rules}, datconnlimit, datistemplate, spcname"
        " FROM pg_database d JOIN pg_tablespace t ON t.oid = dattablespace WHERE datname = current_database()"
    )
    banner = str(session.value("SELECT version()"))
    platform = re.search(r" on (\S+?)-\S*linux-(\w+)", banner)
    return DatabaseFacts(
        name=row[0],
        owner=row[1],
        encoding=row[2],
        collation=row[3],
        character_type=row[4],
        locale_provider={"c": "libc", "i": "icu", "b": "builtin"}[row[5]],
        icu_locale=row[6],
        icu_rules=row[9],
        collation_version=row[7],
        size_bytes=row[8],
        comment=database_comment(session, row[0]),
        connection_limit=row[10],
        is_template=row[11],
        tablespace=row[12],
        security_labels=_security_labels(session),
        privileges=_privileges(session),
        grants=_grants(session),
        settings=database_settings(session),
        roles=[
            name for (name,) in session.execute("SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_' ORDER BY rolname")
        ],
        server_version=str(session.value("SHOW server_version")),
        server_major=major,
        system_identifier=str(session.value("SELECT system_identifier FROM pg_control_system()")),
        architecture=platform[1] if platform else "",
        libc=platform[2] if platform else "",
        migration_head=migration_head(session),
        extensions=dict(session.execute("SELECT extname, extversion FROM pg_extension ORDER BY extname")),
        tablespaces=_tablespaces(session),
        server_settings=server_settings(session),
        invalid_indexes=invalid_indexes(session),
    )


def server_major(session: Session) -> int:
    """Give the server's major version: 17."""
    return int(session.value("SHOW server_version_num")) // 10_000


def database_settings(session: Session) -> dict[str, list[str]]:
    """Read `ALTER DATABASE ... SET` of the current database: by role ("" for all roles), as `name=value`."""
    rows = session.execute(
        "SELECT coalesce(pg_get_userbyid(nullif(setrole, 0)), ''), setconfig FROM pg_db_role_setting"
        " WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY 1"
    )
    return {role: list(settings) for role, settings in rows}


def _privileges(session: Session) -> list[str] | None:
    grants = _grants(session)
    if grants is None:
        return None
    return sorted(f"{each.grantee or 'PUBLIC'} {each.privilege}" for each in grants)


def _grants(session: Session) -> list[Grant] | None:
    """Read the grants in the order in which PostgreSQL keeps them: what others depend on comes first."""
    if session.value("SELECT datacl IS NULL FROM pg_database WHERE datname = current_database()"):
        return None
    rows = session.execute(
        "SELECT pg_get_userbyid(a.grantor), CASE a.grantee WHEN 0 THEN '' ELSE pg_get_userbyid(a.grantee) END, a.privilege_type,"
        " a.is_grantable FROM pg_database d, aclexplode(d.datacl) WITH ORDINALITY a(grantor, grantee, privilege_type, is_grantable, place)"
        " WHERE d.datname = current_database() ORDER BY a.place"
    )
    return [
        Grant(grantor=grantor, grantee=grantee, privilege=privilege, grantable=grantable)
        for grantor, grantee, privilege, grantable in rows
    ]


def _security_labels(session: Session) -> dict[str, str]:
    return dict(
        session.execute(
            "SELECT provider, label FROM pg_shseclabel WHERE classoid = 'pg_database'::regclass"
            " AND objoid = (SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY 1"
        )
    )


def _tablespaces(session: Session) -> list[str]:
    """Name the tablespaces that the database and its objects use, beside PostgreSQL's own."""
    rows = session.execute(
        "SELECT spcname FROM pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global') AND (oid IN (SELECT reltablespace FROM pg_class)"
        " OR oid = (SELECT dattablespace FROM pg_database WHERE datname = current_database())) ORDER BY 1"
    )
    return [name for (name,) in rows]


def server_settings(session: Session) -> dict[str, str]:
    """Read the settings of the server (not of this session, database or role) that objects may depend on."""
    rows = session.execute(
        "SELECT name, setting FROM pg_settings WHERE source IN ('configuration file', 'command line', 'environment variable')"
        " AND (name = ANY(%s) OR name LIKE '%%.%%') ORDER BY 1",
        (list(SERVER_SETTINGS),),
    )
    return {name: value for name, value in rows if not SECRET_SETTING.search(name)}


def apply_attributes(session: Session, name: str, facts: DatabaseFacts, *, owner: str) -> list[str]:
    """Give a database what belongs to it and stands in no dump: grants, labels, settings, limits; return in words what the server refused.

    Its settings act on every later session in it, but ours. Safe to repeat.
    """
    roles = {role for (role,) in session.execute("SELECT rolname FROM pg_roles")}
    refused = []
    for each in attributes(facts, name, owner=owner, roles=roles):
        try:
            with session.transaction():
                for statement in each.statements:
                    session.execute(statement)
        except BackupError as error:
            if error.transient:
                raise
            refused.append(f"the database's {each.words} could not be set: {error.message}")
    return refused


def migration_head(session: Session) -> str | None:
    """Find the application's schema version: the last row of `__EFMigrationsHistory`; None where there is no such table."""
    schema = session.value(
        "SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relname = '__EFMigrationsHistory' AND c.relkind = 'r' ORDER BY 1 LIMIT 1"
    )
    if schema is None:
        return None
    head = session.value(f'SELECT max("MigrationId") FROM {quoted(schema)}."__EFMigrationsHistory"')
    return None if head is None else str(head)


def tablespaces(session: Session) -> frozenset[str]:
    """Name the server's tablespaces."""
    return frozenset(name for (name,) in session.execute("SELECT spcname FROM pg_tablespace"))


def database_comment(session: Session, name: str) -> str | None:
    """Read a database's comment."""
    found: Any = session.value(
        "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s", (name,)
    )
    return None if found is None else str(found)
