"""Compress and decompress the stream of an archive: gzip through isal (see `parallel_gzip`), zstd through zstandard.

Both formats allow concatenation, so an archive is a row of gzip members or zstd frames, each begun and ended by us.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Protocol, cast

import zstandard

from tasks.adapters.archive import parallel_gzip
from tasks.adapters.host.files import SEND_BYTES, BytesLike, send_to_disk, write_all, write_error
from tasks.core.archive.manifest import Format
from tasks.core.archive.tar_writer import stored_segment
from tasks.core.errors import ArchiveDamaged, BackupError

_DAMAGE: tuple[type[Exception], ...] = (*parallel_gzip.DAMAGE, zstandard.ZstdError)

CHUNK_BYTES = 1024 * 1024
# zstd's level 1 is two to three times as fast as 3 here (some 500 against 200 MB/s on two busy cores). On hex of incompressible
# bytes it is also smaller (1.97 : 1 against 1.91 : 1); on plain words it loses a tenth (2.47 : 1 against 2.72 : 1). Mail is mostly
# attachments, so the first counts; an archive that is mostly text would change our mind.
LEVELS: dict[Format, int] = {"guide": 1, "fast": 1}
THREADS = 2
_WINDOW_BYTES_MAXIMUM = 1 << 27
# zstd's default job of four windows (8 MB) times its threads and buffers would take some 60 MB.
_ZSTD_JOB_BYTES = 2 * 1024 * 1024
_PIECES_BEHIND = 4
# A device's own read-ahead may be huge, and then each read waits for all of it: 1.3 GB in 2.0 to 2.8 s with 8 MB, 0.9 to 1.1 s this way.
_ASK_BYTES = 4 * 1024 * 1024
_ASKED_AHEAD_BYTES = 16 * 1024 * 1024
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


class Compressor(Protocol):
    """Takes bytes, and ends its gzip member or zstd frame when closed; the file below stays open."""

    def write(self, data: BytesLike, /) -> int: ...
    def close(self) -> None: ...


class Sink:
    """The file below a compressor: writes everything and counts it, or swallows it once `discard` is set.

    A failed write is a BackupError already here, so that it can be told from an error of what is being written.
    """

    def __init__(self, path: Path, descriptor: int, position: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self.position = position
        self.discard = False
        self._sent = position

    def write(self, data: BytesLike) -> int:
        """Write all of `data`, unless this segment was given up."""
        if self.discard:
            return len(data)
        try:
            count = write_all(self.descriptor, data)
        except OSError as error:
            raise write_error(self.path, error, written_bytes=self.position) from error
        self.position += count
        self._send_to_disk()
        return count

    def _send_to_disk(self) -> None:
        """Have what was written go to the disk while more is being made, and leave the page cache to PostgreSQL."""
        if self.position - self._sent >= SEND_BYTES:
            send_to_disk(self.descriptor, self._sent, self.position - self._sent)
            self._sent = self.position

    def overwrite(self, data: bytes, position: int) -> None:
        """Replace bytes that were written before, all of them, and stay at the end."""
        try:
            count = os.pwrite(self.descriptor, data, position)
        except OSError as error:
            raise write_error(self.path, error, written_bytes=self.position) from error
        if count != len(data):
            raise BackupError(f"only {count} of {len(data)} bytes at {position} of {self.path} could be replaced")

    def flush(self) -> None:
        """Do nothing: nothing is kept back here. The libraries call it."""


class _WriteBehind:
    """Write to a sink from a thread of its own, a few pieces behind; its error is raised by a later `write`, or by `close`."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="archive-write")
        self._pending: deque[Future[int]] = deque()

    def write(self, data: bytes) -> int:
        self._pending.append(self._thread.submit(self._sink.write, data))
        while len(self._pending) > _PIECES_BEHIND:
            self._pending.popleft().result()
        return len(data)

    def flush(self) -> None:
        """Do nothing, as the sink itself."""

    def close(self) -> None:
        try:
            while self._pending:
                self._pending.popleft().result()
        finally:
            self._thread.shutdown(cancel_futures=True)


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


class HashingReader:
    """Read a file from its start, keeping the SHA-256 and the count of all bytes read so far; the disk works ahead."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._sha256 = hashlib.sha256()
        self._asked = 0
        self.count = 0
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)

    def read(self, size: int = -1) -> bytes:
        """Read at most `size` bytes (a chunk where it is negative); empty means the end of the file."""
        while self._asked < self.count + _ASKED_AHEAD_BYTES:
            os.posix_fadvise(self._descriptor, self._asked, _ASK_BYTES, os.POSIX_FADV_WILLNEED)
            self._asked += _ASK_BYTES
        try:
            data = os.pread(self._descriptor, size if size >= 0 else CHUNK_BYTES, self.count)
        except OSError as error:
            raise BackupError(
                f"reading the archive failed after {self.count} bytes: {error.strerror}",
                hint="look at the disk's health",
            ) from error
        self._sha256.update(data)
        self.count += len(data)
        return data

    def readinto(self, buffer: bytearray | memoryview) -> int:
        """Read into a buffer; 0 means the end of the file."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def hexdigest(self) -> str:
        """Give the SHA-256 of what was read."""
        return self._sha256.hexdigest()


class _Followed:
    """The archive's bytes with one more zstd frame after them; see `_unpacked_zstd`."""

    def __init__(self, source: HashingReader, tail: bytes) -> None:
        self._source = source
        self._tail = tail

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        if not data and self._tail:
            data, self._tail = self._tail, b""
        return data


def detect_format(head: bytes) -> Format | None:
    """Tell gzip from zstd by a file's first bytes; None where it is neither."""
    if head.startswith(_GZIP_MAGIC):
        return "guide"
    return "fast" if head.startswith(_ZSTD_MAGIC) else None


def decompressed(source: HashingReader, archive_format: Format) -> Iterator[bytes]:
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
        raise ArchiveDamaged(f"the compressed data is damaged near byte {source.count}: {error}") from error


def _unpacked_gzip(source: HashingReader) -> Iterator[bytes]:
    return parallel_gzip.inflated(source, threads=THREADS)


def _unpacked_zstd(source: HashingReader) -> Iterator[bytes]:
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
