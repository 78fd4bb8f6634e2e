"""Databases of a server as whole things: what they are, making, dropping, and swapping them by name."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from tasks.adapters.postgres.facts import server_major, tablespaces
from tasks.adapters.postgres.session import Session
from tasks.core.archive.manifest import DatabaseFacts
from tasks.core.byte_text import shown
from tasks.core.errors import BackupError, ProgramFailed, Refused
from tasks.core.quoting import quoted, quoted_literal
from tasks.core.stack.database_attributes import DEFAULT_TABLESPACE

logger = logging.getLogger(__name__)

RENAME_TRIES = 4
OBJECT_IN_USE = "55006"  # by other sessions; PostgreSQL has waited five seconds for them to leave by then
COPY_ROW_LIMIT_BYTES = 0x3FFFFFFF  # MaxAllocSize: one row of COPY's text must fit into it
TOAST_WORTH_A_LOOK_BYTES = 1 << 20


def oversized_values(session: Session) -> list[str]:
    """Name the tables that hold a row no dump can carry, in words; usually none.

    A row's COPY text must stay below 1 GiB, and bytea doubles as hex: so a `bytea` of 512 MB makes pg_dump fail, in every format.
    Values are not read: their sizes stand in the rows' pointers. Tables with little out-of-line data are passed over.
    """
    tables = session.execute(
        "SELECT c.oid, n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
        " AND pg_relation_size(nullif(c.reltoastrelid, 0)) > %s",
        (TOAST_WORTH_A_LOOK_BYTES,),
    )
    found = []
    for oid, schema, table in tables:
        columns = session.execute(
            "SELECT attname, atttypid = 'bytea'::regtype FROM pg_attribute WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped"
            " AND attgenerated = '' AND atttypid IN ('bytea'::regtype, 'text'::regtype, 'varchar'::regtype)",
            (oid,),
        )
        lengths = [
            f"coalesce(octet_length({quoted(name)})::bigint * {2 if is_bytea else 1}, 0)" for name, is_bytea in columns
        ]
        if not lengths:
            continue
        longest = session.value(f"SELECT max({' + '.join(lengths)}) FROM ONLY {quoted(schema)}.{quoted(table)}")
        if longest is not None and longest + 64 >= COPY_ROW_LIMIT_BYTES:
            found.append(f"{schema}.{table} holds a row of {longest:,} bytes as dump text")
    return found


def database_exists(session: Session, name: str) -> bool:
    """Tell whether the server has a database of this name."""
    return bool(session.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)))


def databases_commented(session: Session, prefix: str) -> dict[str, str]:
    """Find databases by the beginning of their comment: name -> comment."""
    rows = session.execute(
        "SELECT datname, shobj_description(oid, 'pg_database') AS comment FROM pg_database"
        " WHERE starts_with(shobj_description(oid, 'pg_database'), %s) ORDER BY datname",
        (prefix,),
    )
    return dict(rows)


def database_owner(session: Session, name: str) -> str:
    """Name the role that a database belongs to; "" where there is no such database."""
    return str(session.value("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = %s", (name,)) or "")


def create_database(session: Session, name: str, like: DatabaseFacts, *, owner: str, comment: str) -> None:
    """Make an empty database with the encoding, locale and tablespace of another, from template0 so that nothing else is in it.

    Where the server lacks that tablespace it lies in the default one. Raise Refused where the server's libc or ICU does
    not have that locale.
    """
    options = [
        "TEMPLATE template0",
        f"ENCODING {quoted_literal(like.encoding)}",
        f"LC_COLLATE {quoted_literal(like.collation)}",
        f"LC_CTYPE {quoted_literal(like.character_type)}",
        f"OWNER {quoted(owner)}",
    ]
    major = server_major(session)
    if major >= 15:  # said even where it is the usual one: template0 may have another
        options.append(f"LOCALE_PROVIDER {like.locale_provider}")
        if like.icu_locale:
            option = "ICU_LOCALE" if like.locale_provider == "icu" else "BUILTIN_LOCALE"
            options.append(f"{option} {quoted_literal(like.icu_locale)}")
    if major >= 16 and like.icu_rules:
        options.append(f"ICU_RULES {quoted_literal(like.icu_rules)}")
    if like.tablespace != DEFAULT_TABLESPACE:
        if like.tablespace in tablespaces(session):
            options.append(f"TABLESPACE {quoted(like.tablespace)}")
        else:
            logger.warning("This server has no tablespace %s; the database lies in the default one", like.tablespace)
    try:
        session.execute(f"CREATE DATABASE {quoted(name)} {' '.join(options)}")
    except BackupError as error:
        if "locale" in error.message or "encoding" in error.message:
            raise Refused(
                f"this server cannot make a database with the backup's locale {like.collation!r}: {error.message}",
                hint="use the image that the backup was taken from (see `manifest.json` in the archive)",
            ) from error
        raise
    set_comment(session, name, comment)


def copy_database(session: Session, source: str, name: str, *, owner: str, comment: str) -> None:
    """Make a database that is a copy of another, files and all; nobody may be in that one, and anyone who comes back is ended again.

    The copy goes by files, not by WAL: it is the quicker way for what is large, and PostgreSQL 18 may clone them.
    """
    files = " STRATEGY FILE_COPY" if server_major(session) >= 15 else ""
    for tries_left in reversed(range(RENAME_TRIES)):
        end_sessions(session, source)
        try:
            session.execute(f"CREATE DATABASE {quoted(name)} TEMPLATE {quoted(source)}{files} OWNER {quoted(owner)}")
            break
        except ProgramFailed as error:
            if not tries_left or error.sqlstate != OBJECT_IN_USE:
                raise
            logger.warning("A session came back while a database was to be copied; trying again: %s", error.message)
    set_comment(session, name, comment)


def end_making_of(session: Session, name: str) -> int:
    """End the sessions, of a dead run, that are still making a database of this name; return how many."""
    rows = session.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND state = 'active'"
        " AND starts_with(query, %s)",
        (f"CREATE DATABASE {quoted(name)} ",),
    )
    return len(rows)


def rename_database(session: Session, name: str, new_name: str, comment: str | None) -> None:
    """Give a database that nobody is in another name and comment, in one transaction."""
    end_sessions(session, name)
    with session.transaction():
        session.execute(f"ALTER DATABASE {quoted(name)} RENAME TO {quoted(new_name)}")
        set_comment(session, new_name, comment)


def long_statements(session: Session, *, of: str, seconds: float) -> int:
    """Count the statements of a role that have been at work in this database for so long: a migration, for one."""
    return int(
        session.value(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND backend_type = 'client backend' AND state = 'active' AND usename = %s AND application_name NOT LIKE 'mailarchiver-backup %%'"
            " AND now() - query_start > %s * interval '1 second'",
            (of, seconds),
        )
    )


def set_comment(session: Session, name: str, comment: str | None) -> None:
    """Comment on a database; None takes the comment away.

    Comments of databases are the cluster's: from a session in UTF-8 bytes that are none cannot be written, and are spelled out.
    """
    if comment is not None and comment != shown(comment) and not session.takes_any_bytes:
        logger.warning("the comment of database %s holds bytes that are no UTF-8; it becomes %r", name, shown(comment))
        comment = shown(comment)
    session.execute(f"COMMENT ON DATABASE {quoted(name)} IS {'NULL' if comment is None else quoted_literal(comment)}")


@dataclass(frozen=True, slots=True)
class DatabaseEntry:
    """A database as the server lists it. Its number stays the same whatever it is called.

    `is_broken` marks one whose DROP was broken off: PostgreSQL lets nobody in again, it can only be dropped.
    """

    number: int
    name: str
    takes_connections: bool
    is_template: bool
    is_broken: bool


def database_entry(session: Session, name: str) -> DatabaseEntry | None:
    """Read a database's entry by its name; None where there is none."""
    return _entry(session, "datname = %s", name)


