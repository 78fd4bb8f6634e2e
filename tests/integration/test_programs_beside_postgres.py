"""P20, and more: what we run and end inside the server's container never makes PostgreSQL believe that one of its own has crashed."""

from __future__ import annotations

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


def test_a_program_is_ended_with_its_children_and_no_orphan_is_left(small_stack: Stack) -> None:
    """Closing a program that runs ends it inside the container too, children first."""
    container = postgres_of(small_stack)
    with programs.start_program(container.id, ["bash", "-c", "sleep 1000 & sleep 1001; true"]) as program:
        wait_until(lambda: "sleep 1001" in _processes(container.id), 10, "the program does not run")
        assert not program.has_unread

    processes = _processes(container.id)
    assert "sleep 1000" not in processes
    assert "sleep 1001" not in processes
    assert crashes(container.id) == []


def _processes(container_id: str) -> str:
    script = "for file in /proc/[0-9]*/cmdline; do tr '\\0' ' ' <$file; echo; done 2>/dev/null; true"
    return programs.run_program(container_id, ["bash", "-c", script], timeout_seconds=30).stdout
