"""The sheet's commands fit the archive: its format, its kind, its names, and nothing in them is more than a name."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from tasks.core.archive.manifest import DatabaseFacts, Encryption, Format, Manifest, Member
from tasks.core.report.recovery_sheet import SheetFacts, from_copies_lines, program_lines, recovery_steps
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
    found = facts_of(*members, archive_format=archive_format, sealed=sealed, facts=facts, place=place)
    return [line for step in recovery_steps(found) for line in step.commands] + list(program_lines(found))


def facts_of(
    *members: str,
    archive_format: Format = "guide",
    sealed: bool = True,
    facts: DatabaseFacts = FACTS,
    place: str = "/opt/mail",
    copies: tuple[str, ...] = (),
) -> SheetFacts:
    """Give what a sheet is about."""
    manifest = Manifest(
        version=1, name="mailarchiver-backup-20260301-020005", method="hot", format=archive_format, installation="main", project="mail", created_at=NOW,
        database=facts, images=[], members=[Member(name=each, bytes=1, sha256="") for each in members],
        encryption=Encryption(recipients=["age1x"]) if sealed else None,
    )  # fmt: skip
    return SheetFacts(manifest, Path(place), Path("/backups"), "ed25519:x", Path("/state/signing-key"), copies)


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


def test_each_place_with_copies_has_its_command() -> None:
    """A place of rclone's wants rclone's configuration, a disk does not; the sheet's own key and the signer's stand in both."""
    found = facts_of("database.sql", copies=("away:mail backups", "/mnt/disk"))
    proofs = "--identity recovery-key.txt --trusted-key ed25519:x"
    assert from_copies_lines(found) == [
        f"mailarchiver-backup recover-from 'away:mail backups' --into /opt/mail --rclone-config rclone.conf {proofs}",
        f"mailarchiver-backup recover-from /mnt/disk --into /opt/mail {proofs}",
    ]
    assert from_copies_lines(facts_of("database.sql")) == []


def test_an_archive_in_parts_is_put_together_before_anything_else(tmp_path: Path) -> None:
    name = "mailarchiver-backup-20260301-020005"
    lines = sheet("database.sql")
    (together,) = [line for line in lines if " cat " in line]
    for number in range(1, 12):
        (tmp_path / f"{name}.tar.gz.age.tar.part-{number:04d}").write_text(f"{number} ")
    whole = tmp_path / f"{name}.tar.gz.age.tar"
    assert lines.index(together) == 2

    subprocess.run(["bash", "-e", "-c", f"NAME={name}\n{together}"], cwd=tmp_path, check=True)
    assert whole.read_text() == "1 2 3 4 5 6 7 8 9 10 11 "
    for path in tmp_path.glob("*.part-*"):
        path.unlink()
    subprocess.run(["bash", "-e", "-c", f"NAME={name}\n{together}"], cwd=tmp_path, check=True)
    assert whole.read_text() == "1 2 3 4 5 6 7 8 9 10 11 "


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
