"""Seed, back up, damage, restore, find the same mail; then take it back. Every method, through the command line."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tasks.adapters.archive.repository_marker import MARKER_NAME
from tests.cli import Operator
from tests.content import content, keys
from tests.end_to_end.test_foreign_dumps import archive_of, dumped
from tests.stack.stack import Stack, create_stack, wait_until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def stack(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Lend a stack with everything PostgreSQL can hold in it."""
    made = create_stack(tmp_path_factory.mktemp("round trip") / "stack")
    yield made
    made.destroy()


@pytest.fixture
def operator(stack: Stack, tmp_path: Path) -> Operator:
    return Operator(stack.directory, tmp_path / "backups")


def damage(stack: Stack) -> None:
    """Do what nobody wants to have done."""
    stack.psql('DELETE FROM mail_archiver."EmailAttachments"')
    stack.psql('UPDATE mail_archiver."ArchivedEmails" SET "Subject" = \'gone\' WHERE "Id" % 2 = 0')
    (stack.directory / "data-protection-keys" / "key-evil.xml").write_text("<key/>")


@pytest.mark.parametrize(
    "method",
    [
        ("hot", "--format", "guide"),
        ("hot", "--format", "fast"),
        ("complete",),
        pytest.param(("complete", "--way", "copy first"), marks=pytest.mark.long),
        ("online",),
    ],
    ids=" ".join,
)
def test_what_was_backed_up_comes_back_and_goes_away_again(
    stack: Stack, operator: Operator, method: tuple[str, ...]
) -> None:
    """P3, P5, P17, and the contract of the command line's JSON."""
    before, keys_before = content(stack), keys(stack)

    made = operator.must("backup", *method)
    assert set(made) == {
        "archive", "name", "method", "format", "bytes", "sha256", "seconds", "downtime_seconds", "warnings",
        "parents", "why_full",
    }  # fmt: skip
    assert made["method"] == method[0]
    assert (made["downtime_seconds"] > 0) is (method[0] == "complete")
    assert made["bytes"] == Path(made["archive"]).stat().st_size
    assert {path.name for path in operator.repository.iterdir()} == {
        Path(made["archive"]).name,
        f"{made['name']}.manifest.json",
        MARKER_NAME,
    }
    for path in operator.repository.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(operator.repository.stat().st_mode) == 0o700

    verdict = operator.must("verify", "latest")
    assert verdict["verdict"] == "verified"
    assert verdict["differences"] == []
    assert (
        min(verdict["rows"], verdict["tables"], verdict["attachments"], verdict["restore_seconds"], verdict["seconds"])
        > 0
    )
    (listed,) = operator.must("list")
    assert (listed["name"], listed["method"], listed["verified"]) == (made["name"], method[0], True)

    damage(stack)
    damaged, keys_damaged = content(stack), keys(stack)
    assert damaged != before

    restored = operator.must("restore", made["name"], "--yes", "--no-quarantine")
    assert restored["rollback"]
    assert restored["quarantined"] is False
    assert restored["downtime_seconds"] > 0
    stack.wait_app()
    assert content(stack) == before
    assert keys(stack) == keys_before

    operator.must("rollback", "--yes")
    stack.wait_app()
    assert content(stack) == damaged
    assert keys(stack) == keys_damaged

    operator.must("restore", made["archive"], "--yes", "--quarantine")
    stack.wait_app()
    assert content(stack, ignore_accounts=True).keys() == before.keys()
    assert stack.psql('SELECT count(*) FROM mail_archiver."MailAccounts" WHERE "IsEnabled"') == [(0,)]
    assert operator.must("lift-quarantine")["lifted"] > 0
    assert content(stack) == before

    assert len(operator.must("commit", "--yes")["dropped"]) == 2
    assert operator.run("rollback", "--yes").code == 1
    assert [path.name for path in stack.directory.iterdir() if ".before-" in path.name or ".undone-" in path.name] == []


def test_exit_codes_and_refusals(stack: Stack, operator: Operator, tmp_path: Path) -> None:
    """0 proven, 1 failed, 2 wrong usage, never a question without end."""
    assert operator.run("verify", "latest").code == 2
    operator.must("backup", "hot")
    assert operator.run("restore", "latest").code == 2  # nobody is there to confirm
    assert operator.run("restore", "mailarchiver-backup-19990101-000000", "--yes").code == 2
    assert operator.run("backup", "hot", "--format", "zip").code == 2
    nowhere = Operator(tmp_path / "nowhere", operator.repository)
    answer = nowhere.run("backup", "hot")
    assert answer.code == 1
    assert "Traceback" not in answer.stderr
    assert "HINT" in answer.stderr


def public_key_of(archive: str) -> str:
    """Read the key that signed a backup from the record beside it."""
    record = json.loads(Path(archive.partition(".tar")[0] + ".manifest.json").read_text())
    return str(record["signature"]["key"])


