"""What we make, keep and remove on the disk: only what is ours, never through a link, and at every moment something stands."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tasks.adapters.archive.reader import check_archive
from tasks.adapters.archive.repository_marker import MARKER_NAME
from tasks.adapters.archive.writer import abandon_archive, begin_archive, reclaim_partials, segment
from tasks.adapters.host.files import keep_copy, remove_tree, rename, write_atomically
from tasks.backup.archive import new_archive
from tasks.core.archive.names import backup_name
from tasks.core.errors import BackupError, NameTaken
from tasks.core.stack.installation import ConfigFile, Database, Installation, Mount, Service
from tasks.restore.config_files import restore_configuration
from tasks.run.config import config_at
from tests.integration.archives import NAME, NOW, make_archive


def beginner(repository: str, barrier: Any, results: Any) -> None:
    """Begin archives of the same names as the others do, and say of each whether it is ours and its file still there at the end."""
    outcomes = []
    for number in range(30):
        barrier.wait(30)
        reclaim_partials(Path(repository))
        try:
            partial = begin_archive(Path(repository), backup_name(NOW + timedelta(seconds=number)), "guide")
        except NameTaken:
            outcomes.append("taken")
            continue
        except BackupError as error:
            outcomes.append("again" if error.transient else str(error))
            continue
        with segment(partial, "dump") as part:
            part.add_bytes("a", b"a", mtime=NOW)
        outcomes.append("mine" if partial.path.exists() and partial.journal_path.exists() else "lost")
    barrier.wait(30)
    results.put(outcomes)


def test_who_loses_the_race_for_a_name_leaves_the_winners_files(tmp_path: Path) -> None:
    """Four processes begin the same archives at the same moments, each reclaiming dead runs' leftovers all the while."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(4), context.Queue()
    processes = [context.Process(target=beginner, args=(str(tmp_path), barrier, results)) for _ in range(4)]
    for process in processes:
        process.start()
    outcomes = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(30)

    for of_one_name in zip(*outcomes, strict=True):
        assert set(of_one_name) <= {"mine", "taken", "again"}
        assert of_one_name.count("mine") <= 1
    assert sum(each.count("mine") for each in outcomes) > 20


@pytest.mark.parametrize("other", ["guide", "fast"])
def test_a_name_that_is_taken_is_left_alone(tmp_path: Path, other: Any) -> None:
    """Whether the other is still being written or sealed, and whatever its format; the next free name is taken instead."""
    first = begin_archive(tmp_path, NAME, other)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    with pytest.raises(NameTaken, match="not overwritten"):
        begin_archive(tmp_path, NAME, "guide")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    config = config_at("main", tmp_path / "stack", tmp_path)
    with new_archive(config, "guide", NOW) as second:
        assert second.name == f"{NAME}-2"
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert after.pop(MARKER_NAME)  # the repository's own
    assert after == before
    abandon_archive(first)
    assert [path.name for path in tmp_path.iterdir()] == [MARKER_NAME]


