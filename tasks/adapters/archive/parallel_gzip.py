"""Write gzip so that both cores can read it: a row of small members, each of which says how long it is.

Every gzip program reads a row of members as one stream (RFC 1952, 2.2). An extra field in each member's header holds
the member's length, as in samtools' BGZF, so that our reader finds the next member without inflating this one. Other
members (a reserved header, the guide's own archives) have no such field and are inflated one after another.

What does not shrink is stored: most of an archive are attachments, and a stored block is read at the speed of a copy.
"""

from __future__ import annotations

import struct
import zlib
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Any, Protocol

from isal import isal_zlib

# isal ships annotations that strict type checking cannot use.
_isal: Any = isal_zlib

BLOCK_BYTES = 128 * 1024
"""How much one member holds before compression. It fits a core's cache: a mebibyte was a quarter slower, 64 KiB no faster."""
MEMBER_BYTES_MAXIMUM = BLOCK_BYTES + 1024
BATCH_BLOCKS = 8
"""How many members a thread makes or inflates before it reports."""
_BATCH_BYTES = BATCH_BLOCKS * BLOCK_BYTES
_WORTH_SHRINKING = 0.96
_SAMPLES = range(0, BLOCK_BYTES, BLOCK_BYTES // 4)
_SAMPLE_BYTES = 4096
_STORED_BLOCK_BYTES = 65_535
# ID1 ID2, method deflate, FEXTRA, no time, no hint, unknown system; extra field of 8 bytes: "mA", 4 bytes: the member's length.
_HEADER = struct.Struct("<4sIBBH2sHI")
_START, _FIELD = b"\x1f\x8b\x08\x04", b"mA"
_TRAILER = struct.Struct("<II")
_READ_BYTES = 1 << 20

DAMAGE: tuple[type[Exception], ...] = (_isal.error, zlib.error, ValueError)
"""What `inflated` raises where the bytes are no gzip or other than they were (EOFError where they end too early)."""


class Readable(Protocol):
    """A file that is read from its start to its end."""

    def read(self, size: int, /) -> bytes: ...


class Writable(Protocol):
    """A file that takes all it is given."""

    def write(self, data: bytes, /) -> int: ...


class ParallelGzipWriter:
    """Compress what is written into a row of members, in `threads` threads; the file below stays open."""

    def __init__(self, sink: Writable, *, level: int, threads: int) -> None:
        self._sink = sink
        self._level = level
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="gzip")
        self._ahead = threads + 1
        self._pending: deque[Future[bytes]] = deque()
        self._batch = bytearray()

    def write(self, data: bytes | bytearray | memoryview, /) -> int:
        """Take bytes; whole members are written as they become ready."""
        if len(data) == _BATCH_BYTES and isinstance(data, bytes) and not self._batch:
            self._submit(data)  # as most pieces of a large file come: no need to copy it
            return len(data)
        with memoryview(data) as view:
            at = 0
            while at < len(view):
                taken = view[at : at + _BATCH_BYTES - len(self._batch)]
                self._batch += taken
                at += len(taken)
                if len(self._batch) == _BATCH_BYTES:
                    self._submit(self._batch)
                    self._batch = bytearray()
        return len(data)

    def close(self) -> None:
        """Write what is left; afterwards the row of members is complete."""
        try:
            if self._batch:
                self._submit(self._batch)
            while self._pending:
                self._sink.write(self._pending.popleft().result())
        finally:
            self._pool.shutdown(cancel_futures=True)

    def _submit(self, batch: bytes | bytearray) -> None:
        self._pending.append(self._pool.submit(_members, batch, self._level))
        while len(self._pending) > self._ahead:
            self._sink.write(self._pending.popleft().result())


def inflated(source: Readable, *, threads: int = 2) -> Generator[bytes, None, None]:
    """Yield what a row of gzip members holds, in pieces of a mebibyte at most; zeros may follow the last member.

    Raise one of `DAMAGE`, or EOFError where the bytes end inside a member.
    """
    read = _Buffered(source)
    with ThreadPoolExecutor(threads, thread_name_prefix="gunzip") as pool:
        pending: deque[Future[bytes]] = deque()
        while read.has(1):
            length = _announced_length(read.peek(_HEADER.size))
            if length is None:
                while pending:
                    yield pending.popleft().result()
                with closing(_inflate_unannounced(read)) as pieces:
                    yield from pieces
                continue
            members = [read.take(length)]
            while len(members) < BATCH_BLOCKS and read.has(1):
                length = _announced_length(read.peek(_HEADER.size))
                if length is None:
                    break
                members.append(read.take(length))
            pending.append(pool.submit(_inflate_members, members))
            if len(pending) > threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _members(data: bytes | bytearray, level: int) -> bytes:
    parts: list[bytes | memoryview] = []
    with memoryview(data) as view:
        for at in range(0, len(view), BLOCK_BYTES):
            parts += _member(view[at : at + BLOCK_BYTES], level)
        return b"".join(parts)


