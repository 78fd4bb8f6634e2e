"""What belongs to a database but stands in no dump comes back, and none of it acts on our own sessions."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli import Operator
from tests.stack.images import POSTGRES
from tests.stack.stack import Stack, create_stack

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

IMAGE = "mailarchiver-backup-stand-in/postgres-of-a-demanding-database:17"
EXTENSIONS = Path(__file__).parents[1] / "cases" / "extensions"

# The operator's own sessions here are as immune as ours have to be.
OPERATOR = "-c default_transaction_read_only=off -c role=none -c session_replication_role=origin -c statement_timeout=0 -c search_path=public"
# A guard that lets nobody change anything, and the mail accounts least of all.
GUARDS = """
CREATE FUNCTION public.refuse_event() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'no % here, please', tg_tag; END $$;
CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'hands off'; END $$;
CREATE TRIGGER guard BEFORE UPDATE ON mail_archiver."MailAccounts" FOR EACH ROW EXECUTE FUNCTION public.refuse();
CREATE EVENT TRIGGER "Guard one" ON ddl_command_start EXECUTE FUNCTION public.refuse_event();
CREATE EVENT TRIGGER guard_two ON sql_drop EXECUTE FUNCTION public.refuse_event();
ALTER EVENT TRIGGER guard_two ENABLE ALWAYS;
"""
LOGIN_GUARD = """
ALTER EVENT TRIGGER "Guard one" DISABLE;
CREATE FUNCTION public.no_tools() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN IF current_setting('application_name') LIKE 'mailarchiver-backup%' THEN RAISE EXCEPTION 'no tools here'; END IF; END $$;
CREATE EVENT TRIGGER no_tools ON login EXECUTE FUNCTION public.no_tools();
ALTER EVENT TRIGGER no_tools ENABLE ALWAYS;
ALTER EVENT TRIGGER "Guard one" ENABLE REPLICA;
"""
# No application could work so; a backup can.
HOSTILE = """
ALTER ROLE @USER@ SET statement_timeout = '1ms';
ALTER DATABASE "MailArchiver" SET role = reader;
ALTER DATABASE "MailArchiver" SET idle_in_transaction_session_timeout = '1ms';
ALTER DATABASE "MailArchiver" SET temp_file_limit = 0;
ALTER DATABASE "MailArchiver" SET client_encoding = 'LATIN1';
"""
ATTRIBUTES = r"""
CREATE ROLE reader LOGIN CONNECTION LIMIT 3;
CREATE ROLE "Role ""two"" too" NOLOGIN;
CREATE ROLE third;
ALTER ROLE @USER@ IN DATABASE "MailArchiver" SET lock_timeout = '1ms';
REVOKE ALL ON DATABASE "MailArchiver" FROM PUBLIC;
REVOKE CREATE ON DATABASE "MailArchiver" FROM @USER@;
GRANT CONNECT ON DATABASE "MailArchiver" TO reader WITH GRANT OPTION;
SET SESSION AUTHORIZATION reader;
GRANT CONNECT ON DATABASE "MailArchiver" TO "Role ""two"" too" WITH GRANT OPTION;
SET SESSION AUTHORIZATION "Role ""two"" too";
GRANT CONNECT ON DATABASE "MailArchiver" TO third;
RESET SESSION AUTHORIZATION;
GRANT TEMPORARY ON DATABASE "MailArchiver" TO PUBLIC;
COMMENT ON DATABASE "MailArchiver" IS E'the archive\n''of'' us';
ALTER ROLE reader IN DATABASE "MailArchiver" SET search_path = mail_archiver, "odd ""path, it's", "$user", '', UPPER;
ALTER ROLE reader IN DATABASE "MailArchiver" SET temp_tablespaces = '';
SELECT set_config('local_preload_libraries', '', false);
ALTER ROLE third IN DATABASE "MailArchiver" SET local_preload_libraries FROM CURRENT;
ALTER DATABASE "MailArchiver" SET search_path = '';
ALTER DATABASE "MailArchiver" SET temp_tablespaces = 'Ts two', ts_one;
ALTER DATABASE "MailArchiver" SET session_preload_libraries = 'auto_explain', '$libdir/auto_explain';
ALTER DATABASE "MailArchiver" SET default_transaction_read_only = on;
ALTER DATABASE "MailArchiver" SET default_transaction_isolation = 'serializable';
ALTER DATABASE "MailArchiver" SET session_replication_role = replica;
ALTER DATABASE "MailArchiver" SET standard_conforming_strings = off;
ALTER DATABASE "MailArchiver" SET quote_all_identifiers = on;
ALTER DATABASE "MailArchiver" SET bytea_output = 'escape';
ALTER DATABASE "MailArchiver" SET "DateStyle" = 'German, DMY';
ALTER DATABASE "MailArchiver" SET "IntervalStyle" = 'iso_8601';
ALTER DATABASE "MailArchiver" SET extra_float_digits = '-5';
ALTER DATABASE "MailArchiver" SET "TimeZone" = 'Asia/Kathmandu';
ALTER DATABASE "MailArchiver" SET work_mem = '64MB';
ALTER DATABASE "MailArchiver" SET "app.tenant" = E'it''s = 5; "x" \\ y';
ALTER DATABASE "MailArchiver" SET statement_timeout = '59s';
ALTER DATABASE "MailArchiver" CONNECTION LIMIT 25;
ALTER DATABASE "MailArchiver" IS_TEMPLATE true;
"""


def sql(stack: Stack, text: str, database: str | None = None) -> str:
    """Run statements as the operator of the stack; return what they give."""
    done = subprocess.run(
        ["docker", "exec", "-i", "-e", f"PGOPTIONS={OPERATOR}", str(stack.container("postgres").id), "psql", "-X", "-q", "-At",
         "-v", "ON_ERROR_STOP=1", "-U", stack.user, database or stack.database],
        input=text, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def words_of_pg_dump(stack: Stack) -> str:
    """Give everything that `pg_dump --create --schema-only` says of the database."""
    text = subprocess.run(
        ["docker", "exec", "-e", f"PGOPTIONS={OPERATOR}", str(stack.container("postgres").id), "pg_dump", "--create", "--schema-only",
         "-U", stack.user, stack.database],
        capture_output=True, text=True, timeout=60, check=True,
    ).stdout  # fmt: skip
    return re.sub(r"\\(un)?restrict \w+\n", "", text)


def guarded_accounts(stack: Stack) -> str:
    return sql(stack, 'SELECT count(*) FROM mail_archiver."MailAccounts" WHERE "IsEnabled"').strip()


def goes_round(stack: Stack, operator: Operator, *, formats: tuple[str, ...]) -> None:
    """Back up, verify, restore into quarantine, lift it, and take it all back: the database is the same throughout."""
    before, enabled = words_of_pg_dump(stack), guarded_accounts(stack)
    assert enabled != "0"
    for archive_format in formats:
        made = operator.must("backup", "hot", "--format", archive_format)
        verdict = operator.run("verify", made["name"])
        assert (verdict.code, verdict.value["verdict"]) == (0, "verified"), f"{verdict.value} {verdict.stderr}"

    operator.must("restore", "latest", "--yes", "--quarantine")
    stack.wait_app()
    assert guarded_accounts(stack) == "0"
    assert operator.must("lift-quarantine")["lifted"] >= int(enabled)
    assert words_of_pg_dump(stack) == before
    assert guarded_accounts(stack) == enabled

    operator.must("rollback", "--yes")
    stack.wait_app()
    assert words_of_pg_dump(stack) == before
    assert len(operator.must("commit", "--yes")["dropped"]) == 1


@pytest.fixture(scope="module")
def stack(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Lend a stack with a preloaded library, ICU rules and tablespaces, and all settings that may get in our way."""
    subprocess.run(
        ["docker", "build", "--quiet", "--build-arg", f"BASE={POSTGRES}", "--tag", IMAGE, str(EXTENSIONS)],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    made = create_stack(
        tmp_path_factory.mktemp("itself") / "stack",
        megabytes=1,
        postgres_image=IMAGE,
        postgres_command=(
            "postgres",
            "-c",
            "shared_preload_libraries=auto_explain",
            "-c",
            "max_prepared_transactions=7",
        ),
        postgres_environment={"POSTGRES_INITDB_ARGS": "--locale-provider=icu --icu-locale=und --icu-rules='&a < g'"},
    )
    yield made
    made.destroy()


@pytest.fixture
def operator(stack: Stack, tmp_path: Path) -> Operator:
    return Operator(stack.directory, tmp_path / "backups")


def test_a_database_is_more_than_its_dump(stack: Stack, operator: Operator) -> None:
    """P21: settings, grants, limits, tablespaces, locale and guards come back, and none of them acts on our own sessions.

    Restored and read by pg_dump, it is word for word what it was.
    """
    for place in ("ts_one", '"Ts two"'):
        directory = place.strip('"').replace(" ", "_")
        stack.compose("exec", "-T", "postgres", "install", "-d", "-o", "postgres", f"/srv/{directory}")
        sql(stack, f"CREATE TABLESPACE {place} LOCATION '/srv/{directory}'")
    stack.compose("stop", "mailarchive-app")
    sql(stack, f'ALTER DATABASE "{stack.database}" SET TABLESPACE "Ts two"', database="postgres")
    sql(
        stack,
        "CREATE EXTENSION mail_clock; CREATE TABLE placed (id int PRIMARY KEY, at timestamptz DEFAULT now(), f float8)"
        " TABLESPACE ts_one; INSERT INTO placed VALUES (1, '2026-01-02 03:04:05.678+01', 0.1);"
        "CREATE TABLE part (day date) PARTITION BY RANGE (day); CREATE TABLE part_26 PARTITION OF part FOR VALUES FROM ('2026-01-01') TO"
        " ('2027-01-01'); CREATE TABLE part_27 PARTITION OF part FOR VALUES FROM ('2027-01-01') TO ('2028-01-01');"
        "CREATE INDEX part_day ON ONLY part (day); CREATE INDEX part_26_day ON part_26 (day); ALTER INDEX part_day ATTACH PARTITION part_26_day;",
    )
    sql(stack, GUARDS + LOGIN_GUARD + ATTRIBUTES.replace("@USER@", stack.user))
    stack.compose("start", "mailarchive-app")
    stack.wait_app()

    goes_round(stack, operator, formats=("guide", "fast"))

    before = operator.must("list")
    sql(stack, HOSTILE.replace("@USER@", stack.user))
    try:
        for archive_format in ("guide", "fast"):
            operator.must("backup", "hot", "--format", archive_format)
        assert len(operator.must("list")) == len(before) + 2
    finally:
        sql(
            stack,
            f"ALTER ROLE {stack.user} RESET statement_timeout;"
            + "".join(
                f'ALTER DATABASE "{stack.database}" RESET {name};'
                for name in ("role", "idle_in_transaction_session_timeout", "temp_file_limit", "client_encoding")
            ),
        )


def test_a_server_without_the_tablespaces_takes_the_default_one(
    stack: Stack, operator: Operator, tmp_path: Path
) -> None:
    """P19, P21: on a fresh host what lay in a tablespace lies in the default one, and that is told."""
    made = operator.must("backup", "hot")
    project = f"{stack.project}-fresh"
    stack.compose("stop")  # one machine has each port once
    fresh = Stack(tmp_path / "fresh", project, stack.app_url)
    try:
        answer = operator.run(
            "restore", made["archive"], "--into", str(fresh.directory), "--project", project, "--no-quarantine"
        )
        assert answer.code == 0, f"{answer.value} {answer.stderr}"
        assert "ts_one" in answer.stderr
        assert "Ts two" in answer.stderr
        assert sql(fresh, "SELECT id, f FROM public.placed") == "1|0.1\n"
        assert sql(fresh, "SELECT datconnlimit FROM pg_database WHERE datname = current_database()") == "25\n"
    finally:
        fresh.destroy()
        stack.compose("start")
        stack.wait_app()


def test_whole_copies_are_compared_with_their_source(make_stack: Callable[..., Stack], tmp_path: Path) -> None:
    """P5, P21: an index that a failed build had left invalid is so in the copy; a prepared transaction needs the server's own setting."""
    stack = make_stack(megabytes=1, postgres_command=("postgres", "-c", "max_prepared_transactions=7"))
    operator = Operator(stack.directory, tmp_path / "backups")
    sql(stack, "CREATE TABLE public.twice (a int); INSERT INTO public.twice VALUES (1), (1)")
    with pytest.raises(AssertionError, match="could not create unique index"):
        sql(stack, "CREATE UNIQUE INDEX CONCURRENTLY twice_a ON public.twice (a)")
    sql(stack, "BEGIN; INSERT INTO public.twice VALUES (2); PREPARE TRANSACTION 'left'")
    for method in ("online", "complete"):
        made = operator.must("backup", method)
        verdict = operator.run("verify", made["name"])
        assert (verdict.code, verdict.value["verdict"]) == (0, "verified"), f"{verdict.value} {verdict.stderr}"


@pytest.mark.long
def test_older_servers_too(older_postgres: str, make_stack: Callable[..., Stack], tmp_path: Path) -> None:
    """P21: before PostgreSQL 17 there is no setting that keeps event triggers off."""
    stack = make_stack(megabytes=1, postgres_image=older_postgres)
    sql(stack, ATTRIBUTES.replace("@USER@", stack.user) + GUARDS)

    goes_round(stack, Operator(stack.directory, tmp_path / "backups"), formats=("guide", "fast"))
