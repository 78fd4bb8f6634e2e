"""Read a tar stream that a stranger made: regular files and directories, nothing else, within bounds.

Parsed here by hand, since what is to be refused must be seen before any library acts on it. Understood are the dialects of our own archives
and of the guide's `tar -czf`: ustar, GNU long names and base-256 numbers, pax headers for path, size and mtime.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tasks.core.archive.tar_writer import BLOCK_BYTES, checksum_of
from tasks.core.errors import ArchiveDamaged, Refused

_LONG_NAME_LIMIT_BYTES = 8192
_PAX_LIMIT_BYTES = 65_536
_PAX_LIMIT_RECORDS = 200
_HEADERS_IN_A_ROW = 4
_ID_MAXIMUM = 2**32 - 2
_MTIME_MAXIMUM = 2**40
_TAKEN_FROM_PAX = ("path", "size")
_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a FIFO",
    b"S": "a sparse file",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """How much an archive may claim before it is refused; far above any real one. Its members are kept in memory, a kilobyte each."""

    members: int = 100_000
    total_bytes: int = 8 << 40
    ratio: int = 2000
    name_bytes: int = 1024
    depth: int = 32


@dataclass(frozen=True, slots=True)
class TarEntry:
    """One file or directory; `name` is its whole path with the top directory, without a trailing slash."""

    name: str
    is_directory: bool
    size: int
    mode: int
    uid: int
    gid: int
    mtime_seconds: int


class TarStream:
    """Give the entries of a tar stream in order; what of an entry's content was not read, by `content`, is passed over before the next."""

    def __init__(self, chunks: Iterator[bytes], limits: Limits) -> None:
        self._chunks = chunks
        self._buffer = b""
        self._at = 0
        self._limits = limits
        self._left = 0
        self._padding = 0

    def entries(self) -> Iterator[TarEntry]:
        """Yield entries up to the end blocks, after which nothing but zeros may follow; raise ArchiveDamaged for anything else."""
        long_name: str | None = None
        pax: dict[str, str] = {}
        count, total, headers, named = 0, 0, 0, False
        while True:
            block = self._take(BLOCK_BYTES)
            if block == bytes(BLOCK_BYTES):
                if named:
                    raise ArchiveDamaged("the archive ends with a name, and no member for it")
                self._require_end()
                return
            flag = block[156:157]
            size = self._checked(block)
            headers = headers + 1 if flag in (b"L", b"x", b"g") else 0
            named = flag in (b"L", b"x")
            if headers > _HEADERS_IN_A_ROW:
                raise Refused("the archive holds header after header and no member for them")
            if flag == b"L":
                long_name = self._text(size, _LONG_NAME_LIMIT_BYTES).rstrip("\0")
                continue
            if flag == b"x":
                pax = _pax_records(self._text(size, _PAX_LIMIT_BYTES))
                continue
            if flag == b"g":  # global header: a comment by git archive and the like; nothing in it is taken over
                self._text(size, _PAX_LIMIT_BYTES)
                continue
            raw_name = pax.get("path") or long_name or _name(block)
            size = _pax_size(pax["size"]) if "size" in pax else size
            long_name, pax = None, {}
            if flag not in (b"0", b"\0", b"5", b"7"):
                raise Refused(
                    f"{_shown(raw_name)} in the archive is {_KINDS.get(flag, f'of unknown type {flag!r}')}: only files and directories are taken"
                )
            is_directory = flag == b"5" or (flag == b"\0" and raw_name.endswith("/"))
            count, total = count + 1, total + size
            if count > self._limits.members or total > self._limits.total_bytes:
                raise Refused(
                    f"the archive claims more than {self._limits.members:,} members or {self._limits.total_bytes:,} bytes"
                )
            if is_directory and size:
                raise ArchiveDamaged(f"directory {_shown(raw_name)} claims {size} bytes of content")
            self._left, self._padding = size, -size % BLOCK_BYTES
            uid, gid, mtime = _number(block[108:116]), _number(block[116:124]), _number(block[136:148])
            if max(uid, gid) > _ID_MAXIMUM or mtime > _MTIME_MAXIMUM:
                raise ArchiveDamaged(f"{_shown(raw_name)} in the archive has an owner or a time that no system has")
            yield TarEntry(self._safe(raw_name), is_directory, size, _number(block[100:108]) & 0o7777, uid, gid, mtime)
            for _ in self.content():
                pass

    def content(self) -> Iterator[bytes]:
        """Yield the content of the entry that was given last, or what of it is left."""
        while self._left:
            if self._at == len(self._buffer):
                self._fill()
            piece = self._buffer[self._at : self._at + self._left]
            self._at += len(piece)
            self._left -= len(piece)
            yield piece
        if self._padding:
            self._take(self._padding)
            self._padding = 0

    def _checked(self, block: bytes) -> int:
        if _number(block[148:156]) != checksum_of(block):
            raise ArchiveDamaged("a header in the archive is damaged: its checksum is wrong")
        return _number(block[124:136])

    def _text(self, size: int, limit: int) -> str:
        if size > limit:
            raise Refused(f"the archive holds a name or header of {size} bytes")
        text = self._take(size)
        self._take(-size % BLOCK_BYTES)
        try:
            return text.decode()
        except UnicodeDecodeError as error:
            raise Refused("the archive holds a name that is not UTF-8") from error

    def _safe(self, name: str) -> str:
        plain = name.rstrip("/")
        plain = plain.removeprefix("./")
        parts = plain.split("/")
        if (
            plain.startswith("/")
            or any(part in ("", ".", "..") for part in parts)
            or any(ord(letter) < 32 or letter == "\x7f" for letter in plain)
            or len(plain.encode()) > self._limits.name_bytes
            or len(parts) > self._limits.depth
        ):
            raise Refused(
                f"the archive holds the name {_shown(name)}, which would lead out of its directory or is no proper name"
            )
        return plain

    def _require_end(self) -> None:
        second = self._take(BLOCK_BYTES)
        rest = second + self._buffer[self._at :]
        while True:
            if rest.strip(b"\0"):
                raise ArchiveDamaged("something follows the end of the archive")
            try:
                rest = next(self._chunks)
            except StopIteration:
                return

    def _take(self, length: int) -> bytes:
        while len(self._buffer) - self._at < length:
            self._fill()
        taken = self._buffer[self._at : self._at + length]
        self._at += length
        return taken

    def _fill(self) -> None:
        chunk = next(self._chunks, None)
        if chunk is None:
            raise ArchiveDamaged("the archive ends too early: it was cut off")
        self._buffer = self._buffer[self._at :] + chunk
        self._at = 0


