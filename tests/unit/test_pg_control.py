"""pg_control (P7): whether a cluster was shut down cleanly is read, never guessed."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.errors import Refused
from tasks.core.stack.pg_control import STATES, ControlData, needed_after_shutdown, read_control, segment_name

MB16 = 16 << 20


def control_file(*, layout: int = 1700, state: int = 1, redo: int = 0x3000028, timeline: int = 1) -> bytes:
    """Write the leading fields as PostgreSQL's compiler lays them out, in a file of 8 kB."""
    fields = struct.pack("<Q", 7301234567890123456) + struct.pack("<III", layout, 202406281, state) + bytes(4)
    fields += struct.pack("<qQQI", 1_700_000_000, redo, redo, timeline)
    return fields.ljust(8192, b"\0")


@pytest.mark.parametrize(("number", "word"), list(enumerate(STATES)))
def test_only_a_cluster_shut_down_as_a_primary_counts_as_shut_down(number: int, word: str) -> None:
    """A standby's shutdown, a crash, a start or a stop under way are not of one moment."""
    found = read_control(control_file(state=number))

    assert found == ControlData("7301234567890123456", 1700, word, 0x3000028, 1)
    assert found.is_shut_down is (number == 1)


@pytest.mark.parametrize(
    "content",
    [b"", control_file()[:47], control_file(layout=1099), control_file(layout=1900), control_file(state=7), b"\xff" * 8192],
)  # fmt: skip
def test_what_is_not_known_is_refused(content: bytes) -> None:
    """Neither a cut file nor one of a PostgreSQL to come is taken for a clean one."""
    with pytest.raises(Refused):
        read_control(content)


@pytest.mark.parametrize(
    ("redo", "timeline", "segment_bytes", "name"),
    [
        (0x3000028, 1, MB16, "000000010000000000000003"),
        (0x2FFFFFF, 1, MB16, "000000010000000000000002"),
        (0x1_00000000, 1, MB16, "000000010000000100000000"),
        (0xFF_FF000000, 0x1A, MB16, "0000001A000000FF000000FF"),
        (0x1_40000000, 2, 1 << 30, "000000020000000100000001"),
    ],
)
def test_wal_segments_are_named_as_postgresql_names_them(
    redo: int, timeline: int, segment_bytes: int, name: str
) -> None:
    """Values of `pg_walfile_name`, of clusters with ordinary and with large segments."""
    assert ControlData("1", 1700, "shut down", redo, timeline).redo_segment(segment_bytes) == name


@settings(max_examples=100, deadline=None)
@given(st.integers(0, (1 << 63) - 1), st.sampled_from([1 << 20, MB16, 1 << 30]), st.integers(1, 1 << 31))
def test_segment_names_sort_as_their_numbers(position: int, segment_bytes: int, timeline: int) -> None:
    """Each has 24 digits, and the next one sorts after it."""
    number = position // segment_bytes
    name, following = (segment_name(timeline, each, segment_bytes) for each in (number, number + 1))

    assert len(name) == len(following) == 24
    assert name < following


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("base/5/1259", True),
        ("global/pg_control", True),
        ("PG_VERSION", True),
        ("postmaster.pid", False),
        ("postmaster.opts", False),
        ("backup_label", True),
        ("backup_label.old", False),
        ("backup_manifest", False),
        ("tablespace_map.old", False),
        ("pg_wal/000000010000000000000003", True),
        ("pg_wal/000000010000000000000004", True),
        ("pg_wal/000000010000000000000002", False),
        ("pg_wal/000000010000000000000005", False),
        ("pg_wal/000000020000000000000003", False),
        ("pg_wal/00000002.history", True),
        ("pg_wal/archive_status/000000010000000000000002.done", True),
        ("base/postmaster.pid", True),
    ],
)
def test_a_cold_copy_takes_the_shutdown_checkpoint_and_no_old_wal(name: str, needed: bool) -> None:
    """The segment of the checkpoint and the next are enough to start; what a dead server left is not."""
    assert needed_after_shutdown(name, read_control(control_file()), MB16) is needed
