"""Roles as SQL, read from the catalogue, for a server on which pg_dumpall fails: one role's name that is no text for it is enough."""

from __future__ import annotations

from tasks.adapters.postgres.session import Session
from tasks.core.byte_text import bytes_of
from tasks.core.quoting import quoted, quoted_literal

END_MARK = b"PostgreSQL database cluster dump complete"
_RIGHTS = {
    "rolsuper": "SUPERUSER", "rolinherit": "INHERIT", "rolcreaterole": "CREATEROLE", "rolcreatedb": "CREATEDB", "rolcanlogin": "LOGIN",
    "rolreplication": "REPLICATION", "rolbypassrls": "BYPASSRLS",
}  # fmt: skip


def roles_by_catalogue(session: Session) -> bytes:
    """Write every role with its rights, its password's hash and its memberships; no setting and no comment of a role."""
    lines = ["--", "-- Roles, read from the catalogue since pg_dumpall had failed", "--", ""]
    roles = session.execute(
        f"SELECT rolname, {', '.join(_RIGHTS)}, rolconnlimit, rolpassword, rolvaliduntil::text FROM pg_authid"
        " WHERE rolname !~ '^pg_' ORDER BY 1"
    )
    for name, *rights, limit, password, until in roles:
        words = [word if held else f"NO{word}" for word, held in zip(_RIGHTS.values(), rights, strict=True)]
        words += [f"CONNECTION LIMIT {limit}"] if limit != -1 else []
        words += [f"PASSWORD {quoted_literal(password)}"] if password is not None else []
        words += [f"VALID UNTIL {quoted_literal(until)}"] if until is not None else []
        lines += [f"CREATE ROLE {quoted(name)};", f"ALTER ROLE {quoted(name)} WITH {' '.join(words)};"]
    members = session.execute(
        "SELECT pg_get_userbyid(roleid), pg_get_userbyid(member), bool_or(admin_option) FROM pg_auth_members"
        " JOIN pg_authid m ON m.oid = member WHERE m.rolname !~ '^pg_' GROUP BY 1, 2 ORDER BY 1, 2"
    )
    lines += [
        f"GRANT {quoted(group)} TO {quoted(member)}{' WITH ADMIN OPTION' if admin else ''};"
        for group, member, admin in members
    ]
    return b"\n".join(bytes_of(line) for line in lines) + b"\n\n--\n-- " + END_MARK + b"\n--\n\n"
