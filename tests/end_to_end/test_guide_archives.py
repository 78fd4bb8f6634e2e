"""Archives of ours restored by the guide's own commands, and archives by the guide's commands restored by us."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli import Operator
from tests.content import content
from tests.stack.stack import Stack

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

METHOD_1 = """
docker compose down
mkdir -p backups
BACKUP_DIR="backups/mailarchiver-backup-$(date +%Y%m%d-%H%M%S)"
mkdir -p "$BACKUP_DIR"
cp -r postgres-data "$BACKUP_DIR/"
cp -r data-protection-keys "$BACKUP_DIR/"
cp docker-compose.yml "$BACKUP_DIR/"
tar -czf "$BACKUP_DIR.tar.gz" -C backups "$(basename $BACKUP_DIR)"
rm -rf "$BACKUP_DIR"
docker compose up -d
"""
METHOD_2 = """
mkdir -p backups
BACKUP_DIR="backups/mailarchiver-backup-$(date +%Y%m%d-%H%M%S)"
mkdir -p "$BACKUP_DIR"
docker compose exec -T postgres pg_dump -U mailuser -d MailArchiver > "$BACKUP_DIR/database.sql"
cp -r data-protection-keys "$BACKUP_DIR/"
cp docker-compose.yml "$BACKUP_DIR/"
tar -czf "$BACKUP_DIR.tar.gz" -C backups "$(basename $BACKUP_DIR)"
rm -rf "$BACKUP_DIR"
"""
FULL_RESTORE = """
docker compose down
mkdir -p backups
tar -xzf "$BACKUP_FILE" -C backups/
BACKUP_DIR=$(tar -tzf "$BACKUP_FILE" | head -1 | cut -f1 -d"/")
BACKUP_PATH="backups/$BACKUP_DIR"
rm -rf postgres-data
rm -rf data-protection-keys
cp -r "$BACKUP_PATH/postgres-data" ./
cp -r "$BACKUP_PATH/data-protection-keys" ./
docker compose up -d
"""
DUMP_RESTORE = """
mkdir -p backups
tar -xzf "$BACKUP_FILE" -C backups/
BACKUP_DIR=$(tar -tzf "$BACKUP_FILE" | head -1 | cut -f1 -d"/")
BACKUP_PATH="backups/$BACKUP_DIR"
docker compose down
rm -rf data-protection-keys
cp -r "$BACKUP_PATH/data-protection-keys" ./
docker compose up -d postgres
until docker compose exec -T postgres pg_isready -h 127.0.0.1 -U mailuser -d postgres; do sleep 0.2; done
docker compose exec -T postgres psql -U mailuser -d postgres -c 'DROP DATABASE IF EXISTS "MailArchiver";'
docker compose exec -T postgres psql -U mailuser -d postgres -c 'CREATE DATABASE "MailArchiver";'
docker compose exec -T postgres psql -U mailuser -d MailArchiver < "$BACKUP_PATH/database.sql"
docker compose up -d
rm -rf "$BACKUP_PATH"
"""


@pytest.fixture
def stack(small_stack: Stack) -> Iterator[Stack]:
    """Lend the stack with no backup in it; whatever was restored is what the next one finds."""
    before = content(small_stack)
    yield small_stack
    shutil.rmtree(small_stack.directory / "backups")
    assert content(small_stack) == before


def guide(stack: Stack, commands: str, backup: str = "") -> None:
    """Run the guide's commands in the stack's directory, as they stand there."""
    done = subprocess.run(
        ["bash", "-e", "-c", commands],
        cwd=stack.directory,
        env={**os.environ, "BACKUP_FILE": backup},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    stack.wait_postgres()
    stack.wait_app()


@pytest.mark.parametrize("method", ["hot", "complete", "online"])
def test_ours_restores_by_the_guides_commands(stack: Stack, method: str) -> None:
    """P19: no archive is only readable with this program."""
    operator = Operator(stack.directory, stack.directory / "backups")
    before = content(stack)
    made = operator.must("backup", method)
    stack.psql('DELETE FROM mail_archiver."EmailAttachments"')

    guide(stack, DUMP_RESTORE if method == "hot" else FULL_RESTORE, made["archive"])

    assert content(stack) == before


@pytest.mark.parametrize("commands", [METHOD_1, METHOD_2], ids=["method 1", "method 2"])
def test_the_guides_archives_restore_with_ours(stack: Stack, commands: str) -> None:
    """A legacy archive is checked as far as can be, says so, and restores."""
    operator = Operator(stack.directory, stack.directory / "backups")
    before = content(stack)
    guide(stack, commands)
    (listed,) = operator.must("list")
    assert listed["method"] == "legacy"
    stack.psql('DELETE FROM mail_archiver."EmailAttachments"')

    verdict = operator.must("verify", listed["name"])
    assert verdict["verdict"] == "legacy"
    assert verdict["rows"] > 0

    words = ("--foreign", "--with-code") if commands == METHOD_1 else ("--foreign",)
    assert operator.must("restore", listed["name"], "--yes", *words)["quarantined"]
    stack.wait_app()
    operator.must("lift-quarantine")
    assert content(stack) == before
    operator.must("commit", "--yes")


def test_a_legacy_dump_cut_in_the_middle_is_refused(stack: Stack, tmp_path: Path) -> None:
    """R9, R10: psql would load it with exit code 0; here nothing is touched."""
    operator = Operator(stack.directory, stack.directory / "backups")
    guide(stack, METHOD_2)
    (archive,) = operator.repository.glob("*.tar.gz")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    subprocess.run(["tar", "-xzf", str(archive), "-C", str(scratch)], check=True)
    (top,) = scratch.iterdir()
    dump = (top / "database.sql").read_bytes()
    before, states = content(stack), stack.states()
    for share in (0.1, 0.5, 0.9, 0.999):
        cut = dump[: dump.rfind(b"\n", 0, int(len(dump) * share)) + 1]
        (top / "database.sql").write_bytes(cut)
        subprocess.run(["tar", "-czf", str(archive), "-C", str(scratch), top.name], check=True)

        answer = operator.run("restore", str(archive), "--yes", "--foreign")

        assert answer.code == 1, answer.value
        assert content(stack) == before
        assert stack.states() == states
    assert operator.run("verify", str(archive)).code == 1
