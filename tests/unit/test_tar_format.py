"""The bytes of tar headers and stored segments, read back by programs that are not ours."""

from __future__ import annotations

import gzip
import io
import tarfile

import pytest
import zstandard

from tasks.core.archive.tar_writer import BLOCK_BYTES, END_BLOCKS, encode_number, padding, stored_segment, tar_header


def _read(header: bytes) -> tarfile.TarInfo:
    found = tarfile.TarFile(fileobj=io.BytesIO(header + END_BLOCKS)).next()
    assert found is not None
    return found


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 8**11 - 1, 8**11, 9 * 1024**3, 2**62])
def test_header_keeps_its_length_for_every_size(size: int) -> None:
    """A header can be reserved before its stream and patched after it, also beyond octal's 8 GiB."""
    header = tar_header("top/database.sql", size=size, mode=0o640, mtime_seconds=1_700_000_000, uid=70, gid=3_000_000)

    assert len(header) == BLOCK_BYTES
    info = _read(header)
    assert (size, 0o640, 1_700_000_000, 70, 3_000_000) == (info.size, info.mode, info.mtime, info.uid, info.gid)


@pytest.mark.parametrize("length", [99, 100, 101, 255, 400])
@pytest.mark.parametrize("kind", ["file", "directory"])
def test_long_names_come_back(length: int, kind: str) -> None:
    """Names over the header's hundred bytes are whole, whether a file's or a directory's."""
    name = "t/" + "é" * ((length - 2) // 2) + "x" * ((length - 2) % 2)

    info = _read(tar_header(name, kind=kind))  # type: ignore[arg-type]

    assert name == info.name
    assert (kind == "directory") == info.isdir()


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 65535])
def test_stored_segments_are_ordinary_and_of_fixed_length(size: int) -> None:
    """A stored segment is read by any gzip or zstd, and another content of that length takes as much room."""
    data = bytes(index * 7 % 256 for index in range(size))

    assert data == gzip.decompress(stored_segment(data, "guide"))
    assert data == zstandard.ZstdDecompressor().decompress(stored_segment(data, "fast"), max_output_size=size + 1)
    for archive_format in ("guide", "fast"):
        assert len(stored_segment(bytes(size), archive_format)) == len(stored_segment(data, archive_format))  # type: ignore[arg-type]


def test_what_does_not_fit_is_refused() -> None:
    """No silent cut: too much for a block, too large or negative a number, a NUL in a name."""
    for attempt in (
        lambda: stored_segment(bytes(65536), "guide"),
        lambda: encode_number(-1, 8),
        lambda: encode_number(1 << 60, 8),
        lambda: tar_header("a\0b"),
    ):
        with pytest.raises(ValueError, match=r"."):
            attempt()


def test_padding_fills_blocks() -> None:
    """Contents end on a block's border."""
    assert [len(padding(size)) for size in (0, 1, 511, 512, 513)] == [0, 511, 1, 0, 511]
