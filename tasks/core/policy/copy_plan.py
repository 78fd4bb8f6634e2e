"""How to keep the downtime of a cold copy short: stream straight into the archive, or copy first and then only what changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tasks.core.errors import UsageError

# Reading, hashing and compressing a data directory into an archive (tests/benchmarks; two cores). A pessimist's figure.
STREAM_BYTES_PER_SECOND = 250_000_000
WORTH_A_COPY_SECONDS = 15.0

CopyWay = Literal["stream", "copy first"]


@dataclass(frozen=True, slots=True)
class CopyPlan:
    """Which way was chosen, why, and how long the stack is expected to be down (None: only what changes meanwhile)."""

    way: CopyWay
    reason: str
    expected_downtime_seconds: float | None


def way_for(asked: CopyWay | None, *, encrypted: bool) -> CopyWay | None:
    """Give the way that is asked for; an encrypted archive is always streamed, for a first copy would lie beside it in the clear.

    >>> way_for(None, encrypted=True)
    'stream'
    """
    if encrypted and asked == "copy first":
        raise UsageError(
            "an encrypted backup cannot copy first: the copy would lie beside the archive unencrypted",
            hint="leave the way away, or take an online backup, which stops nothing",
        )
    return "stream" if encrypted else asked


def plan_copy(data_bytes: int, *, free_bytes: int, archive_bytes: int, asked: CopyWay | None = None) -> CopyPlan:
    """Choose the way: a small directory is streamed, a large one copied first where there is room for a copy besides the archive.

    >>> plan_copy(10**9, free_bytes=10**12, archive_bytes=10**9).way
    'stream'
    >>> plan_copy(10**11, free_bytes=10**12, archive_bytes=10**11).way
    'copy first'
    >>> plan_copy(10**11, free_bytes=10**11, archive_bytes=10**11).way
    'stream'
    """
    seconds = data_bytes / STREAM_BYTES_PER_SECOND
    has_room = free_bytes > data_bytes + archive_bytes
    if asked == "stream":
        return CopyPlan("stream", "as asked", seconds)
    if asked == "copy first" and has_room:
        return CopyPlan("copy first", "as asked", None)
    if seconds <= WORTH_A_COPY_SECONDS:
        return CopyPlan("stream", f"streaming {data_bytes:,} bytes takes about {seconds:.0f} s", seconds)
    if has_room:
        return CopyPlan("copy first", f"streaming would take about {seconds:.0f} s, and there is room for a copy", None)
    return CopyPlan("stream", f"there is no room for a copy of {data_bytes:,} bytes besides the archive", seconds)
