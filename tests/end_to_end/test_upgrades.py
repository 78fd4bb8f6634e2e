"""PostgreSQL's major version is changed under a stack that writes: rehearsed, equal, and taken back (P1, P3, P9, P17)."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.campaigns.kills import CASES, UpgradeScene, kill_once
from tests.cli import PROGRAM, Operator
from tests.content import content_of_any_version as content
from tests.settings import write_settings
from tests.stack.images import POSTGRES
from tests.stack.stack import Stack, create_stack, wait_until, writer_counts, wrong_hashes

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

# The official image of 18 keeps its data elsewhere; there is no 18 among Debian's packages, so 17 is put into its layout.
LAYOUT_OF_18 = "mailarchiver-backup-stand-in/postgres-in-the-layout-of-18:latest"
LAYOUT = "ENV PGDATA=/var/lib/postgresql/18/docker\nVOLUME /var/lib/postgresql\n"


@pytest.fixture(scope="module")
def stack(older_postgres: str, module_state: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    made = create_stack(tmp_path_factory.mktemp("upgrades") / "stack", postgres_image=older_postgres)
    yield made
    made.destroy()


@pytest.fixture
def operator(stack: Stack, tmp_path: Path) -> Operator:
    return Operator(stack.directory, tmp_path / "backups")


def version(stack: Stack) -> str:
    return str(stack.psql("SHOW server_version")[0][0]).partition(".")[0]


def beside(stack: Stack) -> list[str]:
    return sorted(
        path.name
        for path in stack.directory.iterdir()
        if path.name.partition(".")[2][:1].isalpha() and "-2" in path.name
    )


def test_what_would_lose_something_is_refused_with_nothing_touched(stack: Stack, operator: Operator) -> None:
    """The same version, another database on the server, an image that is none: each named, before anything is stopped."""
    states, text = stack.states(), (stack.directory / "docker-compose.yml").read_text()
    stack.psql("CREATE DATABASE wiki", database="postgres")
    try:
        told = [
            operator.run("upgrade", "--to", image, "--yes").value["error"] for image in (POSTGRES, "postgres:15-alpine")
        ]
        wrong = operator.run("upgrade", "--to", "no image", "--yes")
    finally:
        stack.psql("DROP DATABASE wiki", database="postgres")

    assert "wiki" in told[0]
    assert "has 15 already" in told[1]
    assert (wrong.code, wrong.value["error"]) == (2, "'no image' is no image's name")
    assert stack.states() == states
    assert (stack.directory / "docker-compose.yml").read_text() == text


def test_fifteen_to_seventeen_under_writes_and_back(stack: Stack, operator: Operator) -> None:
    """Everything that was committed before is there under 17, with its roles, rights and settings, and again under 15."""
    file = stack.directory / "docker-compose.yml"
    text = file.read_text()
    stack.psql("ALTER SYSTEM SET log_min_duration_statement = 4321", database="postgres")
    stack.psql("ALTER ROLE mailuser CONNECTION LIMIT 77", database="postgres")
    stack.psql("CREATE ROLE reader LOGIN PASSWORD 'seldom'", database="postgres")
    stack.psql('GRANT SELECT ON mail_archiver."ArchivedEmails" TO reader')
    stack.psql(f"COMMENT ON DATABASE \"{stack.database}\" IS 'all our mail'")
    with (stack.directory / "postgres-data" / "pg_hba.conf").open("a") as access:
        access.write("# ours\n")
    stack.set_writing(20)
    wait_until(lambda: writer_counts(stack)[0] > 20, 30, "nothing is written")

    rehearsed = operator.must("upgrade", "--to", POSTGRES, "--rehearse-only")

    assert version(stack) == "15"
    assert (file.read_text(), beside(stack)) == (text, [])
    assert "+    image: postgres:17-alpine" in rehearsed["configuration"]["docker-compose.yml"]
    assert rehearsed["downtime_seconds"] > 0
    before = writer_counts(stack)[0]

    done = operator.must("upgrade", "--to", POSTGRES, "--yes")

    stack.wait_app()
    assert version(stack) == "17"
    assert file.read_text() == text.replace("postgres:15-alpine", POSTGRES)
    assert Path(done["files"][0]).read_text() == text
    mails, attachments, contents = writer_counts(stack)
    assert mails == attachments == contents >= before
    assert wrong_hashes(stack) == 0
    new = content(stack)
    assert stack.psql("SHOW log_min_duration_statement") == [("4321ms",)]
    assert stack.psql("SELECT rolconnlimit FROM pg_roles WHERE rolname = 'mailuser'") == [(77,)]
    assert stack.psql("SELECT has_table_privilege('reader', 'mail_archiver.\"ArchivedEmails\"', 'SELECT')") == [(True,)]
    assert stack.psql(
        "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()"
    ) == [("all our mail",)]
    assert (stack.directory / "postgres-data" / "pg_hba.conf").read_text().endswith("# ours\n")
    assert operator.run("upgrade", "--to", POSTGRES, "--yes").code == 1

    file.write_text(file.read_text() + "# a later thought\n")
    operator.must("rollback", "--yes")

    stack.wait_app()
    assert version(stack) == "15"
    assert content(stack) == new
    assert file.read_text() == text + "# a later thought\n"
    operator.must("commit", "--yes")
    assert beside(stack) == []
    stack.compose("up", "--detach", "--no-build")
    assert version(stack) == "15"
    file.write_text(text)


def test_what_does_not_start_or_answer_under_the_new_version_leaves_the_old(stack: Stack, tmp_path: Path) -> None:
    """An access rule that only 15 understands is found before anything is exchanged; an application that ends afterwards takes all back."""
    entry = {
        "directory": stack.directory,
        "repository": tmp_path / "backups",
        "timeouts": {"application_start_seconds": 8},
    }
    environment = {
        **os.environ,
        "MAILARCHIVER_BACKUP_SETTINGS": str(write_settings(tmp_path / "s.yaml", {"main": entry})),
    }
    command = [PROGRAM, "upgrade", "--to", POSTGRES, "--yes", "--installation", "main", "--json"]
    text, before = (stack.directory / "docker-compose.yml").read_text(), content(stack)
    rules = stack.directory / "postgres-data" / "pg_hba.conf"
    usual = rules.read_text()
    rules.write_text(f'{usual}host all "/[" all reject\n')

    refused = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=150, stdin=subprocess.DEVNULL
    )

    rules.write_text(usual)
    assert "does not start with the settings and the access rules" in json.loads(refused.stdout)["error"]

    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    ) as process:
        wait_until(lambda: _ended_while_swapped(stack, process), 150, "the upgrade was not taken back")
        told = process.communicate(timeout=60)[0]

    assert process.returncode == 1
    assert "does not answer" in told or "gets no address" in told
    stack.wait_postgres()
    stack.wait_app()
    assert (version(stack), content(stack)) == ("15", before)
    assert (stack.directory / "docker-compose.yml").read_text() == text
    assert [name for name in beside(stack) if "undone" not in name] == []
    subprocess.run([*command[:1], "commit", *command[4:]], env=environment, check=True, capture_output=True, timeout=60)


def _ended_while_swapped(stack: Stack, process: subprocess.Popen[str]) -> bool:
    """End the application whenever the new data is in place; tell whether the upgrade is over."""
    if any(stack.directory.glob("postgres-data.before-*")):
        subprocess.run(
            ["docker", "kill", stack.container("mailarchive-app").id], capture_output=True, timeout=30, check=False
        )
    return process.poll() is not None


def test_killed_at_a_random_moment(stack: Stack, tmp_path: Path) -> None:
    """The old or the new: data, server, container and compose file. The short version of `python -m tests.campaigns.kills`."""
    kill_once(UpgradeScene(stack, tmp_path), "upgrade", *CASES[0], random.Random())


def test_a_named_volume_a_variable_and_the_layout_of_18(
    older_postgres: str, images: None, tmp_path: Path, stack: Stack
) -> None:
    """The image comes from `.env`, the data lies in a volume, and the new image wants it mounted elsewhere: so it is, and back."""
    subprocess.run(
        ["docker", "build", "-q", "-t", LAYOUT_OF_18, "-"],
        input=f"FROM {POSTGRES}\n{LAYOUT}".encode(),
        check=True,
        timeout=60,
        capture_output=True,
    )
    place = tmp_path / "volumes"
    made = create_stack(place, megabytes=1, postgres_image=older_postgres, named_volumes=True)
    try:
        operator, file = Operator(place, tmp_path / "backups"), place / "docker-compose.yml"
        before = content(made)
        text = file.read_text().replace("image: postgres:15-alpine", "image: ${DATABASE_IMAGE}")
        file.write_text(text)
        (place / ".env").write_text("# which one\nDATABASE_IMAGE=postgres:15-alpine\n")
        operator.must("upgrade", "--to", LAYOUT_OF_18, "--yes")

        made.wait_app()
        assert version(made) == "17"
        assert made.psql("SHOW data_directory") == [("/var/lib/postgresql/18/docker",)]
        assert content(made) == before
        assert file.read_text() == text.replace(":/var/lib/postgresql/data", ":/var/lib/postgresql")
        assert (place / ".env").read_text() == f"# which one\nDATABASE_IMAGE={LAYOUT_OF_18}\n"

        operator.must("rollback", "--yes")
        made.wait_app()
        operator.must("commit", "--yes")
        assert (version(made), content(made)) == ("15", before)
        assert (file.read_text(), (place / ".env").read_text()) == (
            text,
            "# which one\nDATABASE_IMAGE=postgres:15-alpine\n",
        )
    finally:
        made.destroy()
