"""P10: every bad archive and record is refused by an error of ours, in bounded memory and time, and nothing is written outside."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.adapters.archive.archive_source import record_path_of
from tasks.adapters.archive.extraction import extraction
from tasks.adapters.archive.reader import RecordedArchive, check_archive, check_while, recorded_archive
from tasks.adapters.archive.repository import list_backups
from tasks.core.archive.manifest import parse_record
from tasks.core.archive.tar_reader import TarEntry
from tasks.core.archive.tar_writer import END_BLOCKS, tar_header
from tasks.core.errors import ArchiveDamaged, BackupError, Refused
from tests.corpus.archives import BAD_ARCHIVES, BODY, GOOD, entry, manifest_bytes
from tests.corpus.records import BAD_RECORDS
from tests.integration.archives import NAME, make_archive

OTHER = "mailarchiver-backup-20260302-020005"
SECONDS = 20.0
SLOW = "bomb: 101,000 members"  # read once, with the whole corpus
MEMORY_KIB = 256 * 1024


def put(directory: Path, name: str) -> Path:
    """Write a bad archive into a directory."""
    extension, data = BAD_ARCHIVES[name]()
    path = directory / f"{NAME}{extension}"
    path.write_bytes(data)
    return path


def describe(path: Path, change: object = None) -> RecordedArchive:
    """Lay a record beside an archive that fits its bytes, and says of it what the good archive's would."""
    data = path.read_bytes()
    record = {"file": path.name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "seconds": 1.0}
    content = {**record, "manifest": json.loads(manifest_bytes())}
    record_path_of(path).write_text(json.dumps(content))
    found = recorded_archive(path)
    assert found is not None
    return found


def extract_all(archive: RecordedArchive, target: Path) -> None:
    """Read an archive as restores do: what is in it is written while it is checked."""
    with extraction(target, keep_owners=False) as made:

        def take(found: TarEntry, name: str, pieces: Iterator[bytes]) -> None:
            if name != "manifest.json":  # which restores never write
                made.add(name, found, pieces)

        check_while(archive, take)


def everything(directory: Path) -> set[str]:
    return {str(path) for path in directory.rglob("*")}


def test_there_are_enough() -> None:
    assert len(BAD_ARCHIVES) >= 100
    assert len(BAD_RECORDS) >= 60


def test_without_its_evil_the_archive_passes(tmp_path: Path) -> None:
    """The corpus proves something only while its harmless part is accepted, with its record and extracted too."""
    path = tmp_path / f"{NAME}.tar.gz"
    path.write_bytes(gzip.compress(GOOD + END_BLOCKS, 1))

    assert check_archive(path).kind == "sql"
    extract_all(describe(path), tmp_path / "out")
    assert (tmp_path / "out" / "docker-compose.yml").read_bytes() == b"services: {}\n"


@pytest.mark.parametrize("name", [each for each in BAD_ARCHIVES if each != SLOW])
def test_a_bad_archive_is_refused(tmp_path: Path, name: str) -> None:
    """Checked alone, and read as a restore reads it, with a record that vouches for its very bytes."""
    place = tmp_path / "inside"
    place.mkdir()
    path = put(place, name)
    begun = time.monotonic()

    with pytest.raises(BackupError) as caught:
        check_archive(path)
    assert caught.value.message
    with pytest.raises(BackupError):
        extract_all(describe(path), place / "out")

    assert time.monotonic() - begun < SECONDS
    assert {each for each in everything(tmp_path) if not each.startswith(str(place))} == set()
    written = sum(each.stat().st_size for each in (place / "out").rglob("*") if each.is_file())
    assert written <= 64 << 10, "no more than the record said"
    assert not any(each.is_symlink() for each in (place / "out").rglob("*"))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a repository with two good backups."""
    place = tmp_path_factory.mktemp("repository")
    make_archive(place)
    make_archive(place, name=OTHER)
    return place


@pytest.mark.parametrize("name", BAD_RECORDS)
def test_a_bad_record_damages_its_backup_alone(repository: Path, name: str) -> None:
    """`list`, and all that is made of it, goes on with the others."""
    other = repository / f"{OTHER}.tar.gz"
    good = record_path_of(other).read_bytes()
    text = BAD_RECORDS[name](json.loads(good))
    record_path_of(other).write_bytes(text)
    begun = time.monotonic()
    try:
        with pytest.raises(ArchiveDamaged):
            parse_record(text, source="it")
        with pytest.raises(BackupError):
            check_archive(other)
        listed = {each.name: each.record is not None for each in list_backups(repository)}
    finally:
        record_path_of(other).write_bytes(good)

    assert listed == {NAME: True, OTHER: False}
    assert time.monotonic() - begun < SECONDS


def test_a_lying_record_does_not_fill_the_target(tmp_path: Path) -> None:
    """306 KB filled a file system before they were refused: room had been asked for what the record said."""
    path = tmp_path / f"{NAME}.tar.gz"
    data = BODY + tar_header(f"{NAME}/postgres-data/1", size=40 << 20) + bytes(40 << 20) + END_BLOCKS
    path.write_bytes(gzip.compress(data, 1))
    assert path.stat().st_size < 2 << 20

    with pytest.raises(
        ArchiveDamaged, match=r"postgres-data/1 with 41,943,040 bytes, of which its record says nothing"
    ):
        extract_all(describe(path), tmp_path / "out")

    assert sum(each.stat().st_size for each in (tmp_path / "out").rglob("*")) < 1 << 20


def test_directories_without_end_do_not_take_all_inodes(tmp_path: Path) -> None:
    path = tmp_path / f"{NAME}.tar.gz"
    many = b"".join(tar_header(f"{NAME}/{number}", kind="directory") for number in range(5000))
    path.write_bytes(gzip.compress(BODY + many + END_BLOCKS, 1))

    with pytest.raises(ArchiveDamaged, match="more directories than files"):
        extract_all(describe(path), tmp_path / "out")

    assert len(list((tmp_path / "out").iterdir())) < 100


def test_a_member_that_is_larger_than_recorded_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / f"{NAME}.tar.gz"
    path.write_bytes(gzip.compress(BODY.replace(b"services: {}\n", b"services: []\n") + END_BLOCKS, 1))
    archive = describe(path)
    path.write_bytes(
        gzip.compress(tar_header(NAME, kind="directory") + entry(f"{NAME}/docker-compose.yml", b"x" * 14), 1)
    )

    with pytest.raises(Refused):
        extract_all(archive, tmp_path / "out")

    assert not (tmp_path / "out" / "docker-compose.yml").exists()


def test_the_whole_corpus_in_bounded_memory(tmp_path: Path) -> None:
    """One process reads all of it, one after another, and never takes more than 256 MB; each in bounded time, without a traceback."""
    cases = []
    for number, name in enumerate(BAD_ARCHIVES):
        (tmp_path / str(number)).mkdir()
        cases.append(str(put(tmp_path / str(number), name)))
    record = json.loads(record_path_of(make_archive(tmp_path, name=OTHER).path).read_text())
    for number, make in enumerate(BAD_RECORDS.values()):
        path = tmp_path / f"r{number}" / f"{NAME}.tar.gz"
        path.parent.mkdir()
        path.write_bytes(b"")
        record_path_of(path).write_bytes(make(record))
        cases.append(str(path))

    done = subprocess.run(
        [sys.executable, "-m", "tests.corpus.read_all"], input="\n".join(cases), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["refused"] == len(cases)
    assert told["memory_kib"] < MEMORY_KIB, told
    assert told["slowest_seconds"] < SECONDS, told
