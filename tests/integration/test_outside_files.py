"""P22: a FIFO, a device, a link, a socket, a directory or gigabytes in the place of a file: refused at once, in a sentence, and alone."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tasks.adapters.archive.archive_source import record_path_of
from tasks.adapters.archive.reader import check_archive
from tasks.adapters.archive.repository import list_backups
from tasks.adapters.archive.repository_marker import MARKER_NAME, accept_repository
from tasks.adapters.engine.compose import files_named_in
from tasks.adapters.host import outside_files
from tasks.adapters.host.outside_files import RECORD, SETTINGS, UnfitFile, read_outside
from tasks.adapters.host.settings_file import load_settings
from tasks.adapters.outbox.history_file import read_history
from tasks.core.errors import ArchiveDamaged, BackupError, UsageError
from tests.integration.archives import make_archive


def _socket(place: Path) -> None:
    with contextlib.chdir(place.parent), socket.socket(socket.AF_UNIX) as opened:
        opened.bind(place.name)


def _sparse(place: Path) -> None:
    with place.open("wb") as file:
        file.truncate(400 << 20)


IMPOSTORS: dict[str, Callable[[Path], Any]] = {
    "FIFO": os.mkfifo,
    "socket": _socket,
    "directory": Path.mkdir,
    "link to a device": lambda place: place.symlink_to("/dev/zero"),
    "link to a file": lambda place: place.symlink_to("/etc/hostname"),
    "link to nothing": lambda place: place.symlink_to("/nowhere/at/all"),
    "link to itself": lambda place: place.symlink_to(place.name),
    "400 MB": _sparse,
}


@pytest.mark.parametrize("impostor", IMPOSTORS)
def test_each_is_refused_in_a_sentence(tmp_path: Path, impostor: str) -> None:
    IMPOSTORS[impostor](tmp_path / "file")

    with pytest.raises(UnfitFile, match=r"record .* cannot be read: ") as caught:
        read_outside(tmp_path / "file", RECORD)

    assert "Errno" not in caught.value.message


def test_settings_may_be_linked_but_not_to_a_device(tmp_path: Path) -> None:
    """An operator keeps them in a checkout; the link is followed, and what it leads to is judged."""
    (tmp_path / "real").write_text("a: 1")
    (tmp_path / "good").symlink_to("real")
    (tmp_path / "bad").symlink_to("/dev/zero")

    assert read_outside(tmp_path / "good", SETTINGS)[0] == b"a: 1"
    with pytest.raises(UnfitFile, match="no regular file"):
        read_outside(tmp_path / "bad", SETTINGS)


def test_a_file_that_grows_while_it_is_read_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel tells sizes of 0 of its own files, and another program may append."""
    place = tmp_path / "file"
    place.write_bytes(b"x" * 50)
    kind = outside_files.FileKind("thing", 100)
    real = os.fstat

    def grow(descriptor: int) -> os.stat_result:
        found = real(descriptor)
        with place.open("ab") as file:
            file.write(b"y" * 100)
        return found

    monkeypatch.setattr(outside_files.os, "fstat", grow)
    with pytest.raises(UnfitFile, match="more than 100"):
        read_outside(place, kind)


@pytest.mark.parametrize("impostor", IMPOSTORS)
def test_a_bad_record_is_told_and_the_others_are_listed(tmp_path: Path, impostor: str) -> None:
    good = make_archive(tmp_path)
    other = make_archive(tmp_path, name="mailarchiver-backup-20260302-020005")
    record_path_of(other.path).unlink()
    IMPOSTORS[impostor](record_path_of(other.path))

    listed = {each.name: each.record for each in list_backups(tmp_path)}

    assert listed[good.record.manifest.name] == good.record
    assert listed["mailarchiver-backup-20260302-020005"] is None
    with pytest.raises(BackupError):
        check_archive(other.path)


@pytest.mark.parametrize("impostor", [each for each in IMPOSTORS if each != "400 MB"])
def test_an_impostor_of_an_archive_is_refused(tmp_path: Path, impostor: str) -> None:
    place = tmp_path / "mailarchiver-backup-20260302-020005.tar.gz"
    IMPOSTORS[impostor](place)

    assert list_backups(tmp_path) == []
    with pytest.raises(BackupError):
        check_archive(place)


@pytest.mark.parametrize("impostor", [each for each in IMPOSTORS if each != "link to nothing"])
def test_marker_settings_and_history_are_opened_alike(tmp_path: Path, state_directory: Path, impostor: str) -> None:
    accept_repository(tmp_path)
    (tmp_path / MARKER_NAME).unlink()
    (state_directory / "history").mkdir(mode=0o700)
    for place in (tmp_path / MARKER_NAME, tmp_path / "settings", state_directory / "history" / "main.jsonl"):
        IMPOSTORS[impostor](place)

    with pytest.raises(BackupError):
        load_settings(tmp_path / "settings")
    with pytest.raises(BackupError):
        read_history("main")
    with pytest.raises(BackupError):
        accept_repository(tmp_path)


def _altered(record: dict[str, Any], path: str, value: object) -> str:
    *above, last = path.split(".")
    place = record
    for each in above:
        place = place[each]
    place[last] = value
    return json.dumps(record)


