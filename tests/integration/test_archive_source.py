"""An archive is read alike from a file and from any stream that can be opened anew, in whatever pieces its bytes come."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pytest

from tasks.adapters.archive.archive_source import Opened, read_record_beside
from tasks.adapters.archive.reader import check_archive, open_member, recorded_archive
from tasks.core.archive.manifest import Format, Record
from tasks.core.errors import ArchiveDamaged
from tests.integration.archives import DUMP, make_archive


class Dribble:
    """Gives bytes in pieces of a few sizes, as a network does."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at, self._turn = data, 0, 0

    def read(self, size: int, /) -> bytes:
        self._turn += 1
        piece = self._data[self._at : self._at + min(size, (1, 7, 100, 4096)[self._turn % 4])]
        self._at += len(piece)
        return piece


@dataclass
class Elsewhere:
    """An archive that is no file of this machine."""

    path: Path
    data: bytes
    of: Record | None
    version: int = 1

    @property
    def bytes(self) -> int | None:
        return len(self.data)

    @contextmanager
    def opened(self) -> Iterator[Opened]:
        yield Opened(Dribble(self.data), (self.version,))

    def record(self) -> Record | None:
        return self.of


@pytest.mark.parametrize("archive_format", get_args(Format))
def test_a_stream_is_read_as_a_file_is(tmp_path: Path, archive_format: Format) -> None:
    """Members, digests, record and content are the same; a stream that another has replaced since is noticed."""
    sealed = make_archive(tmp_path, archive_format)
    here = check_archive(sealed.path)
    elsewhere = Elsewhere(
        tmp_path / "elsewhere" / sealed.path.name, sealed.path.read_bytes(), read_record_beside(sealed.path)
    )
    there = check_archive(elsewhere)
    assert (there.sha256, there.bytes, there.members, there.record) == (
        here.sha256,
        here.bytes,
        here.members,
        here.record,
    )
    assert there.path == elsewhere.path
    assert recorded_archive(elsewhere) is not None
    assert b"".join(open_member(there, "database.sql")) == DUMP
    elsewhere.version = 2
    with pytest.raises(ArchiveDamaged, match="replaced"):
        b"".join(open_member(there, "database.sql"))


def test_a_stream_that_ends_early_is_refused(tmp_path: Path) -> None:
    """A connection that was cut is no end of an archive."""
    sealed = make_archive(tmp_path)
    data = sealed.path.read_bytes()
    for length in (0, 100, len(data) // 2, len(data) - 1):
        with pytest.raises(ArchiveDamaged):
            check_archive(Elsewhere(sealed.path, data[:length], sealed.record))
