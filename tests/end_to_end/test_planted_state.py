"""What others plant at the places of kept data, or say about them, is never acted upon (P3, P22)."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.cli import Operator
from tests.content import content
from tests.stack.stack import Stack, create_stack, wait_until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]
STAMP = "20250102_030405"


@pytest.fixture(scope="module")
def stack(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Lend a small stack to all tests here."""
    made = create_stack(tmp_path_factory.mktemp("planted") / "stack")
    yield made
    made.destroy()


@pytest.fixture(scope="module")
def repository(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a repository with one backup of each kind."""
    return tmp_path_factory.mktemp("backups")


@pytest.fixture
def operator(stack: Stack, repository: Path) -> Operator:
    return Operator(stack.directory, repository)


def backup_of(operator: Operator, method: str) -> str:
    """Name a backup of this method, made where there is none yet."""
    for each in operator.must("list"):
        if each["method"] == method:
            return str(each["name"])
    return str(operator.must("backup", method)["name"])


def claim(stack: Stack, database: str, **said: Any) -> None:
    """Let the application's login say, by a comment, that a restore has put a database aside."""
    facts = {
        "of": stack.database,
        "at": "2099-01-01T00:00:00.000000+00:00",
        "backup": "planted",
        "keys": "",
        "current_keys": "",
        "comment": None,
        "undone": False,
        **said,
    }
    text = "mailarchiver-backup kept " + json.dumps(facts)
    with psycopg.connect(stack.dsn("postgres"), autocommit=True) as connection:
        connection.execute(f"COMMENT ON DATABASE \"{database}\" IS '{text}'")


def names(stack: Stack) -> set[str]:
    return {str(name) for (name,) in stack.psql("SELECT datname FROM pg_database", database="postgres")}


def both_refuse(operator: Operator, why: str) -> None:
    """See `rollback` and `commit` refuse what is there, and say why."""
    for command in ("rollback", "commit"):
        answer = operator.run(command, "--yes")
        assert answer.code == 1
        assert why in answer.value["error"]


def test_a_comment_names_no_directory_of_the_host(stack: Stack, operator: Operator, tmp_path: Path) -> None:
    """However well the database is named, `commit` and `rollback` leave the directory alone, and say so."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "letter").write_text("dear")
    planted = f"{stack.database}_before_{STAMP}"
    stack.psql(f'CREATE DATABASE "{planted}"', database="postgres")
    try:
        for keys, current in (
            (str(precious), str(stack.directory / "elsewhere")),
            (str(stack.directory), str(precious)),
        ):
            claim(stack, planted, keys=keys, current_keys=current)
            for command in ("commit", "rollback"):
                answer = operator.run(command, "--yes")

                assert answer.code == 1
                assert planted in answer.value["error"]
                assert keys in answer.value["error"]
                assert answer.value["hint"]
        assert (precious / "letter").read_text() == "dear"
        assert planted in names(stack)
        stack.wait_app()

        # What is truly kept is not held up by it.
        operator.must("restore", backup_of(operator, "hot"), "--yes", "--no-quarantine")
        answer = operator.run("commit", "--yes")
        assert answer.code == 0
        assert planted not in answer.value["dropped"]
        assert f"Left alone: the comment of database {planted}" in answer.stderr
        assert planted in names(stack)
        assert (precious / "letter").read_text() == "dear"
    finally:
        stack.psql(f'DROP DATABASE "{planted}"', database="postgres")


def test_a_comment_makes_no_database_a_kept_one(stack: Stack, operator: Operator) -> None:
    """Neither another database of the server nor the current one is dropped or renamed because it is said to be kept."""
    stack.psql("CREATE DATABASE wiki", database="postgres")
    before = content(stack)
    try:
        for database in ("wiki", stack.database):
            claim(stack, database)
            for command in ("commit", "rollback"):
                answer = operator.run(command, "--yes")
                assert answer.code == 1
                assert f"comment of database {database}" in answer.value["error"]
        assert {"wiki", stack.database} <= names(stack)
        assert content(stack) == before
    finally:
        stack.psql("DROP DATABASE wiki", database="postgres")
        stack.psql(f'COMMENT ON DATABASE "{stack.database}" IS NULL', database="postgres")


def test_another_database_of_the_same_name_is_left_alone(stack: Stack, operator: Operator) -> None:
    """A kept database is known by its number."""
    former = operator.must("restore", backup_of(operator, "hot"), "--yes", "--no-quarantine")["rollback"]
    stack.psql(f'ALTER DATABASE "{former}" RENAME TO moved', database="postgres")
    stack.psql(f'CREATE DATABASE "{former}"', database="postgres")
    states = stack.states()

    for command in ("commit", "rollback"):
        answer = operator.run(command, "--yes")
        assert answer.code == 1
        assert f"database {former} is not the one that a restore put aside" in answer.value["error"]

    assert {former, "moved"} <= names(stack)
    assert stack.states() == states
    stack.psql(f'DROP DATABASE "{former}"', database="postgres")
    assert "is called moved now" in operator.run("commit", "--yes").value["error"]
    stack.psql(f'ALTER DATABASE moved RENAME TO "{former}"', database="postgres")
    assert operator.must("commit", "--yes")["dropped"] == [former]


@pytest.mark.parametrize("method", ["hot", "online"])
def test_a_link_or_another_directory_is_not_swapped_in(
    stack: Stack, operator: Operator, tmp_path: Path, method: str
) -> None:
    """Whatever bears the name of what was put aside: `rollback` and `commit` refuse it, and the stack runs on its data."""
    operator.must("restore", backup_of(operator, method), "--yes", "--no-quarantine")
    stack.wait_app()
    now, states = content(stack), stack.states()
    asides = [path for path in stack.directory.iterdir() if ".before-" in path.name]
    assert len(asides) == (2 if method == "online" else 1)

    for aside in asides:
        moved = aside.with_name("moved")
        aside.rename(moved)
        for plant in ("link", "copy"):
            if plant == "link":
                aside.symlink_to(tmp_path)
            else:
                shutil.copytree(moved, aside)
            for command in ("rollback", "commit"):
                answer = operator.run(command, "--yes")
                assert answer.code == 1, command
                assert str(aside) in answer.value["error"]
                assert answer.value["hint"]
            assert aside.is_symlink() or aside.is_dir()
            assert stack.states() == states
            aside.unlink() if plant == "link" else shutil.rmtree(aside)
        moved.rename(aside)
        owner = aside.stat().st_uid
        os.chown(aside, 12345, -1)
        assert "belongs to user 12345" in operator.run("rollback", "--yes").value["error"]
        os.chown(aside, owner, -1)

    assert tmp_path.is_dir()
    assert content(stack) == now
    operator.must("rollback", "--yes")
    stack.wait_app()
    assert len(operator.must("commit", "--yes")["dropped"]) == 1
    assert [path.name for path in stack.directory.iterdir() if ".before-" in path.name or ".undone-" in path.name] == []


def test_what_was_kept_before_there_was_a_list_is_still_kept(
    stack: Stack, operator: Operator, state_directory: Path
) -> None:
    """Where a comment or a file of before says only what is computed from the installation, `rollback` and `commit` take it."""
    stack.psql('UPDATE mail_archiver."ArchivedEmails" SET "Subject" = "Subject" || \' kept\'')
    before = content(stack)
    operator.must("restore", backup_of(operator, "hot"), "--yes", "--no-quarantine")
    for path in (state_directory / "kept").iterdir():
        path.unlink()

    operator.must("rollback", "--yes")
    stack.wait_app()
    assert content(stack) == before
    operator.must("commit", "--yes")
    # A comment says nothing of directories: the keys of before are for the operator to move or remove.
    (keys,) = stack.directory.glob("data-protection-keys.before-*")
    shutil.rmtree(keys)

    operator.must("restore", backup_of(operator, "online"), "--yes", "--no-quarantine")
    (entry,) = (state_directory / "kept").glob("*-directories-*")
    said = json.loads(entry.read_text())
    entry.unlink()
    places = [stack.directory / name for name in ("postgres-data", "data-protection-keys")]
    stamp = said["mark"]["stamp"]
    record = stack.directory / f"postgres-data.before-{stamp}.kept.json"
    exchanges = [
        {"current": str(place), "incoming": f"{place}.restored-{stamp}", "aside": f"{place}.before-{stamp}"}
        for place in places
    ]
    record.write_text(json.dumps({"at": said["at"], "backup": said["backup"], "exchanges": exchanges, "undone": False}))
    record.chmod(0o600)

    operator.must("rollback", "--yes")
    stack.wait_app()
    assert content(stack) == before
    assert not record.exists()
    operator.must("commit", "--yes")


def test_a_comment_alone_is_believed_once_of_the_owners_database_and_for_no_path(
    stack: Stack, operator: Operator, state_directory: Path
) -> None:
    """Everything said is as a restore would have said it, and what lies at the computed places is somebody else's."""
    planted = f"{stack.database}_before_{STAMP}"
    keys = stack.directory / "data-protection-keys"
    copied = keys.with_name(f"{keys.name}.before-{STAMP}")
    copied.mkdir()
    (copied / "letter").write_text("dear")
    before = sorted(path.name for path in keys.iterdir())
    said = {"keys": str(copied), "current_keys": str(keys)}
    stack.psql("CREATE ROLE stranger CREATEDB", database="postgres")
    stack.psql(f'CREATE DATABASE "{planted}" OWNER stranger', database="postgres")
    try:
        # Another role's database is neither brought into production nor dropped.
        claim(stack, planted, **said)
        both_refuse(operator, "belongs to stranger, not to mailuser")
        assert planted in names(stack)

        # The owner's is, as before there was a list; but nothing on the disk is touched because of it.
        stack.psql(f'ALTER DATABASE "{planted}" OWNER TO mailuser', database="postgres")
        answer = operator.run("commit", "--yes")
        assert answer.value["dropped"] == [planted]
        assert f"{copied} may be its keys" in answer.stderr
        assert (copied / "letter").read_text() == "dear"
        assert sorted(path.name for path in keys.iterdir()) == before

        # From then on the list alone says what is kept, also while it is empty.
        stack.psql(f'CREATE DATABASE "{planted}"', database="postgres")
        claim(stack, planted, **said)
        both_refuse(operator, "but the list of what is kept does not")
        assert planted in names(stack)
        assert (copied / "letter").read_text() == "dear"
    finally:
        stack.psql(f'DROP DATABASE IF EXISTS "{planted}"', database="postgres")
        stack.psql("DROP ROLE stranger", database="postgres")
        shutil.rmtree(copied)


AIMED = """
import os, signal, sys
import tasks.restore.{module} as module
def killed(function, when):
    def call(*args, **options):
        if when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        function(*args, **options)
        os.kill(os.getpid(), signal.SIGKILL)
    return call
module.{name} = killed(module.{name}, "{when}")
from deployments.cli import main
sys.argv[0] = "mailarchiver-backup"
main()
"""


@pytest.mark.parametrize(
    ("method", "module", "name", "when"),
    [
        pytest.param("hot", "database_swap", "write_kept", "after", marks=pytest.mark.long),
        ("hot", "database_swap", "_swap_databases", "after"),
        pytest.param("hot", "database_swap", "swap_keys", "after", marks=pytest.mark.long),
        pytest.param("online", "directory_swap", "write_kept", "after", marks=pytest.mark.long),
        ("online", "directory_swap", "exchange", "after"),
    ],
)
def test_what_is_kept_survives_a_kill_between_the_swap_and_the_list(
    stack: Stack, operator: Operator, state_directory: Path, method: str, module: str, name: str, when: str
) -> None:
    """After `recover` the list holds what was put aside, to be brought back and dropped; or nothing had begun."""
    backup = backup_of(operator, method)
    stack.psql('UPDATE mail_archiver."ArchivedEmails" SET "Subject" = "Subject" || \' edited\' WHERE "Id" % 3 = 0')
    edited = content(stack)
    code = AIMED.format(module=module, name=name, when=when)
    done = subprocess.run(
        [sys.executable, "-c", code, *operator.command("restore", backup, "--yes", "--no-quarantine")[1:]],
        capture_output=True, stdin=subprocess.DEVNULL, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]

    wait_until(lambda: operator.run("recover").code == 0, 60, "what the dead run had left is not settled")
    assert list((state_directory / "journals").iterdir()) == []
    stack.wait_app()

    if content(stack) == edited:
        assert operator.must("commit", "--yes")["dropped"] == []
        return
    operator.must("rollback", "--yes")
    stack.wait_app()
    assert content(stack) == edited
    assert len(operator.must("commit", "--yes")["dropped"]) == 1
    assert [path.name for path in stack.directory.iterdir() if ".before-" in path.name or ".undone-" in path.name] == []
    assert [each for each in names(stack) if "_before_" in each or "_undone_" in each] == []


def test_a_state_directory_of_others_is_refused(operator: Operator, state_directory: Path) -> None:
    """Anyone who could write there could tell what root is to rename and remove."""
    (state_directory / "kept").mkdir(mode=0o700)
    for place in (state_directory, state_directory / "kept"):
        for mode, owner in ((0o770, 0), (0o707, 0), (0o700, 12345)):
            place.chmod(mode)
            os.chown(place, owner, -1)
            answer = operator.run("commit", "--yes")
            assert answer.code == 1
            assert str(place) in answer.value["error"]
            assert answer.value["hint"]
        place.chmod(0o700)
        os.chown(place, 0, -1)
    operator.must("commit", "--yes")
