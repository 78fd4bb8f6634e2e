"""Archives in the guide's shape with dumps by other scripts: loaded where possible, else told what they are."""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli import Operator
from tests.content import content
from tests.stack.stack import Stack

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

LOADED = {
    "rows as inserts": "pg_dump --inserts",
    "many rows in an insert": "pg_dump --column-inserts --rows-per-insert=7 --on-conflict-do-nothing",
    "clears the way": "pg_dump --clean",
    "makes the database": "pg_dump --clean --if-exists --create",
    "nobody's": "pg_dump --no-owner --no-privileges --quote-all-identifiers --no-comments",
    "a whole server": "pg_dumpall",
    "a whole server anew": "pg_dumpall --clean --if-exists --inserts",
    "custom": "pg_dump --format=custom --compress=0 --clean --no-owner",
    "custom, compressed": "pg_dump --format=custom",
    "custom, compressed well": "pg_dump --format=custom --compress=zstd:9 --no-privileges",
}
# One for each way in: rows as statements, a whole server, a custom dump, and a dump that drops first.
IN_SHORT = ("many rows in an insert", "clears the way", "a whole server", "custom, compressed")
TOLD = {
    "data-only dump": "pg_dump --data-only --disable-triggers",
    "schema-only dump": "pg_dump --schema-only",
    "goes into several databases": "pg_dump --create; pg_dump --create postgres",
    "custom format, not SQL": "pg_dump --format=custom",
    "tar format, not SQL": "pg_dump --format=tar",
    "compressed by itself": "pg_dump --compress=gzip",
    "none is MailArchiver": "pg_dumpall --exclude-database='\"MailArchiver\"'",
    "has no end mark": "pg_dump | head -n -8",
}


def dumped(stack: Stack, commands: str) -> bytes:
    """Run a script's commands in PostgreSQL's container; return what they write."""
    return subprocess.run(
        ["docker", "exec", "-e", f"PGUSER={stack.user}", "-e", f"PGDATABASE={stack.database}", str(stack.container("postgres").id),
         "bash", "-c", f"set -o pipefail; {commands}"],
        capture_output=True, check=True, timeout=120,
    ).stdout  # fmt: skip


def archive_of(stack: Stack, place: Path, dump: bytes, *, member: str = "database.sql") -> Path:
    """Make an archive as the guide does."""
    number = len(list(place.glob("*.tar.gz")))
    name = f"mailarchiver-backup-20261001-0101{number:02}"
    top = place / "made" / name
    top.mkdir(parents=True)
    (top / member).write_bytes(dump)
    shutil.copytree(stack.directory / "data-protection-keys", top / "data-protection-keys")
    shutil.copy(stack.directory / "docker-compose.yml", top)
    subprocess.run(["tar", "-czf", str(place / f"{name}.tar.gz"), "-C", str(top.parent), name], check=True)
    return place / f"{name}.tar.gz"


@pytest.mark.parametrize(
    "commands",
    [
        pytest.param(commands, id=name, marks=() if name in IN_SHORT else pytest.mark.long)
        for name, commands in LOADED.items()
    ],
)
def test_a_dump_with_other_options_is_loaded(small_stack: Stack, tmp_path: Path, commands: str) -> None:
    """P21: what can be compared of it is, though nothing but the dump says what to expect; it restores to what there was."""
    operator = Operator(small_stack.directory, tmp_path)
    before = content(small_stack)
    member = "database.dump" if "format=custom" in commands else "database.sql"
    archive = archive_of(small_stack, tmp_path, dumped(small_stack, commands), member=member)

    verdict = operator.run("verify", str(archive))
    assert (verdict.code, verdict.value.get("verdict")) == (0, "legacy"), f"{verdict.value} {verdict.stderr}"
    if "inserts" in commands:
        # The stack's database brings functions: rows in the words of INSERT are read back by what might run them.
        assert any("rows were not compared" in note for note in verdict.value["notes"])
    else:
        assert verdict.value["rows"] > 100

    if commands in (LOADED["many rows in an insert"], LOADED["a whole server"], LOADED["custom, compressed"]):
        small_stack.psql('DELETE FROM mail_archiver."EmailAttachments"')
        operator.must("restore", str(archive), "--yes", "--foreign")
        small_stack.wait_app()
        operator.must("lift-quarantine")
        assert content(small_stack) == before
        operator.must("commit", "--yes")


def test_half_a_dump_is_told_for_what_it_is(small_stack: Stack, tmp_path: Path) -> None:
    """R10: nothing is changed, and the words say what the dump is and what to do."""
    operator = Operator(small_stack.directory, tmp_path)
    before = content(small_stack)
    for words, commands in TOLD.items():
        archive = archive_of(small_stack, tmp_path, dumped(small_stack, commands))

        answer = operator.run("restore", str(archive), "--yes", "--foreign")

        assert answer.code == 1, words
        assert words in answer.value["error"]
        if words != "has no end mark":
            assert answer.value["hint"]
    whole = dumped(small_stack, "pg_dump --format=custom")
    for cut in (whole[:100_000], whole[:3000]):
        archive = archive_of(small_stack, tmp_path, cut, member="database.dump")
        answer = operator.run("restore", str(archive), "--yes", "--foreign")
        assert answer.code == 1
        assert "pg_restore" in answer.value["error"]
    assert content(small_stack) == before


def test_a_dump_by_itself_is_told_how_to_become_an_archive(small_stack: Stack, tmp_path: Path) -> None:
    """R10: the hint's commands make an archive that verifies."""
    operator = Operator(small_stack.directory, tmp_path)
    plain = dumped(small_stack, "pg_dump")
    files = {
        "MailArchiver-latest.sql.gz": gzip.compress(plain),
        "MailArchiver.sql": plain,
        "MailArchiver.dump": dumped(small_stack, "pg_dump --format=custom"),
        "all.sql": dumped(small_stack, "pg_dumpall"),
    }
    for name, raw in files.items():
        (tmp_path / name).write_bytes(raw)
        for command in ("check", "verify", "restore"):
            answer = operator.run(command, str(tmp_path / name), *(["--yes"] if command == "restore" else []))

            assert answer.code == 1, answer.value
            assert "by itself, not an archive" in answer.value["error"]
        commands = answer.value["hint"].partition(": ")[2]
        made = "mailarchiver-backup-20261124-101112"
        subprocess.run(["sh", "-e", "-c", re.sub(r"\bN\b", made, commands)], cwd=small_stack.directory, check=True)
        try:
            verdict = operator.run("verify", str(small_stack.directory / f"{made}.tar.gz"))
            assert (verdict.code, verdict.value["verdict"]) == (0, "legacy"), f"{name}: {verdict.value}"
        finally:
            shutil.rmtree(small_stack.directory / made)
            (small_stack.directory / f"{made}.tar.gz").unlink()
