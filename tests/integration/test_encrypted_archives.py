"""P13: an encrypted archive decrypts to the very archive, and is refused wherever one byte or one part is not in its place."""

from __future__ import annotations

import random
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import get_args

import pyrage
import pytest

from tasks.adapters.archive import age, sealed_sink, unsealing
from tasks.adapters.archive.archive_source import record_path_of
from tasks.adapters.archive.open_keys import opening_with
from tasks.adapters.archive.reader import check_archive, open_member
from tasks.adapters.archive.writer import abandon_archive, begin_archive, seal_archive, segment
from tasks.core.archive.manifest import Format
from tasks.core.errors import ArchiveDamaged, BackupError, NoKey, Refused
from tests.integration.archives import DUMP, NAME, NOW, make_archive, manifest_of
from tests.integration.broken_seals import BREAKS, break_one

KEY = pyrage.x25519.Identity.generate()
RECIPIENT = str(KEY.to_public())
OTHER = "mailarchiver-backup-20260301-020006"


def _unpacked(path: Path, into: Path, key: object = KEY) -> bytes:
    """Decrypt as the shell would: unpack, decrypt each part in the order of names, concatenate."""
    with tarfile.open(path) as outer:
        outer.extractall(into, filter="data")
    parts = sorted((into / path.name.removesuffix(".tar")).glob("*.age"))
    return b"".join(pyrage.decrypt(part.read_bytes(), [key]) for part in parts)


@pytest.mark.parametrize("archive_format", get_args(Format))
def test_it_decrypts_to_the_very_archive(tmp_path: Path, archive_format: Format) -> None:
    """What the parts give, concatenated, is read by tar and by ourselves, and holds what the plain archive holds."""
    plain = check_archive(make_archive(tmp_path / "plain", archive_format).path)
    sealed = make_archive(tmp_path / "sealed", archive_format, recipients=(RECIPIENT,))
    assert sealed.path.name == plain.path.name + ".age.tar"
    with opening_with((str(KEY),)):
        found = check_archive(sealed.path)
        assert b"".join(open_member(found, "database.sql")) == DUMP
    assert (found.members, found.format, found.sha256) == (plain.members, archive_format, sealed.sha256)
    opened = tmp_path / "opened" / plain.path.name
    content = _unpacked(sealed.path, tmp_path / "parts")
    opened.parent.mkdir()
    opened.write_bytes(content)
    assert check_archive(opened).members == plain.members
    listed = subprocess.run(["tar", "-tf", opened], capture_output=True, text=True, check=True, timeout=30).stdout
    assert f"{NAME}/database.sql" in listed.splitlines()


def test_no_plaintext_is_in_it(tmp_path: Path) -> None:
    """Neither names nor content of members are in the file, of which nothing but its name and sizes can be read."""
    sealed = make_archive(tmp_path, recipients=(RECIPIENT,))
    content = sealed.path.read_bytes()
    assert DUMP[:9] not in content
    assert b"docker-compose" not in content
    assert b"\x1f\x8b\x08\x04\0\0\0\0" not in content


def test_every_recipient_opens_it_and_nobody_else(tmp_path: Path) -> None:
    """Several keys, an SSH key among them; a key that is none of them is told apart from damage."""
    pair = tmp_path / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", pair], check=True, timeout=30)
    second = pyrage.x25519.Identity.generate()
    recipients = (RECIPIENT, str(second.to_public()), pair.with_suffix(".pub").read_text().strip())
    sealed = make_archive(tmp_path / "backups", recipients=recipients)
    for key in (str(KEY), str(second), pair.read_text()):
        with opening_with((key,)):
            assert check_archive(sealed.path).name == NAME
    with opening_with((str(pyrage.x25519.Identity.generate()),)), pytest.raises(NoKey, match="no key"):
        check_archive(sealed.path)
    with pytest.raises(NoKey, match="no key is at hand"):
        check_archive(sealed.path)