def _name(block: bytes) -> str:
    name = block[:100].split(b"\0")[0]
    if block[257:263] == b"ustar\0" and (prefix := block[345:500].split(b"\0")[0]):
        name = prefix + b"/" + name
    try:
        return name.decode()
    except UnicodeDecodeError as error:
        raise Refused("the archive holds a name that is not UTF-8") from error


def _number(field: bytes) -> int:
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    text = field.split(b"\0")[0].strip()
    if not text:
        return 0
    if text.strip(b"01234567"):  # int() would also take signs and underscores
        raise ArchiveDamaged(f"a header in the archive is damaged: {field!r} is no number")
    return int(text, 8)


def _pax_records(text: str) -> dict[str, str]:
    records: dict[str, str] = {}
    raw, at, count = text.encode(), 0, 0
    while at < len(raw):
        length = raw[at : at + 10].partition(b" ")[0]
        count += 1
        if not length.isdigit() or len(length) > 9 or not len(length) < int(length) <= len(raw) - at:
            raise ArchiveDamaged("an extended header in the archive is damaged")
        if count > _PAX_LIMIT_RECORDS:
            raise Refused(f"an extended header in the archive has more than {_PAX_LIMIT_RECORDS} records")
        record = raw[at + len(length) + 1 : at + int(length) - 1]
        key, _, value = record.partition(b"=")
        if key.startswith(b"GNU.sparse"):
            raise Refused(
                "the archive holds a sparse file: only files and directories are taken",
                hint="make it without tar's --sparse",
            )
        try:
            name, content = key.decode(), value.decode()
        except UnicodeDecodeError as error:
            raise ArchiveDamaged("an extended header in the archive is damaged: it is not UTF-8") from error
        if name in _TAKEN_FROM_PAX:
            records[name] = content
        at += int(length)
    return records


def _pax_size(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise ArchiveDamaged(f"an extended header in the archive is damaged: {_shown(text)} is no size")
    return int(text)


def _shown(name: str) -> str:
    return repr(name if len(name) <= 80 else f"{name[:77]}...")
