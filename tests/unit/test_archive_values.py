"""The journal of an archive under construction: what stands after any interruption, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.archive.manifest import Member
from tasks.core.archive.segments import (
    FinishedSegment,
    PartialArchive,
    journal_line,
    missing_and_extra,
    partial_path,
    read_journal,
)
from tasks.core.errors import BackupError


def segment(name: str, begins: int, ends: int) -> FinishedSegment:
    """Make a finished segment with a member of its name."""
    return FinishedSegment(name, begins, ends, (Member(name=f"{name}/x", bytes=1, sha256="a"),), (f"{name}/",))


def test_an_archive_under_construction_and_the_sealed_one_lie_in_one_directory() -> None:
    """A rename seals it; no reader takes the one for the other (P2)."""
    path = partial_path(Path("/srv/backups"), "mailarchiver-backup-20260301-020005", "fast")
    archive = PartialArchive(path, "mailarchiver-backup-20260301-020005", "fast")

    assert path.name == "mailarchiver-backup-20260301-020005.tar.zst.partial"
    assert archive.final_path == Path("/srv/backups/mailarchiver-backup-20260301-020005.tar.zst")
    assert archive.record_path == Path("/srv/backups/mailarchiver-backup-20260301-020005.manifest.json")
    assert archive.journal_path == Path(f"{path}.journal")
    assert {archive.repository} == {each.parent for each in (path, archive.final_path, archive.journal_path)}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 50), st.booleans()), max_size=12))
def test_the_journal_tells_what_the_file_holds(attempts: list[tuple[int, int, bool]]) -> None:
    """Each attempt goes back some segments, writes, and ends or dies: the file is cut where an attempt begins."""
    lines: list[str] = []
    file: list[FinishedSegment] = []
    for number, (back, size, ends) in enumerate(attempts):
        file = file[: len(file) - min(back, len(file))]
        begins = file[-1].ends if file else 0
        lines.append(f'{{"segment": "s{number}", "begins": {begins}}}')
        if ends:
            file.append(segment(f"s{number}", begins, begins + size))
            lines.append(journal_line(file[-1]))

        assert read_journal(lines) == tuple(file)


@pytest.mark.parametrize(
    "line", ["", "{", "[]", "5", '{"segment": "x"}', '{"begins": "many"}', '{"segment": "x", "begins": 0, "ends": 1}',
             '{"segment": "x", "begins": 0, "ends": 1, "members": [["a", -1, "b"]], "directories": []}'],
)  # fmt: skip
def test_a_line_that_is_not_ours_is_refused_as_it_stands(line: str) -> None:
    """Building on upon a half-understood journal would seal a wrong archive."""
    with pytest.raises(BackupError, match="holds a line that is not ours"):
        read_journal([journal_line(segment("a", 0, 5)), line])


def test_what_was_written_is_compared_with_what_the_manifest_lists() -> None:
    """Equal in any order is nothing to tell; everything else is counted, a few by name."""
    a, b, c, d, e = (Member(name=name, bytes=1, sha256="x") for name in "abcde")
    other = Member(name="a", bytes=2, sha256="x")

    assert missing_and_extra([a, b], [b, a]) == ""
    assert missing_and_extra([a], [a, b]) == "1 missing (b)"
    assert missing_and_extra([a, b], [a]) == "1 not in the manifest (b)"
    assert missing_and_extra([other], [a]) == "1 different (a)"
    assert missing_and_extra([], [a, b, c, d, e]) == "5 missing (a, b, c, ...)"
    assert missing_and_extra([other, c], [a, b]) == "1 missing (b); 1 not in the manifest (c); 1 different (a)"
