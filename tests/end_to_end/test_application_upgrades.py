"""The application's version is changed under a stack that writes: proven, rehearsed, and taken back with its database (P1, P3, P5, P9)."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.campaigns.kills import CASES, ApplicationUpgradeScene, kill_once, versioned_stack
from tests.cli import PROGRAM, Answer, Operator, run_program
from tests.content import content
from tests.settings import write_settings
from tests.stack.images import VERSIONS
from tests.stack.imap import imap_server
from tests.stack.stack import APPLICATION_SERVICE, Stack, wait_until, writer_counts

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

GATEWAY = "172.17.0.1"
OLD, NEW = f"{VERSIONS}:2608.1", f"{VERSIONS}:2609.1"
OLD_SCHEMA, NEW_SCHEMA = "20260818120000_MigrateV2608_1", "20260929120000_MigrateV2609_1_Notes"


@pytest.fixture(scope="module")
def stack(images: None, module_state: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    made = versioned_stack(tmp_path_factory.mktemp("versions") / "stack")
    yield made
    made.destroy()


@pytest.fixture
def operator(stack: Stack, tmp_path: Path) -> Operator:
    return Operator(stack.directory, tmp_path / "backups")


def image(stack: Stack) -> str:
    return str(stack.container(APPLICATION_SERVICE).attrs["Config"]["Image"])


def databases(stack: Stack) -> list[str]:
    rows = stack.psql(
        "SELECT datname FROM pg_database WHERE datname LIKE 'MailArchiver%' ORDER BY 1", database="postgres"
    )
    return [name for (name,) in rows]


def head(stack: Stack) -> str:
    return str(stack.psql('SELECT max("MigrationId") FROM public."__EFMigrationsHistory"')[0][0])


def test_under_writes_and_back(stack: Stack, operator: Operator) -> None:
    """Every committed mail is there under the new version; a rollback goes back to the moment of the upgrade, and what came since is kept twice.

    The new version logs in to mailboxes at once: while it is rehearsed, none hears of it.
    """
    file = stack.directory / "docker-compose.yml"
    text = file.read_text()
    stack.psql(f"ALTER DATABASE \"{stack.database}\" SET work_mem = '7MB'")
    stack.psql(f"COMMENT ON DATABASE \"{stack.database}\" IS 'all our mail'")
    with imap_server() as mailbox:
        server = f'"ImapServer" = \'{GATEWAY}\', "ImapPort" = {mailbox.port}'
        stack.psql(f'UPDATE mail_archiver."MailAccounts" SET {server} WHERE "IsEnabled"')
        stack.set_writing(20)
        wait_until(lambda: writer_counts(stack)[0] > 20, 30, "nothing is written")

        rehearsed = operator.must("upgrade", "--application", NEW, "--rehearse-only")

        assert mailbox.connections() == []
        assert (image(stack), head(stack), file.read_text(), len(databases(stack))) == (OLD, OLD_SCHEMA, text, 1)
        before = writer_counts(stack)[0]

        done = operator.must("upgrade", "--application", NEW, "--yes")

        wait_until(mailbox.connections, 20, "nobody came when it was allowed: the empty list before proves nothing")
    assert f"+    image: {NEW}" in rehearsed["configuration"]["docker-compose.yml"]
    assert rehearsed["schema"] == [OLD_SCHEMA, NEW_SCHEMA]
    assert (image(stack), head(stack), file.read_text()) == (NEW, NEW_SCHEMA, text.replace(OLD, NEW))
    assert Path(done["files"][0]).read_text() == text
    assert done["backup"] == rehearsed["rehearsed"]
    assert [(each["name"], each["verified"]) for each in operator.must("list")] == [(done["backup"], True)]
    mails, attachments, contents = writer_counts(stack)
    assert mails == attachments == contents >= before
    kept, new = content(stack, done["rollback"]), content(stack)
    migrated = {'mail_archiver."ArchivedEmails"', 'public."__EFMigrationsHistory"', 'mail_archiver."MailAccounts"'}
    assert {name for name, value in kept.items() if new[name] != value} <= migrated
    other = operator.run("upgrade", "--application", f"{VERSIONS}:2609.2-fails", "--yes")
    assert other.value["error"].startswith("what an earlier")
    assert "older than 2609.1" in operator.run("upgrade", "--application", OLD, "--yes").value["error"]

    stack.set_writing(20)
    wait_until(lambda: writer_counts(stack)[0] > mails + 5, 30, "nothing is written")
    back = operator.must("rollback", "--yes")

    stack.wait_app()
    assert (image(stack), head(stack), file.read_text()) == (OLD, OLD_SCHEMA, text)
    assert content(stack) == kept
    assert stack.psql("SHOW work_mem") == [("7MB",)]
    comment = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()"
    assert stack.psql(comment) == [("all our mail",)]
    gone = writer_counts(stack, database=back["kept"])[0]
    assert gone > mails + 5
    assert f"{done['mails']:,} mails before the upgrade, {done['mails'] + gone - mails:,} now" in back["notes"][0]
    assert operator.must("check", back["last_dump"])
    operator.must("commit", "--yes")
    assert databases(stack) == [stack.database]
    assert [each.name for each in stack.directory.iterdir() if "-2" in each.name] == []


@pytest.mark.parametrize(
    ("tag", "words"),
    [
        ("2609.2-fails", "tells of a failed migration: An error occurred while migrating the database"),
        pytest.param("2609.2-loses-mail", "rows in ArchivedEmails", marks=pytest.mark.long),
        pytest.param("2609.2-never-listens", "does not answer", marks=pytest.mark.long),
    ],
)
def test_what_fails_on_staging_leaves_production_alone(stack: Stack, tmp_path: Path, tag: str, words: str) -> None:
    """The container and the compose file of production are the very same, no database stands beside, and the backup is there, proven."""
    operator = patient(stack, tmp_path)
    states, text, before = stack.states(), (stack.directory / "docker-compose.yml").read_text(), content(stack)

    refused = operator("upgrade", "--application", f"{VERSIONS}:{tag}", "--yes")

    assert refused.code == 1
    assert refused.value["error"].startswith("on staging, ")
    assert words in refused.value["error"]
    assert (stack.states(), content(stack), databases(stack)) == (states, before, [stack.database])
    assert (stack.directory / "docker-compose.yml").read_text() == text
    assert [each["verified"] for each in operator("list").value] == [True]


def test_what_fails_in_production_alone_is_taken_back(stack: Stack, tmp_path: Path) -> None:
    """Half of its migrations have run when it fails: image, file and database are the old ones again, by themselves. The tag is in `.env`."""
    operator = patient(stack, tmp_path)
    file, settings = stack.directory / "docker-compose.yml", stack.directory / ".env"
    usual, before = file.read_text(), content(stack)
    text = usual.replace(OLD, f"{VERSIONS}:${{TAG}}")
    file.write_text(text)
    settings.write_text("TAG=2608.1 # ours\n")

    failed = operator("upgrade", "--application", f"{VERSIONS}:2609.2-fails-in-production", "--yes")

    assert failed.code == 1
    assert "its migrations stop at 20260929120000_MigrateV2609_1_Notes" in failed.value["error"]
    assert any("put back in place" in note for note in failed.value["notes"])
    stack.wait_app()
    assert (image(stack), head(stack), content(stack)) == (OLD, OLD_SCHEMA, before)
    assert (file.read_text(), settings.read_text()) == (text, "TAG=2608.1 # ours\n")
    assert len(databases(stack)) == 2
    (kept,) = stack.directory.glob(".env.undone-*")
    assert kept.read_text() == "TAG=2609.2-fails-in-production # ours\n"
    operator("commit", "--yes")
    assert (databases(stack), list(stack.directory.glob(".env.*"))) == ([stack.database], [])
    file.write_text(usual)
    settings.unlink()


@pytest.mark.long
def test_a_name_that_stands_for_another_image_by_now(stack: Stack, operator: Operator) -> None:
    """`latest` was pulled by hand meanwhile: the compose file stays as it is, and the name stands for the former image after a rollback."""
    file, name = stack.directory / "docker-compose.yml", f"{VERSIONS}:latest"
    text = file.read_text()
    subprocess.run(["docker", "tag", OLD, name], check=True, timeout=30)
    file.write_text(text.replace(OLD, name))
    stack.compose("up", "--detach", "--no-build")
    stack.wait_app()
    subprocess.run(["docker", "tag", NEW, name], check=True, timeout=30)
    changed, before = file.read_text(), content(stack)

    done = operator.must("upgrade", "--application", name, "--yes")

    stack.wait_app()
    assert (image(stack), head(stack), done["files"], file.read_text()) == (name, NEW_SCHEMA, [], changed)
    operator.must("rollback", "--yes")
    stack.wait_app()
    assert (head(stack), content(stack), file.read_text()) == (OLD_SCHEMA, before, changed)
    stack.compose("up", "--detach", "--no-build")
    assert image_id(name) == image_id(OLD) == stack.container(APPLICATION_SERVICE).attrs["Image"]
    operator.must("commit", "--yes")
    file.write_text(text)
    stack.compose("up", "--detach", "--no-build")
    stack.wait_app()


def test_an_image_that_is_built_here_or_runs_already_is_refused(stack: Stack, operator: Operator) -> None:
    """Each with the reason and before anything is made; so are a name that is none, and two upgrades at once."""
    file = stack.directory / "docker-compose.yml"
    text = file.read_text()
    same = operator.run("upgrade", "--application", OLD, "--yes")
    both = operator.run("upgrade", "--application", NEW, "--to", "postgres:18", "--yes")
    wrong = operator.run("upgrade", "--application", "no image", "--yes")
    absent = operator.run("upgrade", "--application", f"{VERSIONS}:2699.1", "--yes")
    file.write_text(text.replace(f"    image: {OLD}", f"    build: .\n    image: {OLD}"))
    try:
        built = operator.run("upgrade", "--application", NEW, "--yes")
    finally:
        file.write_text(text)

    assert "is the image that runs already" in same.value["error"]
    assert (both.code, wrong.code) == (2, 2)
    assert "cannot pull" in absent.value["error"]
    assert "(`build:`)" in built.value["error"]
    assert not operator.repository.exists()


def test_killed_at_a_random_moment(stack: Stack, tmp_path: Path) -> None:
    """The old or the new: database, container and compose file. The short version of `python -m tests.campaigns.kills`."""
    kill_once(ApplicationUpgradeScene(stack, tmp_path), "application upgrade", *CASES[0], random.Random())


def patient(stack: Stack, place: Path) -> Callable[..., Answer]:
    """Give who runs the program with settings that do not wait long for an application."""
    entry = {
        "directory": stack.directory,
        "repository": place / "backups",
        "timeouts": {"application_start_seconds": 6},
    }
    environment = {"MAILARCHIVER_BACKUP_SETTINGS": str(write_settings(place / "s.yaml", {"main": entry}))}

    def run(*words: str) -> Answer:
        code, stdout, stderr = run_program([PROGRAM, *words, "--installation", "main", "--json"], **environment)
        return Answer(code, json.loads(stdout) if stdout.strip() else None, stderr)

    return run


def image_id(name: str) -> str:
    done = subprocess.run(
        ["docker", "image", "inspect", "--format", "{{.Id}}", name],
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    )
    return done.stdout.strip()
