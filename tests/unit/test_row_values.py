"""P12: what PostgreSQL says of a row that it stumbles over tells where, and nothing of what is in it."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.errors import ProgramFailed
from tasks.core.row_values import without_literals, without_rows

SECRET = "c4nary-hunter2"
SAID = [
    'null value in column "a" violates not-null constraint (DETAIL: Failing row contains (1, @, null).; CONTEXT: COPY a, line 1: "1 @")',
    'duplicate key value violates unique constraint "a_b_key" (DETAIL: Key (b, c)=(x, @) already exists.)',
    'missing data for column "c" (CONTEXT: COPY accounts, line 3: "1\t@")',
    'invalid input syntax for type integer: "@" (CONTEXT: COPY accounts, line 3, column odd: one: "@")',
    'ERROR:  value "@" is out of range for type integer\nCONTEXT:  COPY a, line 1, column b: "@"',
    'invalid input syntax for type json (DETAIL: Token "@" is invalid.; CONTEXT: JSON data, line 1: {"a": @)',
    'invalid input value for enum mood: "@"',
    'malformed array literal: "@"',
    'date/time field value out of range: "@"',
    'invalid input syntax for type json (CONTEXT: JSON data, line 1: ...{"a": "b", "c": @...)',
    "unnamed portal with parameters: unnamed portal parameter $1 = '@'",
    'pg_restore: error: COPY failed for table "a": ERROR:  extra data after last expected column\nCONTEXT:  COPY a, line 1: "@\tb"\n',
]


@pytest.mark.parametrize("said", SAID)
@given(before=st.text(max_size=6), after=st.text(max_size=6))
def test_no_row_is_shown(said: str, before: str, after: str) -> None:
    """Whatever else is in it: quotes, brackets, ends of lines."""
    assert SECRET not in without_rows(said.replace("@", before + SECRET + after))


@pytest.mark.parametrize("said", SAID)
def test_what_is_wrong_and_where_stays(said: str) -> None:
    told = ProgramFailed(f"PostgreSQL: {said.replace('@', SECRET)}", stderr=said.replace("@", SECRET))

    assert SECRET not in f"{told} {told.stderr}"
    assert said.split("(")[0].split(":")[0] in told.message
    again = ProgramFailed(f"cannot rebuild it: {told.message}. The archive itself is sound")
    assert again.message.endswith("The archive itself is sound")
    both = ProgramFailed(f"cannot rebuild it: {told.message}; pg_restore fails as well: {told.message}. It is sound")
    assert both.message.endswith(". It is sound")


@pytest.mark.parametrize(
    "said",
    [
        'relation "a" does not exist (CONTEXT: SQL function "f" statement 1)',
        "PostgreSQL cannot drop it (DETAIL: There is 1 other session using the database.)",
        'permission denied for table "accounts"',
        "pg_dump failed with exit code 1: pg_dump: error: connection to server failed",
    ],
)
def test_other_messages_stay(said: str) -> None:
    assert without_rows(said) == said


@pytest.mark.parametrize(
    ("statement", "shown"),
    [
        (f"ALTER ROLE a PASSWORD '{SECRET}'", "ALTER ROLE a PASSWORD ..."),
        (f"CREATE USER MAPPING FOR a SERVER b OPTIONS (user 'c', password '{SECRET}", "CREATE USER MAPPING FOR a SERVER b OPTIONS (user ..., password ..."),
        (f"CREATE SUBSCRIPTION a CONNECTION 'host=b password={SECRET}' PUBLICATION c", "CREATE SUBSCRIPTION a CONNECTION ... PUBLICATION c"),
        (f"INSERT INTO a VALUES (1, 'it''s {SECRET}')", "INSERT INTO a VALUES (1, ...)"),
        ("CREATE TABLE a (b text DEFAULT 'c')", "CREATE TABLE a (b text DEFAULT 'c')"),
    ],
)  # fmt: skip
def test_a_statement_is_shown_without_what_may_be_secret(statement: str, shown: str) -> None:
    assert without_literals(statement) == shown


@pytest.mark.parametrize(
    "piece",
    [
        "COPY a, line 1, column ",
        "COPY ",
        "Key (",
        ", line 1: ",
        'value "',
        'Token " is invalid',
        "malformed ",
        "invalid input value for ",
    ],
)
def test_what_a_program_says_at_length_is_read_once(piece: str) -> None:
    """A stranger's names and values make up most of it: 64 kB of them must not cost an hour."""
    begun = time.monotonic()

    without_rows(piece * (65_536 // len(piece)))

    assert time.monotonic() - begun < 2
