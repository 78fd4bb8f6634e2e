"""A dump's rows come into a real database exactly, by whichever way they go: COPY, or a statement for each wide row."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator

import pytest

from tasks.adapters.postgres.census import rows_of, take_census
from tasks.adapters.postgres.load import load_dump
from tasks.adapters.postgres.load_programs import load_by_program
from tasks.adapters.postgres.pg_programs import dump_database
from tasks.adapters.postgres.server import Server, server_of
from tasks.adapters.postgres.session import session
from tasks.core.archive.manifest import Format, TableCensus
from tasks.core.dump.census import differences, in_the_expected_order, reordered
from tasks.core.dump.load_words import is_of_another_server
from tasks.core.dump.sql import read_sql_dump
from tasks.core.errors import ProgramFailed
from tasks.core.policy.limits import DumpLimits
from tasks.run.installations import discover
from tests.stack.engine import host_address
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


HEAD = """SET statement_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
"""
END = "\n--\n-- PostgreSQL database dump complete\n--\n\n"
SLOW_INDEXES = """
CREATE TABLE public.t (a int);
CREATE FUNCTION public.slow(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$BEGIN PERFORM pg_sleep(120); RETURN $1; END$$;
--
-- Data for Name: t; Type: TABLE DATA; Schema: public; Owner: mailuser
--

COPY public.t (a) FROM stdin;
1
1
\\.

--
-- Name: t_slow; Type: INDEX; Schema: public; Owner: mailuser
--

CREATE INDEX t_slow ON public.t USING btree (public.slow(a));
"""


@pytest.fixture
def empty(small_stack: Stack) -> Iterator[str]:
    """Lend the name of an empty database."""
    small_stack.psql(f'CREATE DATABASE "{COPY}"')
    yield COPY
    small_stack.psql(f'DROP DATABASE "{COPY}" WITH (FORCE)')


def loaded(stack: Stack, database: str, text: str, limits: DumpLimits | None = None) -> dict[str, TableCensus]:
    """Load the text of a dump."""
    return load_dump(server(stack), database, read_sql_dump(iter(((HEAD + text + END).encode(),))), limits=limits)


def test_a_check_that_asks_another_table_finds_all_that_the_dump_has_before_it(small_stack: Stack, empty: str) -> None:
    """Two lanes may not overtake each other where a constraint's function looks at other rows, those of its own table too."""
    known = "\n".join(str(number) for number in range(150_000))
    asking = "\n".join(f"149999\t{number}" for number in range(150_000))
    rows = loaded(
        small_stack,
        empty,
        "CREATE TABLE public.known (n int);\n"
        "CREATE FUNCTION public.is_known(int) RETURNS bool LANGUAGE sql AS 'SELECT EXISTS (SELECT FROM public.known WHERE n = $1)';\n"
        "CREATE DOMAIN public.known_number AS int CHECK (VALUE < 10 OR public.is_known(VALUE));\n"
        "CREATE TABLE public.asking (n public.known_number, i int);\n"
        f"COPY public.known (n) FROM stdin;\n{known}\n\\.\n\nCOPY public.asking (n, i) FROM stdin;\n149999\t-1\n\\.\n\n"
        "CREATE TABLE public.asking_too (n int, i int, CONSTRAINT asks CHECK (i > 0 OR public.is_known(n)));\n"
        "COPY public.asking_too (n, i) FROM stdin;\n149999\t0\n\\.\n\n"
        "CREATE INDEX known_n ON public.known USING btree (n);\n"
        f"COPY public.asking (n, i) FROM stdin;\n{asking[: asking.index(chr(10))]}\n\\.\n\n",
    )

    assert small_stack.psql("SELECT count(*) FROM public.asking", database=empty) == [(2,)]
    # The rows of `asking` were read back before its last ones came: what is not certain is not told.
    assert {name.split(" (")[0]: census.rows for name, census in rows.items()} == {
        "public.known": 150_000,
        "public.asking_too": 1,
    }


def test_no_statement_takes_longer_than_the_limit(small_stack: Stack, empty: str) -> None:
    """The dump itself takes all limits away."""
    begun = time.monotonic()

    with pytest.raises(ProgramFailed, match="statement timeout") as failed:
        loaded(small_stack, empty, SLOW_INDEXES, DumpLimits(total_seconds=3))

    assert failed.value.about == "INDEX public.t_slow"
    assert not failed.value.transient
    assert time.monotonic() - begun < 40


def test_a_failure_does_not_wait_for_what_runs_beside_it(small_stack: Stack, empty: str) -> None:
    begun = time.monotonic()
    unique = "\n-- Name: t_key; Type: INDEX; Schema: public; Owner: mailuser\n\nCREATE UNIQUE INDEX t_key ON public.t USING btree (a);\n"

    with pytest.raises(
        ProgramFailed, match=r"could not create unique index.*DETAIL: Key \(a\)=\(\(left out\)"
    ) as failed:
        loaded(small_stack, empty, SLOW_INDEXES + unique)

    assert failed.value.about == "INDEX public.t_key"
    assert time.monotonic() - begun < 40
    assert small_stack.psql(
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%t_slow%' AND pid <> pg_backend_pid()"
    ) == [(0,)]


def test_a_server_that_never_answers_is_waited_for_as_long_as_said(small_stack: Stack, empty: str) -> None:
    """A materialized view may read another server's table, by way of a view, too."""
    small_stack.psql("CREATE EXTENSION IF NOT EXISTS postgres_fdw", database=empty)
    with socket.create_server(("", 0)) as silent:
        text = (
            f"CREATE SERVER silent FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{host_address()}', port '{silent.getsockname()[1]}');\n"
            "CREATE USER MAPPING FOR mailuser SERVER silent OPTIONS (user 'a', password 'b');\n"
            "CREATE FOREIGN TABLE public.there (a int) SERVER silent;\n"
            'CREATE VIEW public."what is there" AS SELECT a FROM public.there;\n'
            'CREATE MATERIALIZED VIEW public."a copy" AS SELECT a FROM public."what is there" WITH NO DATA;\n'
            "--\n-- Name: a copy; Type: MATERIALIZED VIEW DATA; Schema: public; Owner: mailuser\n--\n\n"
            'REFRESH MATERIALIZED VIEW public."a copy";\n'
        )
        begun = time.monotonic()

        with pytest.raises(ProgramFailed, match="another server's tables") as failed:
            loaded(small_stack, empty, text, DumpLimits(foreign_seconds=2))

    assert failed.value.about == "MATERIALIZED VIEW DATA public.a copy"
    assert is_of_another_server(failed.value)
    assert time.monotonic() - begun < 40


@pytest.mark.parametrize("archive_format", ["guide", "fast"])
def test_the_second_way_does_without_tablespaces_that_the_server_lacks(
    small_stack: Stack, archive_format: Format
) -> None:
    """P19, P21: what lay in them lies in the default one; a row that reads like pg_dump's own words stays a row."""
    installation = discover(small_stack.directory)
    words = "SET default_tablespace = gone;"
    with server_of(installation) as server, session(server, "postgres", purpose="test") as opened:
        opened.execute("SET allow_in_place_tablespaces = on")
        for name in ("gone", "stays"):
            opened.execute(f"CREATE TABLESPACE {name} LOCATION ''")
        opened.execute("CREATE DATABASE source")
        with session(server, "source", purpose="test") as inside:
            for place in ("gone", "stays"):
                inside.execute(f"CREATE TABLE public.in_{place} (a text PRIMARY KEY) TABLESPACE {place}")
            inside.execute("INSERT INTO public.in_gone VALUES (%s)", (words,))
        dump = b"".join(dump_database(installation, "source", archive_format, snapshot=None, limits=DumpLimits()))
        opened.execute("DROP DATABASE source")
        opened.execute("DROP TABLESPACE gone")
        opened.execute("CREATE DATABASE target")
        try:
            load_by_program(
                installation, "target", iter((dump,)), DumpLimits(), custom=archive_format == "fast", lacking={"gone"}, tablespaces={"stays"}
            )  # fmt: skip
            with session(server, "target", purpose="test") as inside:
                asked = "SELECT relname::text, reltablespace <> 0 FROM pg_class WHERE relname LIKE 'in\\_%' AND relkind = 'r' ORDER BY 1"
                assert inside.execute(asked) == [("in_gone", False), ("in_stays", archive_format == "guide")]
                assert inside.value("SELECT a FROM public.in_gone") == words
        finally:
            opened.execute("DROP DATABASE target")
            opened.execute("DROP TABLESPACE stays")


def test_rows_of_tables_that_inherit_are_compared_in_the_dumps_order_of_columns(small_stack: Stack) -> None:
    """psql gives their columns another order than they had, whatever the encoding; a row that changed is found all the same."""
    for name in ("heirs", "their copy"):
        small_stack.psql(
            f"CREATE DATABASE \"{name}\" TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'", database="postgres"
        )
    heirs = """
        CREATE TABLE parent (a int, b text);
        CREATE TABLE child ("c, (d" numeric, b text, a int);
        CREATE UNLOGGED SEQUENCE counted AS integer;
        ALTER TABLE child INHERIT parent;
        INSERT INTO child SELECT i / 7.0, 'fünf ' || i, i FROM generate_series(1, 100) AS i;
    """
    small_stack.psql(heirs, database="heirs")
    installation = discover(small_stack.directory, installation_id="main")
    load_by_program(installation, "their copy", [dump(small_stack, "heirs")], DumpLimits(), custom=False)
    expected, found = (take_census(installation, each, "guide", DumpLimits()) for each in ("heirs", "their copy"))

    (child,) = reordered(expected, found)
    assert "c, (d" in child
    assert differences(expected, found)

    def compared() -> list[str]:
        read = rows_of(server(small_stack), "their copy", [child], DumpLimits())
        return differences(expected, in_the_expected_order(found, read))

    assert compared() == []
    small_stack.psql("UPDATE child SET b = 'six' WHERE a = 5", database="their copy")
    assert compared() == ["table public.child has other content in its 100 rows"]
