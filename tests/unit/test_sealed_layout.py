"""The layout of an encrypted archive: marks bind parts to their places, headers leave nothing to choose, rooms are filled exactly."""

from __future__ import annotations

import gzip
from dataclasses import replace
from typing import get_args

import pytest
import zstandard

from tasks.core.archive.manifest import Format
from tasks.core.archive.sealed_layout import Place, directory_in, fill_room, read_entry, read_mark, room_bytes
from tasks.core.archive.tar_writer import BLOCK_BYTES
from tasks.core.errors import ArchiveDamaged

NAME = "mailarchiver-backup-20260301-020005"
PLACE = Place(NAME, "guide", "ab" * 16, 7)


@pytest.mark.parametrize("archive_format", get_args(Format))
def test_a_mark_is_read_back_and_passed_over(archive_format: Format) -> None:
    """A mark tells its place; any gzip or zstd program takes it for nothing."""
    place = replace(PLACE, format=archive_format)
    mark = place.mark()
    assert read_mark(mark + b"content") == (place, len(mark))
    if archive_format == "guide":
        assert gzip.decompress(mark + gzip.compress(b"content") + mark) == b"content"
    else:
        data = zstandard.ZstdCompressor().compress(b"content") + mark
        with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as reader:
            assert reader.read() == b"content"


@pytest.mark.parametrize("position", range(len(PLACE.mark())))
def test_no_byte_of_a_mark_can_change_unseen(position: int) -> None:
    mark = bytearray(PLACE.mark())
    mark[position] ^= 1
    found = read_mark(bytes(mark))
    assert found is None or found[0] != PLACE


@pytest.mark.parametrize("position", range(BLOCK_BYTES))
def test_no_byte_of_a_header_can_change_unseen(position: int) -> None:
    """A header is that of the expected part byte for byte, or the archive is damaged."""
    header = bytearray(PLACE.header("age", 1234))
    assert read_entry(bytes(header), PLACE.directory, 7).size == 1234
    header[position] ^= 1
    with pytest.raises(ArchiveDamaged):
        read_entry(bytes(header), PLACE.directory, 7)


@pytest.mark.parametrize("number", [6, 8, 1])
def test_a_part_out_of_order_is_refused(number: int) -> None:
    with pytest.raises(ArchiveDamaged):
        read_entry(PLACE.header("age", 5), PLACE.directory, number)
    assert read_entry(PLACE.header("filler", 5), PLACE.directory, 8).kind == "filler"


def test_the_directory_is_read_from_a_header() -> None:
    found = directory_in(PLACE.header("age", 5))
    assert found is not None
    assert (found.name, found.directory) == (NAME, f"{NAME}.tar.gz.age")
    assert directory_in(bytes(BLOCK_BYTES)) is None
    assert directory_in(b"\x1f\x8b" + bytes(510)) is None


@pytest.mark.parametrize("size", [1, 511, 512, 700, 2048, 2500])
def test_a_room_is_filled_to_its_last_byte(size: int) -> None:
    """Whatever the age file's length is, the room is full of whole entries; one that is too long is not squeezed in."""
    room = room_bytes(700)
    filled = fill_room(PLACE, b"x" * size, room)
    assert filled is not None
    assert len(filled) == room
    part = read_entry(filled[:BLOCK_BYTES], PLACE.directory, 7)
    after = BLOCK_BYTES + part.size + -part.size % BLOCK_BYTES
    filler = read_entry(filled[after : after + BLOCK_BYTES], PLACE.directory, 8)
    assert after + BLOCK_BYTES + filler.size == room
    assert fill_room(PLACE, b"x" * room, room) is None
