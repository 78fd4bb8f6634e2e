"""P12: where the server's own socket asks for a password, it lies in no file that could outlive the program that needs it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tasks.adapters.engine import programs
from tasks.adapters.postgres.pg_programs import base_backup, connection_string, dump_database, dump_roles, login_of
from tasks.adapters.stack.discovery import discover
from tasks.core.policy.limits import DumpLimits
from tasks.core.stack.installation import Installation
from tests.stack.stack import create_stack, wait_until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

PASSWORD = "p:a\\sör d😀"
LIMITS = DumpLimits(lock_wait_seconds=30, total_seconds=120)


@pytest.fixture(scope="module")
def strict(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Lend a stack whose PostgreSQL asks for the password at its own socket too."""
    stack = create_stack(tmp_path_factory.mktemp("strict") / "stack", megabytes=2, password=PASSWORD)
    installation = discover(stack.directory)
    _in_container(installation, 'sed -i -E "s/trust$/scram-sha-256/" "$PGDATA/pg_hba.conf"')
    stack.psql("SELECT pg_reload_conf()")
    wait_until(lambda: login_of(installation).password == PASSWORD, 30, "the socket does not ask for a password")
    yield installation
    stack.destroy()


def _in_container(installation: Installation, script: str) -> str:
    return programs.run_program(installation.postgres.container_id, ["sh", "-c", script], timeout_seconds=30).stdout


def _named_files(installation: Installation) -> str:
    return _in_container(
        installation, "find / -xdev -name '*.pgpass*' 2>/dev/null; find /dev/shm -type f -name 'mailarchiver*'; true"
    )


def test_every_program_logs_in(strict: Installation) -> None:
    """Dump, roles and base backup, as PostgreSQL's user and as root."""
    dumped = b"".join(dump_database(strict, strict.database.name, "guide", snapshot=None, limits=LIMITS))
    copied = sum(len(chunk) for chunk in base_backup(strict, label="x", limits=LIMITS))

    assert b"PostgreSQL database dump complete" in dumped[-200:]
    assert b"CREATE ROLE" in dump_roles(strict, timeout_seconds=60)
    assert copied > 1 << 20
    assert _named_files(strict) == ""


def test_while_a_program_runs_its_password_has_no_name(strict: Installation) -> None:
    """A kill at this moment leaves nothing; what comes after the password on its input is the program's own."""
    login = login_of(strict)
    connect = ["psql", "-w", "-X", "-q", "-A", "-t", f"--username={strict.database.superuser}"]
    with login.start([*connect, f"--dbname={connection_string('postgres')}"], stdin=True) as program:
        program.write(b"SELECT 'logged in';\n")
        assert program.receive(30) == b"logged in\n"
        files = _named_files(strict)
        program.write(b"\\! cat /proc/$PPID/environ /proc/$PPID/cmdline | tr '\\0' '\\n'\n")
        program.close_stdin()
        rest = b"".join(program.chunks(idle_timeout_seconds=30)).decode()

        assert program.wait(30) == 0
    assert files == ""
    assert "PGPASSFILE=/proc/self/fd/" in rest
    # The container itself was given it by its compose file, and every program in it inherits that.
    assert [line.partition("=")[0] for line in rest.splitlines() if PASSWORD in line] == ["POSTGRES_PASSWORD"]


def test_the_file_that_a_killed_older_version_left_is_removed(strict: Installation) -> None:
    """It holds the superuser's password."""
    _in_container(strict, "echo secret > /dev/shm/mailarchiver-backup-0123.pgpass")

    dump_roles(strict, timeout_seconds=60)

    assert _named_files(strict) == ""
