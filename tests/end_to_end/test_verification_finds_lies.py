"""P5: verified means equal. Whatever differs is named, and the exit code is 1."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli import Operator
from tests.rebuild import rebuilt
from tests.stack.stack import Stack, create_stack

FLIPS = int(os.environ.get("MAILARCHIVER_FLIPS", "8"))
CUTS = int(os.environ.get("MAILARCHIVER_CUTS", "1"))

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300 + 60 * CUTS + 5 * FLIPS)]


@pytest.fixture(scope="module")
def stack(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    made = create_stack(tmp_path_factory.mktemp("lies") / "stack", megabytes=2)
    yield made
    made.destroy()


@pytest.fixture(scope="module")
def archive(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lend one good backup; tests change copies of it."""
    os.environ["MAILARCHIVER_BACKUP_STATE"] = str(tmp_path_factory.mktemp("state"))
    return Path(Operator(stack.directory, tmp_path_factory.mktemp("good") / "backups").must("backup", "hot")["archive"])


def without(content: bytes, begins: bytes, ends: bytes = b";\n") -> bytes:
    """Take one statement out of a dump."""
    start = content.index(begins)
    return content[:start] + content[content.index(ends, start) + len(ends) :]


def in_rows_of(content: bytes, table: bytes, change: Callable[[bytes], bytes]) -> bytes:
    start = content.index(b"\n", content.index(b"COPY " + table)) + 1
    end = content.index(b"\\.\n", start)
    return content[:start] + change(content[start:end]) + content[end:]


LIES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "a changed row": (lambda dump: in_rows_of(dump, b'mail_archiver."MailAccounts"', lambda rows: rows.replace(b"a", b"b", 1)), "MailAccounts"),
    "a missing row": (
        lambda dump: in_rows_of(dump, b'mail_archiver."ArchivedEmails"', lambda rows: rows[rows.index(b"\n") + 1 :] if rows.count(b"\n") > 1 else b""),
        "ArchivedEmails",
    ),
    "a dropped index": (lambda dump: without(dump, b"CREATE INDEX"), "INDEX"),
    "a dropped constraint": (lambda dump: without(dump, b"ALTER TABLE ONLY mail_archiver.\"Users\"\n    ADD CONSTRAINT"), "Users"),
    "a moved sequence": (lambda dump: dump.replace(b", true);", b", false);", 1), "sequence"),
    "an attachment's byte": (
        lambda dump: in_rows_of(dump, b'mail_archiver."AttachmentContents"', lambda rows: rows.replace(b"\\\\x", b"\\\\x00", 1)), "AttachmentContents",
    ),
}  # fmt: skip


# What PostgreSQL cannot rebuild ends a verification; the others are told together, each in its own words.
FATAL = ("a missing row", "a dropped constraint")
TOGETHER = [lie for lie in LIES if lie not in FATAL]


@pytest.mark.parametrize(
    "lies",
    [TOGETHER, *([lie] for lie in FATAL), *(pytest.param([lie], marks=pytest.mark.long) for lie in TOGETHER)],
    ids=" and ".join,
)
def test_other_content_is_found_and_named(stack: Stack, archive: Path, tmp_path: Path, lies: list[str]) -> None:
    def told(name: str, content: bytes) -> bytes:
        for lie in lies if name == "database.sql" else ():
            content = LIES[lie][0](content)
        return content

    changed = rebuilt(archive, tmp_path / "backups", told)

    answer = Operator(stack.directory, changed.parent).run("verify", str(changed))

    assert answer.code == 1
    assert answer.value["verdict"] == ("failed" if lies[0] in FATAL else "different")
    for lie in lies:
        # One of them names no other's object.
        found = [line for line in answer.value["differences"] if LIES[lie][1] in line]
        assert len(found) == 1 or len(lies) == 1, answer.value
        assert found, (lie, answer.value)


def test_an_empty_database_does_not_verify(stack: Stack, archive: Path, tmp_path: Path) -> None:
    """A dump of nothing is whole, has its trailer, and 693 bytes: it must not pass for a backup."""
    empty = b"--\n-- PostgreSQL database dump\n--\n\nSET client_encoding = 'UTF8';\n\n--\n-- PostgreSQL database dump complete\n--\n"
    changed = rebuilt(archive, tmp_path / "backups", lambda name, content: empty if name == "database.sql" else content)

    answer = Operator(stack.directory, changed.parent).run("verify", str(changed))

    assert (answer.code, answer.value["verdict"]) == (1, "different")
    assert any("is missing" in line for line in answer.value["differences"])


TRAILER = b"\n--\n-- PostgreSQL database dump complete\n--\n\n"


