"""The steps that write the content of one backup into another archive: streamed, or put together where it is a chain."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

from tasks.adapters.archive.chain import is_chained
from tasks.adapters.archive.extraction import below
from tasks.adapters.archive.reader import Archive, CheckedArchive, check_while, entries_of
from tasks.adapters.archive.segment import Segment
from tasks.adapters.archive.writer import PartialArchive, segment
from tasks.adapters.host.files import free_space
from tasks.adapters.host.outside_files import DATA_FILE, read_outside
from tasks.adapters.host.streams import watched
from tasks.adapters.postgres.pg_programs import sql_of_custom_dump
from tasks.core.archive.layout import BACKUP_MANIFEST_NAME, DATA_DIRECTORY, DUMP_MEMBERS, MANIFEST_NAME
from tasks.core.archive.tar_reader import TarEntry
from tasks.core.policy.space import Need, require_room
from tasks.core.stack.installation import Installation
from tasks.progress import progress
from tasks.restore.directory_beside import extract_whole, room_for_whole
from tasks.step import step

logger = logging.getLogger(__name__)

PIPE_SECONDS = 3600.0
Pieces: TypeAlias = Iterator[bytes]


@step(name="require room")
def require_room_for_rewrite(archive: Archive, place: Path, minimum_free_bytes: int = 0) -> int:
    """Raise Refused unless a place has room for an archive, and for what a chain unpacks to; return the bytes it may need."""
    content = archive.unpacked_bytes
    chained = room_for_whole(archive) if is_chained(archive) else 0
    need = Need(f"what is made of {archive.name}", str(place), content + 2 * chained)
    free_bytes, free_inodes = free_space(place)
    require_room(need, free_bytes=free_bytes, free_inodes=free_inodes, minimum_free_bytes=minimum_free_bytes)
    logger.info("It needs up to %d bytes; %d are free in %s", need.bytes, free_bytes, place)
    return need.bytes


@step(name="write content", retries=0)
def write_content(
    installation: Installation, source: Archive, archive: PartialArchive, scratch: Path
) -> tuple[CheckedArchive, bytes]:
    """Write what a backup holds into another archive, a chain put together, and a dump as SQL where that one is of the guide's format.

    Every byte is checked meanwhile. Return the archive as it was read, and PostgreSQL's manifest of a base backup (b"" where
    there is none).
    """
    expected = source.unpacked_bytes
    with (
        segment(archive, "content", on_bytes=lambda raw, _: tell(raw)) as part,
        progress("write content", expected_bytes=expected) as tell,
    ):
        if not is_chained(source):
            manifest = bytearray()
            return check_while(source, _passing_on(installation, part, archive, manifest)), bytes(manifest)
        data = scratch / "data"
        checked = extract_whole(installation, source, data, label=secrets.token_hex(8))
        part.add_tree(DATA_DIRECTORY, data)
        with entries_of(checked, *_others(checked)) as stream:
            for entry in stream.entries():
                name = entry.name.partition("/")[2]
                if name and below(name, DATA_DIRECTORY) is None:
                    _add(part, entry, name, stream.content())
        return checked, read_outside(data / BACKUP_MANIFEST_NAME, DATA_FILE)[0]


def _others(checked: CheckedArchive) -> Sequence[str]:
    return [each.name for each in checked.members if below(each.name, DATA_DIRECTORY) is None]


def _passing_on(
    installation: Installation, part: Segment, archive: PartialArchive, manifest: bytearray
) -> Callable[[TarEntry, str, Pieces], None]:
    """Give what writes each member anew as it is read."""

    def take(entry: TarEntry, name: str, pieces: Pieces) -> None:
        if not name or name == MANIFEST_NAME:
            return
        if name == DUMP_MEMBERS["fast"] and archive.format == "guide":
            sql = sql_of_custom_dump(installation, pieces, idle_seconds=PIPE_SECONDS)
            part.add_stream(DUMP_MEMBERS["guide"], sql, mtime=_moment(entry))
            return
        base = name == f"{DATA_DIRECTORY}/{BACKUP_MANIFEST_NAME}"
        _add(part, entry, name, watched(pieces, manifest.extend) if base else pieces)

    return take


def _add(part: Segment, entry: TarEntry, name: str, pieces: Pieces) -> None:
    if entry.is_directory:
        part.add_directory(name, mtime=_moment(entry), mode=entry.mode, uid=entry.uid, gid=entry.gid)
        return
    part.add_sized(
        name, entry.size, pieces, mtime=_moment(entry), mode=entry.mode & 0o777, uid=entry.uid, gid=entry.gid
    )


def _moment(entry: TarEntry) -> datetime:
    return datetime.fromtimestamp(entry.mtime_seconds, UTC)
