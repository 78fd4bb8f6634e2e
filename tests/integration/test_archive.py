"""Archives on a real disk: readable without us, retryable by segments, never final before they are complete."""

from __future__ import annotations

import gzip
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.adapters.archive.extraction import extract
from tasks.adapters.archive.reader import check_archive, open_member
from tasks.adapters.archive.writer import (
    abandon_archive,
    begin_archive,
    reclaim_partials,
    seal_archive,
    segment,
    written_members,
)
from tasks.core.archive.manifest import Format
from tasks.core.errors import ArchiveDamaged, BackupError, Refused
from tests.integration.archives import DUMP, NAME, NOW, make_archive, manifest_of

FORMATS: list[Format] = ["guide", "fast"]
both_formats = pytest.mark.parametrize("archive_format", FORMATS)


def _run(*command: str | Path) -> bytes:
    return subprocess.run(command, check=True, capture_output=True, timeout=60).stdout


@both_formats
def test_gnu_tar_reads_what_we_wrote(tmp_path: Path, archive_format: Format) -> None:
    """P19: a restore needs tar and gzip or zstd, not this program."""
    sizes = {f"odd/{size}": os.urandom(size) for size in (0, 1, 511, 512, 513, 1_200_000)}
    sealed = make_archive(tmp_path / "repository", archive_format, members=sizes)
    program = "gzip" if archive_format == "guide" else "zstd"
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")

    _run(program, "-t", sealed.path)
    listed = _run("tar", "--use-compress-program", program, "-tf", sealed.path).decode().splitlines()
    _run("tar", "--use-compress-program", program, "-xf", sealed.path, "-C", tmp_path)

    assert (f"{NAME}/", f"{NAME}/manifest.json") == (listed[0], listed[-1])
    assert (tmp_path / NAME / "database.sql").read_bytes() == DUMP
    assert sizes == {name: (tmp_path / NAME / name).read_bytes() for name in sizes}
    assert sealed.path.stat().st_mode & 0o777 == 0o600
    assert [f"{NAME}.manifest.json", sealed.path.name] == sorted(path.name for path in sealed.path.parent.iterdir())


@both_formats
def test_our_own_archive_passes_its_check(tmp_path: Path, archive_format: Format) -> None:
    """What was sealed is what is checked, read and extracted."""
    sealed = make_archive(tmp_path / "repository", archive_format)

    checked = check_archive(sealed.path)
    extract(checked, "data-protection-keys", tmp_path / "keys", keep_owners=False)

    assert (sealed.sha256, sealed.bytes, "sql") == (checked.sha256, checked.bytes, checked.kind)
    assert b"".join(open_member(checked, "database.sql")) == DUMP
    assert (tmp_path / "keys" / "key-1.xml").read_bytes() == b"<key/>"


@both_formats
def test_a_retried_segment_replaces_its_former_attempt(tmp_path: Path, archive_format: Format) -> None:
    """P15: a step may fail in the middle of its stream and run again; nothing of the first attempt stays."""
    partial = begin_archive(tmp_path, NAME, archive_format)
    before = partial.path.stat().st_size

    def breaking() -> Iterator[bytes]:
        yield os.urandom(3_000_000)
        raise RuntimeError("the server went away")

    with pytest.raises(RuntimeError, match="went away"), segment(partial, "dump") as seg:
        seg.add_stream("database.sql", breaking(), mtime=NOW)
    assert before == partial.path.stat().st_size

    for content in (b"first", DUMP):
        with segment(partial, "dump") as seg:
            seg.add_stream("database.sql", [content], mtime=NOW)
        with segment(partial, "more") as seg:
            seg.add_bytes("docker-compose.yml", b"services: {}\n", mtime=NOW)
    sealed = seal_archive(partial, manifest_of(partial))

    assert b"".join(open_member(check_archive(sealed.path), "database.sql")) == DUMP


