"""Dumps by other options and programs: what of them is loaded, and what they are told to be."""

from __future__ import annotations

import pytest

from tasks.core.dump.census import CensusTaker
from tasks.core.dump.events import Connect, Statement
from tasks.core.dump.foreign_dump import Shape, describe, loadable, refuse_bare_dump, refuse_other_content
from tasks.core.dump.insert_rows import inserted_rows
from tasks.core.dump.sql import read_sql_dump
from tasks.core.dump.statements import is_allowed
from tasks.core.errors import ArchiveDamaged, Refused

TABLE = """
--
-- Name: a; Type: TABLE; Schema: public; Owner: mailuser
--

CREATE TABLE public.a (i integer);
"""
ROWS = """
--
-- Data for Name: a; Type: TABLE DATA; Schema: public; Owner: mailuser
--

COPY public.a (i) FROM stdin;
1
\\.
"""
END = "\n--\n-- PostgreSQL database dump complete\n--\n\n"


def statements(text: str, database: str = "Mail", shape: Shape | None = None) -> list[str]:
    events = loadable(read_sql_dump([text.encode()]), database, shape if shape is not None else Shape())
    return [event.sql.decode() for event in events if isinstance(event, Statement)]


def test_what_clears_the_way_is_passed_over() -> None:
    """An empty database has nothing to be dropped; what is dropped later, if anything, is the dump's own affair and refused."""
    head = "SET client_encoding = 'UTF8';\nALTER TABLE ONLY public.a DROP CONSTRAINT b;\nDROP TABLE public.a;\nDROP SCHEMA IF EXISTS x;\n"

    assert statements(head + TABLE + ROWS + END) == [
        "SET client_encoding = 'UTF8';",
        "CREATE TABLE public.a (i integer);",
    ]
    assert "DROP TABLE public.a;" in statements(TABLE + "DROP TABLE public.a;\n" + END)
    assert not is_allowed(b"DROP TABLE public.a;")


def test_the_database_itself_is_ours_to_make() -> None:
    """Above all nothing may reach the live database of the same name."""
    of_the_database = """
--
-- Name: Mail; Type: DATABASE; Schema: -; Owner: mailuser
--

CREATE DATABASE "Mail" WITH TEMPLATE = template0;
ALTER DATABASE "Mail" OWNER TO mailuser;
\\connect "Mail"
SET lock_timeout = 0;
--
-- Name: DATABASE "Mail"; Type: COMMENT; Schema: -; Owner: mailuser
--

COMMENT ON DATABASE "Mail" IS 'x';
GRANT CONNECT ON DATABASE "Mail" TO x;
REVOKE ALL ON DATABASE "Mail" FROM PUBLIC;
SECURITY LABEL FOR y ON DATABASE "Mail" IS 'z';
ALTER DATABASE "Mail" SET work_mem TO '1MB';
ALTER ROLE x IN DATABASE "Mail" SET work_mem TO '1MB';
\\connect -reuse-previous=on "dbname='Mail'"
"""

    assert statements(of_the_database + TABLE + ROWS + END) == [
        "SET lock_timeout = 0;",
        "CREATE TABLE public.a (i integer);",
    ]


def test_of_a_servers_dump_one_database_is_taken() -> None:
    def part(name: str, table: str) -> str:
        return f"--\n-- PostgreSQL database dump\n--\n\\connect {name}\n{TABLE.replace('public.a', f'public.{table}')}{ROWS}{END}"

    head = "--\n-- PostgreSQL database cluster dump\n--\n\nCREATE ROLE x;\nALTER ROLE x WITH SUPERUSER;\n"
    whole = head + part("template1", "t") + part('"Mail"', "m") + part("-reuse-previous=on \"dbname='a\\'b'\"", "o")

    assert statements(whole) == ["CREATE TABLE public.m (i integer);"]
    assert statements(whole, "a'b") == ["CREATE TABLE public.o (i integer);"]
    with pytest.raises(Refused, match="of the databases template1, Mail, a'b; none is Gone"):
        statements(whole, "Gone")
    with pytest.raises(ArchiveDamaged, match="has no end mark"):
        statements(head + part('"Mail"', "m").replace(END, ""))
    with pytest.raises(Refused, match="several databases: one, two"):
        statements(part("one", "a") + part("two", "b"))