def _member(block: memoryview, level: int) -> list[bytes | memoryview]:
    """Give the parts of one member, without copying what is only stored."""
    # A look at four pages is enough to see that bytes will not shrink, and saves most of the work on them.
    sample = b"".join(block[at : at + _SAMPLE_BYTES] for at in _SAMPLES)
    shrinks = len(_isal.compress(sample, level, -15)) <= len(sample) * _WORTH_SHRINKING
    content: list[bytes | memoryview] = [_isal.compress(block, level, -15)] if shrinks else []
    if not shrinks or len(content[0]) > len(block) * _WORTH_SHRINKING:
        content = _stored(block)
    length = _HEADER.size + sum(map(len, content)) + _TRAILER.size
    header = _HEADER.pack(_START, 0, 0, 0xFF, 8, _FIELD, 4, length)
    return [header, *content, _TRAILER.pack(_isal.crc32(block), len(block))]


def _stored(data: memoryview) -> list[bytes | memoryview]:
    """Wrap data into stored deflate blocks (RFC 1951, 3.2.4)."""
    parts: list[bytes | memoryview] = []
    for at in range(0, len(data), _STORED_BLOCK_BYTES):
        block = data[at : at + _STORED_BLOCK_BYTES]
        last = at + len(block) == len(data)
        parts += [struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF), block]
    return parts


def _announced_length(head: bytes) -> int | None:
    """Read a member's length from its header; None where it does not say it."""
    if len(head) < _HEADER.size:
        return None
    start, _, _, _, extra, name, size, length = _HEADER.unpack(head)
    if (start, extra, name, size) != (_START, 8, _FIELD, 4):
        return None
    if not _HEADER.size + _TRAILER.size < length <= MEMBER_BYTES_MAXIMUM:
        raise ValueError(f"a member claims to have {length} bytes")
    return int(length)


def _inflate_members(members: list[bytes]) -> bytes:
    return b"".join([_inflate_member(member) for member in members])


def _inflate_member(member: bytes) -> bytes:
    decompressor = _isal.decompressobj(31)
    data: bytes = decompressor.decompress(member, BLOCK_BYTES + 1)
    if not decompressor.eof or decompressor.unused_data or len(data) > BLOCK_BYTES:
        raise ValueError("a member is not as long as it says")
    return data


def _inflate_unannounced(read: _Buffered) -> Generator[bytes, None, None]:
    if not read.peek(2).startswith(b"\x1f\x8b"):
        read.require_zeros()
        return
    decompressor = _isal.decompressobj(31)
    while not decompressor.eof:
        chunk = decompressor.unconsumed_tail or read.some()
        # With nothing left to read it may still hold back some of what it inflated.
        data = decompressor.decompress(chunk, _BATCH_BYTES)
        if not chunk and not data and not decompressor.eof:
            raise EOFError
        if data:
            yield data
    read.give_back(decompressor.unused_data)


class _Buffered:
    """The compressed bytes, of which some may be looked at, or given back."""

    def __init__(self, source: Readable) -> None:
        self._source = source
        self._buffer = b""
        self._at = 0

    def has(self, length: int) -> bool:
        """Tell whether so many bytes are there, reading them if need be."""
        while len(self._buffer) - self._at < length:
            chunk = self._source.read(_READ_BYTES)
            if not chunk:
                return False
            self._buffer, self._at = self._buffer[self._at :] + chunk, 0
        return True

    def peek(self, length: int) -> bytes:
        """Give so many bytes (fewer at the end) and leave them there."""
        self.has(length)
        return self._buffer[self._at : self._at + length]

    def take(self, length: int) -> bytes:
        """Give exactly so many bytes; raise EOFError where there are fewer."""
        if not self.has(length):
            raise EOFError
        self._at += length
        return self._buffer[self._at - length : self._at]

    def some(self) -> bytes:
        """Give what is at hand, or the next chunk; nothing at the end."""
        if not self.has(1):
            return b""
        chunk, self._buffer, self._at = self._buffer[self._at :], b"", 0
        return chunk

    def give_back(self, rest: bytes) -> None:
        """Put bytes before all others."""
        self._buffer, self._at = rest + self._buffer[self._at :], 0

    def require_zeros(self) -> None:
        """Raise ValueError unless nothing but zeros is left."""
        while chunk := self.some():
            if chunk.strip(b"\0"):
                raise ValueError("something that is no gzip follows its last member")