def test_a_manifest_that_lists_something_else_is_not_sealed(tmp_path: Path) -> None:
    """P6: a step that was forgotten, or dropped by a retry before it, is noticed."""
    partial = begin_archive(tmp_path, NAME, "guide")
    with segment(partial, "dump") as seg:
        seg.add_stream("database.sql", [DUMP], mtime=NOW)
    manifest = manifest_of(partial)
    with segment(partial, "dump") as seg:
        seg.add_stream("database.sql", [DUMP, b"more"], mtime=NOW)

    with pytest.raises(BackupError, match=r"database\.sql"):
        seal_archive(partial, manifest)

    assert not partial.final_path.exists()
    abandon_archive(partial)
    assert list(tmp_path.iterdir()) == []


def test_existing_names_are_never_overwritten(tmp_path: Path) -> None:
    """P16: whatever carries the name keeps it."""
    make_archive(tmp_path)

    for archive_format in FORMATS:
        with pytest.raises(Refused, match="exists already"):
            begin_archive(tmp_path, NAME, archive_format)


def test_a_tree_keeps_owners_modes_and_times_and_follows_no_link(tmp_path: Path) -> None:
    """P17: a data directory comes back as it was; a link in it is refused rather than followed."""
    data = tmp_path / "data"
    (data / "global").mkdir(parents=True)
    (data / "PG_VERSION").write_text("17\n")
    (data / "global" / "pg_control").write_bytes(os.urandom(8192))
    (data / "big").write_bytes(os.urandom(2_500_000))
    (data / "global").chmod(0o750)
    (data / "PG_VERSION").chmod(0o640)
    os.utime(data / "PG_VERSION", (1_600_000_000, 1_600_000_000))
    os.mkfifo(data / "pipe")
    if os.geteuid() == 0:
        os.chown(data / "big", 70, 71)
    partial = begin_archive(tmp_path / "repository", NAME, "fast")
    with segment(partial, "data") as seg:
        seg.add_tree("postgres-data", data)
        assert [note.split()[0] for note in seg.notes] == ["postgres-data/pipe"]
    checked = check_archive(seal_archive(partial, manifest_of(partial)).path)
    extract(checked, "postgres-data", tmp_path / "out", keep_owners=True)

    assert checked.kind == "physical"
    for name in ("PG_VERSION", "global/pg_control", "big", "global"):
        was, now = (data / name).stat(), (tmp_path / "out" / name).stat()
        assert (was.st_mode, was.st_uid, was.st_gid, int(was.st_mtime)) == (
            now.st_mode,
            now.st_uid,
            now.st_gid,
            int(now.st_mtime),
        )
    assert (data / "big").read_bytes() == (tmp_path / "out" / "big").read_bytes()

    (data / "link").symlink_to("/etc/passwd")
    other = begin_archive(tmp_path / "repository", f"{NAME}-2", "fast")
    with pytest.raises(Refused, match="symbolic link"), segment(other, "data") as seg:
        seg.add_tree("postgres-data", data)
    abandon_archive(other)


def test_reclaiming_spares_the_living(tmp_path: Path) -> None:
    """P15: what a dead run left goes, what a living one writes stays."""
    living = begin_archive(tmp_path, NAME, "guide")
    dead = tmp_path / "mailarchiver-backup-20260101-000000.tar.gz.partial"
    dead.write_bytes(b"half")
    dead.with_name(dead.name + ".journal").write_text("")
    (tmp_path / "mailarchiver-backup-20260101-000000.manifest.json").write_text("{}")

    reclaim_partials(tmp_path)

    assert {living.path, living.journal_path} == set(tmp_path.iterdir())
    abandon_archive(living)


@pytest.mark.parametrize("options", [["-czf"], ["--format=pax", "-czf"], ["--format=ustar", "-czf"]])
def test_the_guides_own_archives_pass(tmp_path: Path, options: list[str]) -> None:
    """An archive made by the guide's `tar -czf` is legacy: no manifest, but checked in form and restorable."""
    top = tmp_path / NAME
    (top / "data-protection-keys").mkdir(parents=True)
    (top / "database.sql").write_bytes(DUMP)
    (top / "docker-compose.yml").write_text("services: {}\n")
    (top / "data-protection-keys" / ("k" * 130 + ".xml")).write_text(
        "<key/>"
    ) if "--format=ustar" not in options else None
    _run("tar", *options, tmp_path / f"{NAME}.tar.gz", "-C", tmp_path, NAME)

    checked = check_archive(tmp_path / f"{NAME}.tar.gz")

    assert (checked.manifest, checked.kind, checked.top) == (None, "sql", NAME)
    assert b"".join(open_member(checked, "database.sql")) == DUMP


