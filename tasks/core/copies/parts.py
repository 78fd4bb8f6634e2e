"""How an archive lies at a target: as one file of its name, or in numbered parts that `cat` puts together again.

rclone begins a file anew whose upload was cut, so a large archive goes in parts: those that arrived are not sent again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from tasks.core.archive.names import RECORD_EXTENSION, split_archive_name

PARTS_MAXIMUM = 9_999
PART = ".part-"
# The server wants a locked file's digest before its first byte, so rclone keeps a whole part in memory.
LOCKED_PART_BYTES = 64 * 2**20
# What rclone calls a file until it is whole: our death may leave one.
_UNFINISHED = re.compile(r"(?P<name>[^/]+)\.[0-9a-f]{8}\.partial")
_PART_NAME = re.compile(r"(?P<archive>.+)\.part-(?P<number>[0-9]{4})")


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of an archive: the name of its file at a target, where it begins, and how many bytes it has."""

    name: str
    offset: int
    bytes: int


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file as a target lists it: `hashes` by their names in lower case, as far as the target knows any; `locked_until` as it says itself."""

    name: str
    bytes: int
    hashes: Mapping[str, str] = field(default_factory=dict)
    locked_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """What a target has of one backup: its archive's parts in their order, its record's file, and what else bears its name."""

    name: str
    parts: tuple[RemoteFile, ...]
    record: RemoteFile | None
    others: tuple[RemoteFile, ...] = ()

    @property
    def bytes(self) -> int:
        """Give how many bytes of the archive are there."""
        return sum(each.bytes for each in self.parts)


def parts_of(file: str, size: int, part_bytes: int, *, locked: bool = False) -> tuple[Part, ...]:
    """Divide an archive into parts; one that is no larger than a part stays one file of its own name.

    >>> [each.name for each in parts_of("a.tar.gz", 25, 10)]
    ['a.tar.gz.part-0001', 'a.tar.gz.part-0002', 'a.tar.gz.part-0003']
    """
    wanted = min(part_bytes, LOCKED_PART_BYTES) if locked else part_bytes
    wanted = max(wanted, -(-size // PARTS_MAXIMUM))
    if size <= wanted:
        return (Part(file, 0, size),)
    offsets = range(0, size, wanted)
    return tuple(
        Part(f"{file}{PART}{number:04d}", offset, min(wanted, size - offset))
        for number, offset in enumerate(offsets, 1)
    )


def archive_of(name: str) -> str:
    """Give the archive's file name that a file at a target is (a part of); "" where it is none.

    >>> archive_of("mailarchiver-backup-20260301-020005.tar.gz.part-0002")
    'mailarchiver-backup-20260301-020005.tar.gz'
    """
    found = _PART_NAME.fullmatch(name)
    archive = found["archive"] if found else name
    return archive if split_archive_name(archive) else ""


def stored_backups(files: Iterable[RemoteFile]) -> dict[str, Stored]:
    """Sort a target's files by the backups they belong to; all others are passed over.

    Parts count only where they follow each other from the first on, so an archive that is there twice (whole, and in
    parts of another size) is taken as the whole file.
    """
    archives: dict[str, list[RemoteFile]] = {}
    records: dict[str, RemoteFile] = {}
    unfinished: dict[str, list[RemoteFile]] = {}
    for each in files:
        if archive := archive_of(each.name):
            split = split_archive_name(archive)
            archives.setdefault(split[0] if split else "", []).append(each)
        elif each.name.endswith(RECORD_EXTENSION):
            records[each.name.removesuffix(RECORD_EXTENSION)] = each
        elif (cut := _UNFINISHED.fullmatch(each.name)) and cut["name"].endswith(RECORD_EXTENSION):
            unfinished.setdefault(cut["name"].removesuffix(RECORD_EXTENSION), []).append(each)
    names = [name for name in {*archives, *records} if split_archive_name(f"{name}.tar.gz")]
    found = {}
    for name in sorted(names):
        parts = _in_order(archives.get(name, ()))
        taken = {each.name for each in parts}
        others = [each for each in archives.get(name, ()) if each.name not in taken]
        found[name] = Stored(name, parts, records.get(name), (*others, *unfinished.get(name, ())))
    return found


def is_whole(stored: Stored, file: str, size: int) -> bool:
    """Tell whether all of an archive of this file name and size is there."""
    return bool(stored.parts) and archive_of(stored.parts[0].name) == file and stored.bytes == size


def _in_order(files: Iterable[RemoteFile]) -> tuple[RemoteFile, ...]:
    ordered = sorted(files, key=lambda each: each.name)
    whole = [each for each in ordered if PART not in each.name]
    if whole:
        return tuple(whole[:1])
    run: list[RemoteFile] = []
    for number, each in enumerate(ordered, 1):
        if not each.name.endswith(f"{PART}{number:04d}"):
            break
        run.append(each)
    return tuple(run)