def database_numbered(session: Session, number: int) -> DatabaseEntry | None:
    """Read a database's entry by its number; None where there is none (any more)."""
    return _entry(session, "oid = %s::oid", number)


def _entry(session: Session, condition: str, value: str | int) -> DatabaseEntry | None:
    # datconnlimit -2 marks a DROP that was broken off (src/include/catalog/pg_database.h, DATCONNLIMIT_INVALID_DB).
    rows = session.execute(
        f"SELECT oid::bigint, datname, datallowconn, datistemplate, datconnlimit = -2 FROM pg_database WHERE {condition}",
        (value,),
    )
    return DatabaseEntry(*rows[0]) if rows else None


def refuse_prepared_transactions(session: Session, name: str) -> None:
    """Raise Refused, naming them, where transactions are prepared in a database: it can then be neither renamed nor dropped."""
    found = session.execute(
        "SELECT gid, owner, prepared::text FROM pg_prepared_xacts WHERE database = %s ORDER BY prepared", (name,)
    )
    if found:
        listed = ", ".join(f"{gid!r} of {owner} since {since}" for gid, owner, since in found)
        raise Refused(
            f"transactions are prepared in database {name}, so PostgreSQL can neither rename nor drop it: {listed}",
            hint=f"end each of them in that database: COMMIT PREPARED {quoted_literal(str(found[0][0]))}; or ROLLBACK PREPARED",
        )