def _write_too_much(repository: Path, archive_format: Format) -> None:
    content = os.urandom(2_200_000)
    partial = begin_archive(repository, NAME, archive_format)
    try:
        with segment(partial, "dump") as seg:
            seg.add_stream("database.sql", [content[i : i + 65536] for i in range(0, len(content), 65536)], mtime=NOW)
    finally:
        abandon_archive(partial)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
@pytest.mark.parametrize("percent", [0, 25, 50, 75, 100])
@both_formats
def test_a_full_disk_leaves_no_final_name(tmp_path: Path, percent: int, archive_format: Format) -> None:
    """P2, P14: with no room, at whatever moment, there is a clear error and no archive; afterwards the space is free again."""
    mounted = tmp_path / "small"
    mounted.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", mounted], capture_output=True, check=False
    ).returncode:
        pytest.skip("this machine lets nobody mount a tmpfs")
    try:
        (mounted / "ballast").write_bytes(bytes(2 * 1024 * 1024 * percent // 100 // 4096 * 4096))
        with pytest.raises(BackupError, match="No space left"):
            _write_too_much(mounted / "repository", archive_format)
        left = [path.name for path in mounted.rglob("*") if path.is_file()]
        assert left == ["ballast"]
    finally:
        subprocess.run(["umount", mounted], check=True)


_WRITER = """
import os, sys
from pathlib import Path
from tests.integration.archives import make_archive
for number in range(2, 400):
    content = {f"postgres-logs/{i}": os.urandom(20_000) for i in range(20)}
    make_archive(Path(sys.argv[1]), ("guide", "fast")[number % 2], name=f"mailarchiver-backup-20260301-020005-{number}", members=content)
    print(number, flush=True)
"""


def test_a_killed_writer_leaves_only_whole_archives(tmp_path: Path) -> None:
    """P2: SIGKILL at ten random moments; every final name passes its check, and the next run clears the rest."""
    rng = random.Random(20260301)
    checked = 0
    for attempt in range(10):
        repository = tmp_path / str(attempt)
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(repository)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(rng.uniform(0, 0.15))  # the random moment itself, not a wait for something
        writer.send_signal(signal.SIGKILL)
        writer.communicate()

        for path in repository.glob("*.tar.*"):
            if path.suffix in (".gz", ".zst"):
                check_archive(path)
                checked += 1
        reclaim_partials(repository)
        names = {path.name.split(".")[0] for path in repository.iterdir() if path.suffix in (".gz", ".zst")}
        assert {path.name.split(".")[0] for path in repository.iterdir()} == names
        assert 2 * len(names) == len(list(repository.iterdir()))
    assert checked >= 10


def test_small_members_cost_no_header_blocks_of_their_own(tmp_path: Path) -> None:
    """A thousand small files share one compressed part: the archive stays small."""
    many = {f"data-protection-keys/{number}.xml": b"<key/>" for number in range(1000)}

    sealed = make_archive(tmp_path, members=many)

    assert sealed.bytes < 400_000
    assert len(gzip.decompress(sealed.path.read_bytes())) // 1024 > 1000


def test_written_members_are_what_was_written(tmp_path: Path) -> None:
    """The manifest's list comes from the journal, not from memory."""
    partial = begin_archive(tmp_path, NAME, "guide")
    with segment(partial, "dump") as seg:
        member = seg.add_stream("database.sql", [b"x" * 513], mtime=NOW)

    assert [member] == written_members(partial)
    assert member.bytes == 513
    abandon_archive(partial)


def test_a_member_changed_after_the_check_is_refused(tmp_path: Path) -> None:
    """A checked archive is those very bytes: another file under its name is not read."""
    sealed = make_archive(tmp_path)
    checked = check_archive(sealed.path)
    sealed.path.write_bytes(sealed.path.read_bytes())

    with pytest.raises(ArchiveDamaged):
        list(open_member(checked, "database.sql"))
