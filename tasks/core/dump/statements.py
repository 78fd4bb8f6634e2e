"""Which statements a dump may hold: what pg_dump writes, and nothing that reaches beyond the database.

An archive may have been made by a stranger, and its statements run as the database's superuser. So they are chosen by an allow-list;
above all there is no `COPY ... TO PROGRAM` and no `DO`.
"""

from __future__ import annotations

import re

from tasks.core.byte_text import text_of
from tasks.core.dump.insert_rows import inserted_rows

_ALLOWED = re.compile(
    rb"""
      SET\s+\w+(?:\.\w+)?\s*(?:=|TO)\s
    | SELECT\s+pg_catalog\.(?:set_config|setval|lo_create|lo_unlink)\(
    | (?:CREATE|ALTER|COMMENT|GRANT|REVOKE|SECURITY\s+LABEL|REFRESH\s+MATERIALIZED\s+VIEW)\s
    """,
    re.VERBOSE,
)
# These need a server beyond the database (files, other servers, roles' passwords) and pg_dump of one database never writes them.
_REFUSED = re.compile(rb"(?:CREATE|ALTER)\s+(?:ROLE|USER(?!\s+MAPPING)|DATABASE|TABLESPACE|SYSTEM|GROUP)\s")
_SESSION = re.compile(rb"SET\s+\w+|SELECT\s+pg_catalog\.set_config\(")
_NAME = rb'(?:"(?:[^"]|"")+"|[A-Za-z_\x80-\xff][A-Za-z0-9_$\x80-\xff]*)'
_TIME_LIMIT = re.compile(rb"SET\s+(?:statement|lock|transaction|idle_in_transaction_session|idle_session)_timeout\s")
_BESIDE_ROWS = re.compile(rb"SELECT\s+pg_catalog\.(?:setval|lo_create)\(|ALTER\s+LARGE\s+OBJECT\s")
_REFRESH = re.compile(rb"REFRESH MATERIALIZED VIEW (?P<view>" + _NAME + rb"(?:\." + _NAME + rb")?);")
_PARALLEL = re.compile(
    rb"CREATE\s+(?:UNIQUE\s+)?INDEX\s|ALTER\s+TABLE\s+(?:ONLY\s+)?" + _NAME + rb"(?:\." + _NAME + rb")?\s+ADD\s+CONSTRAINT\s+" + _NAME
    + rb"\s+(?:PRIMARY\s+KEY|UNIQUE|EXCLUDE)\s"
)  # fmt: skip


def is_allowed(statement: bytes) -> bool:
    """Tell whether a restore may run this statement of a dump."""
    if statement.startswith(b"INSERT"):
        return inserted_rows(statement) is not None
    return bool(_ALLOWED.match(statement)) and not _REFUSED.match(statement)


def is_session_setting(statement: bytes) -> bool:
    """Tell whether the statement only sets how the session reads the rest of the dump, so that every session needs it."""
    return bool(_SESSION.match(statement))


def is_time_limit(statement: bytes) -> bool:
    """Tell whether the statement sets how long a statement, a lock or a session may take."""
    return bool(_TIME_LIMIT.match(statement))


def may_run_beside_rows(statement: bytes) -> bool:
    """Tell whether the statement has nothing to do with the rows of tables."""
    return bool(_BESIDE_ROWS.match(statement))


def refreshed_view(statement: bytes) -> str | None:
    """Give the (quoted) materialized view that the statement refreshes; None where it does something else."""
    found = _REFRESH.fullmatch(statement)
    return text_of(found["view"]) if found else None


def may_run_in_parallel(statement: bytes) -> bool:
    """Tell whether the statement builds an index (or a constraint by way of one) and waits for nothing but the rows."""
    return bool(_PARALLEL.match(statement))


_NAMED_ROLE = re.compile(
    rb"(?:\sOWNER\s+TO|\sFOR\s+ROLE|^GRANT\s.*\sTO|^REVOKE\s.*\sFROM|\sGRANT\s.*\sTO|\sREVOKE\s.*\sFROM)\s+(?P<role>"
    + _NAME
    + rb")(?=[\s;])",
    re.DOTALL,
)


def roles_named(statement: bytes) -> set[str]:
    """Find the roles that a statement needs: owners, grantees, those of default privileges. PUBLIC is none.

    >>> sorted(roles_named(b'ALTER TABLE public.a OWNER TO "Mail User";'))
    ['Mail User']
    """
    found = set()
    for match in _NAMED_ROLE.finditer(statement):
        name = text_of(match["role"])
        found.add(name[1:-1].replace('""', '"') if name.startswith('"') else name)
    return found - {"PUBLIC"}