@pytest.mark.parametrize("program", ["age", "our own"])
def test_large_parts_are_split_and_encrypted_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    """A segment larger than a part becomes several; a large part is encrypted and decrypted by age, or in a process of ours."""
    if program == "age" and shutil.which("age") is None:
        pytest.skip("age is not installed (tests/stack/machine.sh)")
    if program != "age":
        monkeypatch.setattr(age, "PROGRAM", "no-such-program")
    pair = tmp_path / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", pair], check=True, timeout=30)
    recipients = (RECIPIENT, pair.with_suffix(".pub").read_text().strip())
    monkeypatch.setattr(sealed_sink, "PART_BYTES", 3 << 20)
    monkeypatch.setattr(sealed_sink.SealedSink.__init__, "__kwdefaults__", {"is_last": False, "part_bytes": 3 << 20})
    monkeypatch.setattr(unsealing, "SMALL_PART_BYTES", 1 << 20)
    noise = random.Random(5).randbytes(8 << 20)
    sealed = make_archive(tmp_path / "backups", "fast", members={"noise": noise}, recipients=recipients)
    with tarfile.open(sealed.path) as outer:
        sizes = [each.size for each in outer if each.name.endswith(".age")]
    assert sum(size > 2 << 20 for size in sizes) >= 2
    wrong = str(pyrage.x25519.Identity.generate())
    for keys in ((str(KEY),), (pair.read_text(), wrong), (wrong, str(KEY))):
        with opening_with(keys):
            assert b"".join(open_member(check_archive(sealed.path), "noise")) == noise
    with pytest.raises(NoKey):
        b"".join(age.decrypted(iter((pyrage.encrypt(noise, [KEY.to_public()]),)), (wrong,)))
    data = bytearray(sealed.path.read_bytes())
    data[5 << 20] ^= 1
    sealed.path.write_bytes(data)
    record_path_of(sealed.path).unlink()
    with opening_with((str(KEY),)), pytest.raises(ArchiveDamaged, match="part"):
        check_archive(sealed.path)


def test_a_retried_step_replaces_its_former_attempt(tmp_path: Path) -> None:
    """A step that failed midway is cut off and written anew; the parts are numbered as if it had never been."""
    partial = begin_archive(tmp_path, NAME, "guide", (RECIPIENT,))

    def broken() -> object:
        yield DUMP[:1000]
        raise BackupError("the server went away", transient=True)

    for _ in range(2):
        with pytest.raises(BackupError, match="went away"), segment(partial, "dump") as part:
            part.add_stream("database.sql", broken(), mtime=NOW)  # type: ignore[arg-type]
    with segment(partial, "dump") as part:
        part.add_stream("database.sql", [DUMP], mtime=NOW)
    with segment(partial, "keys") as part:
        part.add_bytes("data-protection-keys/key.xml", b"<key/>", mtime=NOW)
    with segment(partial, "dump") as part:  # again, and what came after it is gone
        part.add_stream("database.sql", [DUMP, DUMP], mtime=NOW)
    sealed = seal_archive(partial, manifest_of(partial))
    with opening_with((str(KEY),)):
        found = check_archive(sealed.path)
    assert [(each.name, each.bytes) for each in found.members] == [("database.sql", 2 * len(DUMP))]


def test_a_recipient_whose_plugin_is_missing_leaves_nothing(tmp_path: Path) -> None:
    """The backup is refused before anything is dumped, with the plugin's name, and no file stays."""
    missing = "age1yubikey1qwt50d05nh5vutpdzmlg5wn80xq5negm4uj9ghv0snvdd3yysf5yw3rhl3t"
    with pytest.raises(BackupError, match="age-plugin-yubikey"):
        begin_archive(tmp_path, NAME, "guide", (RECIPIENT, missing))
    assert list(tmp_path.iterdir()) == []


def test_an_abandoned_archive_leaves_nothing(tmp_path: Path) -> None:
    """Neither file nor process stays of an archive that was given up while a large part was being encrypted."""
    partial = begin_archive(tmp_path, NAME, "guide", (RECIPIENT,))

    def interrupted() -> object:
        yield random.Random(1).randbytes(4 << 20)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), segment(partial, "dump") as part:
        part.add_stream("noise", interrupted(), mtime=NOW)  # type: ignore[arg-type]
    abandon_archive(partial)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def two_archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    place = tmp_path_factory.mktemp("sealed")
    made = [make_archive(place / name, name=name, recipients=(RECIPIENT,)).path for name in (NAME, OTHER)]
    return made[0], made[1]


@pytest.mark.parametrize("with_record", [True, False])
@pytest.mark.parametrize("kind", sorted(BREAKS))
def test_a_broken_seal_is_refused(
    tmp_path: Path, two_archives: tuple[Path, Path], kind: str, with_record: bool
) -> None:
    """Flipped bytes, cuts, and parts that are missing, doubled, swapped or another archive's, with a record beside and without."""
    good, other = two_archives
    for number in range(14):
        place = tmp_path / str(number)
        place.mkdir()
        path = place / good.name
        data = break_one(kind, good, other, random.Random(number * 7919))
        path.write_bytes(data)
        if with_record:
            shutil.copy(record_path_of(good), place)
        with opening_with((str(KEY),)), pytest.raises(Refused):
            check_archive(path)
