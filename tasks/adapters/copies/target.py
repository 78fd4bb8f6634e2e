"""What lies at a target: its backups with their records, which anybody may have written who can write there."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tasks.adapters.archive.repository import Backup
from tasks.adapters.copies.rclone import Remote, fetch, list_files, reading
from tasks.adapters.host.outside_files import RECORD, UnfitFile, read_outside
from tasks.core.archive.bounded_json import TEXT_LIMIT_BYTES
from tasks.core.archive.manifest import Record, parse_record
from tasks.core.archive.names import RECORD_EXTENSION, split_archive_name
from tasks.core.copies.parts import RemoteFile, Stored, is_whole, stored_backups
from tasks.core.errors import ArchiveDamaged

logger = logging.getLogger(__name__)

MARKER_NAME = ".mailarchiver-backup-target"
RECORDS_LIMIT_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class There:
    """A backup whose record lies at a target: as backups are judged, with what of it is there."""

    backup: Backup
    record: Record
    stored: Stored
    record_sha256: str

    @property
    def is_whole(self) -> bool:
        """Tell whether all of its archive is there."""
        return is_whole(self.stored, self.record.file, self.record.bytes)


@dataclass(frozen=True, slots=True)
class TargetContent:
    """All that was found at a target: whether its marker is there, what it has of each backup, and those with a record."""

    has_marker: bool
    stored: dict[str, Stored]
    backups: dict[str, There]


def look_at_target(remote: Remote) -> TargetContent:
    """List a target and read the records there; one that is no record is logged and passed over."""
    files = list_files(remote)
    stored = stored_backups(files)
    records = _records(remote, [each.record for each in stored.values() if each.record is not None])
    backups = {}
    for name, (record, digest) in records.items():
        split = split_archive_name(record.file)
        if split is None or split[0] != name or record.manifest.name != name:
            logger.warning(
                "target %s: %s%s is the record of %s", remote.target, name, RECORD_EXTENSION, record.file[:100]
            )
            continue
        about = record.manifest
        # Its size is the record's: how much of it is there is another question (`is_whole`).
        backup = Backup(
            Path(record.file), name, about.method, split[1], record.bytes, about.created_at, record.verified, record
        )
        backups[name] = There(backup, record, stored[name], digest)
    return TargetContent(any(each.name == MARKER_NAME for each in files), stored, backups)


@contextmanager
def reading_parts(remote: Remote, parts: Iterable[RemoteFile]) -> Iterator[Iterator[bytes]]:
    """Give the bytes of an archive at a target from its first to its last, part after part."""

    def pieces() -> Iterator[bytes]:
        for part in parts:
            with reading(remote, part) as stream:
                yield from stream

    stream = pieces()
    try:
        yield stream
    finally:
        stream.close()  # type: ignore[attr-defined]


def _records(remote: Remote, files: list[RemoteFile]) -> dict[str, tuple[Record, str]]:
    wanted, left = [], RECORDS_LIMIT_BYTES
    for each in sorted(files, key=lambda each: each.name, reverse=True):  # the newest first
        if each.bytes > min(left, TEXT_LIMIT_BYTES):
            logger.warning("target %s: the record %s is too large, and is not taken", remote.target, each.name)
            continue
        wanted.append(each.name)
        left -= each.bytes
    found: dict[str, tuple[Record, str]] = {}
    if not wanted:
        return found
    with tempfile.TemporaryDirectory(prefix="mailarchiver-backup-records-") as place:
        fetch(remote, wanted, Path(place))
        for name in wanted:
            try:
                content, _ = read_outside(Path(place, name), RECORD)
                record = parse_record(content, source=f"{remote.target}: {name}")
            except (FileNotFoundError, UnfitFile, ArchiveDamaged) as error:
                logger.warning("target %s: the record %s is not taken: %s", remote.target, name, error)
                continue
            found[name.removesuffix(RECORD_EXTENSION)] = (record, hashlib.sha256(content).hexdigest())
    return found
