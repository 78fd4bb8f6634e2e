"""The statements that a restore runs are chosen by an allow-list (P10, P22): a dump may have been made by a stranger."""

from __future__ import annotations

import pytest

from tasks.core.dump.statements import is_allowed, is_session_setting, may_run_in_parallel, roles_named


@pytest.mark.parametrize(
    "statement",
    [
        b"SET statement_timeout = 0;",
        b"SET default_table_access_method = heap;",
        b"SET SESSION_SETTING.x = 'a';",
        b"SELECT pg_catalog.set_config('search_path', '', false);",
        b"""SELECT pg_catalog.setval('mail_archiver."X_Id_seq"', 5, true);""",
        b"SELECT pg_catalog.lo_create('16401');",
        b"CREATE TABLE public.a (id integer);",
        b"CREATE EXTENSION IF NOT EXISTS pg_trgm WITH SCHEMA public;",
        b"CREATE UNIQUE INDEX x ON a (b);",
        b"CREATE UNLOGGED SEQUENCE public.a AS integer START WITH 1;",
        b"CREATE UNLOGGED TABLE public.a (b integer GENERATED ALWAYS AS (1) STORED);",
        b"ALTER TABLE ONLY public.a ADD CONSTRAINT b PRIMARY KEY (c);",
        b"COMMENT ON TABLE a IS 'DROP DATABASE x';",
        b"GRANT SELECT ON TABLE a TO reader;",
        b"REVOKE ALL ON SCHEMA public FROM PUBLIC;",
        b"REFRESH MATERIALIZED VIEW a.b;",
        b"ALTER DEFAULT PRIVILEGES FOR ROLE a GRANT SELECT ON TABLES TO b;",
        b"CREATE USER MAPPING FOR a SERVER b;",
    ],
)
def test_what_pg_dump_writes_may_run(statement: bytes) -> None:
    """P21: nothing that belongs to the database is left out."""
    assert is_allowed(statement)


@pytest.mark.parametrize(
    "statement",
    [
        b"COPY a TO PROGRAM 'sh';",
        b"COPY a FROM '/etc/passwd';",
        b"DO $$BEGIN PERFORM 1; END$$;",
        b"SELECT pg_read_file('/etc/passwd');",
        b"SELECT pg_catalog.pg_read_file('/etc/passwd');",
        b"SELECT lo_import('/etc/passwd');",
        b"DROP DATABASE x;",
        b"DELETE FROM a;",
        b"INSERT INTO a VALUES (f());",
        b"CREATE ROLE evil SUPERUSER;",
        b"CREATE  USER evil SUPERUSER;",
        b"ALTER\nROLE postgres PASSWORD 'x';",
        b"ALTER SYSTEM SET archive_command = 'sh';",
        b"ALTER USER postgres PASSWORD 'x';",
        b"ALTER GROUP a ADD USER b;",
        b"CREATE DATABASE x;",
        b"CREATE TABLESPACE x LOCATION '/';",
        b"LOAD 'x';",
        b"VACUUM;",
        b"\\! sh",
        b" ; DROP TABLE a;",
        b"SETX a = 1;",
        b"CREATED x;",
        b"",
    ],
)
def test_what_reaches_beyond_the_database_may_not(statement: bytes) -> None:
    """Files, programs, other databases, roles, and code that runs now."""
    assert not is_allowed(statement)


@pytest.mark.parametrize(
    ("statement", "setting", "parallel"),
    [
        (b"SET client_encoding = 'UTF8';", True, False),
        (b"SELECT pg_catalog.set_config('search_path', '', false);", True, False),
        (b"SELECT pg_catalog.setval('a', 1, true);", False, False),
        (b"CREATE TABLE a (b integer);", False, False),
        (b"CREATE INDEX a ON b USING btree (c);", False, True),
        (b"CREATE UNIQUE INDEX a ON b (c);", False, True),
        (b"ALTER TABLE ONLY a\n    ADD CONSTRAINT b PRIMARY KEY (c);", False, True),
        (b"ALTER TABLE ONLY a\n    ADD CONSTRAINT b UNIQUE (c);", False, True),
        (b"ALTER TABLE ONLY a\n    ADD CONSTRAINT b EXCLUDE USING gist (c WITH &&);", False, True),
        (b"ALTER TABLE ONLY a\n    ADD CONSTRAINT b FOREIGN KEY (c) REFERENCES d(e);", False, False),
        (b"ALTER TABLE a ENABLE ROW LEVEL SECURITY;", False, False),
        (b"CREATE TRIGGER a AFTER INSERT ON b FOR EACH ROW EXECUTE FUNCTION c();", False, False),
    ],
)
def test_what_each_session_needs_and_what_waits_only_for_rows(statement: bytes, setting: bool, parallel: bool) -> None:
    """Indexes are built side by side; a foreign key needs another table's rows and index."""
    assert (is_session_setting(statement), may_run_in_parallel(statement)) == (setting, parallel)


@pytest.mark.parametrize(
    ("statement", "roles"),
    [
        (b"ALTER TABLE public.a OWNER TO mailuser;", {"mailuser"}),
        (b'ALTER FUNCTION a() OWNER TO "Mail ""the"" User";', {'Mail "the" User'}),
        (b"GRANT SELECT ON TABLE a TO reader;", {"reader"}),
        (b"GRANT ALL ON SCHEMA public TO PUBLIC;", set()),
        (b"REVOKE ALL ON TABLE a FROM mailuser;", {"mailuser"}),
        (b"ALTER DEFAULT PRIVILEGES FOR ROLE a IN SCHEMA b GRANT SELECT ON TABLES TO c;", {"a", "c"}),
        ("ALTER TABLE a OWNER TO jörg;".encode(), {"jörg"}),
        (b"CREATE TABLE a (b integer);", set()),
    ],
)
def test_roles_that_a_statement_needs(statement: bytes, roles: set[str]) -> None:
    """They are compared with the server's before anything is touched (P17)."""
    assert roles_named(statement) == roles
