"""P10: archives are hostile until proven. Each is refused by an error of ours, and nothing is written anywhere."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import random
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.adapters.archive.archive_source import record_path_of
from tasks.adapters.archive.reader import Limits, check_archive
from tasks.core.archive.manifest import Format
from tasks.core.archive.tar_writer import END_BLOCKS, checksum_of, padding, tar_header
from tasks.core.errors import ArchiveDamaged, BackupError, Refused
from tests.integration.archives import DUMP, NAME, make_archive


def _entry(name: str, data: bytes = b"x", **fields: int) -> bytes:
    return tar_header(name, size=len(data), **fields) + data + padding(len(data))  # type: ignore[arg-type]


def _good() -> bytes:
    return tar_header(NAME, kind="directory") + _entry(f"{NAME}/database.sql", DUMP)


def _retyped(flag: bytes, *, name: str = f"{NAME}/evil", link: str = "", size: int = 0) -> bytes:
    block = bytearray(tar_header(name, size=size, link=link))
    block[156:157] = flag
    block[148:156] = b"%06o\0 " % checksum_of(bytes(block))
    return bytes(block)


def _pax(*records: bytes, then: bytes) -> bytes:
    content = b""
    for record in records:
        length = len(record) + 2
        while length != len(b"%d %s\n" % (length, record)):
            length = len(b"%d %s\n" % (length, record))
        content += b"%d %s\n" % (length, record)
    return _retyped(b"x", name="pax", size=len(content)) + content + padding(len(content)) + then


def _write(directory: Path, stream: bytes) -> Path:
    path = directory / f"{NAME}.tar.gz"
    path.write_bytes(gzip.compress(stream, 1))
    return path


HOSTILE: dict[str, bytes] = {
    "absolute path": _entry("/etc/cron.d/evil"),
    "dot dot": _entry(f"{NAME}/../../evil"),
    "dot dot at the end": _entry(f"{NAME}/.."),
    "empty component": _entry(f"{NAME}//evil"),
    "inner dot": _entry(f"{NAME}/./evil"),
    "control character": _entry(f"{NAME}/e\x1b[2Jvil"),
    "symbolic link": _retyped(b"2", link="/etc/passwd"),
    "symbolic link, then a file through it": _retyped(b"2", link="/tmp") + _entry(f"{NAME}/evil/file"),
    "hard link": _retyped(b"1", link=f"{NAME}/database.sql"),
    "character device": _retyped(b"3"),
    "block device": _retyped(b"4"),
    "fifo": _retyped(b"6"),
    "GNU sparse": _retyped(b"S"),
    "unknown type": _retyped(b"Z"),
    "duplicate": _entry(f"{NAME}/database.sql", DUMP),
    "duplicate by ./": _entry(f"./{NAME}/database.sql", DUMP),
    "two tops": _entry("other/file"),
    "file at the root": _entry("file"),
    "below a file": _entry(f"{NAME}/database.sql/evil"),
    "pax path leads out": _pax(b"path=../../evil", then=_entry(f"{NAME}/innocent")),
    "pax path absolute": _pax(b"path=/evil", then=_entry(f"{NAME}/innocent")),
    "pax sparse": _pax(b"GNU.sparse.major=1", b"GNU.sparse.minor=0", then=_entry(f"{NAME}/innocent")),
    "pax without length": _retyped(b"x", size=8) + b"path=aaa".ljust(512, b"\0") + _entry(f"{NAME}/innocent"),
    "directory with content": _retyped(b"5", size=512) + bytes(512),
    "huge size": tar_header(f"{NAME}/huge", size=2**62),
    "size beyond the end": tar_header(f"{NAME}/long", size=10_000),
    "overlong name": _entry(f"{NAME}/" + "x" * 9000),
    "wrong checksum": tar_header(f"{NAME}/evil").replace(b"000600", b"000777", 1),
    "garbage": bytes(range(256)) * 2,
}


@pytest.mark.parametrize("evil", HOSTILE)
def test_hostile_entries_are_refused(tmp_path: Path, evil: str) -> None:
    """Regular files and directories of one top directory, and nothing else."""
    path = _write(tmp_path, _good() + HOSTILE[evil] + END_BLOCKS)

    with pytest.raises(Refused):
        check_archive(path)

    assert [path] == list(tmp_path.iterdir())


def test_the_corpus_without_its_evil_passes(tmp_path: Path) -> None:
    """The corpus proves something only while its harmless part is accepted."""
    assert check_archive(_write(tmp_path, _good() + END_BLOCKS)).kind == "sql"


UNFINISHED: dict[str, tuple[bytes, str]] = {
    "file over an implied directory": (
        _entry(f"{NAME}/a/b") + _entry(f"{NAME}/a"), "a file and a directory of one name pass where the directory came first",
    ),
    "pax size of 5,000 digits": (
        _pax(b"size=" + b"9" * 5000, then=_entry(f"{NAME}/x")), "int() raises a bare ValueError for over 4,300 digits",
    ),
    "pax length inside a letter": (
        _retyped(b"x", size=7) + "6 a=é\n".encode().ljust(512, b"\0") + _entry(f"{NAME}/x"), "a bare UnicodeDecodeError",
    ),
    "underscores in a number": (
        (lambda block: block[:124] + b"0000000_01\0\0" + block[136:148] + b"%06o\0 " % checksum_of(
            block[:124] + b"0000000_01\0\0" + block[136:]) + block[156:])(tar_header(f"{NAME}/x")) + b"x".ljust(512, b"\0"),
        "int(text, 8) takes what no tar does",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "evil",
    list(UNFINISHED),
)
def test_odd_entries_are_refused_too(tmp_path: Path, evil: str) -> None:
    """Known gaps of the reader; strict, so that closing one is noticed and the case moves up to the corpus."""
    with pytest.raises(Refused):
        check_archive(_write(tmp_path, _good() + UNFINISHED[evil][0] + END_BLOCKS))


def test_a_bomb_is_stopped(tmp_path: Path) -> None:
    """Both limits hold while unpacking, not after it."""
    bomb = tar_header(f"{NAME}/zeros", size=64 << 20) + bytes(64 << 20) + END_BLOCKS
    gz = _write(tmp_path, _good() + bomb)
    zst = tmp_path / f"{NAME}-2.tar.zst"
    zst.write_bytes(zstandard.ZstdCompressor().compress(_good() + bomb))

    for path, limits in ((gz, Limits(ratio=50)), (gz, Limits(total_bytes=32 << 20)), (zst, Limits(ratio=50))):
        with pytest.raises(Refused):
            check_archive(path, limits=limits)


def test_too_many_members_are_refused(tmp_path: Path) -> None:
    """The count is bounded."""
    stream = _good() + b"".join(_entry(f"{NAME}/{number}") for number in range(20)) + END_BLOCKS

    with pytest.raises(Refused):
        check_archive(_write(tmp_path, stream), limits=Limits(members=10))


@pytest.mark.parametrize("tail", [b"more", _entry(f"{NAME}/late")])
def test_what_follows_the_end_is_refused(tmp_path: Path, tail: bytes) -> None:
    """Nothing hides behind the end blocks, nor behind the compressed data."""
    inside = _write(tmp_path, _good() + END_BLOCKS + tail)
    with pytest.raises(ArchiveDamaged):
        check_archive(inside)

    inside.write_bytes(gzip.compress(_good() + END_BLOCKS) + tail)
    with pytest.raises(ArchiveDamaged):
        check_archive(inside)


@pytest.mark.parametrize("archive_format", ["guide", "fast"])
@pytest.mark.parametrize("with_record", [True, False])
def test_a_cut_archive_is_refused_wherever_it_was_cut(
    tmp_path: Path, archive_format: Format, with_record: bool
) -> None:
    """A truncated file is never taken for a shorter backup, with its sidecar or without."""
    sealed = make_archive(tmp_path, archive_format)
    whole = sealed.path.read_bytes()
    if not with_record:
        record_path_of(sealed.path).unlink()

    for length in {*range(0, len(whole), max(len(whole) // 60, 1)), *range(len(whole) - 20, len(whole))}:
        sealed.path.write_bytes(whole[:length])
        with pytest.raises(ArchiveDamaged):
            check_archive(sealed.path)


@pytest.mark.parametrize("archive_format", ["guide", "fast"])
def test_a_flipped_bit_is_found(tmp_path: Path, archive_format: Format) -> None:
    """P5: two hundred random bits; with the sidecar each is found, without it the content is either refused or the same."""
    sealed = make_archive(tmp_path, archive_format)
    whole = sealed.path.read_bytes()
    members = check_archive(sealed.path).members
    record = record_path_of(sealed.path).read_bytes()
    rng = random.Random(7)
    for _ in range(200):
        altered = bytearray(whole)
        altered[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        sealed.path.write_bytes(altered)
        record_path_of(sealed.path).write_bytes(record)
        with pytest.raises(ArchiveDamaged):
            check_archive(sealed.path)
        record_path_of(sealed.path).unlink()
        with contextlib.suppress(Refused):
            assert members == check_archive(sealed.path).members


def _replaced(path: Path, change: Callable[[str, bytes], bytes]) -> None:
    out = io.BytesIO()
    with tarfile.open(path) as source, tarfile.open(fileobj=out, mode="w:gz", format=tarfile.GNU_FORMAT) as target:
        for info in source:
            content = source.extractfile(info)
            data = change(info.name.partition("/")[2], content.read()) if content is not None else b""
            info.size = len(data)
            target.addfile(info, io.BytesIO(data))
    path.write_bytes(out.getvalue())


def test_a_swapped_member_is_found(tmp_path: Path) -> None:
    """A well-formed archive whose member is not what its manifest says is refused, also when its sidecar is gone."""
    sealed = make_archive(tmp_path)
    _replaced(sealed.path, lambda name, data: data.replace(b"\n2\n", b"\n3\n") if name == "database.sql" else data)
    record_path_of(sealed.path).unlink()

    with pytest.raises(ArchiveDamaged, match=r"database\.sql"):
        check_archive(sealed.path)


def test_an_altered_manifest_is_found(tmp_path: Path) -> None:
    """The sidecar vouches for the manifest too, by the file's SHA-256; a manifest of another backup is refused without it."""
    sealed = make_archive(tmp_path)

    def other(name: str, data: bytes) -> bytes:
        return (
            json.dumps(json.loads(data) | {"name": "mailarchiver-backup-20200101-000000"}).encode()
            if name == "manifest.json"
            else data
        )

    _replaced(sealed.path, other)
    with pytest.raises(ArchiveDamaged):
        check_archive(sealed.path)
    record_path_of(sealed.path).unlink()
    with pytest.raises(ArchiveDamaged, match="manifest"):
        check_archive(sealed.path)