def replication_of(session: Session, name: str) -> list[str]:
    """Name, in words, the logical replication that a database takes part in: subscriptions, and slots that others read from."""
    subscriptions = session.execute(
        "SELECT s.subname, s.subenabled FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid WHERE d.datname = %s"
        " ORDER BY 1",
        (name,),
    )
    slots = session.execute(
        "SELECT slot_name, active FROM pg_replication_slots WHERE slot_type = 'logical' AND database = %s ORDER BY 1",
        (name,),
    )
    return [
        *(f"subscription {each} ({'enabled' if enabled else 'disabled'})" for each, enabled in subscriptions),
        *(f"replication slot {each} ({'in use' if active else 'not in use'})" for each, active in slots),
    ]


def refuse_to_drop(session: Session, name: str) -> None:
    """Raise Refused, naming it, where something keeps PostgreSQL from dropping a database; change nothing."""
    refuse_prepared_transactions(session, name)
    kept_by = [each for each in replication_of(session, name) if not each.endswith("(not in use)")]
    if kept_by:
        raise Refused(
            f"database {name} cannot be dropped: it takes part in logical replication: {', '.join(kept_by)}",
            hint=f"for a subscription, in database {name}: ALTER SUBSCRIPTION ... DISABLE; ALTER SUBSCRIPTION ... SET (slot_name = NONE);"
            " DROP SUBSCRIPTION ...; for a slot, end its reader",
        )


def drop_database(session: Session, name: str) -> None:
    """Drop a database and end the sessions in it; already gone is success.

    Where PostgreSQL refuses, nothing about the database has changed.
    """
    entry = database_entry(session, name)
    if entry is None:
        return
    refuse_to_drop(session, name)
    if entry.is_template:  # a template cannot be dropped
        session.execute(f"ALTER DATABASE {quoted(name)} IS_TEMPLATE false")
    try:
        session.execute(f"DROP DATABASE IF EXISTS {quoted(name)} WITH (FORCE)")
    except BackupError:
        if entry.is_template and database_exists(session, name):
            session.execute(f"ALTER DATABASE {quoted(name)} IS_TEMPLATE true")
        raise


def forget_subscriptions(session: Session) -> None:
    """Drop the subscriptions of the session's database without a word to the servers they were of: for a copy that is to be dropped."""
    rows = session.execute(
        "SELECT subname FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    for (name,) in rows:
        session.execute(f"ALTER SUBSCRIPTION {quoted(name)} DISABLE")
        session.execute(f"ALTER SUBSCRIPTION {quoted(name)} SET (slot_name = NONE)")
        session.execute(f"DROP SUBSCRIPTION {quoted(name)}")


def end_sessions(session: Session, name: str) -> int:
    """End all other sessions in a database; return how many."""
    rows = session.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()", (name,)
    )
    return len(rows)


