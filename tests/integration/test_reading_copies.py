"""Copies read from where they lie: by their signatures, to their last byte, encrypted ones too, and nothing is left here."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pyrage
import pytest

from tasks.adapters.archive.open_keys import opening_with
from tasks.adapters.archive.opening import check_sealed
from tasks.adapters.archive.ownership import judge_backups
from tasks.adapters.archive.reader import check_archive
from tasks.adapters.archive.repository import list_backups, write_verification
from tasks.adapters.host.state import state_directory
from tasks.copies.view import require_name, target_view
from tasks.core.errors import ArchiveDamaged, BackupError, NoKey, UsageError
from tasks.restore.check_archive import check_backup, find_archive
from tasks.run.config import InstallationConfig
from tasks.run.own_backups import choose_backup, resign, trust_of
from tests.integration.archives import DUMP, verdict
from tests.integration.copying import copy, copying_to, night

KEY = pyrage.x25519.Identity.generate()


@pytest.fixture
def stick(tmp_path: Path) -> Path:
    place = tmp_path / "stick"
    place.mkdir()
    return place


def lose_the_repository(config: InstallationConfig) -> None:
    for each in config.repository.glob("mailarchiver-backup-*"):
        each.unlink()


def test_a_copy_is_read_part_after_part_and_nothing_is_left_here(stick: Path, tmp_path: Path) -> None:
    config = copying_to(tmp_path, str(stick), sections={})
    old, new = night(config, 1), night(config, large=True)
    copy(config)
    lose_the_repository(config)

    with target_view(config, "a") as there:
        assert choose_backup(there, "latest") == new.manifest.name
        found = check_backup(there.archives, new.manifest.name)
        assert (found.sha256, found.bytes) == (new.sha256, new.bytes)
        assert find_archive(there.archives, old.manifest.name).sha256 == old.sha256
        held = sum(each.stat().st_blocks for each in there.archives.glob("*.tar.gz"))
        assert held == 0
    assert not list(state_directory().glob("copies/main/view-*"))


@pytest.mark.parametrize("kind", ["a flipped byte", "a part cut short", "a part of another", "parts swapped"])
def test_what_was_altered_at_a_target_is_refused(stick: Path, tmp_path: Path, kind: str) -> None:
    config = copying_to(tmp_path, str(stick), sections={})
    made = night(config, large=True)
    copy(config)
    first, second = (stick / f"{made.file}.part-000{number}" for number in (1, 2))
    if kind == "a flipped byte":
        content = bytearray(second.read_bytes())
        content[1000] ^= 1
        second.write_bytes(content)
    elif kind == "a part cut short":
        second.write_bytes(second.read_bytes()[:-1])
    elif kind == "a part of another":
        second.write_bytes(bytes(second.stat().st_size))
    else:
        one, two = first.read_bytes(), second.read_bytes()
        first.write_bytes(two)
        second.write_bytes(one)

    with target_view(config, "a") as there:
        if kind == "a part cut short":  # not whole, and so not seen at all
            assert list_backups(there.archives) == []
        else:
            with pytest.raises((ArchiveDamaged, BackupError)):
                check_backup(there.archives, made.manifest.name)


def test_records_at_a_target_are_judged_by_their_signatures(stick: Path, tmp_path: Path) -> None:
    """Forged ones, other installations', rubbish and absurd sizes are told or passed over; the genuine one is the latest."""
    config = copying_to(tmp_path, str(stick), sections={})
    made = night(config, 1)
    copy(config)
    value = json.loads((stick / f"{made.manifest.name}.manifest.json").read_text())
    later = "mailarchiver-backup-20990101-000000"
    forged = json.loads(json.dumps(value))
    forged["file"], forged["manifest"]["name"] = f"{later}.tar.gz", later
    (stick / f"{later}.manifest.json").write_text(json.dumps(forged))
    (stick / f"{later}.tar.gz").write_bytes((stick / made.file).read_bytes())
    huge = "mailarchiver-backup-20990101-000001"
    (stick / f"{huge}.manifest.json").write_text(json.dumps(value | {"bytes": 2**62, "file": f"{huge}.tar.gz"}))
    (stick / "mailarchiver-backup-20990101-000002.manifest.json").write_text("{" * 10_000)
    (stick / "mailarchiver-backup-20990101-000003.manifest.json").write_text(
        json.dumps(value | {"file": "../../../etc/passwd"})
    )

    with target_view(config, "a") as there:
        whose = judge_backups(trust_of(there), list_backups(there.archives))
        assert {name: str(each) for name, each in whose.items()} == {made.manifest.name: "authentic", later: "forged"}
        assert choose_backup(there, "latest") == made.manifest.name


def test_an_older_record_that_was_put_back_is_mended_by_the_next_copy(stick: Path, tmp_path: Path) -> None:
    config = copying_to(tmp_path, str(stick), sections={})
    made = night(config, verified=False)
    copy(config)
    place = stick / f"{made.manifest.name}.manifest.json"
    older = place.read_bytes()
    write_verification(config.repository / made.file, verdict(datetime.now(UTC), made.sha256), resign(config))
    copy(config)
    newer = place.read_bytes()
    place.write_bytes(older)
    copy(config)

    assert place.read_bytes() == newer


def test_an_encrypted_copy_opens_with_its_key_and_is_intact_without(stick: Path, tmp_path: Path) -> None:
    config = copying_to(tmp_path, str(stick), sections={})
    made = night(config, recipients=(str(KEY.to_public()),))
    assert made.file.endswith(".tar.gz.age.tar")
    copy(config)
    lose_the_repository(config)

    with target_view(config, "a") as there:
        path = there.archives / made.file
        assert check_sealed(path).sha256 == made.sha256
        with pytest.raises(NoKey):
            check_archive(path)
        with opening_with((str(KEY),)):
            assert [each.bytes for each in check_archive(path).members if each.name == "database.sql"] == [len(DUMP)]


def test_a_backup_at_a_target_has_a_name_and_no_path() -> None:
    for name in ("latest", "mailarchiver-backup-20260301-020005", "mailarchiver-backup-20260301-020005.tar.gz"):
        require_name(name)
    for path in ("/etc/passwd", "../x", "mailarchiver-backup-1", "x/mailarchiver-backup-20260301-020005"):
        with pytest.raises(UsageError, match="is no backup's name"):
            require_name(path)
