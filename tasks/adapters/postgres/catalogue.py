"""What a database and its server hold besides rows: kinds of objects counted, databases, settings from files."""

from __future__ import annotations

from tasks.adapters.postgres.session import Session

_OURS = "n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'"
_OF_EXTENSION = (
    "EXISTS (SELECT FROM pg_depend d WHERE d.classid = '{catalogue}'::regclass AND d.objid = {oid} AND d.deptype = 'e')"
)
_KINDS = {
    "r": "tables", "p": "partitioned tables", "i": "indexes", "I": "partitioned indexes", "S": "sequences", "v": "views",
    "m": "materialized views", "f": "foreign tables", "c": "composite types",
}  # fmt: skip
# Since 18 NOT NULL is a constraint with a name; before, a column's own.
_CONSTRAINTS = {
    "c": "check constraints", "f": "foreign keys", "p": "primary keys", "u": "unique constraints", "x": "exclusion constraints",
}  # fmt: skip


def count_objects(session: Session) -> dict[str, int]:
    """Count the objects of each kind that no extension brings: what must be the same in another major version."""
    found: dict[str, int] = {}
    classes = session.execute(
        "SELECT c.relkind::text, count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        f" WHERE {_OURS} AND c.relpersistence <> 't' AND NOT {_OF_EXTENSION.format(catalogue='pg_class', oid='c.oid')} GROUP BY 1"
    )  # fmt: skip
    constraints = session.execute(
        "SELECT c.contype::text, count(*) FROM pg_constraint c JOIN pg_namespace n ON n.oid = c.connamespace"
        f" WHERE {_OURS} AND NOT {_OF_EXTENSION.format(catalogue='pg_constraint', oid='c.oid')} GROUP BY 1"
    )  # fmt: skip
    for names, rows in ((_KINDS, classes), (_CONSTRAINTS, constraints)):
        found |= {names[kind]: int(count) for kind, count in rows if kind in names}
    found["functions"] = int(session.value(
        "SELECT count(*) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace"
        f" WHERE {_OURS} AND NOT {_OF_EXTENSION.format(catalogue='pg_proc', oid='p.oid')}"
    ))  # fmt: skip
    found["triggers"] = int(session.value("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal"))
    found["extensions"] = int(session.value("SELECT count(*) FROM pg_extension"))
    return found


def other_databases(session: Session, name: str) -> list[str]:
    """Name the databases besides this one and PostgreSQL's own; `postgres` counts where somebody made tables in it."""
    rows = session.execute(
        "SELECT datname FROM pg_database WHERE datname NOT IN (%s, 'postgres', 'template0', 'template1') ORDER BY 1", (name,)
    )  # fmt: skip
    own = session.value("SELECT count(*) FROM pg_stat_user_tables") if name != "postgres" else 0
    return [*(each for (each,) in rows), *(["postgres (it has tables)"] if own else [])]


def outside_tablespaces(session: Session) -> list[str]:
    """Name the tablespaces besides PostgreSQL's own."""
    rows = session.execute(
        "SELECT spcname FROM pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global') ORDER BY 1"
    )
    return [name for (name,) in rows]


def settings_in_files(session: Session) -> dict[str, str]:
    """Read the settings that the server's own files give it, but for places and what initdb finds out by itself."""
    rows = session.execute(
        "SELECT name, setting FROM pg_file_settings WHERE error IS NULL AND name NOT LIKE 'lc\\_%' AND lower(name) NOT IN"
        " ('data_directory', 'config_file', 'hba_file', 'ident_file', 'external_pid_file', 'timezone', 'log_timezone', 'datestyle',"
        " 'dynamic_shared_memory_type', 'default_text_search_config', 'listen_addresses') ORDER BY seqno"
    )
    return dict(rows)


def lock_against_writers(session: Session, *, wait_seconds: float) -> int:
    """Within the session's transaction let nobody write to any table until it ends; readers go on. Return how many tables."""
    session.execute(f"SET LOCAL lock_timeout = {int(wait_seconds * 1000)}")
    rows = session.execute(
        "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND n.nspname NOT LIKE 'pg\\_%'"
        " AND n.nspname <> 'information_schema' ORDER BY c.oid"
    )
    for (table,) in rows:
        session.execute(f"LOCK TABLE {table} IN SHARE MODE")
    return len(rows)
