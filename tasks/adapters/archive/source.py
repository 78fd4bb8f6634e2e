"""Where an archive's bytes come from: streams that are read once, from their start, counted and hashed."""

from __future__ import annotations

import hashlib
import os
from typing import Protocol

from tasks.core.errors import BackupError

# A device's own read-ahead may be huge, and then each read waits for all of it: 1.3 GB in 2.0 to 2.8 s with 8 MB, 0.9 to 1.1 s this way.
_ASK_BYTES = 4 * 1024 * 1024
_ASKED_AHEAD_BYTES = 16 * 1024 * 1024


class Stream(Protocol):
    """Bytes from a start to an end; a failure to read is a BackupError."""

    def read(self, size: int, /) -> bytes:
        """Read at most `size` bytes; empty means the end, and only that."""


class Readable(Protocol):
    """Bytes that may be looked at before they are read; `count` says how many bytes of the file they took so far."""

    @property
    def count(self) -> int: ...
    def head(self, size: int, /) -> bytes: ...
    def read(self, size: int = -1, /) -> bytes: ...


def read_at(descriptor: int, size: int, position: int) -> bytes:
    """Read at most `size` bytes of an archive from a position on; raise BackupError where the disk fails."""
    try:
        return os.pread(descriptor, size, position)
    except OSError as error:
        raise BackupError(
            f"reading the archive failed after {position} bytes: {error.strerror}", hint="look at the disk's health"
        ) from error


class FileStream:
    """Read an open file from its start; the disk works ahead."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._asked = self._position = 0
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)

    def read(self, size: int, /) -> bytes:
        """Read at most `size` bytes; empty means the end of the file."""
        while self._asked < self._position + _ASKED_AHEAD_BYTES:
            os.posix_fadvise(self._descriptor, self._asked, _ASK_BYTES, os.POSIX_FADV_WILLNEED)
            self._asked += _ASK_BYTES
        data = read_at(self._descriptor, size, self._position)
        self._position += len(data)
        return data


class HashingReader:
    """Read a stream, keeping the SHA-256 and the count of all bytes read so far."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._sha256 = hashlib.sha256()
        self._held = b""
        self.count = 0

    def head(self, size: int) -> bytes:
        """Give the first `size` bytes (fewer where the stream is shorter); `read` gives them again. To be called before it."""
        while len(self._held) < size and (data := self._next(size - len(self._held))):
            self._held += data
        return self._held

    def read(self, size: int = -1) -> bytes:
        """Read at most `size` bytes (a chunk where it is negative); empty means the end of the stream."""
        wanted = size if size >= 0 else CHUNK_BYTES
        if self._held:
            data, self._held = self._held[:wanted], self._held[wanted:]
            return data
        return self._next(wanted)

    def readinto(self, buffer: bytearray | memoryview) -> int:
        """Read into a buffer; 0 means the end of the stream."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def hexdigest(self) -> str:
        """Give the SHA-256 of what was read."""
        return self._sha256.hexdigest()

    def _next(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._sha256.update(data)
        self.count += len(data)
        return data


class _Followed:
    """The archive's bytes with one more zstd frame after them; see `_unpacked_zstd`."""

    def __init__(self, source: Readable, tail: bytes) -> None:
        self._source = source
        self._tail = tail

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        if not data and self._tail:
            data, self._tail = self._tail, b""
        return data


CHUNK_BYTES = 1024 * 1024