def test_another_archives_record_is_found(tmp_path: Path) -> None:
    """A sidecar that names this file but carries another's SHA-256 damns it, and both are named."""
    sealed = make_archive(tmp_path)
    record_path = record_path_of(sealed.path)
    text = record_path.read_text().replace(sealed.sha256, "0" * 64)
    record_path.write_text(text)

    with pytest.raises(ArchiveDamaged, match=sealed.sha256):
        check_archive(sealed.path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(junk=st.binary(max_size=1600), at=st.integers(0, 4), compress=st.booleans())
def test_random_bytes_only_raise_our_errors(tmp_path: Path, junk: bytes, at: int, compress: bool) -> None:
    """Whatever a stranger sends, the answer is an archive or one of our errors, never another exception."""
    good = _good() + END_BLOCKS
    stream = good[: at * 512] + junk + good[at * 512 :]
    path = tmp_path / f"{NAME}.tar.gz"
    path.write_bytes(gzip.compress(stream, 1) if compress else b"\x1f\x8b" + stream)
    with contextlib.suppress(BackupError):
        check_archive(path)


def test_gnu_tars_own_odd_archives_are_refused(tmp_path: Path) -> None:
    """Links and sparse files as the real program writes them, not only as we imagine them."""
    top = tmp_path / NAME
    top.mkdir()
    (top / "database.sql").write_bytes(DUMP)
    odd: dict[str, Callable[[Path], object]] = {
        "symlink": lambda path: path.symlink_to("/etc/passwd"),
        "hardlink": lambda path: path.hardlink_to(top / "database.sql"),
        "sparse": lambda path: path.open("wb").truncate(10 << 20),
    }
    for make in odd.values():
        make(top / "odd")
        path = tmp_path / f"{NAME}.tar.gz"
        subprocess.run(["tar", "--sparse", "-czf", path, "-C", tmp_path, NAME], check=True, timeout=60)
        with pytest.raises(Refused):
            check_archive(path)
        (top / "odd").unlink()