@pytest.mark.parametrize(
    "where", ["anywhere", "between two statements", "between two statements, its end mark put back"]
)
def test_a_dump_cut_short_does_not_verify(stack: Stack, archive: Path, tmp_path: Path, where: str) -> None:
    """psql takes most of these with exit code 0; with its end mark put back, only the census tells."""
    with tarfile.open(archive) as tar:
        member = tar.extractfile(f"{archive.name.removesuffix('.tar.gz')}/database.sql")
        assert member is not None
        dump = member.read()
    boundaries = [found.end() for found in re.finditer(rb";\n\n", dump)]
    for number in range(CUTS):
        if where == "anywhere":
            at = len(dump) * (number + 1) // (CUTS + 1)
        else:
            at = boundaries[len(boundaries) * (number + 1) // (CUTS + 1)]
        left = dump[:at] + (TRAILER if "put back" in where else b"")
        place = tmp_path / str(number) / "backups"
        place.parent.mkdir()
        cut = rebuilt(archive, place, lambda name, content, left=left: left if name == "database.sql" else content)

        answer = Operator(stack.directory, cut.parent).run("verify", str(cut))

        assert answer.code == 1, f"cut at byte {at}"
        assert answer.value["verdict"] == ("different" if "put back" in where else "failed")
        assert answer.value["differences"]


def test_flipped_bytes_are_found(stack: Stack, archive: Path, tmp_path: Path) -> None:
    """One byte anywhere in the file; most are found by reading, none gets as far as a restore."""
    good = archive.read_bytes()
    place = tmp_path / "backups"
    shutil.copytree(archive.parent, place)
    operator = Operator(stack.directory, place)
    for _ in range(FLIPS):
        at = random.randrange(len(good))
        (place / archive.name).write_bytes(good[:at] + bytes([good[at] ^ (1 << random.randrange(8))]) + good[at + 1 :])

        assert operator.run("check", archive.name).code == 1, f"byte {at} was flipped and nobody noticed"
    answer = operator.run("verify", archive.name)
    assert (answer.code, answer.value["verdict"]) == (1, "failed")
    assert operator.must("list")[0]["verified"] is False


def test_a_changed_key_file_is_found(stack: Stack, archive: Path, tmp_path: Path) -> None:
    place = tmp_path / "backups"
    changed = rebuilt(
        archive, place, lambda name, content: content + b" " if name.startswith("data-protection-keys/") else content
    )
    # Under the original's record: the file is not what was sealed.
    shutil.copy(archive.with_name(archive.name.replace(".tar.gz", ".manifest.json")), place)

    answer = Operator(stack.directory, changed.parent).run("verify", str(changed))

    assert (answer.code, answer.value["verdict"]) == (1, "failed")
    assert "SHA-256" in answer.value["differences"][0]


@pytest.mark.parametrize("manifest_too", [True, False], ids=["ours", "a stranger's"])
def test_what_our_loader_refuses_postgresql_may_load_where_the_archive_is_ours(
    stack: Stack, archive: Path, tmp_path: Path, manifest_too: bool
) -> None:
    """The second way is told of, and proves as much; it is not taken on production for an archive that has no manifest."""
    place = tmp_path / "backups"
    trailer = b"--\n-- PostgreSQL database dump complete"

    def add(name: str, content: bytes) -> bytes:
        return (
            content.replace(trailer, b"DO $$ BEGIN PERFORM 1; END $$;\n\n" + trailer, 1)
            if name == "database.sql"
            else content
        )

    changed = rebuilt(archive, place, add)
    if not manifest_too:
        changed = without_manifest(changed)
    operator = Operator(stack.directory, place)

    # A dump of nobody knows whom is loaded without rights, and not by psql, which runs whatever it is told.
    verdict = operator.run("verify", str(changed)).value
    assert verdict["verdict"] == ("verified" if manifest_too else "failed")
    told = verdict["notes" if manifest_too else "differences"][0]
    assert "the dump holds a statement that pg_dump does not write" in told
    assert ("PostgreSQL's own psql" in told) == manifest_too

    if not manifest_too:
        refused = operator.run("restore", str(changed), "--yes", "--foreign", "--with-code")
        assert refused.code == 1
        assert "pg_dump does not write" in refused.value["error"]


def without_manifest(archive: Path) -> Path:
    """Make an archive a legacy one: take its manifest and record away."""
    scratch = archive.parent / "scratch"
    scratch.mkdir()
    subprocess.run(["tar", "-xzf", str(archive), "-C", str(scratch)], check=True)
    name = archive.name.removesuffix(".tar.gz")
    (scratch / name / "manifest.json").unlink()
    archive.unlink()
    archive.with_name(f"{name}.manifest.json").unlink()
    subprocess.run(["tar", "-czf", str(archive), "-C", str(scratch), name], check=True)
    shutil.rmtree(scratch)
    return archive
