"""Read a custom-format `pg_dump` (`-Fc --compress=0`) as a stream of events.

The header and table of contents are parsed here because the census wants the rows while they pass by, and the loader wants to spread
them over several connections; the SQL of everything but data is left to `pg_restore`, which gets the same leading bytes.
(Source of the format: PostgreSQL's src/bin/pg_dump/pg_backup_archiver.c, pg_backup_custom.c; archive versions 1.12 to 1.16 are
PostgreSQL 9.0 to 18.)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tasks.core.byte_text import bytes_of, text_of
from tasks.core.dump.events import (
    CopyBegin,
    CopyData,
    CopyEnd,
    DumpComplete,
    DumpEvent,
    LargeObjectBegin,
    LargeObjectData,
    Statement,
    Title,
)
from tasks.core.dump.sql import read_sql_dump
from tasks.core.errors import ArchiveDamaged, DumpCutShort, Refused

OLDEST_VERSION, NEWEST_VERSION = (1, 12), (1, 16)
HEAD_BYTES = 16
STRING_LIMIT_BYTES = 64 * 1024 * 1024
HEAD_LIMIT_BYTES = 256 * 1024 * 1024
_END_OF_ROWS = b"\\.\n\n\n"
# An object identifier: 32 bits.
_LARGE_OBJECT = re.compile(r"[1-9][0-9]{0,9}")
_COPY = re.compile(r"COPY (?P<target>.+) FROM stdin;\s*", re.DOTALL)
# Kinds that say how to make the database itself, or only stand for data.
_NOT_SCHEMA = {
    "ENCODING",
    "STDSTRINGS",
    "SEARCHPATH",
    "DATABASE",
    "DATABASE PROPERTIES",
    "TABLE DATA",
    "SEQUENCE SET",
    "BLOBS",
}
_SECTION_NONE, _SECTION_PRE_DATA, _SECTION_DATA = 1, 2, 3
_BLOCK_DATA, _BLOCK_LARGE_OBJECTS = 1, 3


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a dump's table of contents."""

    dump_id: int
    has_data: bool
    section: int
    title: Title
    definition: str
    copy_target: str | None


@dataclass(frozen=True, slots=True)
class Head:
    """The leading part of a dump, all that comes before the first row: what `pg_restore --section=pre-data` needs."""

    raw: bytes
    entries: tuple[Entry, ...]


def read_custom_dump(chunks: Iterable[bytes]) -> Iterator[Head | DumpEvent]:
    """Yield the head once, then titles with the statements of the schema, then data events, in the dump's order.

    `DumpComplete` comes only when every table that was announced has had its rows and the stream ended just there. Raise
    ArchiveDamaged where the bytes are no such dump or end early; Refused for a version or a compression we do not read.
    """
    source = _Source(iter(chunks))
    head = _read_head(source)
    yield head
    yield from _definitions(head)
    yield from _read_blocks(source, head)
    yield DumpComplete()


def is_read_here(head: bytes) -> bool:
    """Tell by the first bytes of a custom dump whether `read_custom_dump` knows its version, and whether its rows are not compressed.

    Another format's bytes are left to the reader, which says what is wrong with them.
    """
    if len(head) < HEAD_BYTES or not head.startswith(b"PGDMP"):
        return True
    version = (head[5], head[6])
    # Before 1.15 a whole number, its sign first: 0 is none, and -1 zlib's own default.
    compression = head[11:12] if version >= (1, 15) else head[11:13]
    return OLDEST_VERSION <= version <= NEWEST_VERSION and not any(compression)


def _definitions(head: Head) -> Iterator[DumpEvent]:
    """Yield every definition; those that `pg_restore --section` would count to the data are told in full, ready to be run."""
    section = _SECTION_PRE_DATA
    conforming = not any(entry.title.kind == "STDSTRINGS" and "off" in entry.definition for entry in head.entries)
    for entry in head.entries:
        # Comments and grants have no section of their own: they go with what stands before them.
        section = entry.section if entry.section != _SECTION_NONE else section
        kind = entry.title.kind
        if kind in _NOT_SCHEMA and kind != "SEQUENCE SET":
            continue
        if kind in ("COMMENT", "ACL", "SECURITY LABEL") and entry.title.name.startswith("DATABASE "):
            continue
        yield entry.title
        if kind == "BLOB METADATA":  # since PostgreSQL 17: the numbers of a group of large objects
            for number in entry.definition.split():
                if not _LARGE_OBJECT.fullmatch(number):
                    raise ArchiveDamaged(f"the dump names a large object {number[:20]!r}, which is no number")
                yield Statement(f"SELECT pg_catalog.lo_create('{number}');".encode(), "data")
                owner = entry.title.owner.replace('"', '""')
                yield Statement(bytes_of(f'ALTER LARGE OBJECT {number} OWNER TO "{owner}";'), "data")
        elif section == _SECTION_DATA:
            for event in read_sql_dump(iter((bytes_of(entry.definition),)), conforming=conforming):
                if isinstance(event, Statement):
                    yield Statement(event.sql, "data")
        else:
            yield Statement(bytes_of(entry.definition), "pre-data")


def _read_blocks(source: _Source, head: Head) -> Iterator[DumpEvent]:
    awaited = {entry.dump_id: entry for entry in head.entries if entry.has_data}
    while (block := source.byte_or_end()) is not None:
        entry = awaited.pop(source.integer(), None)
        if entry is None:
            raise ArchiveDamaged("the dump holds data that its table of contents does not announce, or twice")
        yield entry.title
        if block == _BLOCK_DATA and entry.copy_target is not None:
            yield CopyBegin(entry.copy_target)
            yield from _read_rows(source, entry)
            yield CopyEnd()
        elif block == _BLOCK_LARGE_OBJECTS:
            while oid := source.integer():
                yield LargeObjectBegin(oid)
                while length := source.integer():
                    yield LargeObjectData(source.take(length))
        else:
            raise ArchiveDamaged(f"the dump holds a block of unknown type {block} for {entry.title.name!r}")
    if awaited:
        names = ", ".join(sorted(entry.title.name for entry in awaited.values())[:5])
        raise DumpCutShort(f"the dump ends before the data of {names}")


