"""A restore that is ended while PostgreSQL works on a long statement: it ends soon, the stack runs, and nothing of it is left."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli import Operator
from tests.content import content
from tests.end_to_end.test_foreign_dumps import archive_of, dumped
from tests.stack.stack import Stack, create_stack, wait_until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(180)]

END = b"--\n-- PostgreSQL database dump complete\n--\n"
# What an index calls may be as slow as it likes.
SLOW = b"""--
-- Name: slow(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.slow(integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM pg_sleep(300); RETURN $1; END $$;
CREATE TABLE public.waits (a integer);
INSERT INTO public.waits VALUES (1);
CREATE INDEX waits_i ON public.waits (public.slow(a));

"""
ENDS_WITHIN_SECONDS = 10.0


@pytest.fixture(scope="module")
def stack(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    made = create_stack(tmp_path_factory.mktemp("interrupted") / "stack", megabytes=1, extras=False)
    made.psql("CREATE ROLE mailarchiver_backup_load_not_ours LOGIN", database="postgres")
    yield made
    made.destroy()


def roles(stack: Stack) -> list[str]:
    return [name for (name,) in stack.psql("SELECT rolname FROM pg_roles ORDER BY 1", database="postgres")]


def databases(stack: Stack) -> list[str]:
    return [name for (name,) in stack.psql("SELECT datname FROM pg_database ORDER BY 1", database="postgres")]


def slow_statements(stack: Stack) -> int:
    asked = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX waits_i%' AND state = 'active'"
    return int(stack.psql(asked, database="postgres")[0][0])


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
def test_a_load_that_is_ended(stack: Stack, tmp_path: Path, how: str) -> None:
    """P1, P15: SIGTERM is heard within a statement; after SIGKILL `recover` drops the load's own role and database alone."""
    operator = Operator(stack.directory, tmp_path)
    before = content(stack), roles(stack), databases(stack), stack.states()
    archive = archive_of(stack, tmp_path, dumped(stack, "pg_dump").replace(END, SLOW + END))
    process = operator.start("restore", str(archive), "--yes", "--foreign", "--with-code")
    wait_until(lambda: slow_statements(stack) == 1, 60, "the load has not come to its long statement")
    (role,) = set(roles(stack)) - set(before[1])
    assert role.startswith("mailarchiver_backup_load_2")
    begun = time.monotonic()
    process.send_signal(signal.Signals[how])
    if how == "SIGTERM":
        assert process.wait(60) != 0
        assert time.monotonic() - begun < ENDS_WITHIN_SECONDS
    else:
        process.wait(10)
        assert role in roles(stack)
        recovered = operator.must("recover")["recovered"]
        assert [each["settled"] for each in recovered] == [True]

    assert (content(stack), roles(stack), databases(stack), stack.states()) == before
    assert slow_statements(stack) == 0
    assert operator.must("recover")["recovered"] == []
