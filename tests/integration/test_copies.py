"""Copies of backups at real targets on loopback: nothing sent twice, nothing lost, and words for what goes wrong."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tasks.adapters.archive.repository import list_backups, write_verification
from tasks.copies.view import target_view
from tasks.oversight.copies import CopiesFailed
from tasks.restore.check_archive import check_backup
from tasks.run.own_backups import resign
from tests.integration.archives import verdict
from tests.integration.copying import MIB, arrived, at, copy, copying_to, night, sending
from tests.stack.stack import wait_until
from tests.targets import Server, serving

KINDS = ["s3", "openssh", "webdav"]


@pytest.fixture(scope="module", params=KINDS)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("served"), request.param) as server:
        yield server


@pytest.fixture
def emptied(served: Server) -> Server:
    if served.process is None:  # killed by a test that failed
        served.start()
    for each in (served.files / "bucket").iterdir():
        each.unlink()
    return served


def test_what_is_missing_goes_once_and_the_record_brings_the_verdict(emptied: Server, tmp_path: Path) -> None:
    """Whole after each run, byte for byte; a later verdict sends the record alone."""
    config = copying_to(tmp_path, "away:bucket", sections={"away": emptied.section})
    old, new = night(config, 1), night(config, large=True, verified=False)
    (first,) = copy(config)

    assert first.copied.sent == (new.manifest.name, old.manifest.name)
    assert first.copied.sent_bytes == old.bytes + new.bytes
    there = at(emptied)
    parts = b"".join(there[name] for name in sorted(there) if name.startswith(f"{new.file}.part-"))
    assert parts == (config.repository / new.file).read_bytes()
    assert there[old.file] == (config.repository / old.file).read_bytes()

    (again,) = copy(config)
    assert (again.copied.sent, again.copied.sent_bytes, again.copied.records) == ((), 0, ())

    write_verification(config.repository / new.file, verdict(datetime.now(UTC), new.sha256), resign(config))
    (third,) = copy(config)
    assert (third.copied.sent_bytes, third.copied.records) == (0, (new.manifest.name,))
    beside = (config.repository / f"{new.manifest.name}.manifest.json").read_bytes()
    assert at(emptied)[f"{new.manifest.name}.manifest.json"] == beside


@pytest.mark.usefixtures("no_waiting")
def test_a_server_that_dies_on_the_way_costs_what_was_on_the_way(emptied: Server, tmp_path: Path) -> None:
    """The error says so, the local backup is unharmed, and the next run sends what is missing."""
    config = copying_to(tmp_path, "away:bucket", sections={"away": emptied.section}, bandwidth=MIB)
    new = night(config, large=True)
    before = (config.repository / new.file).read_bytes()

    def kill_it() -> None:
        wait_until(lambda: f"{new.file}.part-0001" in arrived(new), 60, "the first part did not arrive")
        wait_until(lambda: sending(config, f"{new.file}.part-0002"), 60, "the second part was not begun")
        emptied.kill()

    killer = threading.Thread(target=kill_it)
    killer.start()
    with pytest.raises(CopiesFailed, match=r"target a does not answer, or the connection was cut \(send ") as failed:
        copy(config)
    killer.join()
    assert failed.value.runs[0].copied.sent == ()
    assert (config.repository / new.file).read_bytes() == before
    assert f"{new.manifest.name}.manifest.json" not in at(emptied)

    emptied.start()
    (again,) = copy(config)
    assert again.copied.sent == (new.manifest.name,)
    assert again.copied.sent_bytes == new.bytes - MIB
    assert len(list_backups(config.repository)) == 1


def test_a_copy_is_read_from_every_kind_of_target(emptied: Server, tmp_path: Path) -> None:
    config = copying_to(tmp_path, "away:bucket", sections={"away": emptied.section})
    made = night(config, large=True)
    copy(config)

    with target_view(config, "a") as there:
        assert check_backup(there.archives, "latest").sha256 == made.sha256
