"""The test stack keeps its own promises: it behaves as the official images and the real application do."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable

import psycopg
import pytest

from tests.stack import engine
from tests.stack.imap import imap_server
from tests.stack.seed import seed_database
from tests.stack.stack import (
    Stack,
    content,
    open_stack,
    wait_until,
    writer_counts,
    wrong_hashes,
)

pytestmark = pytest.mark.docker

# PostgreSQL itself refuses quotes, dollars and backslashes in the name of the first user.
ODD_USER = "Möbius + Söhne; x=y {%}"
ODD_PASSWORD = "p;a'ss\"w$$ör d=\\{x}%😀"
ODD_DATABASE = 'Mail "Archive" – $1; x=y'


def test_odd_names_and_passwords_work_as_with_the_official_image(make_stack: Callable[..., Stack]) -> None:
    """User, password and database may hold any character, in Compose, in the server and in the connection string."""
    stack = make_stack(user=ODD_USER, password=ODD_PASSWORD, database=ODD_DATABASE, megabytes=0.5)

    assert stack.psql("SELECT current_user::text, current_database()::text") == [(ODD_USER, ODD_DATABASE)]
    assert stack.probe() == 200
    assert stack == open_stack(stack.directory)


def test_a_password_from_dotenv_and_named_volumes_work(make_stack: Callable[..., Stack]) -> None:
    """Operators keep the password in `.env` and the data in named volumes."""
    stack = make_stack(megabytes=0, named_volumes=True, password_in_dotenv=True, password="in the dotenv $x 'y'")

    assert stack.stats() == {"emails": 0, "accounts": 0, "attachments": 0}
    assert not (stack.directory / "postgres-data").exists()
    assert stack == open_stack(stack.directory)


def test_only_the_socket_and_the_loopback_are_trusted(small_stack: Stack) -> None:
    """As in the official image, other hosts must give the password, and nobody replicates over the network."""
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(small_stack.dsn(password="wrong"))

    with pytest.raises(psycopg.OperationalError, match=r"no pg_hba\.conf entry for replication"):
        psycopg.connect(small_stack.dsn(replication="true"))

    for host in ("/var/run/postgresql", "127.0.0.1"):
        done = small_stack.container("postgres").exec_run(
            ["psql", "-h", host, "-U", "mailuser", "-d", "MailArchiver", "-Atc", "SELECT 1"], user="postgres"
        )
        assert (done.exit_code, done.output) == (0, b"1\n")


def test_the_server_is_process_one_and_ends_at_once_on_stop(small_stack: Stack) -> None:
    """The stop signal is SIGINT to the server itself: a fast shutdown, clean, without Docker's ten seconds and SIGKILL."""
    container = small_stack.container("postgres")
    assert container.exec_run(["cat", "/proc/1/comm"]).output == b"postgres\n"
    assert _owner_and_mode(small_stack) == (999, 0o700)

    small_stack.compose("stop", "postgres")

    container.reload()
    assert container.attrs["State"]["ExitCode"] == 0
    small_stack.compose("start", "postgres")
    small_stack.wait_postgres()
    assert b"shut down at" in container.logs(tail=30)


def test_initialisation_files_run_once(make_stack: Callable[..., Stack], images: None) -> None:
    """Scripts of /docker-entrypoint-initdb.d and POSTGRES_INITDB_ARGS are obeyed on an empty data directory only."""
    client = engine.engine()
    container = client.containers.create(
        "postgres:17-alpine",
        name=f"{engine.new_project()}-initdb",
        environment={"POSTGRES_PASSWORD": "x", "POSTGRES_INITDB_ARGS": "--data-checksums --locale=C.UTF-8"},
    )
    try:
        files = {"1.sql": "CREATE TABLE made (a int);", "2.sh": "psql -U postgres -c 'INSERT INTO made VALUES (7)'"}
        container.put_archive("/docker-entrypoint-initdb.d", _tar(files))
        container.start()
        ask = [
            "psql",
            "-h",
            "127.0.0.1",
            "-U",
            "postgres",
            "-Atc",
            "SELECT a, current_setting('data_checksums') FROM made",
        ]
        wait_until(lambda: container.exec_run(ask).exit_code == 0, 30, "the server does not answer")
        container.restart(timeout=10)
        wait_until(lambda: container.exec_run(ask).exit_code == 0, 30, "the server does not answer")

        assert container.exec_run(ask).output == b"7|on\n"
    finally:
        container.remove(force=True, v=True)


