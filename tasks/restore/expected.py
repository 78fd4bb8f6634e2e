"""What a restored database must equal: the archive's census, or what its dump says when read through."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain

from tasks.adapters.archive.reader import (
    ALTERED_HINT,
    Archive,
    CheckedArchive,
    check_archive,
    open_member,
)
from tasks.adapters.host.streams import read_ahead
from tasks.adapters.postgres import pg_programs
from tasks.core.archive.layout import DUMP_MEMBERS
from tasks.core.archive.manifest import Census, Format
from tasks.core.dump.census import CensusTaker
from tasks.core.dump.custom import Head, is_read_here, read_custom_dump
from tasks.core.dump.events import DumpComplete, DumpEvent, Statement, Title
from tasks.core.dump.foreign_dump import Shape, dumped_by_major, loadable, refuse_other_content
from tasks.core.dump.sql import read_sql_dump
from tasks.core.dump.statements import roles_named
from tasks.core.errors import ArchiveDamaged, DumpCutShort, Refused
from tasks.core.stack.installation import Installation
from tasks.step import step


@dataclass(frozen=True, slots=True)
class Expected:
    """What a restore must come to: the census, and the roles that the dump cannot be loaded without.

    `archive_format` is how the dump was read: a custom dump that only pg_restore can read came as SQL. `roles` are only
    looked for in a legacy archive; any other brings its own. Of a dump that we cannot read there is no census: `note`
    says so. `shape` is what a legacy archive's dump looks like.
    """

    census: Census | None
    archive_format: Format = "guide"
    roles: frozenset[str] = frozenset()
    shape: Shape | None = None
    note: str = ""


@step(name="read expected census")
def expected_content(installation: Installation, archive: Archive) -> Expected:
    """Give the census of the archive's manifest; where there is none, read its dump through for its own.

    A dump that was backed up without a census, since we could not read it, may be readable by now; if not, nothing is known to be expected.
    Raise Refused where a legacy archive's dump is one that cannot become an installation's database again, with what it is.
    """
    manifest = archive.manifest
    if manifest is not None and manifest.census is not None:
        return Expected(manifest.census, format_of(archive))
    if manifest is not None and not manifest.no_census:
        raise ArchiveDamaged(f"the record of {archive.path.name} holds no census", hint=ALTERED_HINT)
    try:
        expected = _read_through(
            installation, archive if isinstance(archive, CheckedArchive) else check_archive(archive.source)
        )
    except ArchiveDamaged:
        if manifest is None:
            raise
        return Expected(None, note=f"no census: {manifest.no_census}")
    return expected if manifest is None else Expected(expected.census, expected.archive_format)


def _read_through(installation: Installation, archive: CheckedArchive) -> Expected:
    taker, roles, shape = CensusTaker(), set[str](), Shape()
    file = dump_member(archive)
    with closing(read_ahead(open_member(archive, file))) as chunks:
        head = next(chunks, b"")
        shape.major = dumped_by_major(head)
        refuse_other_content(head, file, archive.kind)
        pieces: Iterator[bytes] = chain((head,), chunks)
        archive_format = format_of(archive)
        if _wants_pg_restore(archive, head):
            archive_format, pieces = "guide", _worded(installation, pieces)
        events = read_custom_dump(pieces) if archive_format == "fast" else read_sql_dump(pieces)
        for event in loadable(events, installation.database.name, shape):
            taker.see(event)
            if isinstance(event, Statement):
                roles |= roles_named(event.sql)
    shape.refuse_half_a_dump(file)
    if not taker.complete:
        raise DumpCutShort(f"the dump in {archive.path.name} has no end mark: it was cut short")
    return Expected(taker.result(), archive_format, frozenset(roles), shape)


def dump_events(installation: Installation, archive: Archive, chunks: Iterator[bytes]) -> Iterator[DumpEvent]:
    """Give the archive's dump as events that can be run: for a custom dump, pg_restore in the container words its SQL.

    It words all of a legacy archive's custom dump that is compressed, or of a version that we do not read.
    """
    head = next(chunks, b"")
    chunks = chain((head,), chunks)
    worded = _wants_pg_restore(archive, head)
    if archive.kind == "sql" or worded:
        events = read_sql_dump(_worded(installation, chunks) if worded else chunks)
        yield from events if archive.manifest else loadable(events, installation.database.name, Shape())
        return
    for event in read_custom_dump(chunks):
        match event:
            case Head(raw):
                head = raw
                yield from section_of(installation, head, "pre-data")
            case Statement(_, "pre-data"):  # said by pg_restore already
                pass
            case DumpComplete():
                for late in section_of(installation, head, "post-data"):
                    yield replace(late, section="post-data") if isinstance(late, Statement) else late
                yield event
            case _:
                yield event


def _wants_pg_restore(archive: Archive, head: bytes) -> bool:
    return archive.kind == "custom" and archive.manifest is None and not is_read_here(head)


def _worded(installation: Installation, chunks: Iterator[bytes]) -> Iterator[bytes]:
    return pg_programs.sql_of_custom_dump(installation, chunks, idle_seconds=SECTION_TIMEOUT_SECONDS)


def section_of(installation: Installation, head: bytes, section: str) -> Iterator[Statement | Title]:
    text = pg_programs.schema_sections(installation, head, section, timeout_seconds=SECTION_TIMEOUT_SECONDS)
    for event in read_sql_dump(iter((text,))):
        if isinstance(event, Statement | Title):
            yield event


SECTION_TIMEOUT_SECONDS = 300


def dump_member(archive: Archive) -> str:
    if archive.kind == "physical":
        raise Refused(
            f"{archive.name} holds a data directory, not a dump",
            hint="restore it with the full restore: mailarchiver-backup restore",
        )
    return DUMP_MEMBERS[format_of(archive)]


def format_of(archive: Archive) -> Format:
    """Give the format of an archive's dump."""
    return "fast" if archive.kind == "custom" else "guide"
