"""A backup's name (P16): in UTC, never taken twice, never a path, and read back as it was written."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.archive.names import BACKUP_PARAMETER, EXTENSIONS, backup_name, split_archive_name, time_in_name

MOMENTS = st.datetimes(
    min_value=datetime(2000, 1, 2), max_value=datetime(2100, 1, 1), timezones=st.sampled_from([UTC, timezone(timedelta(hours=2))])
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(st.lists(MOMENTS, max_size=6), st.integers(1, 4))
def test_every_name_is_new_and_tells_its_moment(moments: list[datetime], backups_each: int) -> None:
    """However many begin in one second, whatever the zone of the clock."""
    taken: list[str] = []
    for moment in moments:
        for _ in range(backups_each):
            name = backup_name(moment, taken)

            assert name not in taken
            assert time_in_name(name) == moment.astimezone(UTC).replace(microsecond=0)
            assert re.fullmatch(BACKUP_PARAMETER, name)
            for archive_format, extension in EXTENSIONS.items():
                assert split_archive_name(name + extension) == (name, archive_format)
            taken.append(name)


def test_names_of_later_seconds_sort_later_over_the_change_of_the_clocks() -> None:
    """02:30 comes twice in the night when summer time ends; the names do not."""
    summer, winter = timezone(timedelta(hours=2)), timezone(timedelta(hours=1))
    first = backup_name(datetime(2026, 10, 25, 2, 30, tzinfo=summer))
    second = backup_name(datetime(2026, 10, 25, 2, 30, tzinfo=winter), [first])

    assert [first, second] == ["mailarchiver-backup-20261025-003000", "mailarchiver-backup-20261025-013000"]


@pytest.mark.parametrize(
    "file_name",
    [
        "mailarchiver-backup-20260301-020005",
        "mailarchiver-backup-20260301-020005.manifest.json",
        "mailarchiver-backup-20260301-020005.tar.gz.partial",
        "mailarchiver-backup-20260301-020005.tar.xz",
        "mailarchiver-backup-20260301.tar.gz",
        "mailarchiver-backup-20260301-020005-.tar.gz",
        "mailarchiver-backup-20260301-020005-a.tar.gz",
        "mailarchiver-backup-٢٠٢٦٠٣٠١-٠٢٠٠٠٥.tar.gz",
        "mailarchiver-backup-20260301-020005\n.tar.gz",
        "../mailarchiver-backup-20260301-020005.tar.gz",
        "photos.tar.gz",
        ".tar.gz",
        "",
    ],
)
def test_other_files_are_no_archives(file_name: str) -> None:
    """What merely resembles a name is neither listed nor ever removed."""
    assert split_archive_name(file_name) is None


@pytest.mark.parametrize(
    "name", ["mailarchiver-backup-20261399-020005", "mailarchiver-backup-20260229-020005", "latest", ""]
)
def test_a_name_without_a_moment_tells_none(name: str) -> None:
    """The thirteenth month and the 29th of a February that has 28 days are nobody's time."""
    assert time_in_name(name) is None


@pytest.mark.parametrize(
    "parameter",
    ["/etc/passwd", "../b", "mailarchiver-backup-20260301-020005.tar.gz", "latest/..", "Latest", "", " latest"],
)
def test_a_flow_takes_no_path_for_a_backup(parameter: str) -> None:
    """Anyone who reaches Prefect's API names a backup, never a file."""
    assert re.fullmatch(BACKUP_PARAMETER, parameter) is None
