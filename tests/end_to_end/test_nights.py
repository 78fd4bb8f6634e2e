"""Many nights in minutes (P4, P18): real flows on a real stack, with the clock of this process moved on.

The suite runs a short version; `MAILARCHIVER_BACKUP_NIGHTS=40 pytest tests/end_to_end/test_nights.py` the long one.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import time_machine

from flows.automated_backup import Night, automated_backup
from flows.prune import prune
from tasks.adapters.archive.repository import list_backups
from tasks.core.errors import BackupError
from tests.receiver import Receiver, receiver
from tests.settings import ALL_RISKS, write_settings
from tests.stack.stack import POSTGRES_SERVICE, Stack

NIGHTS = int(os.environ.get("MAILARCHIVER_BACKUP_NIGHTS", "9"))
BROKEN, EMPTIED, FULL = 2, max(5, NIGHTS // 4), max(7, NIGHTS // 2)
FIRST = datetime(2026, 1, 5, 3, 30, tzinfo=UTC)

pytestmark = [pytest.mark.docker, pytest.mark.timeout(200 + 40 * NIGHTS)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Lend a file system of 600 MB, which the test may fill."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600m", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_many_nights_with_failures_an_emptied_database_and_a_full_disk(
    make_stack: Callable[..., Stack], small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last good verified backup is still there, the alarms came on the right nights, and nothing foreign was removed."""
    stack = make_stack()
    repository = small_disk / "backups"
    repository.mkdir()
    precious = tmp_path / "precious.tar.gz"
    precious.write_bytes(b"somebody's own")
    told: dict[int, list[str]] = {}
    pings: dict[int, list[str]] = {}
    nights: dict[int, Night | None] = {}

    with receiver() as heard:
        settings = write_settings(
            tmp_path / "settings.yaml",
            {
                "main": {
                    "directory": stack.directory, "repository": repository, "notifications": heard.settings(),
                    "retention": {"keep_last": 3, "minimum_verified": 3}, "log_file": tmp_path / "log" / "backup.log",
                    "metrics_directory": tmp_path / "metrics", "accept_risks": ALL_RISKS,
                }
            },
        )  # fmt: skip
        monkeypatch.setenv("MAILARCHIVER_BACKUP_SETTINGS", str(settings))
        for number in range(NIGHTS):
            if number == BROKEN:
                stack.compose("stop", "-t", "20", POSTGRES_SERVICE)
            if number == EMPTIED:
                _empty(stack)
            if number == FULL:
                _fill(small_disk)
            nights[number] = _night(number)
            if number == 1:
                foreign = _foreign_files(repository, precious)
            if number == BROKEN:
                stack.compose("start", POSTGRES_SERVICE)
                stack.wait_postgres()
            if number == FULL:
                (small_disk / "filler").unlink()
            told[number], pings[number] = _news(heard), heard.pings()
            heard.arrived.clear()

    # The last night before the loss is still there, proven, with the two before it; younger ones, verified as well, hold nothing.
    good = [nights[number] for number in (EMPTIED - 1, EMPTIED - 2)]
    left = {backup.name: backup for backup in list_backups(repository)}
    for night in good:
        assert night is not None
        assert left[night.record.manifest.name].verified
    # Before that, retention did its work.
    first = nights[0]
    assert first is not None
    assert first.record.manifest.name not in left
    # Nothing foreign went.
    assert {path: _identity(path) for path in foreign} == foreign
    assert precious.read_bytes() == b"somebody's own"

    expected: dict[int, set[str]] = {number: set() for number in range(NIGHTS)}
    expected[BROKEN] = {"automated backup failed", "authenticity"}
    expected[BROKEN + 1] = {"overdue", "overdue is over", "failure is over"}
    for number in range(EMPTIED, NIGHTS):
        expected[number] |= {"shrink"}
    expected[FULL] |= {"automated backup failed", "space"}
    expected[FULL + 1] |= {"overdue", "overdue is over", "failure is over", "space is over"}
    assert {number: set(titles) for number, titles in told.items()} == {
        number: titles for number, titles in expected.items() if number < NIGHTS
    }
    assert all(pings[number] == (["start", "fail"] if number in (BROKEN, FULL) else ["start", ""]) for number in pings)
    assert "hot backup" in (tmp_path / "log" / "backup.log").read_text()
    metrics = (tmp_path / "metrics" / "mailarchiver_backup_main.prom").read_text()
    assert 'mailarchiver_backup_problem{installation="main",kind="shrink"} 1.0' in metrics
    page = (repository / "report-main.html").read_text()
    assert "SHRINK" in page
    assert "http://" not in re.sub(r"http://(www\.w3\.org|pygal\.org|github\.com)\S*", "", page)

    # Anyone who says that the loss was meant gets pruning back.
    with time_machine.travel(FIRST + timedelta(days=NIGHTS, hours=6), tick=True):
        done = prune.fn("main", accept_shrink=True)
    assert done.plan.paused == ()
    assert {path: _identity(path) for path in foreign} == foreign


def _night(number: int) -> Night | None:
    """Run the automated backup of one night; None where it failed."""
    with time_machine.travel(FIRST + timedelta(days=number), tick=True):
        try:
            return automated_backup.fn("main")
        except BackupError:
            return None


def _news(heard: Receiver) -> list[str]:
    return [title.removeprefix("mailarchiver-backup: ").replace(" of main", "") for title in heard.titles()]


def _empty(stack: Stack) -> None:
    stack.psql('TRUNCATE mail_archiver."ArchivedEmails" CASCADE')


def _fill(disk: Path) -> None:
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    with (disk / "filler").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free - (1 << 20))


def _foreign_files(repository: Path, precious: Path) -> dict[Path, tuple[str, int]]:
    """Put things beside the backups that look like them more or less, and are none of ours; return what they are."""
    ours = list_backups(repository)[0]
    record = json.loads((repository / f"{ours.name}.manifest.json").read_text())

    def forge(name: str, **changes: object) -> Path:
        path = repository / f"{name}.tar.gz"
        path.write_bytes(b"forged")
        manifest = {**record["manifest"], "name": name, **changes}
        told = {**record, "file": path.name, "bytes": 6, "manifest": manifest}
        if changes.get("bytes"):
            told["bytes"] = changes["bytes"]
        (repository / f"{name}.manifest.json").write_text(json.dumps(told))
        return path

    forged = [
        forge("mailarchiver-backup-20200101-000000", installation="other"),
        forge("mailarchiver-backup-20200102-000000", bytes=7),
    ]
    plain = {
        "notes.txt": b"read me", "mailarchiver-backup-20190101-000000.tar.gz": b"by the guide",
        "mailarchiver-backup-20190102-000000.tar.gz.removing": b"whose?", "mailarchiver-backup-2019.tar.gz": b"odd name",
    }  # fmt: skip
    for name, content in plain.items():
        (repository / name).write_bytes(content)
    link = repository / "mailarchiver-backup-20180101-000000.tar.gz"
    link.symlink_to(precious)
    folder = repository / "mailarchiver-backup-20170101-000000.tar.gz"
    folder.mkdir()
    return {path: _identity(path) for path in [*forged, *(repository / name for name in plain), link, folder]}


def _identity(path: Path) -> tuple[str, int]:
    found = path.lstat()
    return (path.name, found.st_ino)
