"""The copy that an upgrade of the application goes back to: exact, with all that belongs to it, and gone where it was not kept (P3, P15)."""

from __future__ import annotations

import threading
from contextlib import suppress
from datetime import UTC, datetime

import psycopg
import pytest

from tasks.adapters.host.journals import Journal, open_journal, read_journal
from tasks.core.errors import Refused
from tasks.run.installations import discover
from tasks.upgrade.database_copy import KIND, database_copied, settle
from tests.content import content
from tests.stack.stack import Stack, wait_until

pytestmark = pytest.mark.docker

MAKING = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'CREATE DATABASE%%' AND pid <> pg_backend_pid()"
BELONGS = (
    "SELECT pg_get_userbyid(datdba), datacl::text, datconnlimit, (SELECT array_agg(setconfig::text ORDER BY setrole) FROM pg_db_role_setting"
    " WHERE setdatabase = d.oid) FROM pg_database d WHERE datname = %s"
)


def names(stack: Stack) -> set[str]:
    return {name for (name,) in stack.psql("SELECT datname FROM pg_database", database="postgres")}


def journal_of(stack: Stack, database: str) -> Journal:
    journal = open_journal(
        KIND,
        {"database": database, "project": stack.project},
        installation_id="main",
        installation_directory=stack.directory,
    )
    found = read_journal(journal.path)
    journal.remove()
    assert found is not None
    return found


def test_a_copy_is_like_the_database_and_gone_afterwards(small_stack: Stack) -> None:
    """Its settings, grants and limits stand in no file of it; anyone who is connected meanwhile is sent away."""
    name, before = small_stack.database, names(small_stack)
    for words in ("SET work_mem = '7MB'", "CONNECTION LIMIT 55"):
        small_stack.psql(f'ALTER DATABASE "{name}" {words}')
    small_stack.psql(f'GRANT CREATE ON DATABASE "{name}" TO pg_monitor')
    with psycopg.connect(small_stack.dsn()) as somebody:
        somebody.execute("SELECT 1")

        with database_copied(discover(small_stack.directory), now=datetime.now(UTC)) as (mark, notes):
            copy = mark.database(name)
            assert notes == ()
            assert small_stack.psql(BELONGS, (copy,)) == small_stack.psql(BELONGS, (name,))
            assert content(small_stack, copy) == content(small_stack)

        with pytest.raises(psycopg.OperationalError):
            somebody.execute("SELECT 1")
        somebody.close()
    assert names(small_stack) == before


def test_a_copy_that_a_dead_run_was_making_is_ended(small_stack: Stack) -> None:
    """PostgreSQL goes on when its client is dead, and would end up with a database that nobody knows."""
    name = small_stack.database
    copy = f"{name}_restored_20260101_010101"

    def make() -> None:
        with suppress(psycopg.Error), psycopg.connect(small_stack.dsn("postgres"), autocommit=True) as maker:
            maker.execute(f'CREATE DATABASE "{copy}" TEMPLATE "{name}" STRATEGY FILE_COPY'.encode())

    small_stack.compose("stop", "mailarchive-app")
    with psycopg.connect(small_stack.dsn()):  # for whose sake the making waits
        maker = threading.Thread(target=make)
        maker.start()
        wait_until(lambda: small_stack.psql(MAKING, database="postgres")[0][0], 5, "nobody makes a database")

        settle(journal_of(small_stack, copy))

        maker.join(10)
    assert not maker.is_alive()
    assert copy not in names(small_stack)


def test_what_bears_no_name_of_ours_is_left_alone(small_stack: Stack) -> None:
    """A journal is a file: what it says becomes no DROP unless it is what an upgrade would have written."""
    with pytest.raises(Refused, match="not the name that an upgrade"):
        settle(journal_of(small_stack, "postgres"))
