"""Read a tar stream as if an enemy had made it: regular files and directories only, everything bounded.

Python's `tarfile` follows dozens of dialects and repairs what it can; this reader knows what GNU tar and we write, and refuses the
rest by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tasks.core.archive_names import NAME_BYTES_MAXIMUM, NameTree, checked_path, parse_number
from tasks.core.errors import ArchiveDamaged, Refused
from tasks.core.tar_format import BLOCK_BYTES, checksum_of

_PAX_BYTES_MAXIMUM = 64 * 1024
_END_PADDING_BYTES_MAXIMUM = 16 * 1024 * 1024
_LINK_HINT = (
    "links are never followed or made; a data directory with a linked pg_wal or tablespaces must be restored by hand"
)
_REFUSED_TYPES = {
    b"1": ("a hard link", "make the archive again from a copy without hard links"),
    b"2": ("a symbolic link", _LINK_HINT),
    b"3": ("a character device", ""),
    b"4": ("a block device", ""),
    b"6": ("a FIFO", ""),
    b"K": ("a link with a long target", _LINK_HINT),
    b"S": ("a sparse file", "make the archive again without tar's option --sparse"),
    b"D": ("an incremental directory", "make the archive again without tar's option --listed-incremental"),
    b"M": ("a part of another volume", ""),
    b"V": ("a volume label", ""),
}


@dataclass(frozen=True, slots=True)
class Limits:
    """How much an archive may claim: uncompressed bytes, entries, and the ratio that makes a compression bomb.

    The ratio counts only beyond `bytes_before_ratio`: a new, small cluster is mostly zeros.
    """

    total_bytes: int = 4 * 1024**4
    entries: int = 1_000_000
    ratio: int = 1000
    bytes_before_ratio: int = 1024**3
    manifest_bytes: int = 256 * 1024**2


class Entry(NamedTuple):
    """One file or directory of an archive: its path with the top directory, and what its header says."""

    path: str
    directory: bool
    size: int
    mode: int
    mtime_seconds: int
    uid: int
    gid: int


class TarReader:
    """Give the entries of a tar stream one after another; `content` is to be read (or is skipped) before the next.

    Raise ArchiveDamaged where the stream is not a whole tar archive, Refused where it holds what is not allowed.
    """

    def __init__(self, chunks: Iterator[bytes], limits: Limits) -> None:
        self._chunks = chunks
        self._limits = limits
        self._chunk = b""
        self._at = 0
        self._remaining = 0
        self._padding = 0
        self._names = NameTree()
        self.position = 0

    @property
    def top(self) -> str:
        """The top directory's name, once the first entry was read."""
        return self._names.top

    def entries(self) -> Iterator[Entry]:
        """Give all entries, then make sure that the archive ends as one does and nothing follows."""
        count = 0
        while (block := self._header_block()) is not None:
            count += 1
            if count > self._limits.entries:
                raise Refused(f"the archive holds more than {self._limits.entries} entries")
            entry = self._entry(block)
            if entry.path:
                self._names.add(entry.path, directory=entry.directory)
                if self.position + entry.size > self._limits.total_bytes:
                    raise Refused(f"{entry.path} claims {entry.size} bytes; all may have {self._limits.total_bytes}")
                self._remaining = entry.size
                self._padding = -entry.size % BLOCK_BYTES
                yield entry
                for _ in self.content():
                    pass
                if any(self._exactly(self._padding)):
                    raise ArchiveDamaged(f"the padding behind {entry.path} is not empty")
        self._nothing_follows()

    def content(self) -> Iterator[bytes]:
        """Give what is left of the current entry's content, in pieces of at most a chunk."""
        while self._remaining:
            if self._at == len(self._chunk):
                self._fill()
            piece = self._chunk
            if self._at or len(piece) > self._remaining:
                piece = piece[self._at : self._at + self._remaining]
            self._at += len(piece)
            self._remaining -= len(piece)
            self.position += len(piece)
            yield piece

    def _fill(self) -> None:
        chunk = next(self._chunks, b"")
        if not chunk:
            raise ArchiveDamaged(
                f"the archive ends too early, after {self.position} bytes of its content: it is cut off"
            )
        self._chunk, self._at = chunk, 0

    def _exactly(self, count: int) -> bytes:
        piece = self._chunk[self._at : self._at + count]
        self._at += len(piece)
        while len(piece) < count:
            self._fill()
            more = self._chunk[: count - len(piece)]
            self._at = len(more)
            piece += more
        self.position += count
        return piece

    def _header_block(self) -> bytes | None:
        block = self._exactly(BLOCK_BYTES)
        if any(block):
            return block
        if any(self._exactly(BLOCK_BYTES)):
            raise ArchiveDamaged(f"a lone empty block at byte {self.position}: something follows the archive's end")
        return None

    def _nothing_follows(self) -> None:
        count = 0
        rest = self._chunk[self._at :]
        while rest or (rest := next(self._chunks, b"")):
            count += len(rest)
            if rest.count(0) != len(rest) or count > _END_PADDING_BYTES_MAXIMUM:
                raise ArchiveDamaged(f"something follows the archive's end at byte {self.position}")
            rest = b""
        self.position += count

    def _entry(self, block: bytes) -> Entry:
        long_name: bytes | None = None
        pax: dict[bytes, bytes] = {}
        while True:
            flag = _verified_type(block)
            size = parse_number(block[124:136], "size")
            if flag == b"L" and long_name is None and not pax:
                if not 0 < size <= NAME_BYTES_MAXIMUM + 1:
                    raise Refused(f"the archive holds a name of {size} bytes")
                long_name = self._extension(size).split(b"\0", 1)[0]
            elif flag == b"x" and long_name is None and not pax:
                pax = parse_pax(self._pax_extension(size))
            elif flag == b"g" and long_name is None and not pax:
                if parse_pax(self._pax_extension(size)).keys() & {b"path", b"size"}:
                    raise Refused("the archive gives all its entries one name or size")
            else:
                break
            following = self._header_block()
            if following is None:
                raise ArchiveDamaged("the archive ends behind an extended header")
            block = following
        raw_name = _name_of(block) if long_name is None else long_name
        return _make_entry(block, flag, size, raw_name, pax)

    def _extension(self, size: int) -> bytes:
        content = self._exactly(size)
        self._exactly(-size % BLOCK_BYTES)
        return content

    def _pax_extension(self, size: int) -> bytes:
        if not 0 < size <= _PAX_BYTES_MAXIMUM:
            raise Refused(f"the archive holds an extended header of {size} bytes")
        return self._extension(size)