def test_a_link_planted_under_the_name_is_not_followed(tmp_path: Path) -> None:
    """Neither at the partial file's name nor at the record's."""
    target = tmp_path / "target"
    target.write_text("precious")
    for name in (f"{NAME}.tar.gz.partial", f"{NAME}.manifest.json", f"{NAME}.tar.gz"):
        place = tmp_path / name
        place.symlink_to(target)
        with pytest.raises(NameTaken):
            begin_archive(tmp_path, NAME, "guide")
        reclaim_partials(tmp_path)
        assert place.is_symlink()
        place.unlink()
    assert target.read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_leftovers_of_a_killed_run_go_with_their_journal(tmp_path: Path) -> None:
    """A journal without its archive too."""
    (tmp_path / f"{NAME}.tar.gz.partial").write_text("half")
    (tmp_path / f"{NAME}.tar.gz.partial.journal").write_text("{}")
    (tmp_path / f"{NAME}.manifest.json").write_text("{}")
    (tmp_path / f"{NAME}-2.tar.zst.partial.journal").write_text("{}")

    reclaim_partials(tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_a_tree_is_removed_but_never_through_a_link(tmp_path: Path) -> None:
    """A link or a file under the name of a directory goes alone; what is not there is gone already."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "mail").write_text("a letter")
    tree, link, file = tmp_path / "tree", tmp_path / "link", tmp_path / "file"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep" / "link").symlink_to(precious)
    link.symlink_to(precious)
    file.write_text("no directory")

    for place in (tree, link, file, tmp_path / "absent"):
        remove_tree(place)

    assert [path.name for path in tmp_path.iterdir()] == ["precious"]
    assert (precious / "mail").read_text() == "a letter"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting is for root")
def test_what_cannot_be_removed_or_renamed_is_named(tmp_path: Path) -> None:
    """A mount within: the message says where, and what to do."""
    mounted = tmp_path / "tree" / "mounted"
    mounted.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(mounted)], check=True)
    try:
        with pytest.raises(BackupError, match="mounted cannot be removed: Device or resource busy") as refused:
            remove_tree(tmp_path / "tree")
        assert "umount" in refused.value.hint
        with pytest.raises(BackupError, match="cannot be renamed") as refused:
            rename(mounted, tmp_path / "other")
        assert refused.value.hint
        (mounted / "file").touch()
        with pytest.raises(BackupError, match="cannot be renamed") as refused:
            rename(mounted / "file", tmp_path / "file")
        assert "two file systems" in refused.value.hint
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


def test_a_file_that_cannot_be_written_is_told_in_words(tmp_path: Path) -> None:
    """No directory, a directory that is a file, a name that is too long: never a bare OSError."""
    (tmp_path / "file").touch()
    for place in (tmp_path / "absent" / "x", tmp_path / "file" / "x", tmp_path / ("n" * 300)):
        with pytest.raises(BackupError, match="failed after 0 bytes"):
            write_atomically(place, b"x")


def test_a_kept_copy_is_made_where_links_are_and_takes_no_name_that_is_used(tmp_path: Path) -> None:
    """The file itself never loses its name."""
    place = tmp_path / "docker-compose.yml"
    place.write_text("old")

    first, second = (keep_copy(place, tmp_path / "docker-compose.yml.before") for _ in range(2))

    assert {first.read_text(), second.read_text(), place.read_text()} == {"old"}
    assert first != second


def test_while_configuration_is_restored_a_file_stands_there_at_every_moment(tmp_path: Path) -> None:
    """`docker compose up` of an impatient operator, or a kill: it is the old one or the new one, whole, with its owner and mode."""
    directory = tmp_path / "stack"
    directory.mkdir()
    place, link, elsewhere = directory / "docker-compose.yml", directory / ".env", directory / "real.env"
    place.write_text("current\n")
    place.chmod(0o640)
    elsewhere.write_text("A=current\n")
    link.symlink_to("real.env")
    members = {"docker-compose.yml": b"restored\n", ".env": b"A=restored\n", "new/extra.yml": b"new\n"}
    archive = check_archive(make_archive(tmp_path / "backups", members=members).path)
    leftover = directory / ".docker-compose.yml.0123abcd.tmp"
    leftover.write_text("of a killed run")
    (directory / ".somebody.else.tmp").write_text("not ours")

    seen: list[str] = []
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            for each in (place, link):
                try:
                    seen.append(each.read_text())
                except OSError as error:
                    seen.append(repr(error))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for number in range(20):
            names = restore_configuration(
                installation_in(directory), archive, list(members), now=datetime(2026, 1, 1, 0, 0, number, tzinfo=UTC)
            )
    finally:
        over.set()
        watcher.join()

    assert names == list(members)
    assert set(seen) <= {"current\n", "restored\n", "A=current\n", "A=restored\n"}
    assert (place.read_text(), link.read_text(), (directory / "new/extra.yml").read_text()) == (
        "restored\n",
        "A=restored\n",
        "new\n",
    )
    assert place.stat().st_mode & 0o777 == 0o640
    kept = sorted(directory.glob("docker-compose.yml.before-*"))
    assert len(kept) == 20
    assert kept[0].read_text() == "current\n"
    assert (directory / ".env.before-20260101_000000").readlink() == Path("real.env")
    assert elsewhere.read_text() == "A=current\n"
    assert not leftover.exists()
    assert (directory / ".somebody.else.tmp").exists()


def installation_in(directory: Path) -> Installation:
    """Describe a stack that is not there, for what looks at files alone."""
    service = Service("s", "", "s", "absent", "i", "", None, "no", {}, (), ())
    files = ("docker-compose.yml", ".env")
    return Installation(
        "main", directory, "p", (directory / "docker-compose.yml",), service, service, (service,),
        Database("d", "s", "", "u", ""), "/data", Mount("bind", "/x", "/data", None), None,
        tuple(ConfigFile(directory / name, name) for name in files),
    )  # fmt: skip