def test_the_application_answers_only_while_its_database_does(small_stack: Stack) -> None:
    """503 without a database, 200 with one, and never from memory; the key is plain XML."""
    assert small_stack.probe("/") == 200

    small_stack.compose("stop", "postgres")
    assert small_stack.probe() == 503

    small_stack.compose("start", "postgres")
    small_stack.wait_app()
    (key,) = (small_stack.directory / "data-protection-keys").glob("key-*.xml")
    assert "<masterKey>" in key.read_text()


def test_the_application_logs_in_to_every_enabled_account(make_stack: Callable[..., Stack]) -> None:
    """The danger that staging must prevent is real here: the enabled account is logged in to, the disabled one is not."""
    with imap_server() as mail_server:
        stack = make_stack(imap=(engine.host_address(), mail_server.port), sync_delay_seconds=0)
        wait_until(mail_server.logins, 20, "nobody logged in")

        assert {("reader@example.org", 'mailbox "canary" pass\\word')} == {
            (seen.user, seen.password) for seen in mail_server.logins()
        }
        stack.compose("stop", "mailarchive-app")
        mail_server.forget()
        assert mail_server.connections() == []


def test_the_writer_keeps_its_invariant(make_stack: Callable[..., Stack]) -> None:
    """At every moment mails, attachments and contents of the writer are equally many."""
    stack = make_stack(write_per_second=200, megabytes=0.5)
    seen: set[tuple[int, int, int]] = set()

    def look() -> bool:
        seen.add(writer_counts(stack))
        return max(seen)[0] >= 50

    wait_until(look, 30, "the writer does not write")

    assert len(seen) > 1
    assert all(len(set(counts)) == 1 for counts in seen)
    stack.set_writing(0)
    assert wrong_hashes(stack) == 0


def test_seeding_is_deterministic_and_its_hashes_are_right(
    small_stack: Stack, make_stack: Callable[..., Stack]
) -> None:
    """The same number gives the same content, every stored SHA-256 is the content's, and a second call adds."""
    other = make_stack(start_application=False)
    before = content(other)

    assert content(small_stack) == before
    assert wrong_hashes(other) == 0
    assert 4e6 < sum(size for (size,) in other.psql('SELECT "Size" FROM mail_archiver."AttachmentContents"')) < 6e6
    added = seed_database(other.dsn(), megabytes=1, number=2)
    after = content(other)
    assert wrong_hashes(other) == 0
    assert {name for name in after if after[name] != before[name]} >= {
        'mail_archiver."ArchivedEmails"',
        'mail_archiver."AttachmentContents"',
        'sequence mail_archiver."ArchivedEmails_Id_seq"',
    }
    assert added.mails + 87 == other.psql('SELECT count(*) FROM mail_archiver."ArchivedEmails"')[0][0]


def test_nothing_is_left_after_destroy(make_stack: Callable[..., Stack]) -> None:
    """A destroyed stack leaves no container, network, volume or file; what a live process made is never reaped."""
    stack = make_stack(megabytes=0)
    engine.reap()
    assert stack.probe() == 200

    stack.destroy()

    assert not stack.directory.exists()
    assert stack.states() == {}
    assert [n for n in engine.engine().networks.list() if n.name.startswith(stack.project)] == []


def test_leftovers_of_a_dead_process_are_reaped(images: None) -> None:
    """A project whose process no longer lives (its number may belong to another by now) is removed."""
    name = f"{engine.PREFIX}1x1-feed00"
    engine.engine().networks.create(f"{name}_postgres", labels={engine.PROJECT_LABEL: name})

    assert name in engine.reap()
    assert engine.engine().networks.list(names=[f"{name}_postgres"]) == []


def _owner_and_mode(stack: Stack) -> tuple[int, int]:
    found = (stack.directory / "postgres-data").stat()
    return found.st_uid, found.st_mode & 0o777


def _tar(files: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text.encode()), 0o755
            tar.addfile(entry, io.BytesIO(text.encode()))
    return out.getvalue()
