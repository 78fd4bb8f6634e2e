"""An automated backup waits while whole tables are rewritten or locked, within its limit, and says who holds them when that is over."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from tasks.backup.quiet_database import wait_for_quiet_database
from tasks.core.errors import BackupError
from tasks.run.installations import discover
from tests.stack.stack import Stack, wait_until

pytestmark = pytest.mark.docker

LOCKED = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted AND relation = 'public.slow'::regclass"
# Its index takes as long to rebuild as the session says, and with it a VACUUM FULL.
SLOW_TABLE = """
    CREATE TABLE public.slow (id int);
    CREATE FUNCTION public.sleepy(id int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
        $$BEGIN PERFORM pg_sleep(current_setting('test.seconds', true)::float); RETURN id; END$$;
    CREATE INDEX ON public.slow (public.sleepy(id));
    INSERT INTO public.slow VALUES (1);
"""


@contextmanager
def work_for(stack: Stack, seconds: float, statement: str) -> Iterator[None]:
    """Have a session hold the slow table exclusively for so long, from before the block."""

    def work() -> None:
        with psycopg.connect(stack.dsn(), autocommit=True) as session:
            session.execute(f"SET application_name = 'a maintenance'; SET test.seconds = {seconds}")
            session.execute(statement.encode())

    worker = threading.Thread(target=work)
    worker.start()
    try:
        wait_until(lambda: stack.psql(LOCKED)[0][0], 20, "the table is not locked")
        yield
    finally:
        worker.join()


@pytest.mark.parametrize(
    "statement",
    ["VACUUM FULL public.slow", "DO $$BEGIN ALTER TABLE public.slow ADD COLUMN later int; PERFORM pg_sleep(6); END$$"],
    ids=["VACUUM FULL", "migration"],
)
def test_a_backup_is_deferred_while_a_table_is_rewritten(small_stack: Stack, statement: str) -> None:
    stack = discover(small_stack.directory, installation_id="main")
    small_stack.psql(SLOW_TABLE)
    try:
        with work_for(small_stack, 6, statement):
            begun = time.monotonic()
            with pytest.raises(BackupError, match=r"a maintenance .* holds") as refused:
                wait_for_quiet_database(stack, defer_seconds=0.5)
            assert time.monotonic() - begun < 4
            assert statement[:20] in refused.value.message

            assert wait_for_quiet_database(stack, defer_seconds=60) > 0.2
            assert small_stack.psql(LOCKED) == [(0,)]
    finally:
        small_stack.psql("DROP TABLE public.slow; DROP FUNCTION public.sleepy")