def refuse_to_swap(session: Session, *, current: str, replacement: str) -> None:
    """Raise Refused where one database could not take another's name; change nothing. `current` may be missing."""
    incoming = database_entry(session, replacement)
    if incoming is None:
        raise Refused(f"there is no database {replacement} to put in the place of {current}")
    if incoming.is_broken:
        raise Refused(
            f"database {replacement} was being dropped when that was broken off; PostgreSQL lets nobody into it any more",
            hint="drop the rest of it: mailarchiver-backup commit",
        )
    for name in (current, replacement):
        refuse_prepared_transactions(session, name)


def swap_databases(
    session: Session, *, current: str, replacement: str, aside: str, comments: dict[str, str | None]
) -> None:
    """Put `replacement` in the place of `current`, which from then on is called `aside`, in one transaction: both renames or none.

    `comments` are set in the same transaction (by the new names). Nobody may be in either database: the caller has stopped the
    application; what else is connected is ended, and again where it comes back (workers of subscriptions do). `current` may be missing. A
    replacement that takes no connections, which a `commit` that was broken off may have left, takes them again.
    """
    refuse_to_swap(session, current=current, replacement=replacement)
    exists = database_exists(session, current)
    for tries_left in reversed(range(RENAME_TRIES)):
        for name in (current, replacement):
            end_sessions(session, name)
        try:
            with session.transaction():
                incoming = database_entry(session, replacement)
                if incoming is not None and not incoming.takes_connections:
                    logger.warning("Database %s took no connections; it takes them again", replacement)
                    session.execute(f"ALTER DATABASE {quoted(replacement)} ALLOW_CONNECTIONS true")
                if exists:
                    session.execute(f"ALTER DATABASE {quoted(current)} RENAME TO {quoted(aside)}")
                session.execute(f"ALTER DATABASE {quoted(replacement)} RENAME TO {quoted(current)}")
                for name, comment in comments.items():
                    if name != aside or exists:
                        set_comment(session, name, comment)
            return
        except ProgramFailed as error:
            if not tries_left or error.sqlstate != OBJECT_IN_USE:
                raise
            logger.warning("A session came back while databases were being renamed; trying again: %s", error.message)


def role_exists(session: Session, name: str) -> bool:
    """Tell whether the server has a role of this name."""
    return bool(session.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,)))


def count_rows(session: Session) -> tuple[int, int]:
    """Count the rows of all ordinary tables, each read to its end; return rows and tables."""
    tables = session.execute(
        "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
    )
    rows = sum(
        int(session.value(f"SELECT count(*) FROM ONLY {quoted(schema)}.{quoted(name)}")) for schema, name in tables
    )
    return rows, len(tables)


def set_password(session: Session, role: str, password: str) -> None:
    """Give a role another password; it is kept out of the server's log and statistics."""
    session.execute("SET log_statement = 'none'")
    session.execute("SET log_min_error_statement = 'panic'")
    session.execute(f"ALTER ROLE {quoted(role)} PASSWORD {quoted_literal(password)}")


def exclusive_work_in_progress(session: Session) -> list[str]:
    """Name, in words, what keeps a dump from reading: held exclusive locks of whole tables, VACUUM FULL, CLUSTER, migrations.

    Looks at the current database alone, and needs no lock itself.
    """
    rows = session.execute(
        "SELECT a.pid, coalesce(nullif(a.application_name, ''), 'unnamed'), extract(epoch FROM now() - a.xact_start)::int,"
        " left(regexp_replace(a.query, '\\s+', ' ', 'g'), 60), count(*)"
        " FROM pg_locks l JOIN pg_stat_activity a USING (pid) JOIN pg_class c ON c.oid = l.relation"
        " WHERE l.mode = 'AccessExclusiveLock' AND l.granted AND l.locktype = 'relation' AND c.relkind IN ('r', 'p', 'm')"
        " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        " AND c.relnamespace <> 'pg_toast'::regnamespace AND a.pid <> pg_backend_pid() AND a.backend_type = 'client backend'"
        " GROUP BY 1, 2, 3, 4 ORDER BY 3 DESC"
    )
    return [
        f"{name} (process {pid}) holds {count} tables exclusively for {seconds or 0} s: {statement}"
        for pid, name, seconds, statement, count in rows
    ]
