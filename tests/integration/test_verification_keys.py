"""P23: a key for one verification lies in memory alone, is root's alone, and goes."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pyrage
import pytest

from tasks.adapters.archive.verification_keys import drop_key, drop_stale_keys, keep_key, kept_key, new_verification_key
from tasks.adapters.archive.writer import abandon_archive
from tasks.adapters.host.memory_place import MEMORY_VARIABLE, memory_obstacle
from tasks.backup.archive import new_archive
from tasks.core.archive.manifest import Encryption
from tasks.core.policy import settings
from tasks.run.config import InstallationConfig, config_at
from tasks.run.drills import drill_state, note_drill
from tests.integration.archives import NAME, NOW, make_archive

RECIPIENT = str(pyrage.x25519.Identity.generate().to_public())

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="such keys are root's")


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Lend a directory in memory; /run is on a disk in containers."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        monkeypatch.setenv(MEMORY_VARIABLE, f"{place}/keys")
        yield Path(place) / "keys"


def encrypting(tmp_path: Path, **wanted: object) -> InstallationConfig:
    plain = config_at("main", tmp_path / "stack", tmp_path / "backups")
    section = settings.Encryption.model_validate({"recipients": [RECIPIENT], **wanted})
    return InstallationConfig("main", plain.settings.model_copy(update={"encryption": section}))


def test_a_key_is_kept_until_its_limit(memory: Path, tmp_path: Path) -> None:
    archive = make_archive(tmp_path).path
    key = new_verification_key()
    assert key is not None
    assert key.identity not in repr(key)
    keep_key(archive, key, until=NOW + timedelta(hours=1))
    (file,) = memory.iterdir()
    assert (stat.S_IMODE(file.stat().st_mode), stat.S_IMODE(memory.stat().st_mode)) == (0o600, 0o700)
    assert kept_key(archive, now=NOW) == key.identity
    (tmp_path / "link").symlink_to(tmp_path)
    assert kept_key(tmp_path / "link" / archive.name, now=NOW) == key.identity
    assert kept_key(tmp_path / "another.tar.gz", now=NOW) is None
    assert drop_stale_keys(now=NOW) == 0
    assert kept_key(archive, now=NOW + timedelta(hours=1)) is None
    assert list(memory.iterdir()) == []


def test_keys_of_dead_runs_go(memory: Path, tmp_path: Path) -> None:
    """Past its limit, without its archive, or unreadable: each is taken away, and others stay."""
    archive = make_archive(tmp_path).path
    for path, hours in ((archive, 1), (tmp_path / "gone.tar.gz", 1), (tmp_path / "old.tar.gz", -1)):
        key = new_verification_key()
        assert key is not None
        keep_key(path, key, until=NOW + timedelta(hours=hours))
    (memory / "x.verification-key").write_text("{")
    assert drop_stale_keys(now=NOW) == 3
    assert kept_key(archive, now=NOW) is not None
    drop_key(archive)
    drop_key(archive)
    assert list(memory.iterdir()) == []


def test_a_disk_is_no_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, on_disk: Path) -> None:
    """Where the place is on a disk, or others may enter it, no key is made; the archive has only its lasting recipients."""
    monkeypatch.setenv(MEMORY_VARIABLE, str(on_disk / "keys"))
    assert "not in memory" in memory_obstacle()
    assert new_verification_key() is None
    with new_archive(encrypting(tmp_path), "guide", NOW) as archive:
        assert archive.recipients == (RECIPIENT,)
    monkeypatch.setenv(MEMORY_VARIABLE, "/dev/shm")
    assert "not root's alone" in memory_obstacle()


def test_a_backup_keeps_its_key_only_when_it_was_sealed(memory: Path, tmp_path: Path) -> None:
    """The key is one recipient more; it goes with an archive that was given up."""
    config = encrypting(tmp_path)
    with new_archive(config, "guide", NOW) as archive:
        assert archive.recipients == (RECIPIENT, archive.verification_key)
        assert len(list(memory.iterdir())) == 1
        assert drop_stale_keys(now=NOW) == 0  # another run's look leaves it alone
    assert list(memory.iterdir()) == []
    with new_archive(config, "guide", NOW) as archive:
        archive.final_path.write_bytes(b"sealed")
    assert kept_key(archive.final_path, now=NOW) is not None


@pytest.mark.parametrize("wanted", [{"verification_key_hours": 0}, None])
def test_where_nobody_verifies_no_key_is_made(memory: Path, tmp_path: Path, wanted: dict[str, int] | None) -> None:
    config = encrypting(tmp_path, **(wanted or {}))
    if wanted is None:
        never = settings.VerificationPolicy(when="never")
        config = InstallationConfig("main", config.settings.model_copy(update={"verification": never}))
    with new_archive(config, "guide", NOW) as archive:
        assert archive.verification_key == ""
        assert not memory.exists()
        abandon_archive(archive)


def test_other_recipients_want_a_drill_of_their_own(memory: Path, tmp_path: Path) -> None:
    """A drill counts for the recipients that it was made with; new ones begin anew."""
    with new_archive(encrypting(tmp_path), "guide", NOW):
        pass
    assert note_drill("main", [RECIPIENT], NAME, NOW + timedelta(days=1))
    state = drill_state("main")
    assert state is not None
    assert (state.since, state.drilled_at) == (NOW, NOW + timedelta(days=1))
    other = str(pyrage.x25519.Identity.generate().to_public())
    later = NOW + timedelta(days=300)
    with new_archive(encrypting(tmp_path, recipients=[other]), "guide", later):
        pass
    assert not note_drill("main", [RECIPIENT], NAME, later)
    renewed = drill_state("main")
    assert renewed is not None
    assert (renewed.since, renewed.drilled_at) == (later, None)
    assert Encryption(recipients=[other]).verification == ""