def test_half_a_dump_is_refused() -> None:
    for text, words in ((ROWS + END, "data-only dump"), (TABLE + END, "schema-only dump")):
        shape = Shape()
        statements(text, shape=shape)
        with pytest.raises(Refused, match=words):
            shape.refuse_half_a_dump("database.sql")
    shape = Shape()
    statements(TABLE + ROWS + END, shape=shape)
    shape.refuse_half_a_dump("database.sql")
    assert shape.pg_dump_options() == ["--no-comments"]


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        (b"INSERT INTO public.t VALUES (1, 'a''b', NULL, true, -1.5e10, B'101');", 1),
        (b"INSERT INTO public.\"T t\" (a, \"b (\") VALUES\n\t(1, ';'),\n\t(2, E'\\\\x'),\n\t(3, 'c:\\');", 3),
        (b"INSERT INTO public.t OVERRIDING SYSTEM VALUE VALUES (1) ON CONFLICT DO NOTHING;", 1),
        (b"INSERT INTO public.t DEFAULT VALUES;", 1),
        (b"INSERT INTO public.t VALUES (pg_read_file('/etc/passwd'));", None),
        (b"INSERT INTO public.t SELECT 1;", None),
        (b"INSERT INTO public.t VALUES (E'\\'', pg_sleep(1), '');", None),
        (b"INSERT INTO public.t VALUES (1) RETURNING f();", None),
        (b"INSERT INTO public.t VALUES (1); DROP TABLE x;", None),
    ],
)
def test_only_plain_values_are_inserted(sql: bytes, rows: int | None) -> None:
    found = inserted_rows(sql)

    assert (len(found.rows) if found else None) == rows
    assert is_allowed(sql) is (rows is not None)


def test_rows_are_the_same_however_many_an_insert_holds() -> None:
    def census(text: str) -> object:
        taker = CensusTaker()
        for event in read_sql_dump([text.encode()]):
            taker.see(event)
        return taker.result().tables

    together = census("INSERT INTO public.t VALUES\n\t(1, 'a'),\n\t(2, 'b');\nINSERT INTO public.t VALUES (3, 'c');\n")

    assert together == census(
        "".join(f"INSERT INTO public.t VALUES {row};\n" for row in ("(2, 'b')", "(3, 'c')", "(1, 'a')"))
    )
    assert together != census("INSERT INTO public.t VALUES (1, 'a'), (2, 'b'), (3, 'd');\n")


def test_what_is_no_archive_is_described() -> None:
    for head, words in (
        (b"PGDMP\x01\x10", "custom format"),
        (b"--\n-- PostgreSQL database dump\n--\n", "plain SQL"),
        (b"\xef\xbb\xbf--\r\n-- PostgreSQL database cluster dump\r\n", "whole server"),
        (b"toc.dat\0\0", "tar format"),
    ):
        assert words in str(describe(head))
        with pytest.raises(Refused, match="not an archive") as caught:
            refuse_bare_dump(head, "/x/y")
        assert "tar -czf" in caught.value.hint
    for head in (b"", b"mailarchiver-backup-20260101-000000/\0", b"-- hello"):
        assert describe(head) is None
        refuse_bare_dump(head, "/x/y")
    with pytest.raises(Refused, match="not SQL"):
        refuse_other_content(b"PGDMP", "database.sql", "sql")
    refuse_other_content(b"PGDMP", "database.dump", "custom")


def test_a_reader_tells_where_a_dump_goes() -> None:
    for line, name in (
        ("\\connect mail", "mail"),
        ('\\connect "My ""mail"', 'My "mail'),
        ('\\connect -reuse-previous=on "dbname=\'it\\\\s=a \\\'b""\'"', "it\\s=a 'b\""),
    ):
        assert list(read_sql_dump([line.encode() + b"\n"])) == [Connect(name)]
    for line in ("\\connect - user host", "\\! rm -rf /", "\\connect a b", "\\i file"):
        with pytest.raises(ArchiveDamaged, match="psql command"):
            list(read_sql_dump([line.encode() + b"\n"]))