LIES: dict[str, tuple[str, object]] = {
    "seconds NaN": ("seconds", float("nan")),
    "seconds infinite": ("seconds", float("inf")),
    "seconds 1e308": ("seconds", 1e308),
    "negative seconds": ("seconds", -5),
    "negative size": ("bytes", -1),
    "size of 30 digits": ("bytes", 10**30),
    "year 1": ("manifest.created_at", "0001-01-01T00:00:00+14:00"),
    "year 9999": ("manifest.created_at", "9999-12-31T23:59:59-12:00"),
    "no zone": ("manifest.created_at", "2026-03-01T02:00:05"),
    "downtime": ("manifest.downtime_seconds", float("inf")),
    "database of 1e30 bytes": ("manifest.database.size_bytes", 10**30),
    "major": ("manifest.database.server_major", 10**12),
    "version": ("manifest.version", -(10**12)),
    "name of a megabyte": ("manifest.name", "x" * (1 << 20)),
    "installation of a megabyte": ("manifest.installation", "x" * (1 << 20)),
    "a lone surrogate": ("manifest.project", "\ud800"),
    "members are no list": ("manifest.members", {"name": "a"}),
    "members of another kind": ("manifest.members", [1] * 1000),
    "negative rows": ("verification", {"rows": -1}),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_numbers_and_dates_out_of_bounds_damage_one_record(tmp_path: Path, lie: str) -> None:
    """One NaN, one 1e308 or the year 1 broke the sums of `status` for the whole repository."""
    good = make_archive(tmp_path)
    other = make_archive(tmp_path, name="mailarchiver-backup-20260302-020005")
    record = json.loads(record_path_of(other.path).read_text())
    record_path_of(other.path).write_text(_altered(record, *LIES[lie]))

    listed = {each.name: each.record for each in list_backups(tmp_path)}

    assert listed == {good.record.manifest.name: good.record, "mailarchiver-backup-20260302-020005": None}
    with pytest.raises(ArchiveDamaged, match="not a record of a backup"):
        check_archive(other.path)


def test_what_this_program_writes_is_within_its_own_bounds(tmp_path: Path) -> None:
    sealed = make_archive(tmp_path)

    assert list_backups(tmp_path)[0].record == sealed.record
    assert sealed.record.manifest.created_at > datetime(2000, 1, 1, tzinfo=UTC)


HUNGRY: dict[str, bytes] = {
    "empty lists": b'{"x":[' + b"[]," * (3 << 20) + b"[]]}",
    "ones": b'{"x":[' + b"1," * (5 << 20) + b"1]}",
    "keys": b'{"x":{' + b",".join(b'"%d":1' % number for number in range(800_000)) + b"}}",
    "spaced objects": b'{"file":[' + (b'{"a":"' + b"b" * 31 + b'"},') * 280_000 + b"1]}",
    "roles that are none": b'{"file":"a","bytes":1,"sha256":"","seconds":1,"manifest":{"database":{"roles":['
    + b"1111111111111111," * 600_000
    + b"1]}}}",
    "tables that are none": b'{"file":"a","bytes":1,"sha256":"","seconds":1,"manifest":{"census":{"tables":{'
    + b",".join(b'"%012d":1' % number for number in range(600_000))
    + b'},"sequences":{},"large_objects":{"rows":0,"digest":""},"schema_objects":{}}}}',
    "depth": b'{"x":' + b"[" * 5_000_000 + b"]" * 5_000_000 + b"}",
    "a number of 10,000,000 digits": b'{"bytes":' + b"9" * 10_000_000 + b"}",
    "a string without end": b'{"x":"' + b"\\\\" * 5_000_000,
    "nothing but quotes": b'"' * 11_000_000,
}


@pytest.mark.parametrize("hungry", HUNGRY)
def test_memory_is_in_proportion_to_the_file(tmp_path: Path, hungry: str) -> None:
    """Eight megabytes of brackets took three gigabytes."""
    place = tmp_path / "mailarchiver-backup-20260302-020005.tar.gz"
    place.write_bytes(b"")
    record_path_of(place).write_bytes(HUNGRY[hungry])
    code = (
        "import sys, pathlib; from tests.corpus.memory import peak_kib; from tasks.adapters.archive.repository import list_backups;"
        " found = list_backups(pathlib.Path(sys.argv[1])); assert found[0].record is None;"
        " print(peak_kib())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True, timeout=30,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30)),
    )  # fmt: skip

    assert int(done.stdout) < 256 * 1024, done.stdout
    assert "not a record of a backup" in done.stderr
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize("text", [b"[" * 100_000, b"a: " + b"{b: " * 20_000, b"[{" * 50_000])
def test_brackets_without_end_take_no_time(tmp_path: Path, text: bytes) -> None:
    """YAML's library looks at every open bracket for each word: the fuzzer met half a minute for a hundred kilobytes."""
    place = tmp_path / "docker-compose.yml"
    place.write_bytes(text)
    begun = time.monotonic()

    assert files_named_in(place) == ()
    with pytest.raises(UsageError, match="nested more than 50 deep"):
        load_settings(place)

    assert time.monotonic() - begun < 2
