"""The sheet's commands fit the archive: its format, its kind, its names, and nothing in them is more than a name."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tasks.core.archive.manifest import DatabaseFacts, Encryption, Format, Manifest, Member
from tasks.core.report.recovery_sheet import SheetFacts, program_lines, recovery_steps
from tests.unit.values import NOW

FACTS = DatabaseFacts(
    name="MailArchiver", owner="mailuser", encoding="UTF8", collation="en_US.utf8", character_type="en_US.utf8", server_version="17.2", server_major=17
)  # fmt: skip


def sheet(
    *members: str,
    archive_format: Format = "guide",
    sealed: bool = True,
    facts: DatabaseFacts = FACTS,
    place: str = "/opt/mail",
) -> list[str]:
    """Give all lines of a sheet."""
    manifest = Manifest(
        version=1, name="mailarchiver-backup-20260301-020005", method="hot", format=archive_format, installation="main", project="mail", created_at=NOW,
        database=facts, images=[], members=[Member(name=each, bytes=1, sha256="") for each in members],
        encryption=Encryption(recipients=["age1x"]) if sealed else None,
    )  # fmt: skip
    found = SheetFacts(manifest, Path(place), Path("/backups"), "ed25519:x", Path("/state/signing-key"))
    return [line for step in recovery_steps(found) for line in step.commands] + list(program_lines(found))


def test_a_plain_archive_needs_no_key() -> None:
    lines = "\n".join(sheet("database.sql", ".env", sealed=False))
    assert "age" not in lines.replace("--into", "").split()
    assert 'tar --numeric-owner -xzpf "$NAME.tar.gz"' in lines
    assert "--identity" not in lines


@pytest.mark.parametrize(
    ("dump", "archive_format", "loaded", "unpacked"),
    [("database.sql", "guide", "psql -q -v ON_ERROR_STOP=1", "-xzpf"), ("database.dump", "fast", "pg_restore --exit-on-error", "--zstd -xpf")],
)  # fmt: skip
def test_each_format_has_its_programs(dump: str, archive_format: Format, loaded: str, unpacked: str) -> None:
    lines = sheet(dump, "roles.sql", "docker-compose.yml", archive_format=archive_format)
    assert any(line.startswith(loaded) for line in lines)
    assert any(unpacked in line for line in lines)


def test_a_data_directory_is_put_in_place() -> None:
    lines = sheet("postgres-data/PG_VERSION", "docker-compose.yml")
    assert 'cp -a "$NAME/postgres-data" /opt/mail/' in lines
    assert not any("psql" in line for line in lines)


def test_odd_names_stay_names() -> None:
    """What a database or a directory is called becomes one word of a command, and no command."""
    odd = FACTS.model_copy(update={"name": 'x\'; DROP "$(reboot)" `id`'})
    for line in sheet("database.sql", "$(id) file", facts=odd, place="/srv/my mail; reboot"):
        words = shlex.split(line.removeprefix("for part in "))
        assert "reboot" not in words
        assert "`id`" not in words
