"""Restores, rollbacks and commits that PostgreSQL or a container refuses: nothing half-done, all runs again (P1, P3, P15)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryFile

import psycopg
import pytest

from tests import warm
from tests.cli import PROGRAM, Operator, run_program
from tests.content import content
from tests.settings import write_settings
from tests.stack.stack import Stack, create_stack, wait_until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def stack(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Lend a stack whose containers nobody starts again when they end, as is Compose's default."""
    made = create_stack(
        tmp_path_factory.mktemp("swaps") / "stack",
        restart="no",
        postgres_command=["postgres", "-c", "max_prepared_transactions=5"],
    )
    yield made
    made.destroy()


@pytest.fixture
def operator(stack: Stack, tmp_path: Path) -> Iterator[Operator]:
    lent = Operator(stack.directory, tmp_path / "backups")
    yield lent
    lent.must("commit", "--yes")


def edit(stack: Stack) -> None:
    stack.psql('UPDATE mail_archiver."ArchivedEmails" SET "Subject" = "Subject" || \' edited\' WHERE "Id" % 3 = 0')


def kept(stack: Stack, word: str = "before") -> list[str]:
    rows = stack.psql(
        "SELECT datname FROM pg_database WHERE datname LIKE %s ORDER BY 1", (f"%\\_{word}\\_%",), database="postgres"
    )
    return [str(name) for (name,) in rows]


def takes_connections(stack: Stack, name: str) -> bool:
    return bool(
        stack.psql("SELECT datallowconn FROM pg_database WHERE datname = %s", (name,), database="postgres")[0][0]
    )


def test_a_commit_that_postgresql_refuses_changes_nothing(stack: Stack, operator: Operator) -> None:
    """A kept database with a subscription cannot be dropped: that is said, with the way out, and the way back stays open."""
    stack.psql(
        "CREATE SUBSCRIPTION far_one CONNECTION 'host=192.0.2.44 dbname=there' PUBLICATION p WITH (connect = false, slot_name = NONE)"
    )
    before = content(stack)
    operator.must("backup", "hot")
    edit(stack)
    edited = content(stack)
    operator.must("restore", "latest", "--yes", "--no-quarantine")
    (aside,) = kept(stack)

    answer = operator.run("commit", "--yes")

    assert answer.code == 1
    assert f"database {aside} cannot be dropped" in answer.value["error"]
    assert "far_one" in answer.value["error"]
    assert "DROP SUBSCRIPTION" in answer.value["hint"]
    assert kept(stack) == [aside]
    assert takes_connections(stack, aside)
    assert content(stack) == before
    operator.must("rollback", "--yes")
    stack.wait_app()
    assert content(stack) == edited

    for name in (stack.database, *kept(stack, "undone")):
        with psycopg.connect(stack.dsn(name), autocommit=True) as connection:
            connection.execute("DROP SUBSCRIPTION far_one")


def test_what_a_broken_off_commit_left_is_mended(stack: Stack, operator: Operator) -> None:
    """A database that takes no connections is put in production only with connections; `recover` sees one that is there already."""
    operator.must("backup", "hot")
    edit(stack)
    edited = content(stack)
    operator.must("restore", "latest", "--yes", "--no-quarantine")
    (aside,) = kept(stack)
    stack.psql(f'ALTER DATABASE "{aside}" ALLOW_CONNECTIONS false', database="postgres")

    operator.must("rollback", "--yes")

    stack.wait_app()
    assert content(stack) == edited

    stack.psql(f'ALTER DATABASE "{stack.database}" ALLOW_CONNECTIONS false', database="postgres")
    (told,) = operator.must("recover")["recovered"]

    assert told["message"] == f"database {stack.database} took no connections; it takes them again"
    assert takes_connections(stack, stack.database)
    stack.wait_app()


