"""The way a data directory is copied: short downtime where there is room for it, and never more than fits."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.policy.copy_plan import CopyWay, plan_copy

GB = 10**9
SIZES = st.integers(0, 10**14)


@pytest.mark.parametrize(
    ("data", "free", "asked", "way"),
    [
        (1 * GB, 1000 * GB, None, "stream"),
        (100 * GB, 1000 * GB, None, "copy first"),
        (100 * GB, 200 * GB, None, "stream"),
        (100 * GB, 200 * GB + 1, None, "copy first"),
        (1 * GB, 1000 * GB, "copy first", "copy first"),
        (100 * GB, 1000 * GB, "stream", "stream"),
        (100 * GB, 100 * GB, "copy first", "stream"),
        (0, 0, None, "stream"),
    ],
)
def test_a_large_directory_is_copied_first_where_there_is_room(
    data: int, free: int, asked: CopyWay | None, way: CopyWay
) -> None:
    """What somebody asked for is done, save a copy that would not fit."""
    assert plan_copy(data, free_bytes=free, archive_bytes=data, asked=asked).way == way


@settings(max_examples=200, deadline=None)
@given(SIZES, SIZES, SIZES, st.sampled_from([None, "stream", "copy first"]))
def test_a_copy_always_fits_beside_the_archive(data: int, free: int, archive: int, asked: CopyWay | None) -> None:
    """And the expected downtime is told where, and only where, the whole copy happens in it."""
    plan = plan_copy(data, free_bytes=free, archive_bytes=archive, asked=asked)

    assert plan.reason
    if plan.way == "copy first":
        assert free > data + archive
        assert plan.expected_downtime_seconds is None
    else:
        assert plan.expected_downtime_seconds is not None
        assert plan.expected_downtime_seconds >= 0
