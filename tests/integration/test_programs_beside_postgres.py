"""P20, and more: what we run and end inside the server's container never makes PostgreSQL believe that one of its own has crashed."""

from __future__ import annotations

import psycopg
import pytest

from tasks.adapters.engine import containers, programs, reach
from tasks.adapters.postgres.server import Server
from tasks.adapters.postgres.session import session
from tests.stack.stack import Stack, wait_until

pytestmark = pytest.mark.docker


def postgres_of(stack: Stack) -> containers.Container:
    """Look the stack's PostgreSQL up as our own code sees it."""
    found = containers.container(stack.container("postgres").id)
    assert found is not None
    return found


def crashes(container_id: str) -> list[str]:
    """Lines of the server's log that tell of a crash: PostgreSQL is process 1 and judges every orphan by how it dies."""
    return [line for line in containers.logs(container_id, 500).splitlines() if "terminated by signal" in line]


def test_relayed_sessions_end_without_a_trace(small_stack: Stack) -> None:
    """Each relayed connection is a little program in the container; ten of them come and go."""
    container = postgres_of(small_stack)
    environment = container.environment
    for _ in range(5):
        with reach.relay(container.id, 5432) as (host, port):
            server = Server(host, port, environment["POSTGRES_USER"], environment["POSTGRES_PASSWORD"])
            for _ in range(2):
                with session(server, environment["POSTGRES_DB"], purpose="test") as opened:
                    assert opened.value("SELECT 1") == 1

    assert crashes(container.id) == []


# The last to be begun is `sleep 1001` in each.
SHAPES = {
    "two of a shell": "sleep 1000 & sleep 1001; true",
    "one below another": "sh -c 'sh -c \"sleep 1001; true\"; true'; true",
    "many of a shell": "for each in 2 3 4 5 6; do sleep 100$each & done; sleep 1001; true",
    "each with one of its own": "sh -c 'sleep 1000; true' & sh -c 'sleep 1001; true'; true",
    "deaf to a polite end": "trap '' TERM; sleep 1000 & sleep 1001; sleep 1002",
}


@pytest.mark.parametrize("script", SHAPES.values(), ids=SHAPES)
def test_a_program_is_ended_with_its_children_and_no_orphan_is_left(small_stack: Stack, script: str) -> None:
    """Closing a program that runs ends it inside the container too: those without children first, and no parent before them."""
    container = postgres_of(small_stack)
    for _ in range(2):
        with programs.start_program(container.id, ["bash", "-c", script]) as program:
            wait_until(lambda: "sleep 1001" in _processes(container.id), 10, "the program does not run")
            assert not program.has_unread

        assert "sleep 100" not in _processes(container.id)
    assert crashes(container.id) == []


def test_a_dump_of_the_server_that_waits_for_a_lock_is_ended_with_the_dump_below_it(small_stack: Stack) -> None:
    """`pg_dumpall` has a shell run `pg_dump`, and that is what holds locks and waits for them."""
    container = postgres_of(small_stack)
    user = container.environment["POSTGRES_USER"]
    with psycopg.connect(small_stack.dsn()) as opened:
        opened.execute('LOCK TABLE mail_archiver."ArchivedEmails" IN ACCESS EXCLUSIVE MODE')
        with programs.start_program(container.id, ["pg_dumpall", "--username", user]):
            wait_until(lambda: "/pg_dump " in _processes(container.id), 20, "the dump does not run")
        assert "pg_dump" not in _processes(container.id)
    assert crashes(container.id) == []


def _processes(container_id: str) -> str:
    script = "for file in /proc/[0-9]*/cmdline; do tr '\\0' ' ' <$file; echo; done 2>/dev/null; true"
    return programs.run_program(container_id, ["bash", "-c", script], timeout_seconds=30).stdout