def _verified_type(block: bytes) -> bytes:
    if parse_number(block[148:156], "checksum") != checksum_of(block):
        raise ArchiveDamaged("a tar header does not match its own checksum")
    if block[257:265] not in (b"ustar  \0", b"ustar\x0000"):
        raise ArchiveDamaged(f"a tar header says {block[257:265]!r} where `ustar` belongs")
    return block[156:157]


def _name_of(block: bytes) -> bytes:
    name = block[:100].split(b"\0", 1)[0]
    # Only POSIX headers have a prefix; GNU's keep times in its place.
    prefix = block[345:500].split(b"\0", 1)[0] if block[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _make_entry(block: bytes, flag: bytes, size: int, raw_name: bytes, pax: dict[bytes, bytes]) -> Entry:
    raw_name = pax.get(b"path", raw_name)
    shown = raw_name[:200].decode("utf-8", "backslashreplace")
    if flag not in (b"0", b"\0", b"5"):
        what, hint = _REFUSED_TYPES.get(flag, (f"an entry of the unknown type {flag!r}", ""))
        raise Refused(f"{shown!r} is {what}: only regular files and directories are allowed", hint=hint)
    sparse = [key for key in pax if key.startswith(b"GNU.sparse")]
    if sparse or b"linkpath" in pax or b"hdrcharset" in pax:
        raise Refused(
            f"{shown!r} is a sparse file, a link, or in a foreign character set", hint=_REFUSED_TYPES[b"S"][1]
        )
    if any(block[157:257]):
        raise Refused(f"{shown!r} is no link but names a target")
    directory = flag == b"5"
    size = _pax_number(pax, b"size", size)
    if directory and size:
        raise Refused(f"the directory {shown!r} claims a content of {size} bytes")
    return Entry(
        checked_path(raw_name, directory=directory),
        directory,
        size,
        parse_number(block[100:108], "mode") & 0o7777,
        _pax_number(pax, b"mtime", parse_number(block[136:148], "time")),
        _pax_number(pax, b"uid", parse_number(block[108:116], "owner")),
        _pax_number(pax, b"gid", parse_number(block[116:124], "group")),
    )


def _pax_number(pax: dict[bytes, bytes], key: bytes, otherwise: int) -> int:
    text = pax.get(key)
    if text is None:
        return otherwise
    whole = text.split(b".", 1)[0] if key == b"mtime" else text
    if not whole.isdigit() or len(whole) > 18:
        raise ArchiveDamaged(f"an extended header holds {text[:40]!r} as {key.decode()}")
    return int(whole)


def parse_pax(content: bytes) -> dict[bytes, bytes]:
    """Read the records `LENGTH KEY=VALUE` of an extended header; raise ArchiveDamaged where they are not such, or repeat.

    >>> parse_pax(b"12 path=a/b\\n")
    {b'path': b'a/b'}
    """
    records: dict[bytes, bytes] = {}
    while content:
        length_text, space, _ = content[:12].partition(b" ")
        length = int(length_text) if space and length_text.isdigit() else 0
        record = content[len(length_text) + 1 : length]
        key, equals, value = record[:-1].partition(b"=")
        if (
            length > len(content)
            or not record.endswith(b"\n")
            or not equals
            or not key
            or key in records
            or b"\0" in value
        ):
            raise ArchiveDamaged(f"an extended header holds {content[:60]!r}")
        records[key] = value
        content = content[length:]
    return records