def test_a_fresh_host_takes_no_strangers_archive_without_a_word(
    stack: Stack, operator: Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P22: what no key of this host, and none that is given, has made is refused before anything of it is written."""
    made = operator.must("backup", "hot")["archive"]
    guide = str(archive_of(stack, tmp_path, dumped(stack, "pg_dump")))
    key = public_key_of(made)
    monkeypatch.setenv("MAILARCHIVER_BACKUP_STATE", str(tmp_path / "another host"))
    place, taken = tmp_path / "fresh", tmp_path / "taken"
    taken.mkdir()
    (taken / "file").touch()

    for archive in (made, guide):
        refused = operator.run("restore", archive, "--into", str(place))
        assert refused.code == 1
        assert "not known as this installation's own" in refused.value["error"]
        assert "--trusted-key" in refused.value["hint"]
        assert operator.run("restore", archive, "--into", str(place), "--foreign", "--no-quarantine").code == 2
    other = f"{key[:-2]}{'A' if key[-2] != 'A' else 'B'}{key[-1]}"
    for given in (("--trusted-key", other), ("--trusted-key", "ed25519:x"), ("--trusted-key", "\0")):
        assert operator.run("restore", made, "--into", str(place), *given).code in (1, 2)
    assert not place.exists()
    for words in (("--trusted-key", key), ("--foreign",)):
        assert "not known" not in operator.run("restore", made, "--into", str(taken), *words).value["error"]


@pytest.mark.parametrize(
    ("method", "known"),
    [
        ("online", "here"),
        # In each run by the installed program (test_readme.py) and on a bare machine (test_recover_from.py).
        pytest.param("hot", "by key", marks=pytest.mark.long),
        pytest.param("hot", "foreign", marks=pytest.mark.long),
    ],
)
def test_a_fresh_host_needs_only_the_archive(
    stack: Stack, operator: Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, known: str
) -> None:
    """P19: the directory, the configuration, the database and the keys come from the archive."""
    before = content(stack)
    made = operator.must("backup", method)
    words = ["--no-quarantine"]
    if known != "here":
        words = (
            ["--foreign", "--with-code"]
            if known == "foreign"
            else [*words, "--trusted-key", public_key_of(made["archive"])]
        )
        monkeypatch.setenv("MAILARCHIVER_BACKUP_STATE", str(tmp_path / "another host"))
    place = tmp_path / f"fresh {method}"
    stack.compose("stop")  # one machine has each port once
    project = f"{stack.project}-fresh-{method}"
    fresh = Stack(place, project, stack.app_url)
    try:
        operator.must("restore", made["archive"], "--into", str(place), "--project", project, *words)
        fresh.wait_app()
        if known == "foreign":
            Operator(place, operator.repository).must("lift-quarantine", "--project", project)
        assert content(fresh) == before
        assert keys(fresh) == keys(stack)
    finally:
        fresh.destroy()
        stack.compose("start")
        stack.wait_app()


def test_configuration_is_shown_and_taken_only_on_request(stack: Stack, operator: Operator) -> None:
    """P11: a compose file from an archive is never activated by itself; secrets are not shown."""
    operator.must("backup", "hot")
    file = stack.directory / "docker-compose.yml"
    original = file.read_text()
    file.write_text(original + "# edited: POSTGRES_PASSWORD=hunter2\n")
    try:
        shown = operator.must("restore", "latest", "--yes")
        assert "docker-compose.yml" in shown["configuration"]
        assert "hunter2" in file.read_text()

        operator.must("restore", "latest", "--yes", "--restore-config")
        assert file.read_text() == original
        assert any("hunter2" in path.read_text() for path in stack.directory.glob("docker-compose.yml.before-*"))
    finally:
        file.write_text(original)
        operator.must("commit", "--yes")


def test_twenty_at_once(stack: Stack, operator: Operator) -> None:
    """P8: one runs, nineteen leave with exit code 75, and the lock survives the losers.

    A table's lock holds the one dump still until the others have come and gone.
    """
    with psycopg.connect(stack.dsn()) as holder:
        holder.execute('LOCK TABLE mail_archiver."Users" IN ACCESS EXCLUSIVE MODE')
        running = [operator.start("backup", "hot") for _ in range(20)]
        wait_until(lambda: sum(each.poll() is not None for each in running) >= 19, 100, "nineteen did not leave")
        codes = [each.poll() for each in running]
        busy = operator.run("backup", "hot")
    last = next(each for each in running if each.returncode is None)

    assert codes.count(75) == 19
    assert codes.count(None) == 1
    assert busy.code == 75
    assert "hot backup" in busy.stderr  # who holds it
    assert last.wait(120) == 0
    assert len(operator.must("list")) == 1
    operator.must("backup", "hot")