def _read_rows(source: _Source, entry: Entry) -> Iterator[CopyData]:
    """Yield rows gathered to pieces of about a megabyte; the end mark that pg_dump writes after them is taken off."""
    gathered: list[bytes] = []
    size = 0
    last = b""
    while length := source.integer():
        while length > 0:
            piece = source.take(min(length, 4 * 1024 * 1024))
            length -= len(piece)
            if last:
                gathered.append(last)
                size += len(last)
            last = piece
            if size > 1024 * 1024:
                yield CopyData(b"".join(gathered))
                gathered, size = [], 0
    rest = b"".join(gathered) + last
    if not rest.endswith(_END_OF_ROWS):
        raise ArchiveDamaged(f"the rows of {entry.copy_target} have no end mark")
    rest = rest[: -len(_END_OF_ROWS)]
    if rest:
        yield CopyData(rest)


def _read_head(source: _Source) -> Head:
    if source.take(5) != b"PGDMP":
        raise ArchiveDamaged("this is not a custom-format dump (no PGDMP at its start)")
    version = (source.byte(), source.byte())
    source.byte()  # the revision changes nothing in the format
    if not OLDEST_VERSION <= version <= NEWEST_VERSION:
        raise Refused(
            f"the dump has archive version {version[0]}.{version[1]}; this program reads {OLDEST_VERSION[0]}.{OLDEST_VERSION[1]} "
            f"to {NEWEST_VERSION[0]}.{NEWEST_VERSION[1]}",
            hint="use format 'guide' (plain SQL), or update mailarchiver-backup",
        )
    source.integer_bytes = source.byte()
    offset_bytes = source.byte()
    if source.byte() != 1 or source.integer_bytes > 8 or offset_bytes > 8:
        raise ArchiveDamaged("this dump is not in custom format")
    compression = source.byte() if version >= (1, 15) else source.integer()
    if compression not in (0, -1):
        raise Refused("the dump inside the archive is compressed by pg_dump itself", hint="dump with --compress=0")
    for _ in range(7):  # the time of the dump
        source.integer()
    for _ in range(3):  # database, server version, pg_dump version
        source.text()
    count = source.integer()
    entries = tuple(_read_entry(source, version, offset_bytes) for _ in range(count))
    return Head(source.end_recording(), entries)


def _read_entry(source: _Source, version: tuple[int, int], offset_bytes: int) -> Entry:
    dump_id = source.integer()
    has_data = source.integer() != 0
    source.text(), source.text()  # table oid, oid
    name, kind = source.text() or "", source.text() or ""
    section = source.integer()
    definition = source.text() or ""
    source.text()  # drop statement
    copy_statement = source.text() or ""
    schema = source.text() or ""
    source.text()  # tablespace
    if version >= (1, 14):
        source.text()  # table access method
    if version >= (1, 16):
        source.integer()  # relkind
    owner = source.text() or ""
    source.text()  # "with oids"
    while source.text() is not None:  # dependencies
        pass
    source.take(1 + offset_bytes)  # data state and offset; without meaning in a stream
    copy = _COPY.fullmatch(copy_statement)
    return Entry(
        dump_id, has_data, section, Title(kind, schema, name, owner), definition, copy["target"] if copy else None
    )


class _Source:
    """Bytes taken from chunks, in the integers and strings of the format. Keeps all it gave until `end_recording`."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._buffer = b""
        self._at = 0
        self._recorded: list[bytes] | None = []
        self._recorded_bytes = 0
        self.integer_bytes = 4

    def take(self, length: int) -> bytes:
        """Take exactly so many bytes."""
        if length < 0:
            raise ArchiveDamaged(f"the dump announces a block of {length} bytes")
        if len(self._buffer) - self._at < length:
            parts = [self._buffer[self._at :]]
            gathered = len(parts[0])
            while gathered < length:
                chunk = next(self._chunks, None)
                if chunk is None:
                    raise DumpCutShort("the dump is cut short")
                parts.append(chunk)
                gathered += len(chunk)
            self._buffer, self._at = b"".join(parts), 0
        taken = self._buffer[self._at : self._at + length]
        self._at += length
        if self._recorded is not None:
            self._recorded.append(taken)
            self._recorded_bytes += length
            if self._recorded_bytes > HEAD_LIMIT_BYTES:
                raise ArchiveDamaged(f"the dump's table of contents is larger than {HEAD_LIMIT_BYTES} bytes")
        return taken

    def byte(self) -> int:
        return self.take(1)[0]

    def byte_or_end(self) -> int | None:
        while self._at == len(self._buffer):
            chunk = next(self._chunks, None)
            if chunk is None:
                return None
            self._buffer, self._at = chunk, 0
        return self.byte()

    def integer(self) -> int:
        raw = self.take(1 + self.integer_bytes)
        value = int.from_bytes(raw[1:], "little")
        return -value if raw[0] else value

    def text(self) -> str | None:
        length = self.integer()
        if length < 0:
            return None
        if length > STRING_LIMIT_BYTES:
            raise ArchiveDamaged(f"the dump announces a text of {length} bytes")
        return text_of(self.take(length))

    def end_recording(self) -> bytes:
        recorded, self._recorded = self._recorded or [], None
        return b"".join(recorded)
