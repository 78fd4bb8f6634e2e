"""A dump's rows come into a real database exactly, by whichever way they go: COPY, or a statement for each wide row."""

from __future__ import annotations

import logging

import pytest

from tasks.adapters.load import load_dump
from tasks.adapters.postgres import Server, server_of
from tasks.core.sql_dump import read_sql_dump
from tasks.installations import discover
from tests.stack.stack import Stack

pytestmark = pytest.mark.docker

SOURCE, COPY = "wide source", "wide copy"
SCHEMA = """
    CREATE DOMAIN short AS varchar(3) CHECK (VALUE <> 'bad');
    CREATE TABLE "Wide (rows), t" (
        id bigint GENERATED ALWAYS AS IDENTITY, "a, (b" text, content bytea, length int GENERATED ALWAYS AS (length(content)) STORED,
        code short, at timestamptz(3), n numeric(10, 2), tags text[], other bytea, j jsonb, b "char", f float8
    );
    CREATE TABLE "no columns" ();
    CREATE TABLE narrow (content bytea, note text NOT NULL);
    CREATE FUNCTION noise(bytes int) RETURNS bytea LANGUAGE sql AS
        $$SELECT string_agg(sha512(random()::text::bytea), ''::bytea) FROM generate_series(1, bytes / 64)$$;
"""
# Wide rows, one too wide for a statement of its own, narrow ones in between, and every escape that COPY knows.
ROWS = r"""
    INSERT INTO "Wide (rows), t" ("a, (b", content, code, at, n, tags, other, j, b, f)
    SELECT E'tab\t newline\n return\r back\\slash \b\f\v ünïcödé 日本 \\N ' || i,
           CASE WHEN i % 7 = 0 THEN NULL WHEN i = 11 THEN noise(6000000) WHEN i % 3 = 0 THEN '' ELSE noise(90000 + i) END,
           CASE WHEN i % 5 = 0 THEN NULL ELSE 'äb ' END, now(), i / 3.0, ARRAY[E'x\t', NULL, '{"\\'], '\x00ff5c0a09',
           '{"a": "\\ \t"}', 'x', 'NaN'
    FROM generate_series(1, 60) AS i;
    INSERT INTO "Wide (rows), t" ("a, (b") SELECT '' FROM generate_series(1, 40000);
    INSERT INTO "Wide (rows), t" (content) SELECT noise(70000) FROM generate_series(1, 40);
    INSERT INTO narrow SELECT noise(64), '' FROM generate_series(1, 30000);
"""
CONTENT = """
    SELECT (SELECT md5(string_agg(t::text, E'\\n' ORDER BY id)) FROM "Wide (rows), t" AS t),
           (SELECT md5(string_agg(t::text, E'\\n' ORDER BY t::text)) FROM narrow AS t)
"""


def dump(stack: Stack, database: str) -> bytes:
    """Dump a database as the guide's format does."""
    found = stack.container("postgres").exec_run(["pg_dump", "-U", "mailuser", database])
    assert found.exit_code == 0
    return bytes(found.output)


def server(stack: Stack) -> Server:
    """Give the stack's server as its superuser."""
    with server_of(discover(stack.directory, installation_id="main")) as found:
        return found


def test_wide_rows_narrow_rows_and_huge_rows_arrive_as_they_were(
    small_stack: Stack, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in (SOURCE, COPY):
        small_stack.psql(f'CREATE DATABASE "{name}"')
    try:
        small_stack.psql(SCHEMA, database=SOURCE)
        small_stack.psql(ROWS, database=SOURCE)
        text = dump(small_stack, SOURCE)
        chunks = (text[at : at + 1_000_000] for at in range(0, len(text), 1_000_000))

        found = load_dump(server(small_stack), COPY, read_sql_dump(chunks))

        assert small_stack.psql(CONTENT, database=COPY) == small_stack.psql(CONTENT, database=SOURCE)
        wide, narrow = (found[next(target for target in found if name in target)].rows for name in ("Wide", "narrow"))
        assert (wide, narrow) == (40_100, 30_000)
        assert not [record for record in caplog.records if "go by COPY" in record.message]
    finally:
        for name in (SOURCE, COPY):
            small_stack.psql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
