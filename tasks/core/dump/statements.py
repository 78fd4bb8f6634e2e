"""Which statements a dump may hold: what pg_dump writes, and nothing that reaches beyond the database.

An archive may have been made by a stranger. Its statements are chosen by an allow-list over their tokens: above all there is no
`COPY ... TO PROGRAM` and no `DO`. That is the second wall; the first is the role without rights that runs a stranger's dump
(`tasks/restore/loading_role.py`), since no words tell what a function does.
"""

from __future__ import annotations

import re
from itertools import islice

from tasks.core.byte_text import text_of
from tasks.core.dump.insert_rows import inserted_rows
from tasks.core.dump.tokens import tokens

_WRITTEN = frozenset({"CREATE", "ALTER", "COMMENT", "GRANT", "REVOKE", "SECURITY", "REFRESH"})
_FUNCTIONS = frozenset({"SET_CONFIG", "SETVAL", "LO_CREATE", "LO_UNLINK"})
# These need a server beyond the database (files, other servers, roles' passwords) and pg_dump of one database never writes them.
_OF_THE_SERVER = frozenset({"ROLE", "USER", "DATABASE", "TABLESPACE", "SYSTEM", "GROUP", "PARAMETER"})
_BECOMING = frozenset({"ROLE", "SESSION", "LOCAL", "SESSION_AUTHORIZATION"})
_HEAD_TOKENS = 16
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
    head = list(islice(tokens(statement), _HEAD_TOKENS))
    words = [each.text if each.kind in ("word", "mark") else "" for each in head] + [""] * 4
    match words[0]:
        case "SET":
            return _is_setting(statement, words)
        case "SELECT":
            return _is_known_call(statement)
        case "CREATE":
            kind = words[3] if words[1:3] == ["OR", "REPLACE"] else words[1]
            mapping = words[1:3] == ["USER", "MAPPING"]
            table = kind == "TABLE" or words[1:3] == ["UNLOGGED", "TABLE"]
            return (kind not in _OF_THE_SERVER or mapping) and not (table and _makes_rows(statement))
        case "ALTER":
            return words[1] not in _OF_THE_SERVER or words[1:3] == ["USER", "MAPPING"]
        case "GRANT" | "REVOKE":
            return _object_after_on(statement) not in {"", *_OF_THE_SERVER}
        case "COMMENT":
            return words[2] not in _OF_THE_SERVER
        case "SECURITY":
            return words[1] == "LABEL" and _object_after_on(statement) not in {"", *_OF_THE_SERVER}
        case "REFRESH":
            return words[1:3] == ["MATERIALIZED", "VIEW"]
    return False


def _is_setting(statement: bytes, words: list[str]) -> bool:
    """Tell whether a SET gives a setting plain values; roles are no settings."""
    if words[1] in _BECOMING or not ({"=", "TO"} & set(words[2:5])):
        return False
    return all(each.text not in ("(", "SELECT") for each in tokens(statement) if each.kind in ("word", "mark"))


def _is_known_call(statement: bytes) -> bool:
    """Tell whether a SELECT is one call of a function that pg_dump calls, with plain values."""
    found = list(tokens(statement))
    words = [each.text for each in found]
    called = len(words) > 4 and words[1:3] == ["PG_CATALOG", "."] and words[3] in _FUNCTIONS and words[4] == "("
    plain = [each for each in found[5:] if each.kind not in ("string", "number")]
    return called and [each.text for each in plain if each.text not in (",", "-", "TRUE", "FALSE")] in (
        [")", ";"],
        [")"],
    )


def _makes_rows(statement: bytes) -> bool:
    """Tell whether a CREATE TABLE takes its rows from a query: outside all parentheses stands AS or EXECUTE."""
    depth = 0
    for each in tokens(statement):
        if each.kind == "mark":
            depth += (each.text == "(") - (each.text == ")")
        elif each.kind == "word" and depth == 0 and each.text in ("AS", "EXECUTE"):
            return True
    return False


def _object_after_on(statement: bytes) -> str:
    """Give the word after the first ON outside parentheses; "" where there is none, as in grants of roles; `(name)` for a name."""
    depth, before = 0, ""
    for each in tokens(statement):
        if each.kind == "mark":
            depth += (each.text == "(") - (each.text == ")")
        if before == "ON" and depth == 0:
            return each.text if each.kind == "word" else "(name)"
        before = each.text if each.kind == "word" else ""
    return ""


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
