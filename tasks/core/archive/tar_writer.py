"""The bytes of a tar archive, and fixed-length gzip members and zstd frames around a few of them.

One dialect is written, GNU's, because GNU tar, BusyBox and bsdtar all read it: long names precede their header as an
`@LongLink` entry, and numbers too large for octal are written in base 256. A header is as long for every size, so that
it can be reserved before a stream and patched when the size is known.
"""

from __future__ import annotations

import struct
import zlib
from typing import Literal

from tasks.core.archive.manifest import Format

BLOCK_BYTES = 512
END_BLOCKS = bytes(2 * BLOCK_BYTES)
STORED_BYTES_MAXIMUM = 65535
"""As much as one stored deflate block holds."""

EntryKind = Literal["file", "directory", "symlink"]

_TYPE_FLAGS: dict[EntryKind, bytes] = {"file": b"0", "directory": b"5", "symlink": b"2"}
_NAME_BYTES = 100
_MAGIC = b"ustar  \x00"


def tar_header(
    name: str,
    *,
    kind: EntryKind = "file",
    size: int = 0,
    mode: int = 0o600,
    mtime_seconds: int = 0,
    uid: int = 0,
    gid: int = 0,
    link: str = "",
) -> bytes:
    """Build the header of one entry: 512 bytes, or more where the name (or link) has over 100 bytes.

    The length depends on the names only, never on the numbers. Directories get their trailing slash here. Raise
    ValueError for a name that is not UTF-8 or holds a NUL, and for a negative number (a time before 1970 becomes 1970).
    """
    if kind == "directory":
        name = name.rstrip("/") + "/"
    raw_name, raw_link = _encode_name(name), _encode_name(link)
    prelude = b""
    if len(raw_link) > _NAME_BYTES:
        prelude += _long_entry(b"K", raw_link)
    if len(raw_name) > _NAME_BYTES:
        prelude += _long_entry(b"L", raw_name)
    mtime = max(mtime_seconds, 0)
    return prelude + _block(raw_name, _TYPE_FLAGS[kind], size, mode & 0o7777, mtime, uid, gid, raw_link)


def padding(size: int) -> bytes:
    """Give the zeros that fill the last block of a content of `size` bytes."""
    return bytes(-size % BLOCK_BYTES)


def encode_number(value: int, width: int) -> bytes:
    """Write a number into a header field: octal with a NUL where it fits, else GNU's base 256.

    >>> encode_number(8, 8)
    b'0000010\\x00'
    >>> encode_number(8 * 1024**3, 12)[:1]
    b'\\x80'
    """
    if value < 0:
        raise ValueError(f"a tar header holds no negative number such as {value}")
    if value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    if value >= 1 << (8 * (width - 1)):
        raise ValueError(f"{value} does not fit into {width} bytes of a tar header")
    return b"\x80" + value.to_bytes(width - 1, "big")


def stored_segment(data: bytes, archive_format: Format) -> bytes:
    """Wrap up to 65,535 bytes uncompressed in a gzip member or a zstd frame of their own.

    The result's length depends on the length of `data` only, so it can be overwritten in place by another of that length.
    """
    if len(data) > STORED_BYTES_MAXIMUM:
        raise ValueError(f"{len(data)} bytes do not fit into one stored block of {STORED_BYTES_MAXIMUM}")
    return _stored_gzip(data) if archive_format == "guide" else _stored_zstd(data)


def checksum_of(block: bytes | memoryview) -> int:
    """Compute the checksum of a 512-byte header: the sum of its bytes, its own field counted as spaces."""
    return sum(block[:148]) + 8 * 0x20 + sum(block[156:BLOCK_BYTES])


def _stored_gzip(data: bytes) -> bytes:
    header = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
    block = struct.pack("<BHH", 1, len(data), len(data) ^ 0xFFFF)
    return header + block + data + struct.pack("<II", zlib.crc32(data), len(data))


def _stored_zstd(data: bytes) -> bytes:
    # 0xA0: one segment, content size in four bytes. No checksum: XXH64 is not at hand, and every byte in
    # such a frame has another guard (a header its own checksum, all of them the SHA-256 of the archive).
    header = b"\x28\xb5\x2f\xfd\xa0" + struct.pack("<I", len(data))
    block = struct.pack("<I", 1 | len(data) << 3)[:3]
    return header + block + data


def _encode_name(name: str) -> bytes:
    raw = name.encode("utf-8")
    if b"\0" in raw:
        raise ValueError(f"the name {name!r} holds a NUL")
    return raw


def _long_entry(flag: bytes, raw: bytes) -> bytes:
    content = raw + b"\0"
    return _block(b"././@LongLink", flag, len(content), 0, 0, 0, 0, b"") + content + padding(len(content))


def _block(name: bytes, flag: bytes, size: int, mode: int, mtime: int, uid: int, gid: int, link: bytes) -> bytes:
    block = bytearray(BLOCK_BYTES)
    block[0:100] = name[:_NAME_BYTES].ljust(100, b"\0")
    block[100:108] = encode_number(mode, 8)
    block[108:116] = encode_number(uid, 8)
    block[116:124] = encode_number(gid, 8)
    block[124:136] = encode_number(size, 12)
    block[136:148] = encode_number(mtime, 12)
    block[156:157] = flag
    block[157:257] = link[:_NAME_BYTES].ljust(100, b"\0")
    block[257:265] = _MAGIC
    block[148:156] = b"%06o\0 " % checksum_of(bytes(block))
    return bytes(block)
