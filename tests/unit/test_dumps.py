"""Both dump formats are read alike, whatever the size of the pieces, and a cut never goes unnoticed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks.core.archive.manifest import Census
from tasks.core.byte_text import bytes_of, shown, text_of
from tasks.core.dump.census import CensusTaker, differences
from tasks.core.dump.custom import read_custom_dump
from tasks.core.dump.events import CopyBegin, DumpComplete, LargeObjectData, Statement
from tasks.core.dump.sql import read_sql_dump
from tasks.core.dump.statements import is_allowed, is_time_limit, may_run_in_parallel, refreshed_view
from tasks.core.errors import ArchiveDamaged

DUMPS = Path(__file__).parent / "dumps"
"""Real dumps by PostgreSQL 15 and 17 of a database made to confuse: see nasty_source.sql."""


def pieces(content: bytes, size: int) -> Iterator[bytes]:
    return (content[at : at + size] for at in range(0, len(content), size))


def reader(path: Path) -> Callable[[Iterator[bytes]], Iterator[object]]:
    return read_sql_dump if path.suffix == ".sql" else read_custom_dump


def census(path: Path, content: bytes | None = None, size: int = 1 << 20) -> Census:
    taker = CensusTaker()
    for event in reader(path)(pieces(path.read_bytes() if content is None else content, size)):
        taker.see(event)
    if not taker.complete:
        raise ArchiveDamaged("no end mark")
    return taker.result()


@pytest.mark.parametrize("path", sorted(DUMPS.glob("nasty_1*")), ids=lambda path: path.name)
@pytest.mark.parametrize("size", [3, 7, 100, 4096])
def test_pieces_of_any_size_give_the_same_census(path: Path, size: int) -> None:
    content = path.read_bytes()[:12_000] if size < 100 else path.read_bytes()
    if size < 100:  # a short prefix: pieces of three bytes are slow

        def read(each: int) -> list[str]:
            seen = []
            try:
                for event in reader(path)(pieces(content, each)):
                    if type(event).__name__ not in ("CopyData", "LargeObjectData"):
                        seen.append(repr(event))
            except ArchiveDamaged:
                pass
            return seen

        whole, small = read(1 << 20), read(size)

        assert len(small) > 10
        assert small == whole[: len(small)]
    else:
        assert census(path, size=size) == census(path)


@pytest.mark.parametrize("major", [15, 17])
def test_both_formats_hold_the_same_content(major: int) -> None:
    plain, custom = census(DUMPS / f"nasty_{major}.sql"), census(DUMPS / f"nasty_{major}.dump")

    assert differences(plain, custom, compare_schema=False) == []
    assert plain.large_objects.rows == 3
    assert {name.split(" (")[0]: table.rows for name, table in plain.tables.items()} == {
        '"we;ird $$ sch\'ema"."T ""q"" 1"': 204,
        "public.empty_one": 0,
        "public.no_columns ": 2,
        "public.one_col": 4,
        "public.part1": 1,
    }
    assert plain.sequences["public.\"Seq ''q\""] == "2, true"


def test_content_is_the_same_across_versions() -> None:
    assert differences(census(DUMPS / "nasty_15.sql"), census(DUMPS / "nasty_17.sql"), compare_schema=False) == []


@pytest.mark.parametrize("path", sorted(DUMPS.glob("nasty_1*")), ids=lambda path: path.name)
def test_a_dump_cut_anywhere_is_refused(path: Path) -> None:
    content = path.read_bytes()
    trailer = content.rfind(b"-- PostgreSQL database dump complete") if path.suffix == ".sql" else len(content)
    for step in range(64):
        with pytest.raises(ArchiveDamaged):
            census(path, content[: trailer * step // 64])


def test_a_dump_cut_at_a_statement_boundary_has_no_end_mark() -> None:
    content = (DUMPS / "nasty_17.sql").read_bytes()
    at = content.find(b";\n\n", len(content) // 2) + 3

    events = list(read_sql_dump(iter((content[:at],))))

    assert not any(isinstance(event, DumpComplete) for event in events)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (b"Seq ''q\"', 2, true", b"Seq ''q\"', 3, true", "sequence public.\"Seq ''q\" is 3, true, expected 2, true"),
        (b"1\tz\n", b"1\ty\n", "table public.part1 has other content in its 1 rows"),
        (b"1\tz\n", b"", "table public.part1 has 0 rows, expected 1"),
        (b"deadbeef", b"deadbeee", "large objects has other content in its 3 rows"),
        (b"IS 'it''s;", b"IS 'it''z;", "COMMENT public.TABLE one_col is defined differently"),
        (b"CREATE INDEX one_col", b"-- REATE INDEX one_col", "INDEX public.one_col_lower_idx is missing"),
    ],
)
def test_a_change_is_named(old: bytes, new: bytes, expected: str) -> None:
    path = DUMPS / "nasty_17.sql"
    content = path.read_bytes()
    assert old in content

    changed = census(path, content.replace(old, new, 1))

    assert differences(census(path), changed) == [expected]


def test_row_order_does_not_matter_but_a_doubled_row_does() -> None:
    path = DUMPS / "nasty_17.sql"
    content = path.read_bytes()
    begin = content.index(b"COPY public.one_col")
    begin = content.index(b"\n", begin) + 1
    end = content.index(b"\n\\.\n", begin)
    rows = content[begin:end].split(b"\n")
    turned = content[:begin] + b"\n".join(reversed(rows)) + content[end:]
    doubled = content[:begin] + b"\n".join([*rows, rows[0], rows[0]]) + content[end:]

    assert differences(census(path), census(path, turned)) == []
    assert differences(census(path), census(path, doubled)) == ["table public.one_col has 6 rows, expected 4"]


@pytest.mark.parametrize(
    "statement",
    [b"\\! touch /tmp/x\n", b"\\i /etc/passwd\n", b"\\connect - root 10.0.0.1\n", b"\\restrict a; drop\n"],
)
def test_psql_commands_are_refused(statement: bytes) -> None:
    with pytest.raises(ArchiveDamaged, match="psql command"):
        list(read_sql_dump(iter((b"SET a = 1;\n" + statement,))))


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        (b"CREATE TABLE a (b int);", True),
        (b"SELECT pg_catalog.setval('a', 1, true);", True),
        (b"ALTER TABLE a OWNER TO b;", True),
        (b"CREATE USER MAPPING FOR a SERVER b;", True),
        (b"COPY a TO PROGRAM 'sh';", False),
        (b"COPY a FROM '/etc/passwd';", False),
        (b"DO $$ begin end $$;", False),
        (b"CREATE ROLE evil SUPERUSER;", False),
        (b"ALTER SYSTEM SET archive_command = 'x';", False),
        (b"ALTER DATABASE a SET b = c;", False),
        (b"SELECT pg_read_file('/etc/passwd');", False),
        (b"DROP DATABASE a;", False),
    ],
)
def test_only_statements_of_pg_dump_are_allowed(statement: bytes, allowed: bool) -> None:
    assert is_allowed(statement) is allowed


def test_index_builds_run_in_parallel_and_nothing_else() -> None:
    assert may_run_in_parallel(b"CREATE UNIQUE INDEX a ON b USING btree (c);")
    assert may_run_in_parallel(b'ALTER TABLE ONLY public.a\n    ADD CONSTRAINT "PK a" PRIMARY KEY (id);')
    assert not may_run_in_parallel(b"ALTER TABLE ONLY a\n    ADD CONSTRAINT f FOREIGN KEY (b) REFERENCES c(d);")
    assert not may_run_in_parallel(b"COMMENT ON INDEX a IS 'b';")
    assert not may_run_in_parallel(
        b"ALTER TABLE a\n    ADD CONSTRAINT c CHECK ((t <> ' PRIMARY KEY '::text)) NOT VALID;"
    )
    assert not may_run_in_parallel(b'ALTER TABLE a ADD CONSTRAINT c FOREIGN KEY ("x UNIQUE y") REFERENCES d(e);')


def test_what_a_statement_sets_or_refreshes_is_known() -> None:
    assert is_time_limit(b"SET statement_timeout = 0;")
    assert is_time_limit(b"SET transaction_timeout = 0;")
    assert not is_time_limit(b"SET client_encoding = 'UTF8';")
    assert refreshed_view(b'REFRESH MATERIALIZED VIEW "a.b"."c d";') == '"a.b"."c d"'
    assert refreshed_view(b"CREATE MATERIALIZED VIEW a AS SELECT 1;") is None


def statements(text: bytes, size: int, *, conforming: bool = True) -> list[bytes]:
    return [
        event.sql for event in read_sql_dump(pieces(text, size), conforming=conforming) if isinstance(event, Statement)
    ]


BODIES = [
    b"CREATE FUNCTION public.f() RETURNS int\n    LANGUAGE sql\n    BEGIN ATOMIC\n SELECT diary.begin\n    FROM public.diary;\nEND;",
    b"CREATE FUNCTION begin.atomic(begin date) RETURNS int LANGUAGE sql AS $$SELECT 1$$;",
    b"CREATE FUNCTION public.begin(atomic int) RETURNS begin.atomic LANGUAGE sql IMMUTABLE RETURN 1;",
    b"CREATE OR REPLACE FUNCTION public.end() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT CASE WHEN begin THEN CASE a.end WHEN 1 THEN 2 END"
    b" ELSE 3 END AS \"end\"; SELECT ';' AS atomic; END;",
    b"CREATE PROCEDURE a.b(INOUT begin int) LANGUAGE sql BEGIN ATOMIC INSERT INTO t (begin, atomic) VALUES (1, (SELECT CASE WHEN true THEN 1 END)); END;",
    b"CREATE PROCEDURE a.case() LANGUAGE sql begin  -- why; not\n atomic END;",
    b"CREATE FUNCTION a.c() RETURNS text LANGUAGE sql BEGIN ATOMIC SELECT E'it\\';--' || ' END; '; END;",
    b"CREATE VIEW a.begin AS SELECT b.begin, b.atomic AS atomic FROM b;",
    b"CREATE TABLE a.t (begin int, atomic int, function int);",
    b'CREATE FUNCTION "x begin atomic;"() RETURNS trigger LANGUAGE plpgsql AS $_$ BEGIN ATOMIC; END $_$;',
    b"CREATE FUNCTION a.f(x numeric DEFAULT 1.5) RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1.0; SELECT x1.case, 2 FROM x1; END;",
]


@pytest.mark.parametrize("size", [1, 5, 1 << 20])
def test_only_begin_atomic_opens_a_body(size: int) -> None:
    for body in BODIES:
        assert statements(body + b"\n\nSELECT 1;\n", size) == [body, b"SELECT 1;"], body
    assert statements(b"\n".join(BODIES), size) == BODIES


@pytest.mark.parametrize("size", [1, 4, 1 << 20])
def test_backslashes_escape_where_the_dump_says_so(size: int) -> None:
    text = (
        rb"COMMENT ON TABLE a IS 'back\';SET standard_conforming_strings = off;COMMENT ON TABLE a IS 'it\'; is '' ; \\';"
        rb"SELECT pg_catalog.lo_open('7', 131072);SELECT pg_catalog.lowrite(0, '\\x00ff5c');SELECT pg_catalog.lo_close(0);"
        rb"SET standard_conforming_strings = on;COMMENT ON TABLE b IS '\';"
    )
    found = list(read_sql_dump(pieces(text, size)))

    assert b"".join(event.data for event in found if isinstance(event, LargeObjectData)) == b"\x00\xff\\"
    assert [event.sql for event in found if isinstance(event, Statement)] == [
        rb"COMMENT ON TABLE a IS 'back\';",
        b"SET standard_conforming_strings = off;",
        rb"COMMENT ON TABLE a IS 'it\'; is '' ; \\';",
        b"SET standard_conforming_strings = on;",
        rb"COMMENT ON TABLE b IS '\';",
    ]
    assert statements(rb"COMMENT ON TABLE a IS 'it\'; is';", size, conforming=False) == [
        rb"COMMENT ON TABLE a IS 'it\'; is';"
    ]


def test_rows_of_a_target_that_comes_again_are_added_up() -> None:
    def taken(*copies: bytes) -> Census:
        taker = CensusTaker()
        for rows in copies:
            for event in read_sql_dump(iter((b"COPY public.root (a) FROM stdin;\n" + rows + b"\\.\n\n",))):
                taker.see(event)
        return taker.result()

    assert taken(b"1\n2\n", b"", b"3\n") == taken(b"3\n1\n2\n")
    assert taken(b"1\n", b"1\n") != taken(b"1\n")
    assert taken(b"1\n", b"2\n").tables["public.root (a)"].rows == 2


def test_a_name_in_any_bytes_is_one() -> None:
    text = (
        b'-- Name: f\xfcr; Type: TABLE; Schema: public; Owner: m\xf6\n\nCREATE TABLE public."f\xfcr" ("\xe4" int);\n'
        b'COPY public."f\xfcr" ("\xe4") FROM stdin;\n\xff\xfe\n\\.\n'
        b"SELECT pg_catalog.setval('public.\"z\xe4hler\"', 5, true);\n"
    )
    taker = CensusTaker()
    for event in read_sql_dump(pieces(text, 9)):
        taker.see(event)
        if isinstance(event, CopyBegin):
            assert bytes_of(event.target) == b'public."f\xfcr" ("\xe4")'

    census = taker.result()
    assert Census.model_validate_json(census.model_dump_json()) == census
    assert [shown(name) for name in census.schema_objects] == [r"TABLE public.f\xfcr"]
    assert differences(
        census,
        Census.model_validate_json(
            '{"tables": {}, "sequences": {}, "schema_objects": {}, "large_objects": {"rows": 0, "digest": "%s"}}'
            % ("0" * 64)
        ),
    )[0] == (r'table public."f\xfcr" is missing (1 rows)')


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"plain",
        "grün 日本".encode(),
        b"f\xfcr",
        b"\xf0\x9f\x93",
        b"\xf4\x8f\xbe\x80\xff",
        b"\xf4\x8f\xbf",
        bytes(range(256)),
    ],
)
def test_bytes_become_text_and_come_back(raw: bytes) -> None:
    text = text_of(raw)

    assert bytes_of(text) == raw
    assert text.encode().decode() == text


@pytest.mark.timeout(60)
@pytest.mark.parametrize("literal", [b"'%s'", b"E'%s\\\\'", b"$_$%s$_$"])
def test_a_long_literal_is_read_in_one_go_and_not_once_for_every_piece(literal: bytes) -> None:
    """Read for each piece again, these twenty megabytes would take minutes."""
    statement = b"COMMENT ON TABLE a IS " + literal % (b"it is long; " * 1_700_000) + b";"

    assert statements(statement + b"\nSELECT 1;\n", 1 << 14) == [statement, b"SELECT 1;"]
