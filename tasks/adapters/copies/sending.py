"""Send an archive to a target, part after part: what has arrived stays, and what was sent is what the record says."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tasks.adapters.archive.source import read_at
from tasks.adapters.copies.rclone import Remote, TargetFailed, describe, list_files, put, remove, send
from tasks.adapters.host.outside_files import ARCHIVE, open_outside
from tasks.core.archive.manifest import Record
from tasks.core.copies.parts import Part, RemoteFile, Stored, parts_of
from tasks.core.copies.state import CopyEntry, SentPart
from tasks.core.errors import ArchiveDamaged, BackupError

logger = logging.getLogger(__name__)

_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Way:
    """How archives go to a target: over which remote, in parts of which size, locked until when, compared by which hash."""

    remote: Remote
    part_bytes: int
    locked_until: datetime | None
    hash_name: str

    @property
    def listing_tells_all(self) -> bool:
        """Tell whether looking at one file would tell nothing that a listing of all does not: neither a hash nor a lock."""
        return not self.hash_name and self.locked_until is None


@dataclass(frozen=True, slots=True)
class Arrived:
    """An archive that is whole at a target: what to remember, and how many bytes were sent for it now."""

    entry: CopyEntry
    sent_bytes: int


def send_archive(
    way: Way,
    path: Path,
    record: Record,
    stored: Stored | None,
    known: CopyEntry | None,
    *,
    note: Callable[[CopyEntry], None],
    on_bytes: Callable[[int], None],
) -> Arrived:
    """Send what a target lacks of an archive; `note` gets what has arrived after each part, for a later run to go on from.

    The archive is read to its end. Raise ArchiveDamaged, with what was sent removed again, where it is not what its record
    says; TargetFailed where the target fails.
    """
    entry = known if known is not None and known.sha256 == record.sha256 else None
    entry = entry or CopyEntry(
        file=record.file,
        bytes=record.bytes,
        sha256=record.sha256,
        created_at=record.manifest.created_at,
        of_system=record.manifest.is_system,
    )
    there = {each.name: each.bytes for each in (*stored.parts, *stored.others)} if stored is not None else {}
    stale = set(there)
    if entry.problem == "damaged":
        there = {}  # of which part is damaged nobody knows
    entry = entry.model_copy(update={"parts": {name: each for name, each in entry.parts.items() if name in there}})
    parts = parts_of(record.file, record.bytes, way.part_bytes, locked=way.locked_until is not None)
    whole, sent, compared, locks = hashlib.sha256(), 0, True, []

    with open_outside(path, ARCHIVE) as (descriptor, _):
        for part in parts:
            digest = hashlib.new(way.hash_name) if way.hash_name else None
            described = _arrived(way, descriptor, part, there, entry, whole, digest)
            if described is None:
                described = _send_part(
                    way, descriptor, part, whole if part.name not in there else None, digest, sent, on_bytes
                )
                sent += part.bytes
            locks.append(described.locked_until)
            has_hash = bool(described.hashes.get(way.hash_name))
            compared = compared and has_hash
            kept = SentPart(bytes=part.bytes, hash=digest.hexdigest() if digest and has_hash else "")
            entry = entry.model_copy(update={"parts": {**entry.parts, part.name: kept}})
            note(entry)
    if whole.hexdigest() != record.sha256:
        for part in parts:
            _try_to_remove(way.remote, part.name)
        raise ArchiveDamaged(
            f"{path} is not what its record says (SHA-256 {whole.hexdigest()}), and was not copied to {way.remote.target}",
            hint="it was altered or damaged: `mailarchiver-backup check` says more; the copies of other backups are untouched",
        )
    _require_all(way, parts)
    for name in sorted(stale - {each.name for each in parts}):  # of another size of parts
        remove(way.remote, name)
    changes: Mapping[str, object] = {
        "compared": compared, "problem": "", "read_at": None, "locked_until": _require_locks(way, record.file, locks)
    }  # fmt: skip
    return Arrived(entry.model_copy(update=dict(changes)), sent)


def send_record(way: Way, name: str, content: bytes, *, replaces: bool) -> RemoteFile:
    """Send a backup's record, from which on it counts there; return what the target says of it.

    One that `replaces` another does so in one step: cut off half-way, the copy would have none. The first is written where
    it will be, for a target may take new files and refuse to rename any (append-only).
    """
    if replaces:
        put(way.remote, name, content, locked_until=way.locked_until)
    else:
        send(way.remote, name, [content], len(content), locked_until=way.locked_until)
    if way.listing_tells_all:
        return RemoteFile(name, len(content))  # the next run reads it, and sends it again where it is another
    digest = hashlib.new(way.hash_name, content).hexdigest() if way.hash_name else ""
    return _require_arrived(way, describe(way.remote, name, way.hash_name), len(content), digest)


def _arrived(
    way: Way, descriptor: int, part: Part, there: Mapping[str, int], entry: CopyEntry, whole: Any, digest: Any
) -> RemoteFile | None:
    """Tell whether a part is there already, of equal size and hash; what is known to have been sent is compared by its size alone.

    Its bytes, as they are here, are counted in either way.
    """
    if there.get(part.name) is None:
        return None
    for piece in _pieces(descriptor, part):
        whole.update(piece)
        if digest is not None:
            digest.update(piece)
    known = entry.parts.get(part.name)
    if there[part.name] != part.bytes or (known is None and digest is None):
        return None
    if way.listing_tells_all:
        return RemoteFile(part.name, part.bytes)  # its size is as it was listed
    found = describe(way.remote, part.name, way.hash_name)
    theirs = found.hashes.get(way.hash_name, "")
    if theirs:
        return found if digest is not None and theirs == digest.hexdigest() else None
    return found if known is not None and known.bytes == found.bytes else None


def _send_part(
    way: Way, descriptor: int, part: Part, whole: Any, digest: Any, before: int, on_bytes: Callable[[int], None]
) -> RemoteFile:
    """Send a part; `whole` is None where its bytes were counted already."""

    def counted() -> Iterator[bytes]:
        for piece in _pieces(descriptor, part):
            if whole is not None:
                whole.update(piece)
                if digest is not None:
                    digest.update(piece)
            yield piece

    send(
        way.remote, part.name, counted(), part.bytes, locked_until=way.locked_until,
        on_bytes=lambda count: on_bytes(before + count),
    )  # fmt: skip
    if way.listing_tells_all:
        return RemoteFile(part.name, part.bytes)
    found = describe(way.remote, part.name, way.hash_name)
    return _require_arrived(way, found, part.bytes, digest.hexdigest() if digest is not None else "")


def _require_all(way: Way, parts: Sequence[Part]) -> None:
    """Raise TargetFailed where a target that tells no hashes has another size of a part than was sent."""
    if way.listing_tells_all:
        there = {each.name: each for each in list_files(way.remote)}
        for part in parts:
            _require_arrived(way, there.get(part.name, RemoteFile(part.name, 0)), part.bytes, "")


def _pieces(descriptor: int, part: Part) -> Iterator[bytes]:
    position, end = part.offset, part.offset + part.bytes
    while position < end:
        piece = read_at(descriptor, min(_PIECE_BYTES, end - position), position)
        if not piece:
            raise ArchiveDamaged("the archive ends before the end that its record tells", hint="it was cut off")
        position += len(piece)
        yield piece


def _require_arrived(way: Way, found: RemoteFile, size: int, digest: str) -> RemoteFile:
    theirs = found.hashes.get(way.hash_name, "")
    if found.bytes == size and theirs in ("", digest):
        return found
    what = f"{found.bytes:,} bytes, not {size:,}" if found.bytes != size else f"{way.hash_name} {theirs}, not {digest}"
    raise TargetFailed(
        f"target {way.remote.target} has {found.name} with {what}: it did not arrive as it was sent",
        hint="it is sent again by the next run", transient=True, is_refusal=False,
    )  # fmt: skip


def _require_locks(way: Way, file: str, locks: list[datetime | None]) -> datetime | None:
    """Give the moment until which the target itself keeps the whole archive, read back from it."""
    if way.locked_until is None:
        return None
    until = [each for each in locks if each is not None]
    if len(until) < len(locks):
        raise BackupError(
            f"target {way.remote.target} took {file} and did not lock it, although lock_days asks for that",
            hint="has the bucket object lock, and may this key set retention? Otherwise set lock_days to 0",
        )
    return min(until)


def _try_to_remove(remote: Remote, name: str) -> None:
    try:
        remove(remote, name)
    except BackupError as error:
        logger.warning("%s", error.message)
