"""What a database holds, by SQL of our own: a second opinion beside the program's census."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tests.stack.stack import Stack

ACCOUNT_SWITCHES = ("IsEnabled", "DeleteAfterDays", "LocalRetentionDays")


def content(stack: Stack, database: str | None = None, *, ignore_accounts: bool = False) -> dict[str, str]:
    """Digest every table's rows, in a fixed order, and every sequence, large object and definition of an index or constraint."""
    found: dict[str, str] = {}
    tables = stack.psql(
        "SELECT quote_ident(schemaname), quote_ident(tablename) FROM pg_tables"
        " WHERE schemaname NOT IN ('pg_catalog', 'information_schema', 'mailarchiver_backup') ORDER BY 1, 2",
        database=database,
    )
    for schema, table in tables:
        row = "t::text"
        if ignore_accounts and "MailAccounts" in table:
            row = "(to_jsonb(t) - " + " - ".join(f"'{name}'" for name in ACCOUNT_SWITCHES) + ")::text"
        (digest,) = stack.psql(
            f"SELECT count(*) || ' ' || coalesce(md5(string_agg(md5({row}), '' ORDER BY md5({row}))), '') FROM {schema}.{table} t",
            database=database,
        )
        found[f"{schema}.{table}"] = digest[0]
    for name, query in {
        "sequences": "SELECT string_agg(schemaname || sequencename || coalesce(last_value::text, '-'), ',' ORDER BY 1) FROM (SELECT * FROM pg_sequences ORDER BY 1, 2) s",
        "large objects": "SELECT md5(string_agg(oid::text || md5(lo_get(oid)), ',' ORDER BY oid)) FROM pg_largeobject_metadata",
        "indexes": "SELECT md5(string_agg(indexdef, ',' ORDER BY indexdef)) FROM pg_indexes WHERE schemaname NOT IN ('pg_catalog', 'mailarchiver_backup')",
        "constraints": "SELECT md5(string_agg(conrelid::regclass::text || pg_get_constraintdef(oid), ',' ORDER BY 1)) FROM"
        " (SELECT * FROM pg_constraint WHERE conrelid <> 0 AND connamespace NOT IN (SELECT oid FROM pg_namespace WHERE nspname = 'mailarchiver_backup')"
        " ORDER BY conrelid::regclass::text, conname) c",
    }.items():
        found[name] = str(stack.psql(query, database=database)[0][0])
    return found


def content_of_any_version(stack: Stack) -> dict[str, str]:
    """Give what must be the same under another version of PostgreSQL, whose own catalogues and extensions are others.

    Since 18 NOT NULL is listed as a constraint with a name.
    """
    found = {name: value for name, value in content(stack).items() if name not in ("constraints", "indexes")}
    found["definitions"] = str(
        stack.psql(
            "SELECT string_agg(words, E'\\n' ORDER BY words COLLATE \"C\") FROM ("
            " SELECT conrelid::regclass::text || ' ' || conname || ' ' || pg_get_constraintdef(c.oid) AS words FROM pg_constraint c"
            " JOIN pg_namespace n ON n.oid = connamespace WHERE n.nspname !~ '^(pg_|information_schema)' AND conrelid <> 0 AND contype <> 'n'"
            " UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname !~ '^(pg_|information_schema)') all_of_them"
        )[0][0]
    )
    return found


def keys(stack: Stack) -> dict[str, str]:
    """Digest the data-protection keys."""
    place = stack.directory / "data-protection-keys"
    return {path.name: _digest(path) for path in sorted(place.iterdir())}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
