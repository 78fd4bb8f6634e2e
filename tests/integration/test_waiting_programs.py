"""A program's connection has one owner, a relay is a process of its own, and nothing waits without end."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tasks.adapters.engine import programs, reach
from tasks.adapters.host.time_limit import time_limit
from tasks.adapters.postgres.server import Server, server_of
from tasks.adapters.postgres.session import session, wait_until_ready
from tasks.adapters.stack.discovery import discover
from tasks.core.errors import BackupError
from tests.stack.stack import Stack, wait_until

# Docker's library keeps a connection for each of as many addresses that it asked last (docker.constants.DEFAULT_NUM_POOLS).
SDK_CONNECTIONS_KEPT = 25

pytestmark = [pytest.mark.docker, pytest.mark.timeout(120)]


@pytest.fixture
def silent_server() -> Iterator[int]:
    """Give a port where somebody takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_the_sdks_response_does_not_own_a_programs_connection(small_stack: Stack) -> None:
    """The response that Docker's library made is closed before the program is used: no garbage collection can close its socket any more.

    In a process of its own, which has no sockets but those of this test: a collection here would close other tests' too.
    """
    script = f"""
        import gc, os
        from pathlib import Path
        from tasks.adapters.engine import programs

        def open_sockets() -> int:
            names = [Path("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
            return sum(name.is_symlink() and os.readlink(name).startswith("socket:") for name in names)

        container = {small_stack.container("postgres").id!r}
        for _ in range({SDK_CONNECTIONS_KEPT + 3}):
            programs.run_program(container, ["true"])
        before = open_sockets()
        for _ in range(12):
            with programs.start_program(container, ["sh", "-c", "sleep 0.05; echo said"]) as program:
                gc.collect()
                assert b"".join(program.chunks(idle_timeout_seconds=30)) == b"said\\n"
                assert program.wait(30) == 0
        print(before, open_sockets())
    """
    told = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        timeout=60,
        check=True,
    ).stdout

    before, after = map(int, told.split())
    assert before == after > 0


def test_programs_beside_each_other_keep_their_own_connections(small_stack: Stack) -> None:
    """Threads that start and close programs at once never read each other's bytes."""
    container = small_stack.container("postgres").id
    wrong: list[str] = []

    def work(number: int) -> None:
        for turn in range(15):
            text = f"{number}-{turn}"
            found = programs.run_program(container, ["echo", text]).stdout.strip()
            if found != text:
                wrong.append(f"{text}: {found}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(90)

    assert wrong == []
    assert not any(each.is_alive() for each in threads)


def test_describing_a_statement_through_a_relay_works(small_stack: Stack) -> None:
    """libpq's own waiting would hold Python's lock; through a relay in the same process that was a standstill for ever."""
    container = small_stack.container("postgres")
    with reach.relay(container.id, 5432) as (host, port):
        server = Server(host, port, small_stack.user, small_stack.password)
        with session(server, small_stack.database, purpose="test") as opened:
            assert opened.parameter_types("SELECT $1::bytea, $2::int") == [17, 23]


def test_a_server_that_has_just_been_started_is_waited_for_and_not_gone_around(small_stack: Stack) -> None:
    """The host has a way to it, as soon as it listens; where nobody listens for long, no time is lost."""
    container = small_stack.container("postgres")
    container.restart(timeout=30)
    with server_of(discover(small_stack.directory)) as server:
        assert server.host == small_stack.address()
        wait_until_ready(server, small_stack.database, timeout_seconds=30)

    settled = small_stack.container("mailarchive-app")
    started_at = datetime.fromisoformat(settled.attrs["State"]["StartedAt"])
    wait_until(lambda: datetime.now(UTC) - started_at > timedelta(seconds=reach.FIRST_SECONDS), 30, "it is young")
    begun = time.monotonic()
    assert not reach.host_can_reach(small_stack.address("mailarchive-app"), 5999, settled.id)
    assert time.monotonic() - begun < 1


def test_a_relay_ends_with_its_owner(small_stack: Stack) -> None:
    """Killed hard, a run leaves no relay: its stdin ends, and so does it."""
    container = small_stack.container("postgres").id
    script = f"""
        from tasks.adapters.engine import reach
        import sys
        with reach.relay({container!r}, 5432) as (host, port):
            print(port, flush=True)
            sys.stdin.read()
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    ) as owner:
        assert owner.stdout is not None
        port = int(owner.stdout.readline())
        with socket.create_connection(("127.0.0.1", port), timeout=10):
            pass
        owner.kill()

    def is_gone() -> bool:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return False
        except OSError:
            return True

    wait_until(is_gone, 30, "the relay lives on")


def test_a_server_that_never_answers_is_given_up_on(silent_server: int) -> None:
    """A connection that is taken and then left alone ends within the limit, with words."""
    server = Server("127.0.0.1", silent_server, "nobody", "x")

    with pytest.raises(BackupError, match="timeout"), session(server, "postgres", purpose="test"):
        pass


def test_a_server_that_never_answers_does_not_keep_sigterm_waiting(silent_server: int) -> None:
    """A wait for PostgreSQL hears a signal at once."""
    script = f"""
        import signal
        def leave(*_):
            raise SystemExit(9)
        signal.signal(signal.SIGTERM, leave)
        from tasks.adapters.postgres.server import Server
        from tasks.adapters.postgres.session import session
        print("ready", flush=True)
        with session(Server("127.0.0.1", {silent_server}, "nobody", "x"), "postgres", purpose="test"):
            pass
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)

        assert process.wait(4) == 9


