"""Compress and decompress the stream of an archive: gzip through isal (see `parallel_gzip`), zstd through zstandard.

Both formats allow concatenation, so an archive is a row of gzip members or zstd frames, each begun and ended by us.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import IO, Protocol, cast

import zstandard

from tasks.adapters.archive import parallel_gzip
from tasks.adapters.archive.sink import Sink, _WriteBehind
from tasks.adapters.archive.source import CHUNK_BYTES, Readable, _Followed
from tasks.adapters.host.files import BytesLike
from tasks.core.archive.manifest import Format
from tasks.core.archive.tar_writer import stored_segment
from tasks.core.errors import ArchiveDamaged

_DAMAGE: tuple[type[Exception], ...] = (*parallel_gzip.DAMAGE, zstandard.ZstdError)

# zstd's level 1 is two to three times as fast as 3 here (some 500 against 200 MB/s on two busy cores). On hex of incompressible
# bytes it is also smaller (1.97 : 1 against 1.91 : 1); on plain words it loses a tenth (2.47 : 1 against 2.72 : 1). Mail is mostly
# attachments, so the first counts; an archive that is mostly text would change our mind.
LEVELS: dict[Format, int] = {"guide": 1, "fast": 1}
THREADS = 2
# What the format's own description asks every decoder to take, and all but zstd's --ultra levels stay in.
_WINDOW_BYTES_MAXIMUM = 1 << 23
# zstd's default job of four windows (8 MB) times its threads and buffers would take some 60 MB.
_ZSTD_JOB_BYTES = 2 * 1024 * 1024
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


class Compressor(Protocol):
    """Takes bytes, and ends its gzip member or zstd frame when closed; the file below stays open."""

    def write(self, data: BytesLike, /) -> int: ...
    def close(self) -> None: ...


class _Compressing:
    """A compressor and the thread that writes what it makes; both end when it is closed."""

    def __init__(self, compressor: Compressor, behind: _WriteBehind) -> None:
        self._compressor, self._behind = compressor, behind
        self.write = compressor.write

    def close(self) -> None:
        try:
            self._compressor.close()
        finally:
            self._behind.close()


def open_compressor(
    sink: Sink, archive_format: Format, *, level: int | None = None, threads: int = THREADS
) -> Compressor:
    """Begin a gzip member or zstd frame at the sink's position; `level` None takes the format's default.

    All is written to the sink when `close` returns; an error of the sink may be raised by any call until then.
    """
    chosen = LEVELS[archive_format] if level is None else level
    behind = _WriteBehind(sink)
    if archive_format == "guide":
        return _Compressing(parallel_gzip.ParallelGzipWriter(behind, level=chosen, threads=max(threads, 1)), behind)
    parameters = zstandard.ZstdCompressionParameters.from_level(
        chosen,
        threads=threads if threads > 1 else 0,
        job_size=_ZSTD_JOB_BYTES if threads > 1 else 0,
        write_checksum=True,
    )
    compressor = zstandard.ZstdCompressor(compression_params=parameters)
    return _Compressing(cast(Compressor, compressor.stream_writer(cast(IO[bytes], behind), closefd=False)), behind)


def detect_format(head: bytes) -> Format | None:
    """Tell gzip from zstd by a file's first bytes; None where it is neither."""
    if head.startswith(_GZIP_MAGIC):
        return "guide"
    return "fast" if head.startswith(_ZSTD_MAGIC) else None


def decompressed(source: Readable, archive_format: Format) -> Iterator[bytes]:
    """Give the decompressed stream in chunks of at most a mebibyte, whatever the input claims.

    Raise ArchiveDamaged where it is not a whole row of gzip members or zstd frames: cut off, altered, or followed by something.
    """
    unpack = _unpacked_gzip if archive_format == "guide" else _unpacked_zstd
    try:
        yield from unpack(source)
    except EOFError as error:
        raise ArchiveDamaged(
            f"the compressed data ends too early, after {source.count} bytes: the file is cut off"
        ) from error
    except _DAMAGE as error:
        if "too much memory" in str(error):
            raise ArchiveDamaged(
                f"the compressed data is damaged, or wants more than {_WINDOW_BYTES_MAXIMUM:,} bytes of memory to be read",
                hint="if zstd can read it: unpack it, and compress it again with `zstd -19` or less",
            ) from error
        raise ArchiveDamaged(f"the compressed data is damaged near byte {source.count}: {error}") from error


def _unpacked_gzip(source: Readable) -> Iterator[bytes]:
    return parallel_gzip.inflated(source, threads=THREADS)


def _unpacked_zstd(source: Readable) -> Iterator[bytes]:
    # zstandard's reader takes the end of the file inside a frame for the end of the data. So we add a frame with a secret:
    # only a decoder that stood between two frames will hand it out at the end.
    secret = secrets.token_bytes(32)
    followed = _Followed(source, stored_segment(secret, "fast"))
    decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES_MAXIMUM)
    held = b""
    with decompressor.stream_reader(
        cast(IO[bytes], followed), read_size=256 * 1024, read_across_frames=True, closefd=False
    ) as stream:
        while chunk := stream.read(CHUNK_BYTES):
            if len(chunk) < len(secret):
                held += chunk
                continue
            if held:
                yield held
            held = chunk
    if not held.endswith(secret):
        raise EOFError
    if rest := held[: -len(secret)]:
        yield rest
