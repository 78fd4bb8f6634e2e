"""A repository whose mount is gone is not an empty one: nothing is written below the mount point, and it is told everywhere."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.adapters.archive.repository_marker import (
    MARKER_NAME,
    accept_repository,
    claim_repository,
    require_repository,
)
from tasks.adapters.host.files import create_whole
from tasks.core.errors import Refused, UsageError
from tests.cli import PROGRAM, Operator, run_program
from tests.receiver import receiver
from tests.settings import write_settings
from tests.stack.stack import Stack

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting is for root")


def mount(place: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)], check=True)


def umount(place: Path) -> None:
    subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Lend a mounted disk; whether it is mounted at the end is the test's affair."""
    place = tmp_path / "disk"
    place.mkdir()
    mount(place)
    yield place
    subprocess.run(["umount", str(place)], capture_output=True, check=False)


@needs_root
@pytest.mark.docker
@pytest.mark.timeout(300)
def test_a_backup_after_the_mount_is_gone_is_refused(small_stack: Stack, disk: Path, tmp_path: Path) -> None:
    """By every command that would take the empty directory for the repository; `restore` of a path goes on."""
    operator = Operator(small_stack.directory, disk / "backups")
    operator.must("backup", "hot")
    elsewhere = tmp_path / "copy.tar.gz"
    archive = Path(operator.must("list")[0]["archive"])
    elsewhere.write_bytes(archive.read_bytes())
    # A mount that is moved away keeps its content, as a disk does that is plugged in again.
    aside = tmp_path / "aside"
    aside.mkdir()
    subprocess.run(["mount", "--bind", str(disk), str(aside)], check=True)
    umount(disk)
    try:
        for words in (
            ("backup", "complete"), ("backup", "auto"), ("list",), ("prune",), ("verify",), ("restore", "latest", "--yes"),
        ):  # fmt: skip
            answer = operator.run(*words)
            assert answer.code == 1, (words, answer)
            assert "not mounted" in answer.stderr, words
            assert "accept-repository" in answer.stderr, words
        with receiver() as heard:
            settings = write_settings(
                tmp_path / "settings.yaml",
                {
                    "main": {
                        "directory": small_stack.directory,
                        "repository": disk / "backups",
                        "notifications": heard.settings(),
                    }
                },
            )
            code, told, _ = run_program([PROGRAM, "status", "--alarm", "--settings", str(settings)])
            assert "mailarchiver-backup: repository of main" in heard.titles()
        assert code == 1
        assert "REPOSITORY: " in told
        assert list(disk.iterdir()) == []
        assert operator.run("check", str(elsewhere)).code == 0

        subprocess.run(["mount", "--bind", str(aside), str(disk)], check=True)
        assert len(operator.must("list")) == 1
        operator.must("backup", "hot")
    finally:
        umount(aside)


def test_a_marker_is_made_once_and_missed_afterwards(tmp_path: Path) -> None:
    """Emptied, replaced by another, damaged, or gone altogether; taken on request."""
    repository = tmp_path / "backups"
    claim_repository(repository)
    claim_repository(repository)
    first = (repository / MARKER_NAME).read_bytes()
    for content in (None, b'{"id": "another"}', b"", b"\x00\xff", b'{"id": 7}', b"[" * 3000, b"[]"):
        (repository / MARKER_NAME).unlink()
        if content is not None:
            (repository / MARKER_NAME).write_bytes(content)
        with pytest.raises(Refused, match="before") as refused:
            claim_repository(repository)
        assert "accept-repository" in refused.value.hint
        accept_repository(repository)
        require_repository(repository)

    (repository / MARKER_NAME).unlink()
    repository.rmdir()
    with pytest.raises(Refused, match="before"):
        claim_repository(repository)
    assert not repository.exists()
    repository.write_text("a file")
    with pytest.raises(UsageError, match="is a file"):
        claim_repository(repository)
    assert first != b""


def test_another_machine_takes_the_marker_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts may share a repository: its id is everybody's."""
    repository = tmp_path / "backups"
    claim_repository(repository)
    before = (repository / MARKER_NAME).read_bytes()
    monkeypatch.setenv("MAILARCHIVER_BACKUP_STATE", str(tmp_path / "other-state"))

    claim_repository(repository)

    assert (repository / MARKER_NAME).read_bytes() == before


def test_a_link_that_leads_elsewhere_is_noticed(tmp_path: Path) -> None:
    """The settings name the link: what it led to before is the repository."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    link = tmp_path / "link"
    link.symlink_to("one")
    claim_repository(link)
    link.unlink()
    link.symlink_to("two")

    with pytest.raises(Refused, match="before"):
        require_repository(link)


def test_of_two_that_make_a_file_the_first_wins(tmp_path: Path) -> None:
    """Nothing is written over, and nothing stays beside it."""
    assert create_whole(tmp_path / "a", b"first")
    assert not create_whole(tmp_path / "a", b"second")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"first")]