def test_a_time_limit_interrupts_whatever_waits() -> None:
    """The block ends with what was being done and the limit; what it borrowed is given back."""
    given_back = []

    def wait() -> None:
        with time_limit(0.2, "a run"):
            try:
                threading.Event().wait(60)
            except BackupError:  # what waits inside for its own errors must not swallow the limit
                pytest.fail("the limit was taken for an error of the block")
            finally:
                given_back.append(True)

    with pytest.raises(BackupError, match=r"a run did not end within its limit of 0\.2 s"):
        wait()

    assert given_back == [True]
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


@pytest.fixture
def paused(small_stack: Stack) -> Iterator[Callable[[], None]]:
    """Give what pauses PostgreSQL's container: its connections stay open, and nobody says a word on them; it goes on after the test."""
    container = small_stack.container("postgres")
    yield container.pause
    container.reload()
    if container.status == "paused":
        container.unpause()


def test_a_server_that_falls_silent_is_given_up_on(small_stack: Stack, paused: Callable[[], None]) -> None:
    """Also in the middle of a transaction, whose rollback nobody answers either."""
    installation = discover(small_stack.directory)
    begun = time.monotonic()

    def ask() -> None:
        with server_of(installation) as server, session(server, "postgres", purpose="test", answer_seconds=1) as opened:
            with opened.transaction():
                opened.execute("SELECT 1")
                paused()
                opened.execute("SELECT 2")

    with pytest.raises(BackupError, match="no answer came within 1 s") as caught:
        ask()

    assert caught.value.transient
    assert time.monotonic() - begun < 15


def test_a_server_that_falls_silent_does_not_keep_sigterm_waiting(
    small_stack: Stack, paused: Callable[[], None]
) -> None:
    """The rollback that follows is not waited for, either."""
    script = f"""
        import signal
        from pathlib import Path
        def leave(*_):
            raise SystemExit(9)
        signal.signal(signal.SIGTERM, leave)
        from tasks.adapters.postgres.server import server_of
        from tasks.adapters.postgres.session import session
        from tasks.adapters.stack.discovery import discover
        with server_of(discover(Path({str(small_stack.directory)!r}))) as server:
            with session(server, "postgres", purpose="test") as opened, opened.transaction():
                print("ready", flush=True)
                opened.execute("SELECT pg_sleep(300)")
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        wait_until(lambda: _sleeps(small_stack), 10, "the statement does not run")
        paused()
        process.send_signal(signal.SIGTERM)

        assert process.wait(10) == 9


def test_a_lock_of_somebody_else_is_not_waited_for_without_end(small_stack: Stack) -> None:
    """Every session of ours gives up on a lock by itself; only a load waits for its own sessions."""
    with server_of(discover(small_stack.directory)) as server:
        with session(server, "postgres", purpose="test") as opened:
            assert opened.value("SHOW lock_timeout") == "1min"


def _sleeps(stack: Stack) -> bool:
    return bool(stack.psql("SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'", database="postgres"))