def test_a_prepared_transaction_is_found_before_anything_is_stopped(stack: Stack, operator: Operator) -> None:
    """PostgreSQL would refuse the rename, so the restore is refused at once, naming the transaction; nothing to recover."""
    operator.must("backup", "hot")
    with psycopg.connect(stack.dsn(), autocommit=True) as connection:
        connection.execute("BEGIN; CREATE TABLE later (a int); PREPARE TRANSACTION 'left open'")
    states = stack.states()
    try:
        answer = operator.run("restore", "latest", "--yes", "--no-quarantine")

        assert answer.code == 1
        assert "'left open'" in answer.value["error"]
        assert "COMMIT PREPARED" in answer.value["hint"]
        assert stack.states() == states
        assert kept(stack, "restored") == []
        assert operator.must("recover")["recovered"] == []
    finally:
        with psycopg.connect(stack.dsn(), autocommit=True) as connection:
            connection.execute("ROLLBACK PREPARED 'left open'")


def test_a_rollback_to_what_somebody_removed_is_refused_with_nothing_stopped(stack: Stack, operator: Operator) -> None:
    """A directory that was put aside and moved by hand is missed before anything is stopped."""
    operator.must("backup", "online")
    operator.must("restore", "latest", "--yes", "--no-quarantine")
    (aside,) = [path for path in stack.directory.glob("postgres-data.before-*") if path.is_dir()]
    keys = next(path for path in stack.directory.glob("data-protection-keys.before-*"))
    states = stack.states()
    keys.rename(stack.directory / "elsewhere")

    answer = operator.run("rollback", "--yes")

    assert answer.code == 1
    assert str(keys) in answer.value["error"]
    assert stack.states() == states
    assert aside.is_dir()
    (stack.directory / "elsewhere").rename(keys)


def test_recover_tells_of_a_service_that_has_no_container(stack: Stack, operator: Operator) -> None:
    """Its operator may have taken it away: that is said with the way back, and is no failure."""
    stack.compose("rm", "--stop", "--force", "mailarchive-app")

    (told,) = operator.must("recover")["recovered"]

    assert "the application (service mailarchive-app) is absent; to start it: " in told["message"]
    stack.compose("up", "--detach", "--no-build")
    stack.wait_app()


@pytest.mark.parametrize(("method", "victim"), [("hot", "mailarchive-app"), ("online", "postgres")])
def test_a_restore_that_does_not_answer_is_taken_back_to_the_state_before_it(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, victim: str
) -> None:
    """What ends on the restored data is told, the former data comes back, and both containers run although their policy is "no"."""
    settings = write_settings(
        tmp_path / "settings.yaml",
        {
            "main": {
                "directory": stack.directory,
                "repository": tmp_path / "backups",
                "timeouts": {"application_start_seconds": 8},
            }
        },
    )

    def command(*words: str) -> list[str]:
        return [PROGRAM, *words, "--installation", "main", "--json"]

    monkeypatch.setenv("MAILARCHIVER_BACKUP_SETTINGS", str(settings))
    assert run_program(command("backup", method))[0] == 0
    edit(stack)
    edited = content(stack)
    swapped = _swapped_database(stack) if method == "hot" else _swapped_directory(stack)
    with open(os.devnull, "rb") as nothing, TemporaryFile() as said:
        words = command("restore", "latest", "--yes", "--no-quarantine")
        process = warm.start(words, os.environ, os.getcwd(), [nothing.fileno(), said.fileno(), said.fileno()])
        wait_until(lambda: swapped() or process.poll() is not None, 120, "the restore did not come to its swap")
        wait_until(lambda: _end_while(stack, victim, swapped), 120, "the restore was not taken back")
        code = process.wait(120)
        said.seek(0)
        told = said.read().decode()

    assert code == 1, told
    assert "The former data was put back in place" in told
    assert {service: state for service, (_, state, _) in stack.states().items()} == {
        "mailarchive-app": "running",
        "postgres": "running",
    }
    stack.wait_postgres()
    stack.wait_app()
    assert content(stack) == edited
    assert run_program(command("commit", "--yes"))[0] == 0


def _swapped_database(stack: Stack) -> Callable[[], bool]:
    return lambda: bool(kept(stack))


def _swapped_directory(stack: Stack) -> Callable[[], bool]:
    return lambda: any(path.is_dir() for path in stack.directory.glob("postgres-data.before-*"))


def _end_while(stack: Stack, service: str, swapped: Callable[[], bool]) -> bool:
    """End a service's container while the restored data is in place; tell whether that is over."""
    if not swapped():
        return True
    container = stack.container(service)
    if container.status == "running":
        subprocess.run(["docker", "kill", container.id], capture_output=True, timeout=30, check=False)
    return False
